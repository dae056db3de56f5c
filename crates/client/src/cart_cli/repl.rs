//! The interactive session: line editing, history, completion.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use etcetera::BaseStrategy;
use rustix::termios::{QueueSelector, tcflush};
use rustyline::config::{ColorMode, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::completion::Completion;
use super::console::Console;
use super::failure::Failure;
use super::output::{PROMPT, UNSURE, is_coloured};
use super::session::HISTORY_LEN_MAX;
use crate::text::Lines;

/// Reads and executes lines until the user leaves. Failures are printed and do not end the session. The exit code is 0, unless
/// the terminal fails.
pub(crate) fn run(console: &mut Console<'_>) -> u8 {
    console.is_interactive = true;
    match session(console) {
        Ok(()) => 0,
        Err(error) => console.failed(&Failure::Output(io::Error::other(error)), false, None).exit_code,
    }
}

fn session(console: &mut Console<'_>) -> Result<(), ReadlineError> {
    let color_mode = if is_coloured() { ColorMode::Enabled } else { ColorMode::Disabled };
    let config = Config::builder()
        .max_history_size(HISTORY_LEN_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .color_mode(color_mode)
        .build();
    let mut editor: Editor<Completion<'_>, FileHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Completion::new(console.runtime, console.session.client().clone())));
    let mut file = HistoryFile::of_user();
    file.load(&mut editor, console);
    if !console.is_json {
        writeln!(console.output.results, "cart at {}; `help` lists the commands, Ctrl-D leaves", console.url)?;
    }
    loop {
        let member = console.session.member();
        if let Some(completion) = editor.helper_mut() {
            completion.look_into(member.map(super::Member::cart));
        }
        let prompt = format!("{}> ", member.map_or("cart", super::Member::name));
        let styled = format!("{PROMPT}{prompt}{PROMPT:#}");
        match editor.readline(&(prompt, styled)) {
            Ok(line) => {
                if !line.trim().is_empty() {
                    editor.add_history_entry(line.as_str())?;
                    file.append(&mut editor, console);
                }
                if enter(console, &line) {
                    return Ok(());
                }
            }
            // Ctrl-C drops the line.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                // The rest of a line that is too long is dropped.
                tcflush(io::stdin(), QueueSelector::IFlush).map_err(io::Error::from)?;
                let text = "the line is not UTF-8 and was ignored; set the terminal to UTF-8";
                console.failed(&Failure::usage(text), false, None);
            }
            // Ctrl-D.
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Executes the input; returns true if the session ends. Pasted text may have several lines, as in a script.
fn enter(console: &mut Console<'_>, text: &str) -> bool {
    let mut lines = Lines::new(text.as_bytes());
    while let Some((_, line)) = lines.next() {
        let step = match line {
            Ok(line) => console.line(line, None),
            Err(error) => console.failed(&Failure::usage(error.to_string()), false, None),
        };
        if step.is_last {
            return true;
        }
    }
    false
}

/// `cart/history` in the user's state directory: the lines of earlier sessions, bounded. `None` if it can't be used.
struct HistoryFile(Option<PathBuf>);

impl HistoryFile {
    fn of_user() -> Self {
        let strategy = etcetera::choose_base_strategy().ok();
        Self(strategy.map(|dirs| dirs.state_dir().unwrap_or_else(|| dirs.data_dir()).join("cart").join("history")))
    }

    fn load(&mut self, editor: &mut Editor<Completion<'_>, FileHistory>, console: &mut Console<'_>) {
        let Some(path) = &self.0 else { return };
        match editor.load_history(path) {
            Ok(()) => {}
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent()
                    && let Err(error) = fs::create_dir_all(folder)
                {
                    self.give_up(&error.to_string(), console);
                }
            }
            Err(error) => self.give_up(&error.to_string(), console),
        }
    }

    /// Appends a line at once, so that the history survives a kill.
    fn append(&mut self, editor: &mut Editor<Completion<'_>, FileHistory>, console: &mut Console<'_>) {
        if let Some(path) = &self.0
            && let Err(error) = editor.append_history(path)
        {
            self.give_up(&error.to_string(), console);
        }
    }

    /// Prints a warning once; the session continues without a history.
    fn give_up(&mut self, reason: &str, console: &mut Console<'_>) {
        if let Some(path) = self.0.take() {
            let path = path.display();
            let messages = &mut console.output.messages;
            writeln!(messages, "{UNSURE}the history of this session is not saved: {path}: {reason}{UNSURE:#}")
                .unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cart_cli::Args;
    use crate::ids::CartId;

    #[test]
    fn pasted_text_is_read_as_a_script() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let settings = Args::try_parse_from(["cart", "--url", "http://127.0.0.1:1"]).expect("good options").settings;
        let mut console = Console::new(&settings, &runtime).expect("good settings");
        let jose = CartId::of_member("Jos\u{e9}");
        for (text, member) in [
            ("change-member bob\r", "bob"),
            ("\u{feff}change-member alice", "alice"),
            ("change-member Jos\u{e9}\r\n", "Jos\u{e9}"),
            ("change-member bob\r\nchange-member Jose\u{301}\r\n", "Jos\u{e9}"),
            ("change-member bob\rchange-member zoe", "zoe"),
        ] {
            assert!(!enter(&mut console, text), "{text:?}");
            assert_eq!(console.session.member().map(crate::cart_cli::Member::name), Some(member), "{text:?}");
            if member.starts_with("Jos") {
                assert_eq!(console.session.member().map(crate::cart_cli::Member::cart), Some(jose));
            }
        }
        // An unreadable line does not end the session.
        assert!(!enter(&mut console, "frobnicate\r\nchange-member bob"));
        assert_eq!(console.session.member().map(crate::cart_cli::Member::name), Some("bob"));
        assert!(enter(&mut console, "exit\r\nchange-member alice"));
        assert_eq!(console.session.member().map(crate::cart_cli::Member::name), Some("bob"));
    }
}
