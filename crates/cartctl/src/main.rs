//! Starts `cartctl`.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    cartctl::main(cartctl::Cli::parse()).await
}
