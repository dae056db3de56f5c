//! Parses a line, executes its command, prints the outcome and adds both to the history.

use std::io::{self, IsTerminal, Stderr, Stdout, Write};

use anstream::AutoStream;
use tokio::runtime::Runtime;

use super::args::{Command, Line, NoLine, Settings};
use super::failure::Failure;
use super::output::{Output, UNSURE, show_event};
use super::session::{Done, Observer, Session};
use crate::EventMessage;

/// The user of this process.
#[derive(Debug)]
pub(crate) struct Console<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) session: Session,
    pub(crate) output: Output<AutoStream<Stdout>, AutoStream<Stderr>>,
    pub(crate) url: String,
    pub(crate) is_json: bool,
    /// Ctrl-C stops a command, not the process.
    pub(crate) is_interactive: bool,
}

/// The result of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) exit_code: u8,
    /// The session ends.
    pub(crate) is_last: bool,
}

const NOTHING_DONE: Step = Step { exit_code: 0, is_last: false };

impl<'a> Console<'a> {
    /// # Errors
    /// The exit code, after the reason was printed.
    pub(crate) fn new(settings: &Settings, runtime: &'a Runtime) -> Result<Self, u8> {
        let mut output = Output::of_process();
        match Session::new(settings) {
            Ok(session) => {
                let (url, is_json) = (settings.url.clone(), settings.json);
                Ok(Self { runtime, session, output, url, is_json, is_interactive: false })
            }
            Err(failure) => {
                output.failure(&failure, false, None).unwrap_or_default();
                Err(failure.exit_code())
            }
        }
    }

    /// Executes a line. `place` is its line number in a script.
    pub(crate) fn line(&mut self, text: &str, place: Option<u64>) -> Step {
        let line = match Line::parse(text) {
            Ok(Some(line)) => line,
            Ok(None) => return NOTHING_DONE,
            Err(NoLine::Words(error)) => {
                let exit_code = self.words(&error, place);
                self.session.remember(text.trim(), if exit_code == 0 { "done" } else { "usage" });
                return Step { exit_code, is_last: false };
            }
            Err(NoLine::Quoting) => {
                self.session.remember(text.trim(), "usage");
                return self.failed(&Failure::usage(NoLine::Quoting.to_string()), false, place);
            }
        };
        let is_json = self.is_json || line.json;
        let done = self.carry_out(&line.command, is_json);
        self.session.remember(text.trim(), done.as_ref().map_or_else(Failure::outcome, |_| "done"));
        self.show(done, is_json, place)
    }

    /// Executes a command and prints its outcome.
    pub(crate) fn execute(&mut self, command: &Command, is_json: bool, place: Option<u64>) -> Step {
        let done = self.carry_out(command, is_json);
        self.show(done, is_json, place)
    }

    fn carry_out(&mut self, command: &Command, is_json: bool) -> Result<Done, Failure> {
        let Output { results, messages, .. } = &mut self.output;
        let mut is_waiting = false;
        let how_to_stop = if self.is_interactive { "; Ctrl-C stops waiting" } else { "" };
        // Printed once, and not with --json.
        let mut note = |reason: &str| {
            if !is_waiting && io::stderr().is_terminal() {
                writeln!(messages, "{UNSURE}{reason}; retrying{how_to_stop}{UNSURE:#}").unwrap_or_default();
            }
            is_waiting = true;
        };
        let mut show = |message: &EventMessage| show_event(results, message, is_json);
        let observer = Observer { is_interruptible: self.is_interactive, note: &mut note, show: &mut show };
        self.runtime.block_on(self.session.execute(command, observer))
    }

    fn show(&mut self, done: Result<Done, Failure>, is_json: bool, place: Option<u64>) -> Step {
        match done {
            Ok(done) => match self.output.done(&done, is_json) {
                Ok(()) => Step { exit_code: 0, is_last: matches!(done, Done::Exit) },
                Err(error) => self.failed(&error.into(), is_json, place),
            },
            Err(failure) => self.failed(&failure, is_json, place),
        }
    }

    /// Prints a failure. If that fails too, only the exit code reports it.
    pub(crate) fn failed(&mut self, failure: &Failure, is_json: bool, place: Option<u64>) -> Step {
        self.output.failure(failure, is_json, place).unwrap_or_default();
        Step { exit_code: failure.exit_code(), is_last: matches!(failure, Failure::Output(_)) }
    }

    /// Prints the help, or the error of the arguments; returns the exit code.
    fn words(&mut self, error: &clap::Error, place: Option<u64>) -> u8 {
        let text = error.render();
        let written = if error.use_stderr() {
            let place = place.map(|line| format!("line {line}: ")).unwrap_or_default();
            write!(self.output.messages, "{place}{}", text.ansi())
        } else {
            write!(self.output.results, "{}", text.ansi()).and_then(|()| self.output.results.flush())
        };
        written.unwrap_or_default();
        if error.use_stderr() { 2 } else { 0 }
    }
}
