//! Starts ingest.

use std::process::ExitCode;

use clap::Parser as _;

// Requests are allocated and freed on different threads, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Reads FAILPOINTS when built with the feature `fail-points`; otherwise nothing.
    let _fail_points = fail_points::start();
    ingest::start(ingest::Cli::parse(), ingest::FixedLimits::default())
}
