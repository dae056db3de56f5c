//! `cartctl audit`: compares all topics and stores with what follows from the commands in the log.
//!
//! ```text
//! cart-commands ─▶ rules (a model of its own) ─▶ expected events ─┬─ cart-events   ─┬─ item-purchased ─▶ three read tables
//!        └─ dead letters                                          └─ cart_journal   └─ clients' answers
//! ```
//!
//! It shares only the wire types with processor and projectors. It works on a running system. First it notes the ends of the
//! topics from front to back, each after the group before it has reached the end noted before (`catch_up`). Then it reads
//! from back to front, so that the cause of each record or row is read after it (`read`). The effects of records before the
//! noted ends must be in all stores; the effects of later records may be, and must be right. The comparison itself is a pure
//! function, [`check()`].
//!
//! Everything is in memory for the comparison: about 3 KB per command in the log, and 1 KB more with clients' records.

mod args;
mod catch_up;
mod check;
mod client_view;
mod cut;
mod evidence;
mod metrics;
mod read;
mod report;
mod rules;
mod stores;
mod watch;
mod watcher;

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;

pub use args::{Args, Target};
pub use catch_up::NotCaughtUp;
pub use check::{check, check_sightings};
pub use client_view::{AnsweredItem, Attempt, SentCommand, read as read_sent_commands};
pub use cut::{Cut, UpToCut};
pub use evidence::{Content, DeadLetter, Evidence, LogRecord, Record, Row, Tables};
pub use metrics::ALL as METRICS;
pub use read::collect;
pub use report::{ClientView, Counts, FINDINGS_KEPT, Finding, Findings, Kind, Report};
pub use rules::{Cart, Decided, Kept, Verdict};
pub use watch::watch;
pub use watcher::{Fall, Seen, Sightings, Watcher};

/// Waits until all consumers have reached the current ends of the topics, then reads and compares everything. `records` are
/// files that `replay --record` has written; their answers are compared with the log. Prints on standard error what it waits
/// for.
///
/// # Errors
/// Consumers have not caught up within `deadline` ([`NotCaughtUp`]), or something can't be read. Then there is no result.
pub async fn audit(target: &Target, records: &[PathBuf], deadline: Duration) -> anyhow::Result<Report> {
    audit_with(target, records, deadline, None).await
}

/// Does the same as [`audit`], and compares what a [`Watcher`] saw with the end.
///
/// # Errors
/// As [`audit`].
pub async fn audit_with(
    target: &Target,
    records: &[PathBuf],
    deadline: Duration,
    sightings: Option<&Sightings>,
) -> anyhow::Result<Report> {
    // Read before the ends are noted, so that all answers are of records before them.
    let mut sent = Vec::new();
    for path in records {
        sent.extend(read_sent_commands(path)?);
    }
    // Lazily, so that it waits for a database that is still starting.
    let database = target.database.connect_lazy(PgPoolOptions::new())?;
    let evidence = collect(target, &database, sent, deadline).await;
    database.close().await;
    let evidence = evidence?;
    let kept_max = target.findings_max;
    let sightings = sightings.cloned();
    // Computes for seconds if the log is large, so not on an async thread.
    Ok(tokio::task::spawn_blocking(move || {
        let mut findings = Findings::new(kept_max);
        if let Some(sightings) = &sightings {
            check_sightings(sightings, &evidence, &mut findings);
        }
        check(&evidence, findings)
    })
    .await?)
}
