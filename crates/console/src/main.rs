//! Starts `cart-console`.

use std::process::ExitCode;

use clap::Parser as _;

// As in the services: many small allocations in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    console::start(console::Args::parse())
}
