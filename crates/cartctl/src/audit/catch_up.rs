//! Notes the ends of the topics from front to back, each after the group before it has reached the end noted before.
//!
//! A group has reached an offset of a topic when there is no committed record between its committed offset and that offset.
//! The committed offset may be lower, since transactions' markers take offsets too.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC, READ_MODELS, Store, group};
use cart::{CartCommand, CartEvent, PurchasedItem};
use futures::future::try_join_all;
use kafka::{Admin, GroupProgress, KafkaArgs};
use parking::AllParked;
use scylla::client::session::Session;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::args::Target;
use super::cut::Cut;
use super::generations::{self, Active};
use crate::read_tables::snapshot;
use crate::reconcile::stored_offsets;

/// The pause between two checks: short compared with the waits, long compared with the time of a check.
const INTERVAL: Duration = Duration::from_millis(200);

/// A consumer has not reached the noted end in time, so the audit has no result.
#[derive(Debug, thiserror::Error)]
#[error("waited {} s for {what}; last seen: {last_seen}", .waited.as_secs())]
pub struct NotCaughtUp {
    /// The time since the first wait began.
    pub waited: Duration,
    /// What was waited for.
    pub what: String,
    /// The last state seen.
    pub last_seen: String,
}

/// What all consumers have reached.
pub(super) struct CaughtUp {
    pub(super) cut: Cut,
    pub(super) parked: AllParked,
    /// Cassandra, which was asked for the active generations.
    pub(super) session: Session,
}

/// Waits for one stage after the other, and notes the ends.
pub(super) async fn catch_up(target: &Target, database: &PgPool, deadline: Duration) -> anyhow::Result<CaughtUp> {
    let kafka = &target.kafka;
    let wait = Wait { kafka: kafka.clone(), start: Instant::now(), deadline };
    let commands = wait.ends(CartCommand::TOPIC).await?;
    wait.group(group::CART_PROCESSOR, CartCommand::TOPIC, &commands).await?;
    // Behind the offsets: a command before the cut is decided by now, or its cart is among these.
    let parked = AllParked::read(kafka).await.context("reading the parked carts")?;
    let events = wait.ends(CartEvent::TOPIC).await?;
    let dead_letters = wait.ends(DEAD_LETTER_TOPIC).await?;
    wait.group(group::ITEM_PURCHASED_EVENTS, CartEvent::TOPIC, &events).await?;
    let purchases = wait.ends(PurchasedItem::TOPIC).await?;
    let session = wait.until("Cassandra", async || Ok(Ok(cassandra::connect(&target.cassandra).await?))).await?;
    wait.read_tables(&session, database, &purchases).await?;
    Ok(CaughtUp { cut: Cut { commands, events, purchases, dead_letters }, parked, session })
}

struct Wait {
    kafka: KafkaArgs,
    start: Instant,
    deadline: Duration,
}

impl Wait {
    /// Calls `look` until it returns a value. Also waits for an unavailable server.
    async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        let mut printed = String::new();
        loop {
            let seen = match look().await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(seen)) => seen,
                Err(error) => format!("{error:#}"),
            };
            let waited = self.start.elapsed();
            if waited >= self.deadline {
                return Err(NotCaughtUp { waited, what: what.to_owned(), last_seen: seen }.into());
            }
            // A change is printed about once a second.
            if printed.is_empty() || (printed != seen && waited.subsec_millis() < 250) {
                // Standard error may be closed.
                writeln!(std::io::stderr().lock(), "waiting for {what} ({} s): {seen}", waited.as_secs())
                    .unwrap_or_default();
                printed = seen;
            }
            sleep(INTERVAL).await;
        }
    }

    /// The current end of each partition, once no transaction before it is open: its records may still be committed.
    async fn ends(&self, topic: &str) -> anyhow::Result<Vec<i64>> {
        let full = self.kafka.prefixed(topic);
        let kafka = self.kafka.clone();
        let name = full.clone();
        let noted = self
            .until(&format!("topic {full}"), async || {
                let (kafka, name) = (kafka.clone(), name.clone());
                let noted = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
                    let partitions = Admin::new(&kafka)?.partitions(&name)?;
                    let progress = GroupProgress::new(&kafka, &format!("{name}-audit"), &name)?;
                    let ends: Result<Vec<_>, _> =
                        (0..partitions).map(|p| progress.bounds(p).map(|(_, end)| end)).collect();
                    Ok((progress, ends?))
                });
                noted.await?.map(Ok)
            })
            .await?;
        let (progress, ends) = noted;
        let progress = Arc::new(progress);
        self.until(&format!("open transactions on {full}"), async || {
            let (progress, ends) = (progress.clone(), ends.clone());
            let open = tokio::task::spawn_blocking(move || -> anyhow::Result<i64> {
                let mut open = 0;
                for (partition, end) in (0..).zip(&ends) {
                    open += (end - progress.last_stable_offset(partition)?).max(0);
                }
                Ok(open)
            });
            Ok(match open.await?? {
                0 => Ok(()),
                offsets => Err(format!("{offsets} offsets are in open transactions")),
            })
        })
        .await?;
        retire(progress);
        Ok(ends)
    }

    /// Waits for the groups of the tables that readers see. A switch in the meantime may have been to a table that is further back than
    /// those: then it waits for that one too.
    async fn read_tables(&self, session: &Session, database: &PgPool, ends: &[i64]) -> anyhow::Result<()> {
        let mut active = self.active(session, database).await?;
        loop {
            try_join_all(READ_MODELS.iter().map(async |model| {
                // Without a generation that readers can see there is nothing to wait for: that is a finding.
                let Some(group) = active.group(model.table) else { return Ok(()) };
                match model.store {
                    Store::Cassandra => self.group(&group, PurchasedItem::TOPIC, ends).await,
                    Store::Postgres => self.database(database, &group, ends).await,
                }
            }))
            .await?;
            let now = self.active(session, database).await?;
            if now == active {
                return Ok(());
            }
            active = now;
        }
    }

    async fn active(&self, session: &Session, database: &PgPool) -> anyhow::Result<Active> {
        self.until("the active generations of the read tables", async || {
            let in_cassandra = generations::in_cassandra(session).await?;
            let mut transaction = snapshot(database).await?;
            Ok(Ok(in_cassandra.and(generations::in_postgres(&mut transaction).await?)))
        })
        .await
    }

    async fn group(&self, group: &str, topic: &str, ends: &[i64]) -> anyhow::Result<()> {
        let (group, topic) = (self.kafka.prefixed(group), self.kafka.prefixed(topic));
        let progress = Arc::new(GroupProgress::new(&self.kafka, &group, &topic)?);
        self.until(&format!("group {group}"), async || {
            let (progress, ends) = (progress.clone(), ends.to_vec());
            let behind = tokio::task::spawn_blocking(move || {
                let committed = progress.committed((0..).zip(&ends).map(|(partition, _)| partition))?;
                behind(&progress, &committed, &ends)
            });
            Ok(none_behind(behind.await??))
        })
        .await?;
        retire(progress);
        Ok(())
    }

    async fn database(&self, database: &PgPool, group: &str, ends: &[i64]) -> anyhow::Result<()> {
        let full_group = self.kafka.prefixed(group);
        let progress = GroupProgress::new(&self.kafka, &full_group, &self.kafka.prefixed(PurchasedItem::TOPIC))?;
        let progress = Arc::new(progress);
        self.until(&format!("{full_group} in PostgreSQL"), async || {
            let stored: HashMap<i32, i64> = stored_offsets(database, &self.kafka, group).await?;
            let (progress, ends) = (progress.clone(), ends.to_vec());
            let behind = tokio::task::spawn_blocking(move || behind(&progress, &stored.into_iter().collect(), &ends));
            Ok(none_behind(behind.await??))
        })
        .await?;
        retire(progress);
        Ok(())
    }
}

/// Drops a client in the background: that takes some tenths of a second.
fn retire(progress: Arc<GroupProgress>) {
    drop(tokio::task::spawn_blocking(move || drop(progress)));
}

fn none_behind(behind: i64) -> Result<(), String> {
    if behind == 0 { Ok(()) } else { Err(format!("{behind} offsets behind")) }
}

/// How many offsets are left in the partitions that still have a committed record there.
fn behind(progress: &GroupProgress, committed: &BTreeMap<i32, i64>, ends: &[i64]) -> anyhow::Result<i64> {
    let mut starts = BTreeMap::new();
    for (partition, end) in (0..).zip(ends) {
        let next = committed.get(&partition).copied().unwrap_or_default();
        if next < *end {
            let (first, _) = progress.bounds(partition)?;
            starts.insert(partition, next.max(first));
        }
    }
    starts.retain(|partition, start| {
        ends.get(usize::try_from(*partition).unwrap_or_default()).is_some_and(|end| *start < *end)
    });
    if starts.is_empty() {
        return Ok(0);
    }
    let records = progress.first_records(&starts).context("searching the remaining records")?;
    let left = records.into_iter().map(|(partition, first)| {
        let end = ends.get(usize::try_from(partition).unwrap_or_default()).copied().unwrap_or_default();
        (end - first.offset).max(0)
    });
    Ok(left.sum())
}
