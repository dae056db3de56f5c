//! Polls the stores while the system runs: values that only grow must never fall.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::group::VENDOR_BILLING_JDBC;
use cart::contract::{Contract as _, STAGES, Stage};
use cart::{LogEpoch, PurchasedItem};
use futures::TryStreamExt as _;
use kafka::{Admin, GroupProgress};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Target, stores};
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
    pub fn note(&mut self, now: Seen) {
        let falls = &mut self.falls;
        merge("balance_by_vendor", &mut self.last.cassandra_months, now.cassandra_months, falls);
        merge("item_quantity_by_day", &mut self.last.cassandra_days, now.cassandra_days, falls);
        merge("vendor_billing", &mut self.last.postgres_months, now.postgres_months, falls);
        merge("cart_journal, newest event", &mut self.last.carts, now.carts, falls);
        merge("committed offset", &mut self.last.offsets, now.offsets, falls);
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
        let looked = match &eyes {
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
    topic: String,
    groups: Vec<(&'static str, i32, Arc<GroupProgress>)>,
}

impl Eyes {
    async fn open(target: &Target) -> anyhow::Result<Self> {
        let session = cassandra::connect(&target.cassandra).await?;
        let database = target.database.connect().await?;
        let kafka = target.kafka.clone();
        let groups = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let mut groups = Vec::new();
            for Stage { group, topic } in STAGES.into_iter().filter(|stage| !stage.has_offsets_in_postgres()) {
                let topic = kafka.prefixed(topic);
                let partitions = Admin::new(&kafka)?.partitions(&topic)?;
                let progress = GroupProgress::new(&kafka, &kafka.prefixed(group), &topic)?;
                groups.push((group, partitions, Arc::new(progress)));
            }
            Ok(groups)
        });
        let topic = target.kafka.prefixed(PurchasedItem::TOPIC);
        Ok(Self { session, database, topic, groups: groups.await?? })
    }

    async fn look(&self) -> anyhow::Result<Seen> {
        // The offsets of the rows are not needed here.
        let months = stores::cassandra_months(&self.session, LogEpoch::FIRST).await?;
        let days = stores::cassandra_days(&self.session, LogEpoch::FIRST).await?;
        let (postgres_months, next) = stores::postgres(&self.database, &self.topic).await?;
        let mut offsets: HashMap<(&'static str, i32), i64> =
            next.into_iter().map(|(partition, next)| ((VENDOR_BILLING_JDBC, partition), next)).collect();
        for (group, partitions, progress) in &self.groups {
            let (progress, partitions) = (progress.clone(), *partitions);
            let committed = tokio::task::spawn_blocking(move || progress.committed(0..partitions)).await??;
            offsets.extend(committed.into_iter().map(|(partition, offset)| ((*group, partition), offset)));
        }
        Ok(Seen {
            cassandra_months: months.into_iter().map(|(key, row)| (key, row.total)).collect(),
            cassandra_days: days.into_iter().map(|(key, row)| (key, row.total.0)).collect(),
            postgres_months,
            carts: carts(&self.session).await?,
            offsets,
        })
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
