//! `vendor-billing-jdbc`: what a vendor has sold for in a month (UTC). PostgreSQL `vendor_billing_g1`, which
//! readers see through the view `vendor_billing`; a later generation has a table and offsets of its own.
//!
//! The offsets are in the database, changed in the transaction that changes the totals. An instance goes on where the
//! database says; one that was paused finds another offset than it started from, and rolls back.
//!
//! A row that cannot be kept is parked (`vendor_billing_jdbc/failing.rs`, `parked.rs`); the others go on.

mod failing;
mod parked;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use cart::{LogEpoch, ParkedRow, PurchasedItem, RowFault};
use kafka::GroupConsumer;
use rust_decimal::Decimal;
use service::Store;
use sqlx::PgPool;
use tokio::runtime::Handle;
use trace::Work;
use trace::names::REDELIVERED;
use uuid::Uuid;

use crate::balance::{COUNTS_TWICE, Month, add_exactly};
use crate::error::Error;
use crate::pace::AppliedOffsets;
use crate::parking::{Lots, OVERFLOWS, Retries};
use crate::runner::{Batch, Projector, Wishes};

/// Begins a transaction that adds to balances, in one round trip. Whatever the database's default is, each statement sees what was committed
/// before it: behind the lock of an offset these are all changes of its rows and markers. A deferred constraint fails where a row is added;
/// at the commit no row would be at fault.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE";

const INSERT_OFFSET: &str = "INSERT INTO projection_offset (projection, topic, partition, log_epoch, next_offset) \
    SELECT $1, $2, partition, $4, 0 FROM UNNEST($3::int[]) AS partition ON CONFLICT DO NOTHING";
const SELECT_OFFSETS: &str = "SELECT partition, next_offset FROM projection_offset \
    WHERE projection = $1 AND topic = $2 AND partition = ANY($3) AND log_epoch = $4";
const UPDATE_OFFSET: &str = "UPDATE projection_offset SET next_offset = $6 \
    WHERE projection = $1 AND topic = $2 AND partition = $3 AND log_epoch = $4 AND next_offset = $5";

/// Locks the row: no other instance moves the offset until the end of the transaction.
const SELECT_OFFSET: &str = "SELECT next_offset FROM projection_offset \
    WHERE projection = $1 AND topic = $2 AND partition = $3 AND log_epoch = $4 FOR UPDATE";

/// A row, as the table names it.
type RowKey = (Uuid, Month);

/// Why a row of a batch cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    partition: i32,
    /// The first record that is not in the row.
    offset: i64,
    fault: RowFault,
}

/// What a batch adds to each row; `None` where a decimal does not hold it.
type RowSums = BTreeMap<RowKey, Option<Decimal>>;

/// The exact sum of purchases; `None` where a decimal does not hold it.
fn sum<'a>(purchases: impl IntoIterator<Item = &'a PurchasedItem>) -> Option<Decimal> {
    purchases.into_iter().try_fold(Decimal::ZERO, add_purchase)
}

fn add_purchase(total: Decimal, purchase: &PurchasedItem) -> Option<Decimal> {
    if fail_points::names(OVERFLOWS, &purchase.vendor_id) {
        return None;
    }
    let times = if fail_points::names(COUNTS_TWICE, &purchase.vendor_id) { 2 } else { 1 };
    (0..times).try_fold(total, |total, _| add_exactly(total, purchase.amount()))
}

/// A server that does not answer for so long is asked again, over the pool's other connection: this one comes back to the pool
/// when it has answered, or is found dead. The offsets show whether a transaction was committed. A batch takes milliseconds.
const SQL_TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps the table.
#[derive(Debug)]
pub(crate) struct VendorBillingJdbc {
    pub(crate) pool: PgPool,
    pub(crate) topic: String,
    pub(crate) table: String,
    /// The name of its offsets in the database: that of its group.
    pub(crate) projection: String,
    pub(crate) epoch: LogEpoch,
    pub(crate) runtime: Handle,
    /// Where the database was when it was last asked or changed, by partition.
    pub(crate) started_from: HashMap<i32, i64>,
    /// Kafka's copy of the offsets, for tools that show a group's lag. The database decides.
    pub(crate) offsets: AppliedOffsets,
    pub(crate) lots: Lots,
    pub(crate) retries: Retries,
}

impl VendorBillingJdbc {
    async fn offsets(&self, partitions: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
        let failed = |source| Error::Sql { operation: "reading the offsets", source };
        sqlx::query(INSERT_OFFSET)
            .bind(&self.projection)
            .bind(&self.topic)
            .bind(partitions)
            .bind(self.epoch.get())
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        sqlx::query_as(SELECT_OFFSETS)
            .bind(&self.projection)
            .bind(&self.topic)
            .bind(partitions)
            .bind(self.epoch.get())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)
    }

    /// Applies a batch. Rows that cannot be kept are parked in its transaction, from their first record on that they have no room for.
    async fn add_or_park(&mut self, batch: &Batch<PurchasedItem>, work: &mut Work) -> Result<(), Error> {
        let mut aside: BTreeMap<RowKey, Failure> = BTreeMap::new();
        loop {
            let sums = self.fold(batch, &aside);
            work.step("fold");
            let markers: Vec<_> = aside.iter().map(|(key, failure)| self.marker(*key, failure)).collect();
            self.lots.make_room(&markers)?;
            let add = self.add(batch, &sums, &markers, work);
            let fault = in_time("adding to the balances", Store::Postgres.time("transaction", add)).await?;
            let Some(fault) = fault else {
                for marker in markers {
                    let passed = marker.next_position;
                    self.lots.park(marker, passed);
                }
                // They are in the database.
                self.lots.take_changed();
                return Ok(());
            };
            // Each time more rows are set aside.
            aside.extend(self.failing_rows(batch, &sums, &fault).await?);
        }
    }

    /// Adds the sums of a batch to the rows, parks rows and moves the offsets: one transaction. Returns why not, if it is a matter of
    /// the rows.
    async fn add(
        &self,
        batch: &Batch<PurchasedItem>,
        sums: &RowSums,
        markers: &[ParkedRow],
        work: &mut Work,
    ) -> Result<Option<RowFault>, Error> {
        let failed = |source| Error::Sql { operation: "adding to the balances", source };
        fail_points::crash_point("jdbc-before-transaction");
        let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
        // In the order of the partitions, then of the rows: two instances can't wait for each other in a circle.
        for (partition, next_offset) in &batch.next_offsets {
            let started_from = self.started_from.get(partition).copied().unwrap_or_default();
            let updated = sqlx::query(UPDATE_OFFSET)
                .bind(&self.projection)
                .bind(&self.topic)
                .bind(partition)
                .bind(self.epoch.get())
                .bind(started_from)
                .bind(next_offset)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            if updated.rows_affected() != 1 && !fail_points::is_off("guard-sql-offset") {
                return Err(Error::Stale { partition: *partition, started_from });
            }
        }
        if !fail_points::is_off("guard-passed-over") {
            self.ensure_parked(&mut transaction).await?;
        }
        if let Some(fault) = self.add_sums(&mut transaction, sums).await.map_err(failed)? {
            transaction.rollback().await.map_err(failed)?;
            return Ok(Some(fault));
        }
        for marker in markers {
            self.insert_marker(&mut transaction, marker).await.map_err(failed)?;
        }
        work.database_step("postgresql", "INSERT", &self.table, sums.len());
        fail_points::crash_point("jdbc-in-transaction");
        if !markers.is_empty() {
            fail_points::crash_point("parked-row-before-marker");
        }
        // After a crash before this nothing has changed. After a crash behind it the database's offset is past the batch. If
        // the answer is lost, the offset that is read next shows which.
        transaction.commit().await.map_err(failed)?;
        work.step("commit the transaction");
        fail_points::crash_point("jdbc-after-commit");
        if !markers.is_empty() {
            fail_points::crash_point("parked-row-after-marker");
        }
        Ok(None)
    }

    /// Whether the database has a record: it was read before a seek took hold.
    fn includes(&self, partition: i32, offset: i64) -> bool {
        offset < self.started_from.get(&partition).copied().unwrap_or_default()
    }

    /// What a batch adds to each row. Records of parked rows are passed over, and those of rows that are set aside now, from the first
    /// one on that does not fit.
    fn fold(&mut self, batch: &Batch<PurchasedItem>, aside: &BTreeMap<RowKey, Failure>) -> RowSums {
        let mut sums = RowSums::new();
        for record in &batch.records {
            let is_included = self.includes(record.partition, record.offset);
            if let Some(span) = record.trace.span() {
                span.set(REDELIVERED, is_included);
            }
            if is_included || self.lots.pass(record.partition, record.offset, &record.event) {
                continue;
            }
            let key = (record.event.vendor_id.as_uuid(), Month::of(&record.event));
            if aside.get(&key).is_some_and(|failure| record.offset >= failure.offset) {
                continue;
            }
            let total = sums.entry(key).or_insert(Some(Decimal::ZERO));
            *total = total.and_then(|total| add_purchase(total, &record.event));
        }
        sums
    }
}

async fn in_time<T>(operation: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let too_late = |_| {
        let reason = format!("PostgreSQL did not respond within {} s", SQL_TIMEOUT.as_secs());
        Error::Sql { operation, source: io::Error::new(io::ErrorKind::TimedOut, reason).into() }
    };
    tokio::time::timeout(SQL_TIMEOUT, work).await.map_err(too_late)?
}

impl Projector for VendorBillingJdbc {
    type Event = PurchasedItem;

    fn apply(&mut self, mut batch: Batch<PurchasedItem>, consumer: &GroupConsumer) -> Result<(), Error> {
        batch
            .next_offsets
            .retain(|partition, next| *next > self.started_from.get(partition).copied().unwrap_or_default());
        if !batch.next_offsets.is_empty() {
            let mut work = batch.work(consumer.topic());
            let runtime = self.runtime.clone();
            runtime.block_on(self.add_or_park(&batch, &mut work))?;
            work.end();
            let next_offsets = batch.next_offsets.iter().map(|(partition, next)| (*partition, *next));
            consumer.applied(next_offsets.clone());
            self.started_from.extend(next_offsets.clone());
            self.lots.advance(next_offsets);
            self.offsets.add(batch.next_offsets);
        }
        log_failure(self.offsets.commit_if_due(consumer).map(|_| ()));
        Ok(())
    }

    fn tend(&mut self, _consumer: &GroupConsumer, wishes: &Wishes<'_>) -> Result<(), Error> {
        self.tend_parked(wishes)
    }

    fn due_in(&self) -> Option<Duration> {
        self.offsets.due_in()
    }

    fn finish(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        log_failure(self.offsets.commit(consumer));
        Ok(())
    }

    fn start_offsets(&mut self, partitions: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
        let read = in_time("reading the offsets", self.offsets(partitions));
        let offsets = self.runtime.block_on(Store::Postgres.time("offsets_read", read))?;
        self.started_from.extend(offsets.iter().copied());
        let runtime = self.runtime.clone();
        let restore = in_time("reading the parked rows", self.restore_parked(partitions));
        runtime.block_on(restore)?;
        // A predecessor may have ended before it committed them to Kafka, and no record may follow.
        self.offsets.add(offsets.iter().copied().filter(|(_, next)| *next > 0).collect());
        Ok(offsets)
    }

    fn take_refused(&mut self) -> Vec<(i32, Error)> {
        self.lots.take_refused()
    }

    // What the database said is asked for again whenever a partition comes or something fails.
    fn forget(&mut self) {
        self.offsets.forget();
        self.lots.clear();
    }

    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.offsets.forget_partitions(partitions);
        self.lots.revoke(partitions);
    }
}

/// A failed commit to Kafka is not an error, since the database has the offsets.
fn log_failure(committed: Result<(), kafka::Error>) {
    if let Err(error) = committed {
        tracing::debug!(
            error = format!("{:#}", anyhow::Error::new(error)),
            "the offsets were not committed to Kafka; those in PostgreSQL count"
        );
    }
}
