//! Commits that keep a distance: each costs about the same, however much it commits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka::GroupConsumer;

/// When the next commit is due. The first after a pause is due at once.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    last_at: Option<Instant>,
}

impl Pace {
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, last_at: None }
    }

    /// How long until the next commit is due.
    pub(crate) fn due_in(&self) -> Duration {
        self.last_at.map_or(Duration::ZERO, |last_at| self.interval.saturating_sub(last_at.elapsed()))
    }

    /// A commit starts now.
    pub(crate) fn start(&mut self) {
        self.last_at = Some(Instant::now());
    }
}

/// From one commit of applied offsets to the next. `Read-After` and an audit wait for these commits. With every batch
/// committed they were a tenth of Kafka's requests at ordinary load.
const OFFSETS_INTERVAL: Duration = Duration::from_millis(200);

/// Offsets of records that are in the read table, to be committed to Kafka.
///
/// They may be committed late or never: the read table knows which records it includes, and ignores those that it reads
/// again.
#[derive(Debug)]
pub(crate) struct AppliedOffsets {
    next: BTreeMap<i32, i64>,
    pace: Pace,
}

impl AppliedOffsets {
    pub(crate) fn new() -> Self {
        Self { next: BTreeMap::new(), pace: Pace::every(OFFSETS_INTERVAL) }
    }

    pub(crate) fn add(&mut self, next_offsets: BTreeMap<i32, i64>) {
        self.next.extend(next_offsets);
    }

    /// How long until a commit is due; `None` while there is nothing to commit.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        (!self.next.is_empty()).then(|| self.pace.due_in())
    }

    /// Commits when that is due; whether it was.
    pub(crate) fn commit_if_due(&mut self, consumer: &GroupConsumer) -> Result<bool, kafka::Error> {
        let is_due = self.due_in().is_some_and(|wait| wait.is_zero());
        if is_due {
            self.commit(consumer)?;
        }
        Ok(is_due)
    }

    /// Commits now. What could not be committed waits for the next time.
    pub(crate) fn commit(&mut self, consumer: &GroupConsumer) -> Result<(), kafka::Error> {
        if self.next.is_empty() {
            return Ok(());
        }
        self.pace.start();
        let next = self.next.iter().map(|(partition, offset)| (*partition, *offset));
        consumer.commit(&consumer.offsets(next)?)?;
        self.next.clear();
        Ok(())
    }

    pub(crate) fn forget(&mut self) {
        self.next.clear();
    }

    /// Drops offsets of revoked partitions. The next owner applies their records again, which changes nothing.
    pub(crate) fn forget_partitions(&mut self, partitions: &[i32]) {
        self.next.retain(|partition, _| !partitions.contains(partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_commit_is_due_at_once_and_the_next_after_the_interval() {
        let mut pace = Pace::every(Duration::from_secs(3_600));
        assert_eq!(pace.due_in(), Duration::ZERO);
        pace.start();
        assert!(pace.due_in() > Duration::from_secs(3_500));
        let mut pace = Pace::every(Duration::ZERO);
        pace.start();
        assert_eq!(pace.due_in(), Duration::ZERO);
    }

    #[test]
    fn offsets_of_revoked_partitions_are_not_committed() {
        let mut offsets = AppliedOffsets::new();
        assert_eq!(offsets.due_in(), None);
        offsets.add(BTreeMap::from([(1, 10), (2, 20)]));
        offsets.add(BTreeMap::from([(1, 11)]));
        assert_eq!(offsets.due_in(), Some(Duration::ZERO));
        offsets.forget_partitions(&[2]);
        assert_eq!(offsets.next, BTreeMap::from([(1, 11)]));
        offsets.forget();
        assert_eq!(offsets.due_in(), None);
    }
}
