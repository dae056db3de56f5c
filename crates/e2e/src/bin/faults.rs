//! `faults`: injects faults under load. `scripts/faults` builds the services and starts it. See [`e2e::faults`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum as _};
use e2e::faults::{Fault, Load, Plan, run};
use e2e::harness::{HOW_TO_MOUNT, may_mount};
use service::LogArgs;
use tokio::signal::unix::{SignalKind, signal};

/// Injects faults under load, and checks that nothing is lost or counted twice
///
/// Exit code 0: no findings. 1: findings. 2: a server or service did not start or did not recover.
#[derive(Debug, Parser)]
#[command(name = "faults", version, max_term_width = 110)]
#[command(after_help = "Example, which starts servers of its own:\n  scripts/faults --only kill-kafka,storm --seed 7")]
struct Args {
    /// Seed; the same seed gives the same faults. By default it is random, and logged
    #[arg(long)]
    seed: Option<u64>,

    /// Duration of the run in minutes; a fault that has begun is completed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_440))]
    minutes: u16,

    /// Inject the faults of a cluster of three brokers and three Cassandra nodes. One may be unavailable without client errors
    #[arg(long)]
    cluster: bool,

    /// Inject only these faults, comma-separated: each once, or with --mix at random
    #[arg(long, value_delimiter = ',')]
    only: Vec<Fault>,

    /// Inject every kind of fault once
    #[arg(long, conflicts_with_all = ["only", "mix"])]
    each: bool,

    /// Inject the faults of --only at random for --minutes, instead of each once
    #[arg(long)]
    mix: bool,

    /// Seconds of load after everything is ready again
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    rest_s: u16,

    /// Commands per second, before, during and after each fault
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// Write the result as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,

    #[command(flatten)]
    log: LogArgs,
}

async fn faults(args: Args) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let may_mount = may_mount();
    if args.only.is_empty() && !args.cluster && !may_mount {
        tracing::warn!("faults of full disks are skipped; {HOW_TO_MOUNT}");
    }
    let is_wanted = |fault: &Fault| *fault != Fault::Quiet && fault.is_for_cluster() == args.cluster;
    let is_possible = |fault: &Fault| is_wanted(fault) && (may_mount || !fault.needs_disks());
    let all: Vec<Fault> = Fault::value_variants().iter().copied().filter(is_possible).collect();
    if let Some(fault) = args.only.iter().find(|fault| !is_wanted(fault)) {
        anyhow::bail!(
            "{fault} needs other servers: faults of a cluster need --cluster, the others must run without it"
        );
    }
    let mut plan = match (args.only.is_empty(), args.mix) {
        (false, false) => Plan::of(args.only, seed),
        (true, _) if args.each => Plan::of(all, seed),
        (false, true) => Plan::mix(args.only, seed, Duration::from_secs(60 * u64::from(args.minutes))),
        (true, _) => Plan::mix(all, seed, Duration::from_secs(60 * u64::from(args.minutes))),
    };
    tracing::info!(seed, "drawing the faults from this seed");
    let load = Load { rate: args.rate, rest: Duration::from_secs(args.rest_s.into()) };
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let summary = tokio::select! {
        summary = run("faults", &mut plan, &load) => summary?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("waiting for Ctrl-C")?;
            anyhow::bail!("interrupted; all servers and services were stopped");
        }
        _ = terminated.recv() => anyhow::bail!("terminated; all servers and services were stopped"),
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&summary).context("writing the result")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    anstream::println!("{summary}");
    Ok(summary.is_clean())
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = args.log.init() {
        anstream::eprintln!("faults: {error:#}");
        return ExitCode::from(2);
    }
    match faults(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("faults: {error:#}");
            ExitCode::from(2)
        }
    }
}
