//! Starts `cartctl`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cartctl::start(cartctl::Cli::parse())
}
