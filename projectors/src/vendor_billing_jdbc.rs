//! `vendor-billing-jdbc`: what a vendor has sold for in a month (UTC). PostgreSQL `vendor_billing_g1`, which
//! readers see through the view `vendor_billing`; a later generation has a table and offsets of its own.
//!
//! The offsets are in the database, changed in the transaction that changes the totals. An instance goes on where the
//! database says; one that was paused finds another offset than it started from, and rolls back.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use cart::{LogEpoch, PurchasedItem};
use kafka::GroupConsumer;
use rust_decimal::Decimal;
use service::Store;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::runtime::Handle;
use trace::Work;
use trace::names::REDELIVERED;
use uuid::Uuid;

use crate::balance::{COUNTS_TWICE, Month, add_exactly};
use crate::error::Error;
use crate::pace::AppliedOffsets;
use crate::runner::{Batch, Projector};

const INSERT_OFFSET: &str = "INSERT INTO projection_offset (projection, topic, partition, log_epoch, next_offset) \
    SELECT $1, $2, partition, $4, 0 FROM UNNEST($3::int[]) AS partition ON CONFLICT DO NOTHING";
const SELECT_OFFSETS: &str = "SELECT partition, next_offset FROM projection_offset \
    WHERE projection = $1 AND topic = $2 AND partition = ANY($3) AND log_epoch = $4";
const UPDATE_OFFSET: &str = "UPDATE projection_offset SET next_offset = $6 \
    WHERE projection = $1 AND topic = $2 AND partition = $3 AND log_epoch = $4 AND next_offset = $5";

fn add_to(table: &str) -> String {
    format!(
        "INSERT INTO {table} AS billing (vendor_id, year, month, balance) \
         SELECT * FROM UNNEST($1::uuid[], $2::int[], $3::int[], $4::numeric[]) \
         ON CONFLICT (vendor_id, year, month) DO UPDATE SET balance = billing.balance + EXCLUDED.balance"
    )
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

    /// Adds the batch up and moves the offsets: one transaction.
    async fn add(&self, batch: &Batch<PurchasedItem>, work: &mut Work) -> Result<(), Error> {
        let totals = self.fold(batch)?;
        let rows = totals.len();
        work.step("fold");
        let failed = |source| Error::Sql { operation: "adding to the balances", source };
        fail_points::crash_point("jdbc-before-transaction");
        let mut transaction = self.pool.begin().await.map_err(failed)?;
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
        let mut columns: (Vec<Uuid>, Vec<i32>, Vec<i32>, Vec<Decimal>) = Default::default();
        for ((vendor_id, Month { year, month }), balance) in totals {
            columns.0.push(vendor_id);
            columns.1.push(year);
            columns.2.push(month);
            columns.3.push(balance);
        }
        sqlx::query(AssertSqlSafe(add_to(&self.table)))
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .bind(columns.3)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        work.database_step("postgresql", "INSERT", &self.table, rows);
        fail_points::crash_point("jdbc-in-transaction");
        // After a crash before this nothing has changed. After a crash behind it the database's offset is past the batch. If
        // the answer is lost, the offset that is read next shows which.
        transaction.commit().await.map_err(failed)?;
        work.step("commit the transaction");
        fail_points::crash_point("jdbc-after-commit");
        Ok(())
    }

    fn fold(&self, batch: &Batch<PurchasedItem>) -> Result<BTreeMap<(Uuid, Month), Decimal>, Error> {
        let mut totals: BTreeMap<(Uuid, Month), Decimal> = BTreeMap::new();
        for record in &batch.records {
            // Read before a seek took hold: the database has it.
            let is_included = record.offset < self.started_from.get(&record.partition).copied().unwrap_or_default();
            if let Some(span) = record.trace.span() {
                span.set(REDELIVERED, is_included);
            }
            if is_included {
                continue;
            }
            let key = (record.event.vendor_id.as_uuid(), Month::of(&record.event));
            let total = totals.entry(key).or_default();
            let times = if fail_points::names(COUNTS_TWICE, &record.event.vendor_id) { 2 } else { 1 };
            for _ in 0..times {
                *total = add_exactly(*total, record.event.amount())
                    .ok_or_else(|| Error::Overflow { row: format!("{key:?}") })?;
            }
        }
        Ok(totals)
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
            let add = in_time("adding to the balances", self.add(&batch, &mut work));
            self.runtime.block_on(Store::Postgres.time("transaction", add))?;
            work.end();
            consumer.applied(batch.next_offsets.iter().map(|(partition, next)| (*partition, *next)));
            self.started_from.extend(batch.next_offsets.iter().map(|(partition, next)| (*partition, *next)));
            self.offsets.add(batch.next_offsets);
        }
        log_failure(self.offsets.commit_if_due(consumer).map(|_| ()));
        Ok(())
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
        // A predecessor may have ended before it committed them to Kafka, and no record may follow.
        self.offsets.add(offsets.iter().copied().filter(|(_, next)| *next > 0).collect());
        Ok(offsets)
    }

    // What the database said is asked for again whenever a partition comes or something fails.
    fn forget(&mut self) {
        self.offsets.forget();
    }

    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.offsets.forget_partitions(partitions);
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
