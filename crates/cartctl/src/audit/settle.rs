//! Noting the ends of the topics from front to back, each when the group before it has come to the end noted before.
//!
//! A group has done with a topic up to an offset when no committed record is left for it before that: its own committed
//! offset may stay below, since transactions' markers take offsets too.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, PurchasedItem};
use futures::try_join;
use kafka::{Admin, GroupProgress, KafkaArgs};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::cut::Cut;
use crate::reconcile::stored_offsets;

/// Between two looks: short beside what is waited for, long beside what a look costs.
const INTERVAL: Duration = Duration::from_millis(200);

/// Something downstream has not come to the noted end in time, so nothing is known.
#[derive(Debug, thiserror::Error)]
#[error("waited {} s for {what}; last seen: {last_seen}", .waited.as_secs())]
pub struct NotSettled {
    /// How long was waited, for this and what was before it.
    pub waited: Duration,
    /// What was waited for.
    pub what: String,
    /// What was to be seen instead.
    pub last_seen: String,
}

/// Waits from stage to stage, and notes the ends.
pub(super) async fn settle(kafka: &KafkaArgs, database: &PgPool, deadline: Duration) -> anyhow::Result<Cut> {
    let wait = Wait { kafka: kafka.clone(), start: Instant::now(), deadline };
    let commands = wait.ends(CartCommand::TOPIC).await?;
    wait.group("cart-processor", CartCommand::TOPIC, &commands).await?;
    let events = wait.ends(CartEvent::TOPIC).await?;
    wait.ends(DEAD_LETTER_TOPIC).await?;
    wait.group("item-purchased-events", CartEvent::TOPIC, &events).await?;
    let purchases = wait.ends(PurchasedItem::TOPIC).await?;
    try_join!(
        wait.group("popular-items", PurchasedItem::TOPIC, &purchases),
        wait.group("vendor-billing", PurchasedItem::TOPIC, &purchases),
        wait.database(database, &purchases),
    )?;
    Ok(Cut { commands, events, purchases })
}

struct Wait {
    kafka: KafkaArgs,
    start: Instant,
    deadline: Duration,
}

impl Wait {
    /// Looks until `look` sees nothing to wait for. A server that is away is waited for as well.
    async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        let mut told = String::new();
        loop {
            let seen = match look().await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(seen)) => seen,
                Err(error) => format!("{error:#}"),
            };
            let waited = self.start.elapsed();
            if waited >= self.deadline {
                return Err(NotSettled { waited, what: what.to_owned(), last_seen: seen }.into());
            }
            // What changes is told about once a second.
            if told.is_empty() || (told != seen && waited.subsec_millis() < 250) {
                // Nobody may be there to read it.
                writeln!(std::io::stderr().lock(), "waiting for {what} ({} s): {seen}", waited.as_secs())
                    .unwrap_or_default();
                told = seen;
            }
            sleep(INTERVAL).await;
        }
    }

    /// The end of each partition now, when all before it is settled: an open transaction may still become records.
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
            let unsettled = tokio::task::spawn_blocking(move || -> anyhow::Result<i64> {
                let mut unsettled = 0;
                for (partition, end) in (0..).zip(&ends) {
                    unsettled += (end - progress.settled_end(partition)?).max(0);
                }
                Ok(unsettled)
            });
            Ok(match unsettled.await?? {
                0 => Ok(()),
                offsets => Err(format!("{offsets} offsets are in open transactions")),
            })
        })
        .await?;
        retire(progress);
        Ok(ends)
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
            Ok(told(behind.await??))
        })
        .await?;
        retire(progress);
        Ok(())
    }

    async fn database(&self, database: &PgPool, ends: &[i64]) -> anyhow::Result<()> {
        let group = self.kafka.prefixed("vendor-billing-jdbc");
        let progress = GroupProgress::new(&self.kafka, &group, &self.kafka.prefixed(PurchasedItem::TOPIC))?;
        let progress = Arc::new(progress);
        self.until(&format!("{group} in PostgreSQL"), async || {
            let stored: HashMap<i32, i64> = stored_offsets(database, &self.kafka).await?;
            let (progress, ends) = (progress.clone(), ends.to_vec());
            let behind = tokio::task::spawn_blocking(move || behind(&progress, &stored.into_iter().collect(), &ends));
            Ok(told(behind.await??))
        })
        .await?;
        retire(progress);
        Ok(())
    }
}

/// Ending a client takes it some tenths of a second, for which nobody has to wait.
fn retire(progress: Arc<GroupProgress>) {
    drop(tokio::task::spawn_blocking(move || drop(progress)));
}

fn told(behind: i64) -> Result<(), String> {
    if behind == 0 { Ok(()) } else { Err(format!("{behind} offsets behind")) }
}

/// How many offsets are left, where a committed record is among them.
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
    let left = records.into_iter().map(|(partition, offset)| {
        let end = ends.get(usize::try_from(partition).unwrap_or_default()).copied().unwrap_or_default();
        (end - offset).max(0)
    });
    Ok(left.sum())
}
