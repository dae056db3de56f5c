//! Starts a projector.

use std::process::ExitCode;

use clap::Parser as _;

// Records are allocated by the thousand and freed together, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Reads FAILPOINTS in tests; otherwise nothing.
    let _fail_points = fail_points::start();
    service::exit_code(env!("CARGO_BIN_NAME"), projectors::main(projectors::Cli::parse()).await)
}
