//! `bench`: measures the system, and a floor for comparison. See [`e2e::bench`].

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use clap::Parser as _;
use e2e::bench::{Cli, main as bench};

// The services' allocator, so that the floor has no disadvantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            let result = runtime.block_on(bench(cli));
            // Do not wait for threads with open requests.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(stderr().lock(), "bench: {error:#}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}
