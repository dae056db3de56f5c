//! Rows that cannot be kept: tried again alone, parked, and tried once more when an operator wants that. [`crate::parking`] has the rules.

use std::collections::BTreeMap;

use cart::{ParkedRow, Position, PurchasedItem, RowFault};
use cassandra::parked_rows::RetryRequest;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kafka::GroupConsumer;
use service::Store;

use super::markers::Markers;
use super::{CONCURRENCY, Failed, Failure, Key, Table, Totals, add, key};
use crate::error::{Error, RowsFailed};
use crate::parking::{RowId, TRIES, TRY_PAUSE, Waited};
use crate::runner::{Batch, Wishes};

impl<T: Table, M: Markers> Totals<T, M> {
    /// Reads the markers of partitions.
    pub(super) async fn restore_parked(&mut self, partitions: &[i32]) -> Result<(), Error> {
        for partition in partitions {
            let markers = self.markers.read(*partition).await?;
            self.lots.restore(*partition, markers);
        }
        Ok(())
    }

    /// Tries the rows of a batch that fail again, each alone, and parks those that go on failing. The other rows are written. Then
    /// writes the markers whose rows this batch has passed over. `read` is how many other rows were read for the batch: without one, and
    /// without an older row that can be read, the store may be at fault.
    ///
    /// After a crash before this has ended the records come again. Those whose markers are written are passed over then; the rows that
    /// are written include theirs. Shown by crates/e2e/tests/e2e/projectors/parked_rows.rs.
    pub(super) async fn set_aside(
        &mut self,
        batch: &Batch<PurchasedItem>,
        failed: Failed<T>,
        read: usize,
    ) -> Result<(), Error> {
        let unread = failed.values().filter(|failure| matches!(failure.fault, RowFault::Unreadable(_)));
        let unread: Vec<String> = unread.map(|failure| failure.fault.reason()).collect();
        if let Some(first) = unread.first()
            && read == 0
            && !self.can_read_another(&failed).await?
        {
            return Err(Error::NoRowKept { rows: unread.len(), source: RowsFailed(first.clone()) });
        }
        let failed = self.try_alone(batch, failed).await?;
        let rows: Vec<_> = failed.into_iter().map(|(key, failure)| (self.marker(&key, failure), key)).collect();
        self.lots.make_room(rows.iter().map(|(row, _)| row))?;
        for (row, key) in rows {
            let newest = batch.records.iter().rev().find(|record| self::key::<T>(&record.event) == key);
            let passed = newest.map_or(row.first_position, |record| Position::new(self.epoch, record.offset));
            self.rows.pop(&key);
            self.lots.park(row, passed);
        }
        self.write_markers().await
    }

    /// Whether a row of the table can be read that is none of these.
    async fn can_read_another(&self, failed: &Failed<T>) -> Result<bool, Error> {
        for key in self.known.iter().filter(|key| !failed.contains_key(*key)) {
            if let Ok(Some(_)) = self.read_alone(key).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn marker(&self, key: &Key<T::Within>, Failure { partition, position, fault }: Failure) -> ParkedRow {
        ParkedRow {
            partition,
            vendor_id: key.vendor_id,
            row_key: key.within.to_string(),
            first_position: position,
            next_position: position,
            reason: fault.reason(),
            since: DateTime::<Utc>::from(fail_points::now()),
            retry_by: None,
            revision: 0,
        }
    }

    async fn try_alone(&mut self, batch: &Batch<PurchasedItem>, mut failed: Failed<T>) -> Result<Failed<T>, Error> {
        for _ in 1..TRIES {
            if failed.is_empty() {
                break;
            }
            tokio::time::sleep(TRY_PAUSE).await;
            let mut still = BTreeMap::new();
            for (key, Failure { partition, .. }) in failed {
                let records = batch.records.iter().filter(|record| self::key::<T>(&record.event) == key);
                let records: Vec<_> =
                    records.map(|record| (Position::new(self.epoch, record.offset), &record.event)).collect();
                if let Some((position, fault)) = self.add_alone(&key, &records).await? {
                    still.insert(key, Failure { partition, position, fault });
                }
            }
            failed = still;
        }
        Ok(failed)
    }

    /// Reads a row, adds records to it up to the first that does not fit, and writes it. Returns the first record that it does not
    /// include, and why.
    async fn add_alone(
        &mut self,
        key: &Key<T::Within>,
        records: &[(Position, &PurchasedItem)],
    ) -> Result<Option<(Position, RowFault)>, Error> {
        let Some((first, _)) = records.first() else { return Ok(None) };
        let mut row = match self.read_alone(key).await? {
            Ok(row) => row,
            Err(fault) => return Ok(Some((*first, fault))),
        };
        let (mut has_changed, mut failure) = (false, None);
        for (position, purchase) in records {
            match add::<T>(&mut row, *position, purchase) {
                Ok(is_added) => has_changed |= is_added,
                Err(fault) => {
                    failure = Some((*position, fault));
                    break;
                }
            }
        }
        if has_changed && let Some(row) = &row {
            let rows = vec![(key.clone(), row.clone())];
            fail_points::crash_point("parked-row-before-retry");
            Store::Cassandra.time("table_write", self.table.write(&rows)).await?;
        }
        self.rows.put(key.clone(), row);
        Ok(failure)
    }

    async fn write_markers(&mut self) -> Result<(), Error> {
        let changed = self.lots.take_changed();
        if changed.is_empty() {
            return Ok(());
        }
        fail_points::crash_point("parked-row-before-marker");
        let (markers, base) = (&self.markers, self.table.write_base());
        stream::iter(changed)
            .map(|(row, passed)| async move { markers.write(&row, passed, base).await })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        fail_points::crash_point("parked-row-after-marker");
        Ok(())
    }

    /// Follows operators' requests, and goes on with the tries. Costs nothing while no row is parked.
    pub(super) fn tend_parked(&mut self, consumer: &GroupConsumer, wishes: &Wishes<'_>) -> Result<(), Error> {
        if self.lots.is_empty() {
            return Ok(());
        }
        let runtime = self.runtime.clone();
        if self.retries.is_look_due() {
            for RetryRequest { vendor_id, row_key, by, written_at } in runtime.block_on(self.markers.requests())? {
                self.lots.request(&RowId { vendor_id, row_key }, &by, written_at);
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
                self.lots.note(&job, &error);
                runtime.block_on(self.write_markers())?;
            }
            None => {}
        }
        if self.retries.is_idle()
            && let Some((partition, id)) = self.lots.next_try(|partition| wishes.hold(partition))
        {
            // Where nothing was read since the assignment, the loop is at the committed offset.
            let until = match self.lots.next_offset(partition) {
                Some(next) => next,
                None => consumer.committed(&[partition])?.get(&partition).copied().flatten().unwrap_or_default(),
            };
            if let Some(job) = self.lots.begin(partition, id, until) {
                self.retries.begin(job, wishes.skips(partition)).map_err(Error::Thread)?;
            }
        }
        Ok(())
    }

    /// Adds what has waited to a parked row. After a crash the row includes what was added, and the rest is added later: the request
    /// is ended last.
    pub(super) async fn try_again(&mut self, waited: Waited) -> Result<(), Error> {
        // No batch may have been loaded since the partitions were assigned.
        self.renew().await?;
        let Waited { row: marker, passed, records, next_position, is_all, requested_at } = waited;
        let key = records.first().map(|first| self::key::<T>(&first.purchase));
        let records: Vec<_> =
            records.iter().map(|one| (Position::new(self.epoch, one.offset), &one.purchase)).collect();
        let failure = match &key {
            Some(key) => self.add_alone(key, &records).await?,
            // Operators have skipped all of them.
            None => None,
        };
        fail_points::crash_point("parked-row-added");
        match failure {
            Some((position, fault)) => {
                if let Some(key) = &key {
                    self.rows.pop(key);
                }
                self.lots.failed(&marker, position, &fault, requested_at);
                self.write_markers().await?;
                fail_points::crash_point("parked-row-after-retry");
                // A later one is for another try.
                let by = marker.retry_by.unwrap_or_default();
                let (vendor_id, row_key) = (marker.vendor_id, marker.row_key);
                let request = RetryRequest { vendor_id, row_key, by, written_at: requested_at };
                Ok(self.markers.end_request(&request).await?)
            }
            None if is_all => {
                self.markers.remove(&marker, passed, self.table.write_base()).await?;
                fail_points::crash_point("parked-row-after-retry");
                self.lots.end(&marker);
                self.end_requests(&marker).await
            }
            None => {
                self.lots.progressed(&marker, next_position);
                self.write_markers().await
            }
        }
    }

    /// Ends all requests of a row that is live.
    async fn end_requests(&self, row: &ParkedRow) -> Result<(), Error> {
        for request in self.markers.requests().await? {
            if (request.vendor_id, &request.row_key) == (row.vendor_id, &row.row_key) {
                self.markers.end_request(&request).await?;
            }
        }
        Ok(())
    }
}
