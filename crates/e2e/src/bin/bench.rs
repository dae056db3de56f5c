//! `bench`: how fast it is, beside a floor. See [`e2e::bench`].

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use clap::Parser as _;
use e2e::bench::{Cli, main as bench};

// As the services have it: the floor must not lose by its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            let result = runtime.block_on(bench(cli));
            // Threads that still ask a server something are not waited for.
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
