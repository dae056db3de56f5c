//! Starts ingest.

use clap::Parser as _;

// Requests are allocated and freed on different threads, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ingest::main(ingest::Cli::parse()).await
}
