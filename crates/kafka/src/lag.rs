//! How far a member is behind in each of its partitions: exactly nothing, when nothing is left.
//!
//! The end of a partition minus a committed offset does not show that: transactions' markers and aborted records have offsets
//! too, so at the end of an idle partition the difference stays above 0 for ever. librdkafka reports the end itself
//! (`enable.partition.eof`), behind the last committed record and whatever follows it. A partition has nothing left when the end
//! was read after the last record, and every record that was read is applied.
//!
//! "Applied" means durable: the rows are written, or the transaction is committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use rdkafka::statistics::Topic;
use service::{Gauge, Sample};

use crate::metrics::{
    ASSIGNED_PARTITIONS, LAG_RECORDS, LAG_SECONDS, PARTITION_PAUSED, PARTITION_STOPPED, POSITION, TOPIC_PARTITIONS,
};

/// Records that were sent within so many milliseconds share one age: what is kept of a backlog is small.
const AGE_STEP_MS: u64 = 100;

/// The members of this process.
static MEMBERS: Mutex<Vec<Weak<MemberLag>>> = Mutex::new(Vec::new());

/// What one member knows of its partitions.
#[derive(Debug)]
pub(crate) struct MemberLag {
    group: String,
    topic: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<i32, PartitionLag>,
    /// All partitions of the topic; none before librdkafka's first report.
    topic_partitions: Option<usize>,
}

/// A partition of a member.
#[derive(Debug, Default)]
struct PartitionLag {
    /// The next offset to apply, once it is known.
    position: Option<i64>,
    /// Behind the last record that was read.
    read: Option<i64>,
    /// Offset and time of records that were read and are not applied, [`AGE_STEP_MS`] apart. The first may be applied already,
    /// while records of its time are not.
    waiting: VecDeque<(i64, i64)>,
    /// Whether the end was read after the last record.
    is_at_end: bool,
    is_stopped: bool,
    is_paused: bool,
    /// The last stable offset, and the next to fetch, at librdkafka's last report.
    end: i64,
    next_fetched: i64,
}

impl PartitionLag {
    fn read(&mut self, offset: i64, sent_at_ms: i64) {
        self.is_at_end = false;
        self.position.get_or_insert(offset);
        self.read = self.read.max(Some(offset + 1));
        let is_far = |other: &(i64, i64)| other.1.abs_diff(sent_at_ms) >= AGE_STEP_MS;
        match (self.waiting.front(), self.waiting.back()) {
            // Read again from further back than before.
            (Some((first, _)), _) if offset < *first => self.waiting.push_front((offset, sent_at_ms)),
            (_, Some(last)) if offset <= last.0 || !is_far(last) => {}
            _ => self.waiting.push_back((offset, sent_at_ms)),
        }
    }

    /// Everything before `next` is applied.
    fn applied(&mut self, next: i64) {
        self.position = Some(next);
        if !self.has_waiting() {
            self.waiting.clear();
        }
        while self.waiting.get(1).is_some_and(|(offset, _)| *offset <= next) {
            self.waiting.pop_front();
        }
    }

    /// Goes on at `next`, or at an offset that is not known. What was read behind it is read again, and waits meanwhile.
    fn seek(&mut self, next: Option<i64>) {
        self.is_at_end = false;
        match next {
            Some(next) => self.applied(next),
            None => self.position = None,
        }
    }

    /// Whether a record was read that is not applied.
    fn has_waiting(&self) -> bool {
        self.read > self.position
    }

    /// Where it goes on; unknown until a record or the end was read.
    fn next(&self) -> Option<i64> {
        self.position.or(self.is_at_end.then_some(self.next_fetched))
    }

    fn records(&self) -> Option<i64> {
        let next = self.next()?;
        if self.is_at_end && !self.has_waiting() {
            return Some(0);
        }
        Some((self.end.max(self.read.unwrap_or_default()) - next).max(1))
    }

    fn oldest_ms(&self) -> Option<i64> {
        self.has_waiting().then(|| self.waiting.front().map(|(_, sent_at_ms)| *sent_at_ms))?
    }
}

impl MemberLag {
    pub(crate) fn new(group: &str, topic: &str) -> Arc<Self> {
        let new = Arc::new(Self { group: group.to_owned(), topic: topic.to_owned(), state: Mutex::default() });
        let mut members = MEMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(&new));
        new
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a partition, if it is still ours.
    fn change(&self, partition: i32, change: impl FnOnce(&mut PartitionLag)) {
        if let Some(lag) = self.state().partitions.get_mut(&partition) {
            change(lag);
        }
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn assigned(&self, partitions: &[i32]) {
        self.state().partitions.extend(partitions.iter().map(|partition| (*partition, PartitionLag::default())));
    }

    pub(crate) fn revoked(&self, partitions: &[i32]) {
        self.state().partitions.retain(|partition, _| !partitions.contains(partition));
    }

    /// The member was replaced, and may see no revocation.
    pub(crate) fn close(&self) {
        *self.state() = State::default();
    }

    pub(crate) fn read(&self, partition: i32, offset: i64, sent_at_ms: i64) {
        self.change(partition, |lag| lag.read(offset, sent_at_ms));
    }

    pub(crate) fn at_end(&self, partition: i32) {
        self.change(partition, |lag| lag.is_at_end = true);
    }

    pub(crate) fn applied(&self, next_offsets: impl IntoIterator<Item = (i32, i64)>) {
        for (partition, next) in next_offsets {
            self.change(partition, |lag| lag.applied(next));
        }
    }

    pub(crate) fn seek(&self, partition: i32, next: Option<i64>) {
        self.change(partition, |lag| lag.seek(next));
    }

    pub(crate) fn stopped(&self, partition: i32, is_stopped: bool) {
        self.change(partition, |lag| lag.is_stopped = is_stopped);
    }

    pub(crate) fn paused(&self, partition: i32, is_paused: bool) {
        self.change(partition, |lag| lag.is_paused = is_paused);
    }

    /// Takes over librdkafka's report about the topic.
    pub(crate) fn report(&self, topic: &Topic) {
        let mut state = self.state();
        // librdkafka has one more, numbered -1, for records without a partition.
        state.topic_partitions = Some(topic.partitions.keys().filter(|partition| **partition >= 0).count());
        for report in topic.partitions.values() {
            if let Some(lag) = state.partitions.get_mut(&report.partition) {
                (lag.end, lag.next_fetched) = (report.ls_offset.max(lag.end), report.next_offset);
            }
        }
    }
}

/// How far the members of this process are, for [`service::Metrics`].
#[must_use]
pub fn collect_lag() -> Vec<Sample> {
    let members: Vec<_> = {
        let members = MEMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().filter_map(Weak::upgrade).collect()
    };
    let now = fail_points::now();
    let mut samples = Vec::new();
    let mut topics: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for member in members {
        let state = member.state();
        let (assigned, all) = topics.entry((member.group.clone(), member.topic.clone())).or_default();
        *assigned += state.partitions.len();
        *all = state.topic_partitions.unwrap_or_default().max(*all);
        for (partition, lag) in &state.partitions {
            let labels = vec![member.group.clone(), member.topic.clone(), partition.to_string()];
            let mut add = |gauge, value| samples.push(Sample { gauge, labels: labels.clone(), value });
            add(&PARTITION_STOPPED, f64::from(u8::from(lag.is_stopped)));
            add(&PARTITION_PAUSED, f64::from(u8::from(lag.is_paused)));
            let (Some(position), Some(records)) = (lag.next(), lag.records()) else { continue };
            add(&POSITION, number(position));
            add(&LAG_RECORDS, number(records));
            let sent_at = lag.oldest_ms().and_then(|ms| u64::try_from(ms).ok());
            let age = sent_at.map(|ms| now.duration_since(UNIX_EPOCH + Duration::from_millis(ms)).unwrap_or_default());
            add(&LAG_SECONDS, age.unwrap_or_default().as_secs_f64());
        }
    }
    for ((group, topic), (assigned, all)) in topics {
        let mut add = |gauge: &'static Gauge, count: usize| {
            let value = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            samples.push(Sample { gauge, labels: vec![group.clone(), topic.clone()], value });
        };
        add(&ASSIGNED_PARTITIONS, assigned);
        if all > 0 {
            add(&TOPIC_PARTITIONS, all);
        }
    }
    samples
}

/// Exact up to 2^53.
fn number(offset: i64) -> f64 {
    offset as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_only_when_the_end_was_read_and_all_is_applied() {
        let mut lag = PartitionLag::default();
        assert_eq!((lag.next(), lag.records()), (None, None), "nothing is known yet");
        (lag.end, lag.next_fetched) = (100, 100);
        lag.is_at_end = true;
        assert_eq!((lag.next(), lag.records()), (Some(100), Some(0)), "nothing was there");
        lag.read(100, 5_000);
        lag.read(101, 5_010);
        assert_eq!((lag.next(), lag.records(), lag.oldest_ms()), (Some(100), Some(2), Some(5_000)));
        lag.applied(102);
        assert_eq!((lag.records(), lag.oldest_ms()), (Some(1), None), "there may be more");
        // A marker is at 102, and the committed offset stays below it.
        (lag.end, lag.is_at_end) = (103, true);
        assert_eq!((lag.next(), lag.records()), (Some(102), Some(0)));
    }

    #[test]
    fn the_oldest_that_waits_is_known_to_the_step() {
        let mut lag = PartitionLag::default();
        for (offset, sent_at_ms) in [(10, 1_000), (11, 1_050), (12, 1_150), (13, 1_160), (14, 2_000)] {
            lag.read(offset, sent_at_ms);
        }
        assert_eq!(lag.waiting.len(), 3);
        for (next, oldest_ms) in [(11, 1_000), (12, 1_150), (13, 1_150), (14, 2_000)] {
            lag.applied(next);
            assert_eq!(lag.oldest_ms(), Some(oldest_ms), "{next}");
        }
        lag.applied(15);
        assert_eq!((lag.oldest_ms(), lag.waiting.len()), (None, 0));
    }

    #[test]
    fn what_is_read_again_waits_since_it_was_read_first() {
        let mut lag = PartitionLag::default();
        for offset in 10..20 {
            lag.read(offset, 1_000 * offset);
        }
        lag.is_at_end = true;
        lag.applied(12);
        // Its transaction is committed, which the member learns from the offsets.
        lag.seek(Some(15));
        assert_eq!((lag.records(), lag.oldest_ms()), (Some(5), Some(15_000)));
        lag.read(15, 15_000);
        assert_eq!((lag.waiting.len(), lag.oldest_ms()), (5, Some(15_000)));
        // The offsets are an older backup's.
        lag.seek(Some(3));
        lag.read(3, 3_000);
        assert_eq!((lag.records(), lag.oldest_ms()), (Some(17), Some(3_000)));
        lag.applied(20);
        assert_eq!((lag.records(), lag.oldest_ms()), (Some(1), None), "the end was not read since");
    }
}
