//! `cart-tail`: watch a topic. See [`e2e::tail`].

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use clap::Parser as _;
use e2e::tail::{Args, tail};

#[tokio::main]
async fn main() -> ExitCode {
    match tail(&Args::parse(), &mut stdout().lock()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(stderr().lock(), "cart-tail: {error:#}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}
