//! `cart`: a shopping cart from the command line, over HTTP.
//!
//! ```text
//! one command ─┐                          ┌─▶ Session ─▶ Retry ─▶ CartClient ─▶ ingest
//! script ──────┼─▶ Line ─▶ Console ───────┤
//! terminal ────┘                          └─▶ Output (tables or JSON), exit code
//! ```
//!
//! Invariants: a command is retried only with its own idempotency key; a failure has exactly one exit code; if standard output
//! is not a terminal, only results are written to it.

mod args;
mod completion;
mod console;
mod failure;
mod names;
mod output;
mod repl;
mod script;
mod session;

pub use args::{Add, Args, Command, Key, Settings};
pub use names::{Member, NoMember};

use std::io::{self, IsTerminal};

use tokio::runtime::Runtime;

use console::Console;

/// Runs one command, a script or a session, and returns the exit code.
#[must_use]
pub fn run(args: &Args, runtime: &Runtime) -> u8 {
    let mut console = match Console::new(&args.settings, runtime) {
        Ok(console) => console,
        Err(exit_code) => return exit_code,
    };
    match &args.command {
        Some(command) => console.execute(command, args.settings.json, None).exit_code,
        None if io::stdin().is_terminal() => repl::run(&mut console),
        None => script::run(&mut console, io::stdin().lock(), args.settings.keep_going),
    }
}
