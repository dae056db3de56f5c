//! `cartctl audit`: whether the whole system, as it stands in its logs and stores, is what the commands in the log lead to.
//!
//! ```text
//! cart-commands ─▶ rules (a model of its own) ─▶ expected events ─┬─ cart-events   ─┬─ item-purchased ─▶ three read tables
//!        └─ dead letters                                          └─ cart_journal   └─ what clients were told
//! ```
//!
//! It shares no code with processor and projectors, only the wire types. It works on a running system: first it notes the
//! ends of the topics, from front to back, each after the group before it has come to its own (`settle`); then it reads,
//! from back to front, so that whatever it meets has its cause in what it reads later (`read`). What stands before the
//! noted ends must be everywhere; what came later may be, and must be right where it is. The comparison itself is a pure
//! function, [`check()`].
//!
//! All of it is in memory while it is compared: about 3 KB for each command that was ever sent, 1 KB more with clients' records.

mod args;
mod catch_up;
mod check;
mod client_view;
mod cut;
mod evidence;
mod read;
mod report;
mod rules;
mod stores;
mod watch;
mod watcher;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;

pub use args::{Args, Target};
pub use catch_up::NotCaughtUp;
pub use check::{check, check_sightings};
pub use client_view::{Attempt, SentCommand, ToldItem, read as read_sent_commands};
pub use cut::{Cut, UpToCut};
pub use evidence::{Content, DeadLetter, Evidence, LogRecord, Record, Row, Tables};
pub use read::collect;
pub use report::{ClientView, Counts, FINDINGS_KEPT, Finding, Findings, Kind, Report};
pub use rules::{Cart, Decided, Kept, Verdict};
pub use watch::watch;
pub use watcher::{Fall, Seen, Sightings, Watcher};

/// Waits until everything downstream has come to the ends that the topics have now, reads everything, compares everything.
/// `records` are files that `replay --record` has written; their commands are checked against the log's results. Tells on
/// standard error what it waits for.
///
/// # Errors
/// When that takes longer than `deadline` ([`NotCaughtUp`]), or something can't be read: then nothing is known.
pub async fn audit(target: &Target, records: &[PathBuf], deadline: Duration) -> anyhow::Result<Report> {
    audit_with(target, records, deadline, None).await
}

/// [`audit`], and whether what a [`Watcher`] saw last is part of the end.
///
/// # Errors
/// As [`audit`].
pub async fn audit_with(
    target: &Target,
    records: &[PathBuf],
    deadline: Duration,
    sightings: Option<&Sightings>,
) -> anyhow::Result<Report> {
    // Before the ends are noted: so what clients were told is before them.
    let mut sent = Vec::new();
    for path in records {
        sent.extend(read_sent_commands(path)?);
    }
    // Lazily: a database that is still starting is waited for.
    let database = PgPool::connect_lazy(&target.database_url).context("reading --database-url")?;
    let evidence = collect(target, &database, sent, deadline).await;
    database.close().await;
    let evidence = evidence?;
    let kept_max = target.findings_max;
    let sightings = sightings.cloned();
    // Seconds of computing for a large log: not on a thread that others wait for.
    Ok(tokio::task::spawn_blocking(move || {
        let mut findings = Findings::new(kept_max);
        if let Some(sightings) = &sightings {
            check_sightings(sightings, &evidence, &mut findings);
        }
        check(&evidence, findings)
    })
    .await?)
}
