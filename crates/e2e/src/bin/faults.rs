//! Starts the faults. `scripts/faults` builds what it needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum as _};
use e2e::faults::{Fault, Load, Plan, run};
use e2e::harness::{HOW_TO_MOUNT, may_mount};
use service::LogArgs;
use tokio::signal::unix::{SignalKind, signal};

/// Lets things go wrong under load, and checks that nothing is lost and nothing counted twice.
///
/// Exit code 0: nothing is wrong. 1: findings. 2: something did not start, or did not come back.
#[derive(Debug, Parser)]
#[command(name = "faults", version, max_term_width = 110)]
struct Args {
    /// The same seed gives the same faults [default: random, and told]
    #[arg(long)]
    seed: Option<u64>,

    /// How long faults come; what began is finished
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_440))]
    minutes: u16,

    /// The faults of three brokers and three Cassandra nodes, of which any one may be away: no client may meet an error
    #[arg(long)]
    cluster: bool,

    /// Only these, comma-separated: each once, unless --mix
    #[arg(long, value_delimiter = ',')]
    only: Vec<Fault>,

    /// Every kind of fault once, in one run
    #[arg(long, conflicts_with_all = ["only", "mix"])]
    each: bool,

    /// Any of --only at random for --minutes, instead of each once
    #[arg(long)]
    mix: bool,

    /// How long commands still come when everything is ready again, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    rest_s: u16,

    /// Commands a second, before, during and after each fault
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// Writes the result as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    #[command(flatten)]
    log: LogArgs,
}

async fn faults(args: Args) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let may_mount = may_mount();
    if args.only.is_empty() && !args.cluster && !may_mount {
        tracing::warn!("full disks are left out; {HOW_TO_MOUNT}");
    }
    let is_wanted = |fault: &Fault| *fault != Fault::Quiet && fault.is_for_cluster() == args.cluster;
    let is_possible = |fault: &Fault| is_wanted(fault) && (may_mount || !fault.needs_disks());
    let all: Vec<Fault> = Fault::value_variants().iter().copied().filter(is_possible).collect();
    if let Some(fault) = args.only.iter().find(|fault| !is_wanted(fault)) {
        anyhow::bail!("{fault} is a fault of other servers: --cluster has those of a cluster, without are the others");
    }
    let mut plan = match (args.only.is_empty(), args.mix) {
        (false, false) => Plan::of(args.only, seed),
        (true, _) if args.each => Plan::of(all, seed),
        (false, true) => Plan::mix(args.only, seed, Duration::from_secs(60 * u64::from(args.minutes))),
        (true, _) => Plan::mix(all, seed, Duration::from_secs(60 * u64::from(args.minutes))),
    };
    tracing::info!(seed, "the plan follows from this seed");
    let load = Load { rate: args.rate, rest: Duration::from_secs(args.rest_s.into()) };
    let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let summary = tokio::select! {
        summary = run("faults", &mut plan, &load) => summary?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("waiting for Ctrl-C")?;
            anyhow::bail!("interrupted: everything that was started is ended");
        }
        _ = terminated.recv() => anyhow::bail!("terminated: everything that was started is ended"),
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
