//! `ingest` with limits that a test can reach. Elsewhere they are constants ([`FixedLimits`]).

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use ingest::FixedLimits;

// As in `ingest`: the test of hostile clients measures its memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs ingest with other limits
// Not `Cli`: clap names groups of options after their structs, and `ingest::Cli` is one.
#[derive(clap::Parser)]
struct LimitedCli {
    /// Maximum number of bytes of a request's body
    #[arg(long)]
    body_len_max: Option<usize>,
    /// Maximum time for a client to send a body
    #[arg(long)]
    body_timeout_ms: Option<u64>,
    /// Maximum number of commands that wait for their outcome
    #[arg(long)]
    commands_in_flight_max: Option<usize>,
    /// Maximum number of requests in progress
    #[arg(long)]
    requests_in_flight_max: Option<usize>,

    #[command(flatten)]
    ingest: ingest::Cli,
}

fn main() -> ExitCode {
    let _fail_points = fail_points::start();
    let cli = LimitedCli::parse();
    let usual = FixedLimits::default();
    let limits = FixedLimits {
        body_len_max: cli.body_len_max.unwrap_or(usual.body_len_max),
        body_timeout: cli.body_timeout_ms.map_or(usual.body_timeout, Duration::from_millis),
        commands_in_flight_max: cli.commands_in_flight_max.unwrap_or(usual.commands_in_flight_max),
        requests_in_flight_max: cli.requests_in_flight_max.unwrap_or(usual.requests_in_flight_max),
    };
    ingest::start(cli.ingest, limits)
}
