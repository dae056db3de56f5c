//! Starts a projector.

use std::process::ExitCode;

use clap::Parser as _;

// Records are allocated by the thousand and freed together, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Reads FAILPOINTS when built with the feature `fail-points`; otherwise nothing.
    let _fail_points = fail_points::start();
    projectors::start(projectors::Cli::parse())
}
