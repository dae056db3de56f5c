//! `modules`: the circles of modules. See [`e2e::modules`].

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use clap::Parser as _;
use e2e::modules::{Cli, main as modules};

fn main() -> ExitCode {
    match modules(&Cli::parse(), &mut stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            writeln!(stderr().lock(), "modules: {error:#}").unwrap_or_default();
            ExitCode::from(2)
        }
    }
}
