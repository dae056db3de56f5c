//! `rollout`: plays a rolling update of Kubernetes manifests. `scripts/kubernetes/rollout-test` renders them and starts it. See
//! [`e2e::rollout`].

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use e2e::rollout::{MISTAKES, Manifests, System};
use service::LogArgs;

/// Starts what Kubernetes manifests say, and replaces all pods under load as a cluster would
///
/// Exit code 0: no findings. 1: findings, or a mistake that was not found. 2: a server is unavailable, or a manifest is not understood.
#[derive(Debug, Parser)]
#[command(name = "rollout", version, max_term_width = 110)]
#[command(after_help = "Example, with the servers of scripts/services up:\n  scripts/kubernetes/rollout-test small")]
struct Args {
    /// File with the rendered manifests
    manifests: PathBuf,

    /// Then make each known mistake in the manifests, and check that it is found
    #[arg(long)]
    mistakes: bool,

    /// Commands per second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    #[command(flatten)]
    log: LogArgs,
}

fn read(path: &Path) -> anyhow::Result<Manifests> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Manifests::parse(&text)
}

/// Whether there are no findings, and each mistake was found.
async fn rollout(args: &Args) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    let mut system = System::start(read(&args.manifests)?, args.rate).await?;
    let summary = system.update().await?;
    let (clients, pods, took) = (&summary.clients, summary.pods, summary.update_took.as_secs());
    writeln!(
        out,
        "{pods} pods replaced in {took} s; {} commands acknowledged, {} reads; {} errors, {} answers 202, the slowest outcome {} ms",
        summary.acknowledged, clients.reads, clients.errors, clients.pending, clients.slowest_ms
    )?;
    for finding in &summary.findings {
        writeln!(out, "FINDING {finding}")?;
    }
    let mut is_right = summary.findings.is_empty();
    if args.mistakes {
        let findings = system.make_none().await?;
        is_right &= findings.is_empty();
        for finding in findings {
            writeln!(out, "FINDING without a mistake: {finding}")?;
        }
    }
    for mistake in MISTAKES.iter().filter(|_| args.mistakes) {
        let findings = system.make(mistake).await.with_context(|| mistake.name.to_owned())?;
        let found = findings.iter().find(|finding| mistake.is_found_by(finding));
        match found {
            Some(finding) => writeln!(out, "found: {}: {finding}", mistake.name)?,
            None => writeln!(out, "FINDING not found: {}; instead: {findings:?}", mistake.name)?,
        }
        is_right &= found.is_some();
    }
    system.remove().await?;
    Ok(is_right)
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = args.log.init() {
        anstream::eprintln!("rollout: {error:#}");
        return ExitCode::from(2);
    }
    match rollout(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("rollout: {error:#}");
            ExitCode::from(2)
        }
    }
}
