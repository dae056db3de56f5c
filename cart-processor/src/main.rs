//! Starts the cart-processor.

use std::process::ExitCode;

use clap::Parser as _;

// Batches are allocated on one thread and freed on another, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Reads FAILPOINTS when built with the feature `fail-points`; otherwise nothing.
    let _fail_points = fail_points::start();
    cart_processor::start(cart_processor::Cli::parse())
}
