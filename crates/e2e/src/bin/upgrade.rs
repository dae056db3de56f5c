//! `upgrade`: upgrades a running system from an older build and rolls it back. `scripts/upgrade-test` builds that and starts it. See
//! [`e2e::upgrade`].

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use e2e::upgrade::{Summary, upgrade};
use service::LogArgs;

/// Upgrades a running system of an older build to today's and rolls it back, one process after the other, under load; then audits
///
/// Exit code 0: no findings. 1: findings. 2: a server is unavailable, or a process does not start or end in time.
#[derive(Debug, Parser)]
#[command(name = "upgrade", version, max_term_width = 110)]
#[command(after_help = "Example, with the servers of scripts/services up:\n  scripts/upgrade-test")]
struct Args {
    /// Folder with the binaries ingest, cart-processor and projectors of the older build
    older: PathBuf,

    /// Commands per second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    #[command(flatten)]
    log: LogArgs,
}

fn print(summary: &Summary) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let (outcome, clients) = (&summary.outcome, &summary.outcome.clients);
    writeln!(
        out,
        "{} processes upgraded in {} s, rolled back in {} s; {} commands acknowledged, {} reads; {} errors, {} answers 202, the slowest outcome {} ms",
        outcome.processes,
        summary.upgrade_took.as_secs(),
        summary.back_took.as_secs(),
        outcome.acknowledged,
        clients.reads,
        clients.errors,
        clients.pending,
        clients.slowest_ms
    )?;
    for finding in &outcome.findings {
        writeln!(out, "FINDING {finding}")?;
    }
    Ok(())
}

async fn run(args: &Args) -> anyhow::Result<bool> {
    args.log.init()?;
    let summary = upgrade(&args.older, args.rate).await?;
    print(&summary)?;
    Ok(summary.outcome.findings.is_empty())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("upgrade: {error:#}");
            ExitCode::from(2)
        }
    }
}
