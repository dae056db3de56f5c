//! Polls the stores while the system runs: values that only grow must never fall.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::group::VENDOR_BILLING_JDBC;
use cart::contract::{Contract as _, READ_MODELS, ReadModel, ReadTable, STAGES, Stage};
use cart::{LogEpoch, PurchasedItem};
use futures::TryStreamExt as _;
use kafka::{Admin, GroupProgress, KafkaArgs};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Target, generations, stores};
use crate::ParkedKeys;
use crate::totals::{DayKey, MonthKey};

/// The minimum pause between two polls. After a longer poll, the pause is as long as the poll took, so that it polls at most
/// half of the time.
const INTERVAL: Duration = Duration::from_millis(500);

/// How many falls are kept. One is a finding.
const FALLS_MAX: usize = 100;

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

/// A value that was lower than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fall {
    /// The table and row, or the group and partition.
    pub place: String,
    /// The value before.
    pub before: String,
    /// The lower value.
    pub after: String,
}

/// The values seen last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Balances in Cassandra.
    pub cassandra_months: HashMap<MonthKey, Decimal>,
    /// Quantities in Cassandra.
    pub cassandra_days: HashMap<DayKey, i64>,
    /// Balances in PostgreSQL.
    pub postgres_months: HashMap<MonthKey, Decimal>,
    /// Each cart's newest sequence number.
    pub carts: HashMap<Uuid, i64>,
    /// Committed offsets by group and partition, including those in PostgreSQL.
    pub offsets: HashMap<(&'static str, i32), i64>,
}

/// The result of a watcher.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    falls: Vec<Fall>,
    last: Seen,
    looks: u64,
    failed: u64,
}

impl Sightings {
    /// The values that fell.
    #[must_use]
    pub fn falls(&self) -> &[Fall] {
        &self.falls
    }

    /// The values seen last.
    #[must_use]
    pub fn last(&self) -> &Seen {
        &self.last
    }

    /// How many polls read a store, and how many failed because a server was unavailable.
    #[must_use]
    pub fn looks(&self) -> (u64, u64) {
        (self.looks, self.failed)
    }

    /// Replaces the values seen last, and records falls.
    pub fn note(&mut self, mut now: Seen) {
        let (last, falls) = (&mut self.last, &mut self.falls);
        for ReadModel { table, .. } in READ_MODELS {
            let name = table.name();
            match table {
                ReadTable::BalanceByVendor => {
                    merge(name, &mut last.cassandra_months, take(&mut now.cassandra_months), falls);
                }
                ReadTable::ItemQuantityByDay => {
                    merge(name, &mut last.cassandra_days, take(&mut now.cassandra_days), falls);
                }
                ReadTable::VendorBilling => {
                    merge(name, &mut last.postgres_months, take(&mut now.postgres_months), falls);
                }
            }
        }
        merge("cart_journal, newest event", &mut last.carts, now.carts, falls);
        merge("committed offset", &mut last.offsets, now.offsets, falls);
        self.looks += 1;
    }
}

/// Merges the current values into `last`. A value that has disappeared has fallen.
fn merge<K, V>(what: &str, last: &mut HashMap<K, V>, now: HashMap<K, V>, falls: &mut Vec<Fall>)
where
    K: Eq + Hash + std::fmt::Debug,
    V: PartialOrd + Copy + std::fmt::Display,
{
    let nothing = String::from("nothing");
    // A table that could not be read is passed over.
    if now.is_empty() {
        return;
    }
    for (key, before) in last.iter() {
        let after = now.get(key);
        if after.is_none_or(|after| after < before) && falls.len() < FALLS_MAX {
            let after = after.map_or_else(|| nothing.clone(), ToString::to_string);
            falls.push(Fall { place: format!("{what}, {key:?}"), before: before.to_string(), after });
        }
    }
    last.extend(now);
}

/// A task that polls.
#[derive(Debug)]
pub struct Watcher {
    stop: watch::Sender<bool>,
    task: JoinHandle<Sightings>,
}

impl Watcher {
    /// Starts to poll. Unavailable servers are passed over.
    #[must_use]
    pub fn start(target: &Target) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(watch_all(target.clone(), stopped));
        Self { stop, task }
    }

    /// Ends the task, and returns what it has seen.
    ///
    /// # Errors
    /// The task has panicked.
    pub async fn stop(self) -> anyhow::Result<Sightings> {
        self.stop.send_replace(true);
        self.task.await.context("watching the tables")
    }
}

async fn watch_all(target: Target, mut stopped: watch::Receiver<bool>) -> Sightings {
    let mut sightings = Sightings::default();
    let mut eyes: Option<Eyes> = None;
    while !*stopped.borrow() {
        let started_at = Instant::now();
        let looked = match &mut eyes {
            Some(eyes) => eyes.look().await,
            None => match Eyes::open(&target).await {
                Ok(opened) => eyes.insert(opened).look().await,
                Err(error) => Err(error),
            },
        };
        match looked {
            Ok(seen) => sightings.note(seen),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "reading the tables failed");
                sightings.failed += 1;
            }
        }
        let pause = INTERVAL.max(started_at.elapsed());
        // An error means that the sender was dropped, which also ends the task.
        tokio::select! { () = tokio::time::sleep(pause) => {}, _ = stopped.changed() => {} }
        if stopped.has_changed().is_err() {
            break;
        }
    }
    sightings
}

struct Eyes {
    session: Session,
    database: PgPool,
    kafka: KafkaArgs,
    /// By full name of the group, with the topic's partitions.
    groups: HashMap<String, (i32, Arc<GroupProgress>)>,
}

impl Eyes {
    async fn open(target: &Target) -> anyhow::Result<Self> {
        let session = cassandra::connect(&target.cassandra).await?;
        let database = target.database.connect().await?;
        Ok(Self { session, database, kafka: target.kafka.clone(), groups: HashMap::new() })
    }

    async fn look(&mut self) -> anyhow::Result<Seen> {
        let topic = self.kafka.prefixed(PurchasedItem::TOPIC);
        // A row that cannot be read ends the watch, also one that is parked.
        let unparked = ParkedKeys::default();
        loop {
            let active = generations::in_cassandra(&self.session).await?;
            let mut seen = Seen::default();
            // The offsets of the rows are not needed here.
            if let Some(table) = active.table(ReadTable::BalanceByVendor) {
                let months = stores::cassandra_months(&self.session, &table, LogEpoch::FIRST, &unparked).await?;
                seen.cassandra_months = months.into_iter().map(|(key, row)| (key, row.total)).collect();
            }
            if let Some(table) = active.table(ReadTable::ItemQuantityByDay) {
                let days = stores::cassandra_days(&self.session, &table, LogEpoch::FIRST, &unparked).await?;
                seen.cassandra_days = days.into_iter().map(|(key, row)| (key, row.total.0)).collect();
            }
            let stores::Postgres { months, next, .. } = stores::postgres(&self.database, &topic).await?;
            seen.postgres_months = months;
            seen.offsets = next.into_iter().map(|(partition, next)| ((VENDOR_BILLING_JDBC, partition), next)).collect();
            for Stage { group, topic } in STAGES.into_iter().filter(|stage| !stage.has_offsets_in_postgres()) {
                let model = READ_MODELS.iter().find(|model| model.group == group);
                // The name of a group that keeps no read table does not change.
                let Some(full) = model.map_or(Some(group.to_owned()), |model| active.group(model.table)) else {
                    continue;
                };
                let committed = self.committed(&full, topic).await?;
                // What readers of a table wait for: it does not fall with a switch either.
                seen.offsets.extend(committed.into_iter().map(|(partition, offset)| ((group, partition), offset)));
            }
            seen.carts = carts(&self.session).await?;
            // After a switch the table that was read here may be ahead of the one that is read next.
            if generations::in_cassandra(&self.session).await? == active {
                return Ok(seen);
            }
        }
    }

    /// The offsets that a group has committed on a topic, both without the installation's prefix.
    async fn committed(&mut self, group: &str, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (kafka, group, topic) = (self.kafka.clone(), self.kafka.prefixed(group), self.kafka.prefixed(topic));
        let known = self.groups.get(&group).cloned();
        let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let (partitions, progress) = match known {
                Some(known) => known,
                None => {
                    let partitions = Admin::new(&kafka)?.partitions(&topic)?;
                    (partitions, Arc::new(GroupProgress::new(&kafka, &group, &topic)?))
                }
            };
            let committed = progress.committed(0..partitions)?;
            Ok((group, (partitions, progress), committed))
        });
        let (group, progress, committed) = asked.await??;
        self.groups.insert(group, progress);
        Ok(committed)
    }
}

/// Reads each cart's newest sequence number: one row per cart.
async fn carts(session: &Session) -> anyhow::Result<HashMap<Uuid, i64>> {
    const SELECT: &str = "SELECT cart_id, sequence_number FROM cart_journal PER PARTITION LIMIT 1";
    let pager = session.query_iter(Statement::new(SELECT).with_page_size(PAGE_ROWS), ()).await?;
    let mut rows = pager.rows_stream::<(Uuid, Option<i64>)>()?;
    let mut carts = HashMap::new();
    while let Some((cart_id, newest)) = rows.try_next().await? {
        carts.insert(cart_id, newest.unwrap_or_default());
    }
    Ok(carts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_values_that_fall_or_disappear() {
        let cart = |newest| Seen { carts: HashMap::from([(Uuid::nil(), newest)]), ..Seen::default() };
        let mut sightings = Sightings::default();
        for newest in [1, 4, 4] {
            sightings.note(cart(newest));
        }
        assert_eq!(sightings.falls(), []);
        sightings.note(cart(3));
        let fall = &sightings.falls()[0];
        assert_eq!((fall.before.as_str(), fall.after.as_str()), ("4", "3"));
        sightings.note(Seen { carts: HashMap::from([(Uuid::max(), 1)]), ..Seen::default() });
        assert_eq!(sightings.falls()[1].after, "nothing");
        assert_eq!(sightings.looks(), (5, 0));
    }
}
