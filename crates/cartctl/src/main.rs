//! Starts `cartctl`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let _fail_points = fail_points::start();
    cartctl::start(cartctl::Cli::parse())
}
