//! `cart`: a shopping cart from the command line. See [`client::cart_cli`].

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use client::cart_cli::{Args, run};
use tokio::runtime::Builder;

// Not an async main, because the line editor blocks. The worker drives the connections meanwhile.
fn main() -> ExitCode {
    let args = Args::parse();
    match Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => ExitCode::from(run(&args, &runtime)),
        Err(error) => {
            writeln!(stderr().lock(), "cart: starting failed: {error}").unwrap_or_default();
            ExitCode::from(2)
        }
    }
}
