//! Rows with absolute totals, each with the position that it includes: what `popular-items` and `vendor-billing` share.
//!
//! The total already includes a record at or before its row's position. So a batch that is applied again, in part or
//! whole, changes nothing. A paused instance that writes late writes with an older timestamp, and loses. At one position a
//! row has one content, whichever instance computes it.
//!
//! Positions of different partitions cannot be compared. [`Key`] therefore begins with the vendor, which is the record key of
//! `item-purchased`: all records of a row come from one partition.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use cart::{LogEpoch, Position, PurchasedItem, VendorId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kafka::GroupConsumer;
use lru::LruCache;
use service::Store;
use tokio::runtime::Handle;
use trace::names::REDELIVERED;

use crate::balance::COUNTS_TWICE;
use crate::error::Error;
use crate::pace::AppliedOffsets;
use crate::runner::{Batch, Projector};

/// Concurrent requests to Cassandra: more wait longer, and the throughput stays the same.
const CONCURRENCY: usize = 128;

/// Most rows that are read in one request. What a read costs a node is mostly the request, and each row may be in a partition
/// of its own, so more would take long to come together.
const READ_LEN_MAX: usize = 24;

/// A table of totals. Its rows are within a vendor; the type of [`Key`] does not allow others.
pub trait Table: Sized {
    /// Names a row within its vendor, such as a month. Keys of one Cassandra partition follow each other.
    type Within: Clone + Debug + Eq + Hash + Ord;
    /// The part of a key that rows of one read request share.
    type Common: Eq + Hash;
    /// The content of a row.
    type Total: Clone + Debug;

    /// The table's name.
    fn name(&self) -> &str;

    /// The row within its vendor that a purchase belongs to.
    fn within(purchase: &PurchasedItem) -> Self::Within;

    /// The total with a purchase added; `None` when it cannot hold the sum exactly.
    fn add(total: Option<&Self::Total>, purchase: &PurchasedItem) -> Option<Self::Total>;

    /// Keys for which this is equal are read together.
    fn common(key: &Key<Self::Within>) -> Self::Common;

    /// Reads the rows that exist, in one request. The result may contain others.
    fn read(&self, keys: &[Key<Self::Within>]) -> impl Future<Output = Result<Rows<Self>, cassandra::Error>> + Send;

    /// Called before the first batch, and after partitions were lost: what other processes may have changed since is to be read again.
    fn renew(&self) -> impl Future<Output = Result<(), cassandra::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Groups rows, in the order of their keys, into what [`Table::write`] writes in one request.
    fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>>;

    /// Writes rows `USING TIMESTAMP` their positions.
    fn write(&self, rows: &Rows<Self>) -> impl Future<Output = Result<(), cassandra::Error>> + Send;
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<W> {
    /// The record key of `item-purchased`.
    pub vendor_id: VendorId,
    /// The row within the vendor.
    pub within: W,
}

/// Rows of a table with their keys.
pub type Rows<T> = Vec<(Key<<T as Table>::Within>, Row<<T as Table>::Total>)>;

/// Rows of a table that a batch changed.
type Changed<T> = HashMap<Key<<T as Table>::Within>, Row<<T as Table>::Total>>;

fn key<T: Table>(purchase: &PurchasedItem) -> Key<T::Within> {
    Key { vendor_id: purchase.vendor_id, within: T::within(purchase) }
}

/// A total and the position that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// Includes every record up to `position`.
    pub total: T,
    /// Stored with the total, and read with it.
    pub position: Position,
}

impl<T> Row<T> {
    /// The write timestamp: the position, so that a late write of an older total loses. Wall-clock time only in tests that
    /// show the harm of that.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp_above(0)
    }

    /// As [`Row::timestamp`], in a table whose rows were replaced so many times.
    pub(crate) fn timestamp_above(&self, write_base: i16) -> i64 {
        if fail_points::is_off("guard-timestamps") {
            return chrono::Utc::now().timestamp_micros();
        }
        self.position.timestamp(write_base)
    }
}

/// Keeps a table of totals.
pub(crate) struct Totals<T: Table> {
    table: T,
    // Unbounded here, since a bounded one allocates all its room at once; trimmed after each batch.
    rows: LruCache<Key<T::Within>, Option<Row<T::Total>>>,
    rows_max: usize,
    offsets: AppliedOffsets,
    epoch: LogEpoch,
    runtime: Handle,
    /// Whether [`Table::renew`] was called since partitions were lost.
    is_renewed: bool,
}

impl<T: Table> Totals<T> {
    pub(crate) fn new(table: T, rows_max: usize, epoch: LogEpoch, runtime: Handle) -> Self {
        let (rows, offsets) = (LruCache::unbounded(), AppliedOffsets::new());
        Self { table, rows, rows_max, offsets, epoch, runtime, is_renewed: false }
    }

    /// Reads the rows that the batch needs and that are not in memory: many in a request, and the requests at the same time.
    /// Returns their number.
    async fn load(&mut self, batch: &Batch<PurchasedItem>) -> Result<usize, Error> {
        if !self.is_renewed {
            self.table.renew().await?;
            self.is_renewed = true;
        }
        let mut unknown: HashMap<T::Common, BTreeSet<Key<T::Within>>> = HashMap::new();
        for record in &batch.records {
            let key = key::<T>(&record.event);
            if !self.rows.contains(&key) {
                unknown.entry(T::common(&key)).or_default().insert(key);
            }
        }
        let mut requests: Vec<Vec<Key<T::Within>>> = Vec::new();
        for keys in unknown.into_values() {
            let keys: Vec<_> = keys.into_iter().collect();
            requests.extend(keys.chunks(READ_LEN_MAX).map(<[_]>::to_vec));
        }
        let len = requests.iter().map(Vec::len).sum();
        let table = &self.table;
        let mut read = stream::iter(requests)
            .map(|keys| async move {
                let rows = Store::Cassandra.time("table_read", table.read(&keys)).await;
                rows.map(|rows| (keys, rows))
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((keys, rows)) = read.try_next().await? {
            let mut rows: HashMap<_, _> = rows.into_iter().collect();
            for key in keys {
                let row = rows.remove(&key);
                self.rows.put(key, row);
            }
        }
        Ok(len)
    }

    /// Adds the batch to the rows in memory. Returns the rows that changed.
    fn fold(&mut self, batch: &Batch<PurchasedItem>) -> Result<Changed<T>, Error> {
        let mut changed = HashMap::new();
        for record in &batch.records {
            let key = key::<T>(&record.event);
            let position = Position::new(self.epoch, record.offset);
            let row = self.rows.get_or_insert_mut(key.clone(), || None);
            let is_included = row.as_ref().is_some_and(|row| position <= row.position);
            if let Some(span) = record.trace.span() {
                span.set(REDELIVERED, is_included);
            }
            if is_included {
                continue;
            }
            let mut total = T::add(row.as_ref().map(|row| &row.total), &record.event);
            if fail_points::names(COUNTS_TWICE, &record.event.vendor_id) {
                total = total.and_then(|total| T::add(Some(&total), &record.event));
            }
            let total = total.ok_or_else(|| Error::Overflow { row: format!("{key:?}") })?;
            let now = Row { total, position };
            *row = Some(now.clone());
            changed.insert(key, now);
        }
        Ok(changed)
    }

    async fn write(&self, changed: Changed<T>) -> Result<(), Error> {
        let table = &self.table;
        // Cassandra writes what a request has for one partition as one mutation.
        let mut rows: Rows<T> = changed.into_iter().collect();
        rows.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        stream::iter(table.groups(rows))
            .map(|rows| async move { Store::Cassandra.time("table_write", table.write(&rows)).await })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        Ok(())
    }
}

impl<T: Table> Projector for Totals<T> {
    type Event = PurchasedItem;

    fn apply(&mut self, batch: Batch<PurchasedItem>, consumer: &GroupConsumer) -> Result<(), Error> {
        if !batch.next_offsets.is_empty() {
            let runtime = self.runtime.clone();
            let mut work = batch.work(consumer.topic());
            let read = runtime.block_on(self.load(&batch))?;
            work.database_step("cassandra", "SELECT", self.table.name(), read);
            let changed = self.fold(&batch)?;
            let rows = changed.len();
            fail_points::crash_point("totals-before-write");
            work.step("fold");
            runtime.block_on(self.write(changed))?;
            work.database_step("cassandra", "INSERT", self.table.name(), rows);
            work.end();
            fail_points::crash_point("totals-after-write");
            consumer.applied(batch.next_offsets.iter().map(|(partition, next)| (*partition, *next)));
            self.offsets.add(batch.next_offsets);
            while self.rows.len() > self.rows_max {
                self.rows.pop_lru();
            }
        }
        // A crash before this repeats the batches since the last commit: the rows' positions skip what they include. After
        // it, nothing is left to do. A commit that fails (a rebalance came between) is the same as none.
        if self.offsets.commit_if_due(consumer)? {
            fail_points::crash_point("totals-after-commit");
        }
        Ok(())
    }

    fn due_in(&self) -> Option<Duration> {
        self.offsets.due_in()
    }

    fn finish(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        Ok(self.offsets.commit(consumer)?)
    }

    fn start_offsets(&mut self, _: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
        Ok(Vec::new())
    }

    fn forget(&mut self) {
        self.rows.clear();
        self.is_renewed = false;
        self.offsets.forget();
    }

    // A row does not name its partition, and reading it again is cheap.
    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.rows.clear();
        self.is_renewed = false;
        self.offsets.forget_partitions(partitions);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use trace::Trace;

    use crate::runner::Received;

    /// Pieces of a product, up to 100.
    struct Pieces;

    impl Table for Pieces {
        type Within = Uuid;
        type Common = ();
        type Total = i64;

        fn name(&self) -> &'static str {
            "pieces"
        }

        fn within(purchase: &PurchasedItem) -> Uuid {
            purchase.product_id.as_uuid()
        }

        fn add(total: Option<&i64>, purchase: &PurchasedItem) -> Option<i64> {
            Some(total.unwrap_or(&0) + i64::from(purchase.quantity.get())).filter(|sum| *sum <= 100)
        }

        fn common(_: &Key<Uuid>) {}

        async fn read(&self, _: &[Key<Uuid>]) -> Result<Rows<Self>, cassandra::Error> {
            Ok(Vec::new())
        }

        fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>> {
            vec![rows]
        }

        async fn write(&self, _: &Rows<Self>) -> Result<(), cassandra::Error> {
            Ok(())
        }
    }

    /// A record: partition, offset, vendor, product, pieces.
    type Sold = (i32, i64, u128, u128, i32);

    fn batch(sold: &[Sold]) -> Batch<PurchasedItem> {
        let received = |&(partition, offset, vendor, product, pieces): &Sold| Received {
            partition,
            offset,
            event: PurchasedItem {
                event_id: Uuid::nil().into(),
                cart_id: Uuid::nil().into(),
                session_id: Uuid::nil().into(),
                vendor_id: Uuid::from_u128(vendor).into(),
                product_id: Uuid::from_u128(product).into(),
                name: String::from("mug").try_into().unwrap(),
                price: "1".parse().unwrap(),
                quantity: pieces.try_into().unwrap(),
                purchased_at: chrono::DateTime::UNIX_EPOCH,
            },
            trace: Trace::None,
        };
        Batch { records: sold.iter().map(received).collect(), next_offsets: Default::default() }
    }

    fn totals(runtime: &tokio::runtime::Runtime) -> Totals<Pieces> {
        Totals::new(Pieces, 10, LogEpoch::FIRST, runtime.handle().clone())
    }

    /// The changed rows of each batch, as vendor, product, pieces.
    fn fold(totals: &mut Totals<Pieces>, sold: &[Sold]) -> Vec<(u128, u128, i64)> {
        let changed = totals.fold(&batch(sold)).unwrap();
        let mut changed: Vec<_> = changed
            .into_iter()
            .map(|(key, row)| (key.vendor_id.as_uuid().as_u128(), key.within.as_u128(), row.total))
            .collect();
        changed.sort_unstable();
        changed
    }

    #[test]
    fn a_record_at_or_before_its_rows_position_is_skipped() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut totals = totals(&runtime);
        assert_eq!(fold(&mut totals, &[(0, 5, 1, 7, 2), (0, 6, 1, 7, 3)]), [(1, 7, 5)]);
        assert_eq!(fold(&mut totals, &[(0, 5, 1, 7, 2), (0, 6, 1, 7, 3)]), [], "the whole batch again");
        assert_eq!(fold(&mut totals, &[(0, 6, 1, 7, 3), (0, 7, 1, 7, 4)]), [(1, 7, 9)], "a part of it again");
    }

    #[test]
    fn vendors_of_different_partitions_have_rows_of_their_own() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut totals = totals(&runtime);
        // The second vendor's records have smaller offsets, in another partition.
        assert_eq!(fold(&mut totals, &[(0, 50, 1, 7, 2), (1, 3, 2, 7, 4)]), [(1, 7, 2), (2, 7, 4)]);
        assert_eq!(fold(&mut totals, &[(1, 4, 2, 7, 1)]), [(2, 7, 5)]);
    }

    #[test]
    fn a_sum_that_the_total_cannot_hold_is_an_error() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let result = totals(&runtime).fold(&batch(&[(0, 1, 1, 7, 60), (0, 2, 1, 7, 60)]));
        assert!(matches!(result, Err(Error::Overflow { .. })));
    }
}
