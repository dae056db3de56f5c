//! `replay`: sends cart commands through HTTP and measures the answers. See [`client::replay`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    client::replay::start(client::replay::Args::parse())
}
