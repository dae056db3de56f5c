//! Rows with absolute totals, each with the position that it includes: what `popular-items` and `vendor-billing` share.
//!
//! The total already includes a record at or before its row's position. So a batch that is applied again, in part or
//! whole, changes nothing. A paused instance that writes late writes with an older timestamp, and loses. At one position a
//! row has one content, whichever instance computes it.
//!
//! Positions of different partitions cannot be compared. [`Key`] therefore begins with the vendor, which is the record key of
//! `item-purchased`: all records of a row come from one partition.
//!
//! A row that cannot be kept is parked (`totals/parked.rs`); the others go on.

mod markers;
mod parked;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::Duration;

use cart::{LogEpoch, Position, PurchasedItem, RowFault, VendorId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kafka::GroupConsumer;
use lru::LruCache;
use service::Store;
use tokio::runtime::Handle;
use trace::names::REDELIVERED;

use crate::balance::COUNTS_TWICE;
use crate::error::Error;
use crate::pace::AppliedOffsets;
use crate::parking::{Lots, OVERFLOWS, Retries};
use crate::runner::{Batch, Projector, Wishes};

use markers::Markers;

/// Concurrent requests to Cassandra: more wait longer, and the throughput stays the same.
const CONCURRENCY: usize = 128;

/// Most rows that are read in one request. What a read costs a node is mostly the request, and each row may be in a partition
/// of its own, so more would take long to come together.
const READ_LEN_MAX: usize = 24;

/// Rows that were read lately, of which one is read again where a batch has none beside a row that cannot be read. One of them may be
/// that row.
const KNOWN_MAX: usize = 2;

/// A table of totals. Its rows are within a vendor; the type of [`Key`] does not allow others.
pub trait Table: Sized {
    /// Names a row within its vendor, such as a month. Keys of one Cassandra partition follow each other. As text it names the row
    /// among the parked ones.
    type Within: Clone + Debug + Display + Eq + Hash + Ord;
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

    /// What is added to positions in write timestamps (`cassandra::read_models::write_base`), as [`Table::renew`] has read it. Markers of
    /// parked rows have it too.
    fn write_base(&self) -> i16 {
        0
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

/// Rows of a table that a batch could not change.
type Failed<T> = BTreeMap<Key<<T as Table>::Within>, Failure>;

/// Why a row could not be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    partition: i32,
    /// The first record that is not in the row.
    position: Position,
    fault: RowFault,
}

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

/// What was read for a batch.
struct Loaded<T: Table> {
    /// Rows that were asked for.
    asked: usize,
    /// Those that cannot be read, although the store answers for others.
    unread: HashMap<Key<T::Within>, RowFault>,
}

/// Keeps a table of totals.
pub(crate) struct Totals<T: Table, M: Markers> {
    table: T,
    // Unbounded here, since a bounded one allocates all its room at once; trimmed after each batch.
    rows: LruCache<Key<T::Within>, Option<Row<T::Total>>>,
    rows_max: usize,
    /// Rows that the table has, the newest first.
    known: Vec<Key<T::Within>>,
    offsets: AppliedOffsets,
    epoch: LogEpoch,
    runtime: Handle,
    lots: Lots,
    /// The parked rows as they are stored.
    markers: M,
    retries: Retries,
    /// Whether [`Table::renew`] was called since partitions were lost.
    is_renewed: bool,
}

impl<T: Table, M: Markers> Totals<T, M> {
    pub(crate) fn new(
        (table, rows_max): (T, usize),
        epoch: LogEpoch,
        (lots, markers, retries): (Lots, M, Retries),
        runtime: Handle,
    ) -> Self {
        let (rows, known, offsets) = (LruCache::unbounded(), Vec::new(), AppliedOffsets::new());
        let is_renewed = false;
        Self { table, rows, rows_max, known, offsets, epoch, runtime, lots, markers, retries, is_renewed }
    }

    /// Before anything is written, also a marker: [`Table::renew`], where that was not done since partitions were lost.
    async fn renew(&mut self) -> Result<(), Error> {
        if !self.is_renewed {
            self.table.renew().await?;
            self.is_renewed = true;
        }
        Ok(())
    }

    /// Reads the rows that the batch needs and that are not in memory: many in a request, and the requests at the same time. If a
    /// request fails for its rows, each is read alone.
    async fn load(&mut self, batch: &Batch<PurchasedItem>) -> Result<Loaded<T>, Error> {
        self.renew().await?;
        let mut unknown: HashMap<T::Common, BTreeSet<Key<T::Within>>> = HashMap::new();
        for record in &batch.records {
            let key = key::<T>(&record.event);
            if !self.rows.contains(&key) && !self.lots.holds(record.partition, &record.event) {
                unknown.entry(T::common(&key)).or_default().insert(key);
            }
        }
        let mut requests: Vec<Vec<Key<T::Within>>> = Vec::new();
        for keys in unknown.into_values() {
            let keys: Vec<_> = keys.into_iter().collect();
            requests.extend(keys.chunks(READ_LEN_MAX).map(<[_]>::to_vec));
        }
        let asked = requests.iter().map(Vec::len).sum();
        let (mut alone, mut found) = (Vec::new(), None);
        let table = &self.table;
        let mut read = stream::iter(requests)
            .map(|keys| async move {
                let rows = Store::Cassandra.time("table_read", table.read(&keys)).await;
                (keys, rows)
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((keys, rows)) = read.next().await {
            let rows = match rows {
                Err(error) if error.is_of_rows() => {
                    alone.extend(keys);
                    continue;
                }
                rows => rows?,
            };
            let mut rows: HashMap<_, _> = rows.into_iter().collect();
            for key in keys {
                let row = rows.remove(&key);
                if row.is_some() {
                    found = Some(key.clone());
                }
                self.rows.put(key, row);
            }
        }
        let mut unread = HashMap::new();
        for key in alone {
            match self.read_alone(&key).await? {
                Ok(row) => {
                    if row.is_some() {
                        found = Some(key.clone());
                    }
                    self.rows.put(key, row);
                }
                Err(fault) => drop(unread.insert(key, fault)),
            }
        }
        if let Some(found) = found.filter(|found| !self.known.contains(found)) {
            self.known.insert(0, found);
            self.known.truncate(KNOWN_MAX);
        }
        Ok(Loaded { asked, unread })
    }

    /// Reads a row, or finds that it cannot be read.
    async fn read_alone(&self, key: &Key<T::Within>) -> Result<Result<Option<Row<T::Total>>, RowFault>, Error> {
        let read = self.table.read(std::slice::from_ref(key));
        match Store::Cassandra.time("table_read", read).await {
            Ok(rows) => Ok(Ok(rows.into_iter().find(|(found, _)| found == key).map(|(_, row)| row))),
            Err(error) if error.is_of_rows() => {
                Ok(Err(RowFault::Unreadable(format!("{:#}", anyhow::Error::new(error)))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds the batch to the rows in memory. Returns the rows that changed, and those that a record does not fit in: they have what is
    /// before it.
    fn fold(
        &mut self,
        batch: &Batch<PurchasedItem>,
        unread: &HashMap<Key<T::Within>, RowFault>,
    ) -> (Changed<T>, Failed<T>) {
        let (mut changed, mut failed) = (Changed::<T>::new(), Failed::<T>::new());
        for record in &batch.records {
            let key = key::<T>(&record.event);
            let (partition, position) = (record.partition, Position::new(self.epoch, record.offset));
            if self.lots.pass(partition, record.offset, &record.event) || failed.contains_key(&key) {
                continue;
            }
            let added = match unread.get(&key) {
                Some(fault) => Err(fault.clone()),
                None => add::<T>(self.rows.get_or_insert_mut(key.clone(), || None), position, &record.event),
            };
            match added {
                Ok(has_changed) => {
                    if let Some(span) = record.trace.span() {
                        span.set(REDELIVERED, !has_changed);
                    }
                    if has_changed && let Some(Some(row)) = self.rows.peek(&key) {
                        changed.insert(key, row.clone());
                    }
                }
                Err(fault) => drop(failed.insert(key, Failure { partition, position, fault })),
            }
        }
        (changed, failed)
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

impl<T: Table, M: Markers> Projector for Totals<T, M> {
    type Event = PurchasedItem;

    fn apply(&mut self, batch: Batch<PurchasedItem>, consumer: &GroupConsumer) -> Result<(), Error> {
        if !batch.next_offsets.is_empty() {
            let runtime = self.runtime.clone();
            let mut work = batch.work(consumer.topic());
            let Loaded { asked, unread } = runtime.block_on(self.load(&batch))?;
            work.database_step("cassandra", "SELECT", self.table.name(), asked);
            let (changed, failed) = self.fold(&batch, &unread);
            let rows = changed.len();
            let read = asked - unread.len();
            fail_points::crash_point("totals-before-write");
            work.step("fold");
            runtime.block_on(self.write(changed))?;
            work.database_step("cassandra", "INSERT", self.table.name(), rows);
            work.end();
            fail_points::crash_point("totals-after-write");
            runtime.block_on(self.set_aside(&batch, failed, read))?;
            self.lots.advance(batch.next_offsets.iter().map(|(partition, next)| (*partition, *next)));
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

    fn tend(&mut self, consumer: &GroupConsumer, wishes: &Wishes<'_>) -> Result<(), Error> {
        self.tend_parked(consumer, wishes)
    }

    fn due_in(&self) -> Option<Duration> {
        self.offsets.due_in()
    }

    fn finish(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        Ok(self.offsets.commit(consumer)?)
    }

    // The offsets are Kafka's. The markers are read here: the partitions are ours now, so that no other member can commit offsets past a
    // record whose marker is written later.
    fn start_offsets(&mut self, partitions: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.restore_parked(partitions))?;
        Ok(Vec::new())
    }

    fn take_refused(&mut self) -> Vec<(i32, Error)> {
        self.lots.take_refused()
    }

    fn forget(&mut self) {
        self.rows.clear();
        self.is_renewed = false;
        self.offsets.forget();
        self.lots.clear();
    }

    // A row does not name its partition, and reading it again is cheap.
    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.rows.clear();
        self.is_renewed = false;
        self.offsets.forget_partitions(partitions);
        self.lots.revoke(partitions);
    }
}

/// Adds a record to a row, unless the row includes it. Returns whether the row has changed.
fn add<T: Table>(
    row: &mut Option<Row<T::Total>>,
    position: Position,
    purchase: &PurchasedItem,
) -> Result<bool, RowFault> {
    if row.as_ref().is_some_and(|row| position <= row.position) {
        return Ok(false);
    }
    let mut total = T::add(row.as_ref().map(|row| &row.total), purchase);
    if fail_points::names(COUNTS_TWICE, &purchase.vendor_id) {
        total = total.and_then(|total| T::add(Some(&total), purchase));
    }
    let total = total.filter(|_| !fail_points::names(OVERFLOWS, &purchase.vendor_id));
    let total = total.ok_or_else(|| {
        let offset = position.offset();
        RowFault::Overflows(format!("with the record at offset {offset} the total exceeds what the table holds"))
    })?;
    *row = Some(Row { total, position });
    Ok(true)
}
