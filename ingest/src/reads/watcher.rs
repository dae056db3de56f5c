//! Watching the progress of a consumer group.
//!
//! One thread per group queries the brokers for all waiting reads, and only while there are any. So a thousand waiting reads
//! cost the brokers as much as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kafka::{GroupProgress, KafkaArgs};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Pause between two queries. A stage itself takes some tens of milliseconds.
const QUERY_INTERVAL: Duration = Duration::from_millis(20);

/// Pause after a failed query: the brokers are unreachable, or a topic does not exist yet.
const FAILURE_PAUSE: Duration = Duration::from_millis(200);

/// After this many failed queries in a row, the next use new clients.
const CLIENT_FAILURES_MAX: u32 = 25;

/// What a group must have processed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// The record at this offset.
    Record(i64),
    /// Everything that is in the partition now.
    Everything,
}

/// The progress of a group at the last query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The group has processed the target.
    Done,
    /// The maximum number of records that are left, up to and including the target.
    Behind(i64),
    /// The target is behind the end of its partition.
    NoSuchRecord,
    /// The query failed.
    Unknown,
}

impl Seen {
    /// Whether a longer wait cannot change it.
    fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::NoSuchRecord)
    }
}

/// One group, on one topic.
#[derive(Debug)]
pub(super) struct Watcher {
    /// The group's name, without the installation's prefix.
    pub(super) group: String,
    // Unbounded: `Freshness` limits the number of waiting reads.
    requests: Sender<Waiting>,
}

/// One waiting read.
struct Waiting {
    partition: i32,
    target: Target,
    /// The offset behind the target, determined by the first query.
    until: Option<i64>,
    seen: watch::Sender<Seen>,
}

impl Watcher {
    /// Starts the thread; it connects at the first wait.
    pub(super) fn start(kafka: &KafkaArgs, group: String, topic: &str) -> std::io::Result<Self> {
        let (requests, incoming) = channel();
        let (kafka, full_group, topic) = (kafka.clone(), kafka.prefixed(&group), kafka.prefixed(topic));
        let connect = move || GroupProgress::new(&kafka, &full_group, &topic);
        std::thread::Builder::new().name(group.clone()).spawn(move || watch(&incoming, connect))?;
        Ok(Self { group, requests })
    }

    /// Waits until the group has processed the target, at most until the deadline.
    pub(super) async fn wait(&self, partition: i32, target: Target, deadline: Instant) -> Seen {
        let (seen, mut last_seen) = watch::channel(Seen::Unknown);
        // An error means that the thread has ended, and `seen` with it.
        drop(self.requests.send(Waiting { partition, target, until: None, seen }));
        let finished = async { last_seen.wait_for(Seen::is_final).await.map(|seen| *seen) };
        match timeout_at(deadline, finished).await {
            Ok(seen) => seen.unwrap_or(Seen::Unknown),
            Err(_) => *last_seen.borrow(),
        }
    }
}

/// The thread. Ends when the watcher is dropped.
fn watch(requests: &Receiver<Waiting>, connect: impl Fn() -> Result<GroupProgress, kafka::Error>) {
    let mut group: Option<Group> = None;
    let mut waiting = Vec::new();
    let mut failures = 0_u32;
    let mut logged = None;
    loop {
        if waiting.is_empty() {
            let Ok(first) = requests.recv() else { return };
            waiting.push(first);
        }
        waiting.extend(requests.try_iter());
        let queried = match &mut group {
            Some(group) => group.query(&mut waiting),
            None => connect().and_then(|progress| group.insert(Group::new(progress)).query(&mut waiting)),
        };
        if let Err(error) = queried {
            // Logged once per reason of an outage, not per query: a missing grant shows after a time-out.
            let error = format!("{:#}", anyhow::Error::new(error));
            if logged.as_ref() != Some(&error) {
                tracing::warn!(error, "the progress of a consumer group is unknown");
                logged = Some(error);
            }
            failures = failures.saturating_add(1);
            // The clients may have lost every broker for good.
            if failures.is_multiple_of(CLIENT_FAILURES_MAX)
                && let Some(group) = &mut group
                && let Ok(progress) = connect()
            {
                group.progress = progress;
            }
            for one in &waiting {
                one.seen.send_replace(Seen::Unknown);
            }
        } else {
            (failures, logged) = (0, None);
        }
        waiting.retain(|one| !one.seen.borrow().is_final() && !one.seen.is_closed());
        std::thread::sleep(if failures > 0 { FAILURE_PAUSE } else { QUERY_INTERVAL });
    }
}

struct Group {
    progress: GroupProgress,
    /// The first offset of each queried partition.
    starts: BTreeMap<i32, i64>,
    /// The first unread record of each partition at some query, and the committed offset at that time.
    unread: BTreeMap<i32, Unread>,
}

#[derive(Debug, Clone, Copy)]
struct Unread {
    from: i64,
    record: i64,
}

/// A partition at one query.
#[derive(Debug, Clone, Copy)]
struct Partition {
    /// The next offset of the group.
    next: i64,
    /// The first record from there on that a committed reader sees; `None` if there is none before `last_stable_offset`.
    first: Option<i64>,
    /// The last stable offset: the end, or the start of an open transaction. What is behind it may still be aborted.
    last_stable_offset: i64,
}

impl Group {
    fn new(progress: GroupProgress) -> Self {
        Self { progress, starts: BTreeMap::new(), unread: BTreeMap::new() }
    }

    /// Queries the progress of the group, and passes it to the waiting reads.
    fn query(&mut self, waiting: &mut [Waiting]) -> Result<(), kafka::Error> {
        self.find_targets(waiting)?;
        let partitions: BTreeSet<i32> = waiting.iter().map(|one| one.partition).collect();
        let committed = self.progress.committed(partitions.iter().copied())?;
        let next = |partition: i32| {
            let start = self.starts.get(&partition).copied().unwrap_or_default();
            committed.get(&partition).copied().unwrap_or_default().max(start)
        };
        let unfinished = waiting.iter().filter(|one| one.until.is_some_and(|until| next(one.partition) < until));
        let unfinished: BTreeMap<i32, i64> = unfinished.map(|one| (one.partition, next(one.partition))).collect();
        let partitions = self.partitions(&unfinished)?;
        for one in waiting {
            let Some(until) = one.until else { continue };
            let seen = partitions.get(&one.partition).map_or(Seen::Done, |partition| partition.seen(until));
            one.seen.send_replace(seen);
        }
        Ok(())
    }

    /// Determines the targets of new reads, once each: records that arrive later are not waited for.
    fn find_targets(&mut self, waiting: &mut [Waiting]) -> Result<(), kafka::Error> {
        let mut bounds = BTreeMap::new();
        for one in waiting.iter_mut().filter(|one| one.until.is_none()) {
            let (_, end) = match bounds.get(&one.partition) {
                Some(bounds) => *bounds,
                None => *bounds.entry(one.partition).or_insert(self.progress.bounds(one.partition)?),
            };
            match one.target {
                Target::Everything => one.until = Some(end),
                Target::Record(offset) if offset < end => one.until = Some(offset + 1),
                Target::Record(_) => {
                    one.seen.send_replace(Seen::NoSuchRecord);
                }
            }
        }
        self.starts.extend(bounds.into_iter().map(|(partition, (start, _))| (partition, start)));
        Ok(())
    }

    /// The state of the partitions in which the group has not reached all targets yet. `next` has its committed offsets.
    fn partitions(&mut self, next: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Partition>, kafka::Error> {
        // Until the group has passed a known record, that record is still the first.
        let is_first = |unread: &Unread, next: i64| (unread.from..=unread.record).contains(&next);
        self.unread.retain(|partition, unread| next.get(partition).is_none_or(|next| is_first(unread, *next)));
        let unqueried: BTreeMap<i32, i64> = next
            .iter()
            .filter(|(partition, _)| !self.unread.contains_key(partition))
            .map(|(partition, next)| (*partition, *next))
            .collect();
        // The ends before the records: a record that is missing before such an end will not appear later.
        let mut last_stable_offsets = BTreeMap::new();
        for partition in unqueried.keys() {
            last_stable_offsets.insert(*partition, self.progress.last_stable_offset(*partition)?);
        }
        if !unqueried.is_empty() {
            for (partition, first) in self.progress.first_records(&unqueried)? {
                self.unread.insert(partition, Unread { from: unqueried[&partition], record: first.offset });
            }
        }
        let state = |(partition, next): (&i32, &i64)| {
            let last_stable_offset = last_stable_offsets.get(partition).copied().unwrap_or_default();
            (
                *partition,
                Partition {
                    next: *next,
                    first: self.unread.get(partition).map(|unread| unread.record),
                    last_stable_offset,
                },
            )
        };
        Ok(next.iter().map(state).collect())
    }
}

impl Partition {
    /// Whether the group has processed everything before `until`.
    fn seen(&self, until: i64) -> Seen {
        // The markers of transactions occupy offsets that are never committed, so a group that has read everything stays
        // before the end. It is also done when no record is left and none can follow.
        let first = self.first.unwrap_or_else(|| self.next.max(self.last_stable_offset));
        if self.next >= until || first >= until { Seen::Done } else { Seen::Behind(until - first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(next: i64, first: Option<i64>, last_stable_offset: i64, until: i64) -> Seen {
        Partition { next, first, last_stable_offset }.seen(until)
    }

    #[test]
    fn a_group_is_done_when_no_record_is_left() {
        assert_eq!(seen(10, Some(12), 20, 10), Seen::Done, "committed");
        assert_eq!(seen(9, None, 10, 10), Seen::Done, "a marker is left");
        assert_eq!(seen(5, None, 11, 10), Seen::Done, "an aborted transaction and markers are left");
        assert_eq!(seen(9, Some(10), 20, 10), Seen::Done, "the first record left is not waited for");
        assert_eq!(seen(0, None, 0, 0), Seen::Done, "there was never anything");
    }

    #[test]
    fn a_group_is_behind_while_a_record_is_left_or_may_come() {
        assert_eq!(seen(7, Some(8), 20, 10), Seen::Behind(2), "8 and 9");
        assert_eq!(seen(7, None, 7, 10), Seen::Behind(3), "a transaction is open");
        assert_eq!(seen(7, None, 9, 10), Seen::Behind(1), "a transaction is open behind a marker");
        assert_eq!(seen(0, Some(0), 10, 10), Seen::Behind(10), "it never committed anything");
    }
}
