//! Parked rows: their markers, and another try when an operator wants that. [`crate::parking`] has the rules.

use cart::{ParkedRow, Position};
use chrono::{DateTime, Utc};
use postgres::parked_rows::RetryRequest;
use service::Store;
use sqlx::postgres::PgConnection;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::failing::longest_kept;
use super::{BEGIN, Failure, Month, RowKey, RowSums, SELECT_OFFSET, VendorBillingJdbc, in_time, sum};
use crate::error::{Error, RowsFailed};
use crate::parking::{RowId, Waited};
use crate::runner::Wishes;

const INSERT_PARKED: &str = "INSERT INTO parked_row \
    (projection, topic, log_partition, vendor_id, row_key, first_position, next_position, reason, since) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
// Each names the position that the try began with. Another instance, or an earlier try whose answer was lost, may have moved or ended the
// marker since: a try moves no offset, so the guard of the offsets does not show that.
const MOVE_PARKED: &str = "UPDATE parked_row SET next_position = $6 \
    WHERE projection = $1 AND topic = $2 AND vendor_id = $3 AND row_key = $4 AND next_position = $5";
const DELETE_PARKED: &str = "DELETE FROM parked_row \
    WHERE projection = $1 AND topic = $2 AND vendor_id = $3 AND row_key = $4 AND next_position = $5";
/// Also ends the request of the try. A later one stays.
const FAIL_PARKED: &str = "UPDATE parked_row SET next_position = $6, reason = $7, \
    retry_by = CASE WHEN retry_at > $8 THEN retry_by END, retry_at = CASE WHEN retry_at > $8 THEN retry_at END \
    WHERE projection = $1 AND topic = $2 AND vendor_id = $3 AND row_key = $4 AND next_position = $5";
/// Of rows that memory takes for parked, one that is not, or that waits from another position.
const SELECT_STALE: &str = "SELECT held.log_partition, held.next_position \
    FROM UNNEST($3::int[], $4::uuid[], $5::text[], $6::bigint[]) AS held (log_partition, vendor_id, row_key, next_position) \
    WHERE NOT EXISTS (SELECT FROM parked_row AS marker WHERE marker.projection = $1 AND marker.topic = $2 \
    AND marker.vendor_id = held.vendor_id AND marker.row_key = held.row_key AND marker.next_position = held.next_position) \
    LIMIT 1";
const NOTE_PARKED: &str = "UPDATE parked_row SET reason = $6 \
    WHERE projection = $1 AND topic = $2 AND vendor_id = $3 AND row_key = $4 AND next_position = $5";

impl VendorBillingJdbc {
    pub(super) fn marker(&self, (vendor_id, month): RowKey, failure: &Failure) -> ParkedRow {
        let position = Position::new(self.epoch, failure.offset);
        ParkedRow {
            partition: failure.partition,
            vendor_id: vendor_id.into(),
            row_key: month.to_string(),
            first_position: position,
            next_position: position,
            reason: failure.fault.reason(),
            since: DateTime::<Utc>::from(fail_points::now()),
            retry_by: None,
            revision: 0,
        }
    }

    pub(super) async fn insert_marker(
        &self,
        connection: &mut PgConnection,
        row: &ParkedRow,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(INSERT_PARKED)
            .bind(&self.projection)
            .bind(&self.topic)
            .bind(row.partition)
            .bind(row.vendor_id.as_uuid())
            .bind(&row.row_key)
            .bind(row.first_position.get())
            .bind(row.next_position.get())
            .bind(&row.reason)
            .bind(row.since)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Fails if a row whose records this batch passes over is not parked any more. A try that was given up, or one of another instance, may
    /// have added what waited and ended the marker; it has moved no offset. It had the offset locked: behind the change of the offset this
    /// transaction sees its end, and no other try begins.
    pub(super) async fn ensure_parked(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let mut columns: (Vec<i32>, Vec<Uuid>, Vec<String>, Vec<i64>) = Default::default();
        for row in self.lots.passed_over() {
            columns.0.push(row.partition);
            columns.1.push(row.vendor_id.as_uuid());
            columns.2.push(row.row_key.clone());
            columns.3.push(row.next_position.get());
        }
        if columns.0.is_empty() {
            return Ok(());
        }
        let stale: Option<(i32, i64)> = sqlx::query_as(SELECT_STALE)
            .bind(&self.projection)
            .bind(&self.topic)
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .bind(columns.3)
            .fetch_optional(connection)
            .await
            .map_err(|source| Error::Sql { operation: "looking for the parked rows of a batch", source })?;
        match stale {
            Some((partition, position)) => {
                Err(Error::StaleMarker { partition, next_offset: Position::from(position).offset() })
            }
            None => Ok(()),
        }
    }

    /// Reads the markers of partitions.
    pub(super) async fn restore_parked(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let failed = |source| Error::Sql {
            operation: "reading the parked rows (`projectors setup` creates their table)",
            source,
        };
        let read = postgres::parked_rows::of_projection(&self.pool, &self.projection, &self.topic);
        let rows = Store::Postgres.time("parked_read", read).await.map_err(failed)?;
        for partition in partitions {
            let of_partition = rows.iter().filter(|row| row.partition == *partition);
            // Which records were passed over is not needed: the offsets are in the transaction.
            let markers = of_partition.map(|row| (row.clone(), row.next_position)).collect();
            self.lots.restore(*partition, markers);
        }
        self.lots.advance(self.started_from.iter().map(|(partition, next)| (*partition, *next)));
        Ok(())
    }

    /// Follows operators' requests, and goes on with the tries. Costs nothing while no row is parked.
    pub(super) fn tend_parked(&mut self, wishes: &Wishes<'_>) -> Result<(), Error> {
        if self.lots.is_empty() {
            return Ok(());
        }
        let runtime = self.runtime.clone();
        if self.retries.is_look_due() {
            for RetryRequest { vendor_id, row_key, by, at } in runtime.block_on(self.requests())? {
                self.lots.request(&RowId { vendor_id, row_key }, &by, at.timestamp_micros());
            }
        }
        match self.retries.finished() {
            // It is read again when the partition goes on; others are tried meanwhile.
            Some((job, _)) if wishes.hold(job.partition) => self.lots.abandon(&job),
            // `None`: the partition was read again meanwhile.
            Some((job, Ok(read))) => {
                if let Some(waited) = self.lots.waited(&job, read) {
                    runtime.block_on(self.try_again(waited))?;
                }
            }
            Some((job, Err(error))) => {
                self.lots.abandon(&job);
                if let Some(row) = self.lots.note(&job, &error) {
                    runtime.block_on(self.note(&row))?;
                }
                // It is in the database.
                self.lots.take_changed();
            }
            None => {}
        }
        if self.retries.is_idle()
            && let Some((partition, id)) = self.lots.next_try(|partition| wishes.hold(partition))
            && let Some(until) = self.started_from.get(&partition).copied()
            && let Some(job) = self.lots.begin(partition, id, until)
        {
            self.retries.begin(job, wishes.skips(partition)).map_err(Error::Thread)?;
        }
        Ok(())
    }

    async fn requests(&self) -> Result<Vec<RetryRequest>, Error> {
        const OPERATION: &str = "reading the requests of parked rows";
        let read = postgres::parked_rows::requests(&self.pool, &self.projection, &self.topic);
        let read = Store::Postgres.time("parked_read", read);
        in_time(OPERATION, async { read.await.map_err(|source| Error::Sql { operation: OPERATION, source }) }).await
    }

    /// Writes the reason of a marker.
    async fn note(&self, row: &ParkedRow) -> Result<(), Error> {
        const OPERATION: &str = "writing the reason of a parked row";
        let query = sqlx::query(NOTE_PARKED)
            .bind(&self.projection)
            .bind(&self.topic)
            .bind(row.vendor_id.as_uuid())
            .bind(&row.row_key)
            .bind(row.next_position.get())
            .bind(&row.reason)
            .execute(&self.pool);
        let query = async { query.await.map_err(|source| Error::Sql { operation: OPERATION, source }) };
        // One that another instance has moved or ended needs no reason of ours.
        in_time(OPERATION, query).await.map(drop)
    }

    /// Adds what has waited to a parked row and moves or ends its marker: one transaction, behind the guard of the offsets and that of the
    /// marker's position.
    async fn try_again(&mut self, waited: Waited) -> Result<(), Error> {
        let Waited { row, records, next_position, is_all, requested_at, .. } = waited;
        let key = records.first().map(|first| (row.vendor_id.as_uuid(), Month::of(&first.purchase)));
        let purchases: Vec<_> = records.iter().map(|record| &record.purchase).collect();
        let sums = |count| -> RowSums {
            // Without a record no row comes into being.
            let key = key.filter(|_| count > 0);
            key.map(|key| (key, sum(purchases.iter().take(count).copied()))).into_iter().collect()
        };
        let (mut kept, mut failure) = (purchases.len(), None);
        if let Some(together) = self.probe(&sums(kept)).await? {
            kept = longest_kept(kept, async |count| Ok(self.probe(&sums(count)).await?.is_none())).await?;
            let (Some(record), Some(fault)) = (records.get(kept), self.probe(&sums(kept + 1)).await?) else {
                // The database has changed its mind meanwhile: the marker stays as it is.
                return Err(Error::KeptAlone(RowsFailed(together.reason())));
            };
            failure = Some((fault, record.offset));
        }
        let failed = |source| Error::Sql { operation: "trying a parked row again", source };
        fail_points::crash_point("parked-row-before-retry");
        let work = async {
            let mut transaction = self.begin_guarded(row.partition).await?;
            if let Some(fault) = self.add_sums(&mut transaction, &sums(kept)).await.map_err(failed)? {
                return Err(Error::KeptAlone(RowsFailed(fault.reason())));
            }
            let statement = match &failure {
                Some(_) => FAIL_PARKED,
                None if is_all => DELETE_PARKED,
                None => MOVE_PARKED,
            };
            let query = sqlx::query(statement)
                .bind(&self.projection)
                .bind(&self.topic)
                .bind(row.vendor_id.as_uuid())
                .bind(&row.row_key)
                .bind(row.next_position.get());
            let query = match &failure {
                Some((fault, offset)) => query
                    .bind(Position::new(self.epoch, *offset).get())
                    .bind(fault.reason())
                    .bind(DateTime::from_timestamp_micros(requested_at)),
                None if is_all => query,
                None => query.bind(next_position.get()),
            };
            let changed = query.execute(&mut *transaction).await.map_err(failed)?;
            if changed.rows_affected() != 1 && !fail_points::is_off("guard-parked-position") {
                let (partition, next_offset) = (row.partition, row.next_position.offset());
                return Err(Error::StaleMarker { partition, next_offset });
            }
            fail_points::crash_point("parked-row-added");
            // As for a batch: all of it is done, or nothing.
            transaction.commit().await.map_err(failed)
        };
        in_time("trying a parked row again", Store::Postgres.time("transaction", work)).await?;
        fail_points::crash_point("parked-row-after-retry");
        match failure {
            Some((fault, offset)) => {
                self.lots.failed(&row, Position::new(self.epoch, offset), &fault, requested_at);
            }
            None if is_all => self.lots.end(&row),
            None => self.lots.progressed(&row, next_position),
        }
        // They are in the database.
        self.lots.take_changed();
        Ok(())
    }

    /// A transaction in which no other instance moves the offset of a partition.
    async fn begin_guarded(&self, partition: i32) -> Result<Transaction<'static, Postgres>, Error> {
        let failed = |source| Error::Sql { operation: "locking an offset", source };
        let started_from = self.started_from.get(&partition).copied().unwrap_or_default();
        let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
        let next: Option<i64> = sqlx::query_scalar(SELECT_OFFSET)
            .bind(&self.projection)
            .bind(&self.topic)
            .bind(partition)
            .bind(self.epoch.get())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
        if next == Some(started_from) { Ok(transaction) } else { Err(Error::Stale { partition, started_from }) }
    }
}
