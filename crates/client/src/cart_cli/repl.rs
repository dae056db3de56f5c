//! The interactive session: line editing, history, completion.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use etcetera::BaseStrategy;
use rustyline::config::{ColorMode, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::completion::Completion;
use super::console::Console;
use super::failure::Failure;
use super::output::{PROMPT, UNSURE, is_coloured};
use super::session::HISTORY_LEN_MAX;

/// Reads and does lines until the user leaves. Failures are shown and don't end it: the exit code is 0, unless the terminal
/// fails.
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
                if console.line(&line, None).is_last {
                    return Ok(());
                }
            }
            // Ctrl-C: another line.
            Err(ReadlineError::Interrupted) => {}
            // Ctrl-D.
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// `cart/history` in the user's state directory: the lines of the sessions before, bounded. None if it can't be used.
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

    /// At once: a session that is killed is remembered too.
    fn append(&mut self, editor: &mut Editor<Completion<'_>, FileHistory>, console: &mut Console<'_>) {
        if let Some(path) = &self.0
            && let Err(error) = editor.append_history(path)
        {
            self.give_up(&error.to_string(), console);
        }
    }

    /// Said once; the session does without.
    fn give_up(&mut self, reason: &str, console: &mut Console<'_>) {
        if let Some(path) = self.0.take() {
            let path = path.display();
            let messages = &mut console.output.messages;
            writeln!(messages, "{UNSURE}lines are not kept: {path}: {reason}{UNSURE:#}").unwrap_or_default();
        }
    }
}
