//! Rows with absolute totals, each with the position that it includes: what `popular-items` and `vendor-billing` share.
//!
//! A record at or before its row's position is in the total already. So a batch that is applied again, in part or
//! whole, changes nothing. An instance that was paused and writes late writes with an older timestamp, and loses.
//! At one position a row has one content, whoever computes it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use cart::{LogEpoch, Position, PurchasedItem};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kafka::GroupConsumer;
use lru::LruCache;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::pace::AppliedOffsets;
use crate::runner::{Batch, Projector};

/// Requests to Cassandra under way: more wait longer without getting more done.
const CONCURRENCY: usize = 128;

/// Most rows that are read in one request. What a read costs a node is mostly the request, and each row may be in a partition
/// of its own, so more would take long to come together.
const READ_LEN_MAX: usize = 24;

/// A table of totals.
pub(crate) trait Table: Sized {
    /// What names a row. Those of one partition follow each other.
    type Key: Clone + Debug + Eq + Hash + Ord;
    /// What the names of rows have in common that can be read in one request.
    type Common: Eq + Hash;
    /// What it adds up.
    type Total: Clone + Debug;

    /// The row that a purchase belongs to.
    fn key(purchase: &PurchasedItem) -> Self::Key;

    /// The total with a purchase added.
    fn add(total: Option<&Self::Total>, purchase: &PurchasedItem) -> Option<Self::Total>;

    /// Keys for which this is the same can be read together.
    fn common(key: &Self::Key) -> Self::Common;

    /// Those of the rows that are there, in one request. Others may come with them.
    fn read(&self, keys: &[Self::Key]) -> impl Future<Output = Result<Rows<Self>, cassandra::Error>> + Send;

    /// Puts rows, in the order of their keys, together into what [`Table::write`] writes in one request.
    fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>>;

    /// Writes rows `USING TIMESTAMP` their positions.
    fn write(&self, rows: &Rows<Self>) -> impl Future<Output = Result<(), cassandra::Error>> + Send;
}

/// Rows of a table with what names them.
pub(crate) type Rows<T> = Vec<(<T as Table>::Key, Row<<T as Table>::Total>)>;

/// A total and the position that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row<T> {
    pub(crate) total: T,
    pub(crate) position: Position,
}

impl<T> Row<T> {
    /// The write timestamp: the position, so that a late write of an older total loses. Wall-clock time only in tests that
    /// show what it is like without.
    pub(crate) fn timestamp(&self) -> i64 {
        if fail_points::is_off("guard-timestamps") {
            return chrono::Utc::now().timestamp_micros();
        }
        self.position.get()
    }
}

/// Keeps a table of totals.
pub(crate) struct Totals<T: Table> {
    table: T,
    // Unbounded here, since a bounded one allocates all its room at once; trimmed after each batch.
    rows: LruCache<T::Key, Option<Row<T::Total>>>,
    rows_max: usize,
    offsets: AppliedOffsets,
    epoch: LogEpoch,
    runtime: Handle,
}

impl<T: Table> Totals<T> {
    pub(crate) fn new(table: T, rows_max: usize, epoch: LogEpoch, runtime: Handle) -> Self {
        Self { table, rows: LruCache::unbounded(), rows_max, offsets: AppliedOffsets::new(), epoch, runtime }
    }

    /// Reads the rows that the batch needs and that are not in memory: many in a request, and the requests at the same time.
    async fn load(&mut self, batch: &Batch<PurchasedItem>) -> Result<(), Error> {
        let mut unknown: HashMap<T::Common, BTreeSet<T::Key>> = HashMap::new();
        for record in &batch.records {
            let key = T::key(&record.event);
            if !self.rows.contains(&key) {
                unknown.entry(T::common(&key)).or_default().insert(key);
            }
        }
        let mut requests: Vec<Vec<T::Key>> = Vec::new();
        for keys in unknown.into_values() {
            let keys: Vec<_> = keys.into_iter().collect();
            requests.extend(keys.chunks(READ_LEN_MAX).map(<[_]>::to_vec));
        }
        let table = &self.table;
        let mut read = stream::iter(requests)
            .map(|keys| async move { table.read(&keys).await.map(|rows| (keys, rows)) })
            .buffer_unordered(CONCURRENCY);
        while let Some((keys, rows)) = read.try_next().await? {
            let mut rows: HashMap<_, _> = rows.into_iter().collect();
            for key in keys {
                let row = rows.remove(&key);
                self.rows.put(key, row);
            }
        }
        Ok(())
    }

    /// Adds the batch up in memory; the rows that changed.
    fn fold(&mut self, batch: &Batch<PurchasedItem>) -> Result<HashMap<T::Key, Row<T::Total>>, Error> {
        let mut changed = HashMap::new();
        for record in &batch.records {
            let key = T::key(&record.event);
            let position = Position::new(self.epoch, record.offset);
            let row = self.rows.get_or_insert_mut(key.clone(), || None);
            if row.as_ref().is_some_and(|row| position <= row.position) {
                continue; // it is in the total already
            }
            let total = T::add(row.as_ref().map(|row| &row.total), &record.event)
                .ok_or_else(|| Error::Overflow { row: format!("{key:?}") })?;
            let now = Row { total, position };
            *row = Some(now.clone());
            changed.insert(key, now);
        }
        Ok(changed)
    }

    async fn write(&self, changed: HashMap<T::Key, Row<T::Total>>) -> Result<(), Error> {
        let table = &self.table;
        // Cassandra writes what a request has for one partition as one mutation.
        let mut rows: Rows<T> = changed.into_iter().collect();
        rows.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        stream::iter(table.groups(rows))
            .map(|rows| async move { table.write(&rows).await })
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
            runtime.block_on(self.load(&batch))?;
            let changed = self.fold(&batch)?;
            fail_points::crash_point("totals-before-write");
            runtime.block_on(self.write(changed))?;
            fail_points::crash_point("totals-after-write");
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
        self.offsets.forget();
    }

    // Rows don't tell which partition they are of, and reading one again is cheap.
    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.rows.clear();
        self.offsets.forget_partitions(partitions);
    }
}
