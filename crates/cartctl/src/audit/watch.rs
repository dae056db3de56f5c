//! `audit --watch`: looks at a system again and again, and tells what it found as metrics.
//!
//! Each look reads everything from the beginning, so that a fault of long ago is found too, and what a look needs of memory
//! grows with the log: about 3 KB a command. Between looks nothing is kept. For a log that has outgrown the machine, run it
//! where there is memory enough, with a longer pause.

use std::collections::BTreeSet;
use std::time::Instant;

use service::{Metrics, Readiness, serve_admin, shutdown_signal};

use super::report::{Kind, Report};
use super::{Args, audit};

/// What readiness names: whether the last look could be made. Findings are for the metrics: a service that finds something
/// does its work.
const CONDITION: &str = "audit";

/// Runs until a signal.
///
/// # Errors
/// When it can't start.
pub async fn watch(args: &Args) -> anyhow::Result<()> {
    args.log.init()?;
    let metrics = Metrics::install()?;
    let mut shutdown = shutdown_signal()?;
    shutdown.started();
    let readiness = Readiness::default();
    readiness.down(CONDITION, "the first look is not done yet");
    serve_admin(&args.admin, readiness.clone(), metrics, shutdown.clone()).await?;
    let mut known = BTreeSet::new();
    loop {
        let started_at = Instant::now();
        let looked = tokio::select! {
            looked = audit(&args.target, &args.record, args.timeout()) => looked,
            () = shutdown.requested() => return Ok(()),
        };
        metrics::histogram!("audit_seconds").record(started_at.elapsed());
        match looked {
            Ok(report) => {
                readiness.up(CONDITION);
                tell(&report, &mut known);
            }
            Err(error) => {
                metrics::counter!("audit_failures_total").increment(1);
                readiness.down(CONDITION, error);
            }
        }
        tokio::select! { () = tokio::time::sleep(args.interval()) => {}, () = shutdown.requested() => return Ok(()) }
    }
}

/// `known` are the kinds that were told before: they go back to 0 when they are gone.
fn tell(report: &Report, known: &mut BTreeSet<Kind>) {
    known.extend(report.findings_by_kind.keys());
    for kind in known.iter() {
        let count = report.findings_by_kind.get(kind).copied().unwrap_or_default();
        metrics::gauge!("audit_findings", "kind" => kind.name()).set(number(count));
    }
    metrics::gauge!("audit_findings_all").set(number(report.findings_count()));
    metrics::gauge!("audit_commands").set(number(report.counts.commands));
    metrics::counter!("audit_looks_total").increment(1);
    for finding in &report.findings {
        tracing::error!(kind = finding.kind.name(), "{finding}");
    }
    let counts = &report.counts;
    let (commands, events, rows, findings) = (counts.commands, counts.events, counts.rows, report.findings_count());
    tracing::info!(commands, events, rows, findings, "audited");
}

/// For a gauge: what is beyond 2^32 needs no exact number.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
