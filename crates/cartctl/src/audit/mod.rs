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
//! Everything is in memory for the comparison: about 3 KB per command in the log, and 1 KB more with clients' records. With a
//! checkpoint (`checkpoint`) that is what has come since, and a digest of each cart.

mod args;
mod catch_up;
mod check;
mod checkpoint;
mod checkpoint_file;
mod checkpoints;
mod client_view;
mod cut;
mod digest;
mod evidence;
mod generations;
mod metrics;
mod read;
mod report;
mod rules;
mod seal;
mod stores;
mod touched;
mod watch;
mod watcher;

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use catch_up::{CaughtUp, catch_up};
use checkpoint_file::save;
use checkpoints::{Exceptions, Start};
use read::{Epochs, Scope, collect};

use crate::{discards, skips};

pub use crate::intake::DeadLetter;
pub use args::{Args, Checkpoints, Target};
pub use catch_up::NotCaughtUp;
pub use check::{check, check_sightings};
pub use checkpoint::{Checkpoint, Mark, Marks, SealedTotal, SealedTotals, System};
pub use client_view::{AnsweredItem, Attempt, SentCommand, read as read_sent_commands};
pub use cut::{Cut, UpToCut};
pub use digest::{CartDigest, Hash};
pub use evidence::{Content, Evidence, LogRecord, Record, Row, Tables, WrongGeneration};
pub use metrics::ALL as METRICS;
pub use report::{ClientView, Counts, FINDINGS_KEPT, Finding, Findings, Kind, Report, Seal, Span};
pub use rules::{Cart, Decided, Kept, Verdict};
pub use seal::seal;
pub use touched::touched;
pub use watch::watch;
pub use watcher::{Fall, Seen, Sightings, Watcher};

pub(crate) use report::findings_in_words;

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
    let mut sent = Vec::new();
    for path in records {
        // Before the ends are noted, so that all answers are of records before them.
        sent.extend(read_sent_commands(path)?);
    }
    let sightings = sightings.cloned();
    look(target, sent, sightings, None, deadline).await
}

/// Does the same as [`audit`] from the checkpoint of a folder on, without clients' answers, and leaves a new one there if there are
/// no findings.
///
/// # Errors
/// As [`audit`]; also if the checkpoint was changed or is of another installation, or the new one can't be written.
pub async fn audit_since(target: &Target, checkpoints: &Checkpoints, deadline: Duration) -> anyhow::Result<Report> {
    look(target, Vec::new(), None, Some(checkpoints.clone()), deadline).await
}

/// Audits once, as the arguments say.
///
/// # Errors
/// As [`audit`] and [`audit_since`].
pub async fn once(args: &Args) -> anyhow::Result<Report> {
    match args.checkpoints() {
        Some(checkpoints) => audit_since(&args.target, &checkpoints, args.timeout()).await,
        None => audit(&args.target, &args.record, args.timeout()).await,
    }
}

async fn look(
    target: &Target,
    sent: Vec<SentCommand>,
    sightings: Option<Sightings>,
    checkpoints: Option<Checkpoints>,
    deadline: Duration,
) -> anyhow::Result<Report> {
    // Lazily, so that it waits for a database that is still starting.
    let database = target.database.connect_lazy(PgPoolOptions::new())?;
    let collected = read(target, &database, sent, checkpoints.as_ref(), deadline).await;
    database.close().await;
    let (evidence, start) = collected?;
    let kept_max = target.findings_max;
    // Computes for seconds if the log is large, so not on an async thread.
    tokio::task::spawn_blocking(move || {
        let mut findings = Findings::new(kept_max);
        if let Some(sightings) = &sightings {
            check_sightings(sightings, &evidence, &mut findings);
        }
        let mut report = check(&evidence, findings);
        if let (Some(Checkpoints { folder, .. }), Some(Start { system, since, note, .. })) = (checkpoints, start) {
            let sealed = seal(evidence, &report, system, Utc::now());
            if let Some(checkpoint) = &sealed {
                save(&folder, checkpoint)?;
            }
            report.span = Some(Span { since, note, sealed: sealed.as_ref().map(Checkpoint::seal) });
        }
        Ok(report)
    })
    .await?
}

/// Waits until all consumers have reached the current ends of the topics, then reads.
async fn read(
    target: &Target,
    database: &PgPool,
    sent: Vec<SentCommand>,
    checkpoints: Option<&Checkpoints>,
    deadline: Duration,
) -> anyhow::Result<(Evidence, Option<Start>)> {
    let CaughtUp { cut, parked, session } = catch_up(target, database, deadline).await?;
    let parked = parked.next_positions();
    let epochs = Epochs::read(&target.kafka, &session).await?;
    let skips = skips::load(&target.kafka).await?;
    let mut start = match checkpoints {
        Some(checkpoints) => {
            let exceptions = Exceptions::of(&skips, &parked);
            Some(checkpoints::start(target, &session, epochs, checkpoints, &exceptions).await?)
        }
        None => None,
    };
    let scope = start.as_mut().and_then(|start| start.scope.take()).unwrap_or(Scope::All(None));
    let evidence = collect(&target.kafka, (&session, database), cut, parked, epochs, scope).await?;
    // Behind the dead letters, each of which is there after its discard.
    let discards = discards::load(&target.kafka, epochs.commands).await?;
    Ok((Evidence { sent, skips, discards, ..evidence }, start))
}
