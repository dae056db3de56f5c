//! Starts a projector.

use clap::Parser as _;

// Records are allocated by the thousand and freed together, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Reads FAILPOINTS in tests; otherwise nothing.
    let _fail_points = fail_points::start();
    projectors::main(projectors::Cli::parse()).await
}
