//! How far consumer groups are behind, from the records that this process has read itself: committed records, so that the
//! markers of transactions and aborted records do not count.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

/// The records of a partition that are kept. A group that is further behind is behind by at least so many.
const KEPT_MAX: usize = 100_000;

/// The read records of a topic that some group has not processed yet.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    partitions: BTreeMap<i32, Partition>,
    /// Whether all records that were there at the start have been read.
    is_complete: bool,
    /// The records that have been read.
    read: usize,
}

#[derive(Debug, Default)]
struct Partition {
    /// Offset and time of each record.
    records: VecDeque<(i64, i64)>,
    /// Records before this offset are not known.
    from: i64,
}

/// How far a group is behind in a topic or partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lag {
    /// Records that it has not processed.
    pub(crate) behind: usize,
    /// The age of the oldest of them.
    pub(crate) oldest_waiting_ms: i64,
    /// Whether there may be more, and older ones.
    pub(crate) is_least: bool,
}

/// How many records a group has not processed, however many are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Behind {
    pub(crate) records: usize,
    /// Whether there may be fewer: before the records that are kept, offsets are counted, and markers of transactions have some too.
    pub(crate) is_most: bool,
}

impl Backlog {
    /// Starts at these offsets, by partition. What is known of later records stays.
    pub(crate) fn start(&mut self, starts: &BTreeMap<i32, i64>) {
        self.is_complete = false;
        for (partition, from) in starts {
            let known = self.partitions.entry(*partition).or_insert(Partition { from: *from, ..Partition::default() });
            let next = known.records.back().map_or(known.from, |(offset, _)| offset + 1);
            if *from > next {
                // There is a gap: what was before it is not known any more.
                *known = Partition { from: *from, ..Partition::default() };
            }
        }
    }

    /// Notes that the reader has reached the end.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Notes a record, unless it was read before: a reader that failed begins again at an earlier record.
    pub(crate) fn add(&mut self, partition: i32, offset: i64, at_ms: i64) {
        let known = self.partitions.entry(partition).or_default();
        let newest = known.records.back().map(|(newest, _)| *newest);
        if offset < known.from || newest.is_some_and(|newest| offset <= newest) {
            return;
        }
        if known.records.len() == KEPT_MAX
            && let Some((oldest, _)) = known.records.pop_front()
        {
            known.from = oldest + 1;
        }
        known.records.push_back((offset, at_ms));
        self.read += 1;
    }

    /// The records that have been read, since the process began.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    /// Drops the records that all groups have processed; `committed` has their next offsets.
    pub(crate) fn trim<'a>(&mut self, committed: impl Iterator<Item = &'a BTreeMap<i32, i64>> + Clone) {
        for (partition, known) in &mut self.partitions {
            let least = committed.clone().map(|next| next.get(partition).copied().unwrap_or_default()).min();
            while let (Some((offset, _)), Some(least)) = (known.records.front().copied(), least) {
                if offset >= least {
                    break;
                }
                known.records.pop_front();
                known.from = offset + 1;
            }
        }
    }

    /// How far a group with these next offsets is behind; `None` while the topic is still being read.
    pub(crate) fn lag(&self, committed: &BTreeMap<i32, i64>, now_ms: i64) -> Option<Lag> {
        let sum = |sum: Lag, (_, one): (i32, Lag)| Lag {
            behind: sum.behind + one.behind,
            oldest_waiting_ms: sum.oldest_waiting_ms.max(one.oldest_waiting_ms),
            is_least: sum.is_least || one.is_least,
        };
        self.lags(committed, now_ms).map(|lags| lags.fold(Lag::default(), sum))
    }

    /// The same by partition.
    pub(crate) fn lags(&self, committed: &BTreeMap<i32, i64>, now_ms: i64) -> Option<impl Iterator<Item = (i32, Lag)>> {
        let lag = move |(partition, known): (&i32, &Partition)| {
            let next = committed.get(partition).copied().unwrap_or_default();
            let first = known.records.partition_point(|(offset, _)| *offset < next);
            let oldest = known.records.get(first).map_or(0, |(_, at_ms)| (now_ms - at_ms).max(0));
            // The group may have committed an offset that only a marker had.
            let is_least = next < known.from && known.records.front().is_some_and(|_| first == 0);
            (*partition, Lag { behind: known.records.len() - first, oldest_waiting_ms: oldest, is_least })
        };
        self.is_complete.then(|| self.partitions.iter().map(lag))
    }

    /// How far a group with these next offsets is behind that may be far behind all others; `None` while the topic is still being read.
    pub(crate) fn behind(&self, committed: &BTreeMap<i32, i64>) -> Option<Behind> {
        let add = |sum: Behind, (partition, known): (&i32, &Partition)| {
            let next = committed.get(partition).copied().unwrap_or_default();
            let kept = known.records.len() - known.records.partition_point(|(offset, _)| *offset < next);
            // Negative, and so none, where the group is past them.
            let before = usize::try_from(known.from - next).unwrap_or_default();
            Behind { records: sum.records + kept + before, is_most: sum.is_most || before > 0 }
        };
        self.is_complete.then(|| self.partitions.iter().fold(Behind::default(), add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(offset: i64) -> BTreeMap<i32, i64> {
        BTreeMap::from([(0, offset)])
    }

    fn read(offsets: &[i64]) -> Backlog {
        let mut backlog = Backlog::default();
        backlog.start(&next(offsets[0]));
        for offset in offsets {
            backlog.add(0, *offset, 1_000 * offset);
        }
        backlog.complete();
        backlog
    }

    #[test]
    fn only_records_count_and_not_what_lies_between_them() {
        // Offset 12 and 15 are the markers of transactions.
        let backlog = read(&[10, 11, 13, 14]);
        let lag = |offset| backlog.lag(&next(offset), 20_000).expect("complete");
        assert_eq!(lag(11), Lag { behind: 3, oldest_waiting_ms: 9_000, is_least: false });
        assert_eq!(lag(12), Lag { behind: 2, oldest_waiting_ms: 7_000, is_least: false });
        assert_eq!(lag(15), Lag::default());
        let one = Lag { behind: 1, oldest_waiting_ms: 6_000, is_least: false };
        assert!(backlog.lags(&next(14), 20_000).expect("complete").eq([(0, one)]));
    }

    #[test]
    fn a_group_that_is_behind_what_was_read_is_behind_by_at_least_that() {
        let backlog = read(&[10, 11]);
        assert_eq!(backlog.lag(&next(3), 20_000), Some(Lag { behind: 2, oldest_waiting_ms: 10_000, is_least: true }));
        assert_eq!(backlog.lag(&BTreeMap::new(), 20_000).map(|lag| lag.is_least), Some(true));
    }

    #[test]
    fn a_group_that_is_far_behind_is_behind_by_at_most_the_offsets() {
        // Offset 12 is the marker of a transaction.
        let backlog = read(&[10, 11, 13]);
        let behind = |offset| backlog.behind(&next(offset)).expect("complete");
        assert_eq!(behind(11), Behind { records: 2, is_most: false });
        assert_eq!(behind(12), Behind { records: 1, is_most: false });
        assert_eq!(behind(14), Behind::default());
        assert_eq!(behind(3), Behind { records: 10, is_most: true });
        assert_eq!(backlog.behind(&BTreeMap::new()), Some(Behind { records: 13, is_most: true }));
        assert_eq!(Backlog::default().behind(&next(0)), None, "it is still being read");
    }

    #[test]
    fn records_that_all_groups_have_processed_are_dropped() {
        let mut backlog = read(&[10, 11, 13, 14]);
        let (slow, fast) = (next(11), next(15));
        backlog.trim([&slow, &fast].into_iter());
        assert_eq!(backlog.partitions[&0].records.len(), 3);
        assert_eq!(backlog.lag(&slow, 0).map(|lag| (lag.behind, lag.is_least)), Some((3, false)));
    }

    #[test]
    fn is_unknown_until_the_end_was_reached_and_after_a_gap() {
        let mut backlog = read(&[10, 11]);
        backlog.start(&next(12));
        assert_eq!(backlog.lag(&next(12), 0), None);
        backlog.complete();
        assert_eq!(backlog.lag(&next(11), 20_000).map(|lag| lag.behind), Some(1));
        backlog.start(&next(50));
        backlog.add(0, 50, 0);
        backlog.complete();
        assert_eq!(backlog.lag(&next(11), 20_000).map(|lag| (lag.behind, lag.is_least)), Some((1, true)));
    }

    #[test]
    fn a_record_that_is_read_again_counts_once() {
        let mut backlog = read(&[10, 11, 13, 14]);
        let lag = |backlog: &Backlog| backlog.lag(&next(11), 20_000).map(|lag| lag.behind);
        backlog.trim([&next(11)].into_iter());
        backlog.start(&next(10));
        for offset in [10, 11, 13, 14] {
            backlog.add(0, offset, 0);
        }
        backlog.complete();
        assert_eq!((lag(&backlog), backlog.read()), (Some(3), 4));
        backlog.add(0, 15, 15_000);
        assert_eq!((lag(&backlog), backlog.read()), (Some(4), 5));
    }

    #[test]
    fn memory_is_bounded() {
        let mut backlog = Backlog::default();
        backlog.start(&next(0));
        for offset in 0..=i64::try_from(KEPT_MAX).expect("small") {
            backlog.add(0, offset, 0);
        }
        backlog.complete();
        let lag = backlog.lag(&next(0), 0);
        assert_eq!(lag.map(|lag| (lag.behind, lag.is_least)), Some((KEPT_MAX, true)));
    }
}
