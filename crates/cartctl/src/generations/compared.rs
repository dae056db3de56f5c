//! A comparison that is brought up to date by reading only the rows that have changed since.
//!
//! While both groups stand still, [`Compared::follow_to_end`] finds what reading both tables whole again would find. A projector writes
//! a row only for a record of that row. Let `from` be, of a partition, the lower one of the two offsets that the groups had come to when
//! the rows were read, and `to` the log's end now. Then:
//!
//! 1. The rows of all records from `from` to `to` are read again, after the groups' offsets, as a whole reading would read them.
//! 2. Another row has no record from `from` to `to`. When it was read it included all its records before `from`, and there are none
//!    behind `to`. So nothing was added to it since, and a whole reading would find it as it is known.
//! 3. A parked row lacks records, and gets them later without a new one. So rows that were parked, and those that are by now, are read again.
//!    A row that is parked later than the markers are read has all records before the offset that its group has committed.
//!
//! The groups' offsets are no such `to`: a member that has died has written rows of records that its group has not committed.
//! [`Compared::follow`] ends at the furthest of them nevertheless, since the log has no end while it is written to. What it passes over,
//! the next one reads: that begins at the lower offset of this one.
//!
//! This does not hold where a table was emptied meanwhile, which is seen by its group's offset going back, and it cannot be done where the
//! log does not have these records any more. Then both fail, and the tables are to be read whole.
//!
//! Which row a record belongs to says this program. A generation whose projector adds a record to another row instead leaves this one
//! short, which is found. One that adds it to another row as well has done so with earlier records, which the first comparison has
//! found. Only one that begins to do so within the records since is not found.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{bail, ensure};
use cart::contract::{Contract as _, ReadModel};
use cart::{Generation, PurchasedItem};
use kafka::{GroupProgress, KafkaArgs};
use tokio::task::block_in_place;

use super::compare::{Comparison, compare, compare_rows};
use super::log::{Range, changes};
use super::reading::Reading;
use super::report::Diff;
use super::rows::{Changes, ParkedByKey, Row, RowKey, Rows};
use super::store::ModelStore;
use crate::ListedRow;

/// Most rows that are read one by one. Reading the tables whole does not take longer.
const ROWS_MAX: usize = 100_000;

/// Two generations, compared.
pub(super) struct Compared {
    model: ReadModel,
    generations: [Generation; 2],
    partitions: i32,
    tables: [Rows; 2],
    /// By partition: from the offset up to which both tables are complete, to that of the row that is furthest.
    ranges: BTreeMap<i32, Range>,
    /// The purchases of each row in these ranges.
    changes: Changes,
    rolled_forward: u64,
    comparison: Comparison,
}

/// What was read again.
struct Update {
    keys: BTreeSet<RowKey>,
    /// By generation, as in [`Rows`].
    next: [BTreeMap<i32, i64>; 2],
    parked: [ParkedByKey; 2],
    rows: [HashMap<RowKey, Row>; 2],
    ranges: BTreeMap<i32, Range>,
    changes: Changes,
}

impl Compared {
    /// Reads both tables whole.
    pub(super) async fn whole(
        store: &ModelStore,
        kafka: &KafkaArgs,
        generations: [Generation; 2],
    ) -> anyhow::Result<Self> {
        let mut reading = Reading::begin(store).await?;
        let mut tables = [Rows::default(), Rows::default()];
        for (table, generation) in tables.iter_mut().zip(generations) {
            let next = reading.next(generation).await?;
            let parked = reading.parked(generation).await?;
            *table = Rows { rows: reading.all_rows(generation, &parked).await?, next, parked };
        }
        reading.end().await?;
        let partitions = store.identity.partitions;
        let ranges = ranges(tables.each_ref(), partitions);
        let (changes, rolled_forward) = changes(kafka, store.model, &ranges).await?;
        Ok(Self::of(store.model, generations, partitions, tables, ranges, changes, rolled_forward))
    }

    fn of(
        model: ReadModel,
        generations: [Generation; 2],
        partitions: i32,
        tables: [Rows; 2],
        ranges: BTreeMap<i32, Range>,
        changes: Changes,
        rolled_forward: u64,
    ) -> Self {
        let comparison = compare(tables.each_ref(), &changes, |key| partition_of(key, partitions));
        Self { model, generations, partitions, tables, ranges, changes, rolled_forward, comparison }
    }

    /// Compares the rows again that records since then belong to, while both groups go on. Returns how many. After an error it is as it
    /// was before.
    pub(super) async fn follow(&mut self, store: &ModelStore, kafka: &KafkaArgs) -> anyhow::Result<usize> {
        self.follow_to(store, kafka, &BTreeMap::new()).await
    }

    /// As [`Compared::follow`], while both groups stand still: of all records that the log has. Those behind the groups' offsets are what
    /// has come since the groups stand still, and what members that have died had not committed.
    pub(super) async fn follow_to_end(&mut self, store: &ModelStore, kafka: &KafkaArgs) -> anyhow::Result<usize> {
        let ends = block_in_place(|| ends(store, kafka, self.generations[0]))?;
        self.follow_to(store, kafka, &ends).await
    }

    /// `ends`: offsets by partition up to which records count, however far the groups are.
    async fn follow_to(
        &mut self,
        store: &ModelStore,
        kafka: &KafkaArgs,
        ends: &BTreeMap<i32, i64>,
    ) -> anyhow::Result<usize> {
        let mut reading = Reading::begin(store).await?;
        let [first, second] = self.generations;
        let next = [reading.next(first).await?, reading.next(second).await?];
        if let Some((partition, generation)) = self.went_back(&next) {
            let group = self.model.group_name(generation);
            bail!("{group} has gone back in partition {partition}: its table was emptied");
        }
        let parked = [reading.parked(first).await?, reading.parked(second).await?];
        let mut ranges = self.since(&next, ends);
        let (mut changes, _) = changes(kafka, self.model, &ranges).await?;
        let keys: BTreeSet<RowKey> = changes.keys().copied().chain(self.were_or_are(&parked)).collect();
        ensure!(keys.len() <= ROWS_MAX, "{} rows have changed since, more than {ROWS_MAX}", keys.len());
        let [of_first, of_second] = &parked;
        let rows = [reading.rows(first, &keys, of_first).await?, reading.rows(second, &keys, of_second).await?];
        reading.end().await?;
        let ahead = self.ahead(&ranges, &rows);
        for (key, more) in self::changes(kafka, self.model, &ahead).await?.0 {
            changes.entry(key).or_default().extend(more);
        }
        for (partition, range) in &mut ranges {
            range.to = ahead.get(partition).map_or(range.to, |ahead| ahead.to);
        }
        let count = keys.len();
        self.update(Update { keys, next, parked, rows, ranges, changes });
        Ok(count)
    }

    /// A partition in which a group is further back than before.
    fn went_back(&self, next: &[BTreeMap<i32, i64>; 2]) -> Option<(i32, Generation)> {
        self.tables.iter().zip(next).zip(self.generations).find_map(|((table, next), generation)| {
            let is_back = |(partition, next): &(&i32, &i64)| **next < table.next_in(**partition);
            next.iter().find(is_back).map(|(partition, _)| (*partition, generation))
        })
    }

    /// The rows that were parked when they were read, and those that are by now.
    fn were_or_are(&self, parked: &[ParkedByKey; 2]) -> Vec<RowKey> {
        self.tables.iter().map(|table| &table.parked).chain(parked).flat_map(BTreeMap::keys).copied().collect()
    }

    /// What rows may include by now that they did not include when they were read, or not both of them.
    fn since(&self, next: &[BTreeMap<i32, i64>; 2], ends: &BTreeMap<i32, i64>) -> BTreeMap<i32, Range> {
        let furthest =
            |partition: &i32| next.iter().chain([ends]).filter_map(|next| next.get(partition).copied()).max();
        let since = |(partition, Range { from, to }): (&i32, &Range)| {
            let to = furthest(partition).map_or(*to, |next| next.max(*to));
            (*partition, Range { from: *from, to })
        };
        self.ranges.iter().map(since).collect()
    }

    /// What rows that were read again include behind these ranges.
    fn ahead(&self, ranges: &BTreeMap<i32, Range>, rows: &[HashMap<RowKey, Row>; 2]) -> BTreeMap<i32, Range> {
        let mut ahead: BTreeMap<i32, Range> =
            ranges.iter().map(|(partition, range)| (*partition, Range { from: range.to, to: range.to })).collect();
        for (key, row) in rows.iter().flatten() {
            if let Some(range) = ahead.get_mut(&partition_of(key, self.partitions)) {
                range.to = range.to.max(row.next);
            }
        }
        ahead
    }

    fn update(&mut self, update: Update) {
        let Update { keys, next, parked, rows, ranges, changes } = update;
        let partitions = self.partitions;
        let partition_of = |key: &RowKey| partition_of(key, partitions);
        let before = compare_rows(&keys, self.tables.each_ref(), &self.changes, partition_of);
        for (((table, next), parked), mut rows) in self.tables.iter_mut().zip(next).zip(parked).zip(rows) {
            (table.next, table.parked) = (next, parked);
            for key in &keys {
                match rows.remove(key) {
                    Some(row) => drop(table.rows.insert(*key, row)),
                    None => drop(table.rows.remove(key)),
                }
            }
        }
        let now = compare_rows(&keys, self.tables.each_ref(), &changes, partition_of);
        self.rolled_forward = now.added.iter().flat_map(BTreeMap::values).sum();
        self.comparison.replace(&keys, &before, now);
        let [first, second] = &self.tables;
        let from = |partition| first.next_in(partition).min(second.next_in(partition));
        let range = |(partition, Range { to, .. })| (partition, Range { from: from(partition), to });
        self.ranges = ranges.into_iter().map(range).collect();
        self.changes = changes;
    }

    /// How many rows were compared.
    pub(super) fn rows(&self) -> u64 {
        self.comparison.equal + u64::try_from(self.comparison.differences.len()).unwrap_or_default()
    }

    pub(super) fn diff(&self) -> Diff {
        let parked = self.generations.iter().zip(&self.tables).flat_map(|(generation, table)| {
            let group = self.model.group_name(*generation);
            table.parked.values().map(move |row| ListedRow::of(&group, row))
        });
        let diff = Diff::new(self.model, self.generations, &self.comparison, self.rolled_forward);
        Diff { parked: parked.collect(), ..diff }
    }
}

/// The partition that a row's records are in.
fn partition_of(key: &RowKey, partitions: i32) -> i32 {
    kafka::partition_of(key.vendor().to_string().as_bytes(), partitions)
}

/// The log's end in each partition: no table has a record behind it.
fn ends(store: &ModelStore, kafka: &KafkaArgs, generation: Generation) -> Result<BTreeMap<i32, i64>, kafka::Error> {
    let (group, topic) = (store.model.group_name(generation), PurchasedItem::TOPIC);
    let progress = GroupProgress::new(kafka, &kafka.prefixed(&group), &kafka.prefixed(topic))?;
    (0..store.identity.partitions).map(|partition| Ok((partition, progress.last_stable_offset(partition)?))).collect()
}

/// From the offset up to which both tables are complete, to that of the row that is furthest.
fn ranges(tables: [&Rows; 2], partitions: i32) -> BTreeMap<i32, Range> {
    let range = |partition| {
        let [first, second] = tables.map(|table| table.next_in(partition));
        (partition, Range { from: first.min(second), to: first.max(second) })
    };
    let mut ranges: BTreeMap<i32, Range> = (0..partitions).map(range).collect();
    for (key, row) in tables.iter().flat_map(|table| &table.rows) {
        if let Some(range) = ranges.get_mut(&partition_of(key, partitions)) {
            range.to = range.to.max(row.next);
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
