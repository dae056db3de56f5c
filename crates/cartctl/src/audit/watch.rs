//! `audit --watch`: repeats the audit, and exports its findings as metrics.
//!
//! Each audit reads everything from the beginning, so that it also finds old defects. Its memory grows with the log: about 3 KB
//! per command. Nothing is kept between audits. With `--checkpoint` each reads what has come since the last one without findings.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum as _;
use service::{Metrics, Readiness, serve_admin, shutdown_signal};

use super::metrics::{AUDIT_SECONDS, COMMANDS, FINDINGS, INTERVAL_SECONDS, LAST_COMPLETED, RUNS};
use super::report::{Kind, Report};
use super::{Args, metrics, once};

/// The condition of readiness: whether the last audit could be made. Findings do not matter for it; they are in the metrics.
const CONDITION: &str = "audit";

/// Runs until a signal.
///
/// # Errors
/// It can't start.
pub async fn watch(args: &Args) -> anyhow::Result<()> {
    args.log.init()?;
    let metrics = Metrics::install("audit", &[metrics::ALL], &[])?;
    INTERVAL_SECONDS.with(&[]).set(args.interval().as_secs_f64());
    LAST_COMPLETED.with(&[]).set(unix_time());
    export_counts(None);
    let mut shutdown = shutdown_signal()?;
    shutdown.started();
    let readiness = Readiness::default();
    readiness.set_unready(CONDITION, "the first audit is not finished yet");
    serve_admin(&args.admin, readiness.clone(), metrics, shutdown.clone()).await?;
    loop {
        let started_at = Instant::now();
        let looked = tokio::select! {
            looked = once(args) => looked,
            () = shutdown.requested() => return Ok(()),
        };
        AUDIT_SECONDS.with(&[]).record(started_at.elapsed());
        match looked {
            Ok(report) => {
                readiness.set_ready(CONDITION);
                export(&report);
            }
            Err(error) => {
                RUNS.with(&["failed"]).increment(1);
                readiness.set_unready(CONDITION, error);
            }
        }
        tokio::select! { () = tokio::time::sleep(args.interval()) => {}, () = shutdown.requested() => return Ok(()) }
    }
}

fn export(report: &Report) {
    export_counts(Some(report));
    COMMANDS.with(&[]).set(number(report.commands_in_all()));
    LAST_COMPLETED.with(&[]).set(unix_time());
    RUNS.with(&["completed"]).increment(1);
    for finding in &report.findings {
        tracing::error!(kind = finding.kind.name(), %finding, "the audit found a defect");
    }
    let counts = &report.counts;
    let (commands, events, rows, findings) = (counts.commands, counts.events, counts.rows, report.findings_count());
    tracing::info!(commands, events, rows, findings, "audited");
}

/// Exports every kind of finding from the start, at 0: a time series that begins with its first finding raises no alert.
fn export_counts(report: Option<&Report>) {
    for kind in Kind::value_variants() {
        let count = report.and_then(|report| report.findings_by_kind.get(kind)).copied().unwrap_or_default();
        FINDINGS.with(&[&kind.name()]).set(number(count));
    }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Converts a count for a gauge; above 2^32 it need not be exact.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
