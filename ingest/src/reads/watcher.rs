//! Watching how far a consumer group is, for all who wait for it.
//!
//! One thread a group asks the brokers, once for everybody and only while somebody waits. So a thousand who wait cost the
//! brokers what one costs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kafka::{GroupProgress, KafkaArgs};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Between two looks. A stage takes some tens of milliseconds itself.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// After a look that failed: the brokers are away, or a topic is not there yet.
const FAILURE_PAUSE: Duration = Duration::from_millis(200);

/// After so many looks in a row that failed, the next are through new clients.
const CLIENT_FAILURES_MAX: u32 = 25;

/// What a group is to have done with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// The record at this offset.
    Record(i64),
    /// All that is in the partition now.
    Everything,
}

/// How far a group was at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has done with the target.
    Done,
    /// At most so many records are left, the target's included.
    Behind(i64),
    /// The target is behind the end of its partition.
    NoSuchRecord,
    /// That could not be found out.
    Unknown,
}

impl Seen {
    /// Whether waiting on changes nothing.
    fn is_settled(&self) -> bool {
        matches!(self, Self::Done | Self::NoSuchRecord)
    }
}

/// One group, on one topic.
#[derive(Debug)]
pub(super) struct Watcher {
    /// The group's name, without the installation's prefix.
    pub(super) group: &'static str,
    // No limit of its own: who waits is counted where waiting begins.
    requests: Sender<Waiting>,
}

/// Somebody who waits.
struct Waiting {
    partition: i32,
    target: Target,
    /// The offset behind the target, found out at the first look.
    until: Option<i64>,
    seen: watch::Sender<Seen>,
}

impl Watcher {
    /// Starts the thread; it connects when somebody waits.
    pub(super) fn start(kafka: &KafkaArgs, group: &'static str, topic: &str) -> std::io::Result<Self> {
        let (requests, incoming) = channel();
        let (kafka, full_group, topic) = (kafka.clone(), kafka.prefixed(group), kafka.prefixed(topic));
        let connect = move || GroupProgress::new(&kafka, &full_group, &topic);
        std::thread::Builder::new().name(group.to_owned()).spawn(move || watch(&incoming, connect))?;
        Ok(Self { group, requests })
    }

    /// Waits until the group has done with the target, at most until the deadline. Never [`Seen::Done`] without cause.
    pub(super) async fn wait(&self, partition: i32, target: Target, deadline: Instant) -> Seen {
        let (seen, mut last_seen) = watch::channel(Seen::Unknown);
        // An error means that the thread is gone, and then `seen` is too.
        drop(self.requests.send(Waiting { partition, target, until: None, seen }));
        let settled = async { last_seen.wait_for(Seen::is_settled).await.map(|seen| *seen) };
        match timeout_at(deadline, settled).await {
            Ok(settled) => settled.unwrap_or(Seen::Unknown),
            Err(_) => *last_seen.borrow(),
        }
    }
}

/// The thread. Ends when the watcher is dropped.
fn watch(requests: &Receiver<Waiting>, connect: impl Fn() -> Result<GroupProgress, kafka::Error>) {
    let mut group: Option<Group> = None;
    let mut waiting = Vec::new();
    let mut failures = 0_u32;
    loop {
        if waiting.is_empty() {
            let Ok(first) = requests.recv() else { return };
            waiting.push(first);
        }
        waiting.extend(requests.try_iter());
        let looked = match &mut group {
            Some(group) => group.look(&mut waiting),
            None => connect().and_then(|progress| group.insert(Group::new(progress)).look(&mut waiting)),
        };
        if let Err(error) = looked {
            // Once for each time that it begins, not for each look.
            if failures == 0 {
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the progress of a consumer group is unknown"
                );
            }
            failures = failures.saturating_add(1);
            // These may be clients that have lost every broker for good.
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
            failures = 0;
        }
        waiting.retain(|one| !one.seen.borrow().is_settled() && !one.seen.is_closed());
        std::thread::sleep(if failures > 0 { FAILURE_PAUSE } else { LOOK_INTERVAL });
    }
}

struct Group {
    progress: GroupProgress,
    /// The first offset of each partition that was asked about.
    starts: BTreeMap<i32, i64>,
    /// The first record that was left in each partition at some look, and where the group went on then.
    unread: BTreeMap<i32, Unread>,
}

#[derive(Debug, Clone, Copy)]
struct Unread {
    from: i64,
    record: i64,
}

/// A partition at one look.
#[derive(Debug, Clone, Copy)]
struct Partition {
    /// Where the group goes on.
    next: i64,
    /// The first record from there on that readers get to see; none where there is none before `settled_end`.
    first: Option<i64>,
    /// The end, or where an open transaction begins: behind it nobody knows yet what there is.
    settled_end: i64,
}

impl Group {
    fn new(progress: GroupProgress) -> Self {
        Self { progress, starts: BTreeMap::new(), unread: BTreeMap::new() }
    }

    /// Finds out how far the group is, and tells those who wait.
    fn look(&mut self, waiting: &mut [Waiting]) -> Result<(), kafka::Error> {
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

    /// Finds out up to where those who are new have to wait: once each, so what comes later is not waited for.
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

    /// Looks at partitions in which the group has not come to all the ends yet, by where it goes on.
    fn partitions(&mut self, next: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Partition>, kafka::Error> {
        // While the group has not come past a record that was seen, that one is still the first.
        let is_first = |unread: &Unread, next: i64| (unread.from..=unread.record).contains(&next);
        self.unread.retain(|partition, unread| next.get(partition).is_none_or(|next| is_first(unread, *next)));
        let unlooked: BTreeMap<i32, i64> = next
            .iter()
            .filter(|(partition, _)| !self.unread.contains_key(partition))
            .map(|(partition, next)| (*partition, *next))
            .collect();
        // The ends before the records: what is found missing up to an end is missing for good.
        let mut settled_ends = BTreeMap::new();
        for partition in unlooked.keys() {
            settled_ends.insert(*partition, self.progress.settled_end(*partition)?);
        }
        if !unlooked.is_empty() {
            for (partition, record) in self.progress.first_records(&unlooked)? {
                self.unread.insert(partition, Unread { from: unlooked[&partition], record });
            }
        }
        let look = |(partition, next): (&i32, &i64)| {
            let settled_end = settled_ends.get(partition).copied().unwrap_or_default();
            (
                *partition,
                Partition { next: *next, first: self.unread.get(partition).map(|unread| unread.record), settled_end },
            )
        };
        Ok(next.iter().map(look).collect())
    }
}

impl Partition {
    /// Whether the group has done with everything before `until`.
    fn seen(&self, until: i64) -> Seen {
        // A transaction's markers take offsets, and nobody commits them: a group that has read all there is stays before
        // the end. So it is done as well when no record is left, and none can come.
        let first = self.first.unwrap_or_else(|| self.next.max(self.settled_end));
        if self.next >= until || first >= until { Seen::Done } else { Seen::Behind(until - first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(next: i64, first: Option<i64>, settled_end: i64, until: i64) -> Seen {
        Partition { next, first, settled_end }.seen(until)
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
