//! The order of sending: one command of a member at a time, members independent of each other.
//!
//! Reading ahead of a busy member lets the others go on; how far is bounded, so memory is too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::command::Command;

/// A command with its place in the source.
#[derive(Debug)]
pub(crate) struct Planned {
    /// From 1, as read.
    pub(crate) sequence: u64,
    /// Where its file has it.
    pub(crate) line: Option<u64>,
    /// What to send.
    pub(crate) command: Command,
    /// When it should be sent (open loop); latency counts from then.
    pub(crate) due: Option<Instant>,
}

/// All members that have something in flight or waiting.
#[derive(Debug)]
pub(crate) struct Lanes {
    busy: HashMap<Arc<str>, Lane>,
    ready: BTreeMap<u64, Arc<Planned>>,
    queued: usize,
    look_ahead: usize,
}

#[derive(Debug)]
struct Lane {
    head: Arc<Planned>,
    queue: VecDeque<Arc<Planned>>,
}

impl Lanes {
    pub(crate) fn new(look_ahead: usize) -> Self {
        Self { busy: HashMap::new(), ready: BTreeMap::new(), queued: 0, look_ahead }
    }

    /// Whether another command may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.queued + self.ready.len() < self.look_ahead
    }

    /// Takes a command that was read, later than all before it.
    pub(crate) fn offer(&mut self, planned: Planned) {
        let planned = Arc::new(planned);
        if let Some(lane) = self.busy.get_mut(&planned.command.member) {
            lane.queue.push_back(planned);
            self.queued += 1;
            return;
        }
        let lane = Lane { head: Arc::clone(&planned), queue: VecDeque::new() };
        self.busy.insert(Arc::clone(&planned.command.member), lane);
        self.ready.insert(planned.sequence, planned);
    }

    /// The oldest command that may be sent now.
    pub(crate) fn take(&mut self) -> Option<Arc<Planned>> {
        self.ready.pop_first().map(|(_, planned)| planned)
    }

    /// The member's command in flight is settled: its next one may be sent.
    pub(crate) fn settle(&mut self, member: &str) {
        let Some(lane) = self.busy.get_mut(member) else {
            return;
        };
        match lane.queue.pop_front() {
            Some(next) => {
                self.queued -= 1;
                lane.head = Arc::clone(&next);
                self.ready.insert(next.sequence, next);
            }
            None => {
                self.busy.remove(member);
            }
        }
    }

    /// The oldest command that is not settled, sent or not.
    pub(crate) fn oldest(&self) -> Option<&Planned> {
        self.busy.values().map(|lane| &*lane.head).min_by_key(|head| head.sequence)
    }

    /// What was taken and is not settled yet, oldest first.
    pub(crate) fn in_flight(&self) -> Vec<Arc<Planned>> {
        let mut heads: Vec<_> = self
            .busy
            .values()
            .map(|lane| Arc::clone(&lane.head))
            .filter(|head| !self.ready.contains_key(&head.sequence))
            .collect();
        heads.sort_by_key(|head| head.sequence);
        heads
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::replay::command::{Action, Intended};

    fn offer(lanes: &mut Lanes, sequence: u64, member: &str) {
        let command = Command {
            at: DateTime::UNIX_EPOCH,
            member: Arc::from(member),
            action: Action::Checkout,
            intended: Intended::Anything,
            reason: None,
        };
        lanes.offer(Planned { sequence, line: Some(sequence + 1), command, due: None });
    }

    fn take(lanes: &mut Lanes) -> Option<u64> {
        lanes.take().map(|planned| planned.sequence)
    }

    #[test]
    fn a_busy_member_holds_only_itself_back() {
        let mut lanes = Lanes::new(10);
        for (sequence, member) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            offer(&mut lanes, sequence, member);
        }
        assert_eq!((take(&mut lanes), take(&mut lanes), take(&mut lanes)), (Some(1), Some(3), None));
        lanes.settle("b");
        assert_eq!(take(&mut lanes), None);
        assert_eq!(lanes.oldest().map(|planned| planned.sequence), Some(1));
        lanes.settle("a");
        assert_eq!(lanes.oldest().map(|planned| planned.sequence), Some(2));
        assert_eq!((take(&mut lanes), take(&mut lanes)), (Some(2), None));
        assert_eq!(lanes.in_flight().iter().map(|planned| planned.sequence).collect::<Vec<_>>(), [2]);
        lanes.settle("a");
        assert_eq!(take(&mut lanes), Some(4));
        lanes.settle("a");
        assert!(lanes.oldest().is_none());
        assert!(lanes.busy.is_empty(), "a member without commands takes no memory");
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut lanes = Lanes::new(10);
        for (sequence, member) in [(1, "a"), (2, "a"), (3, "b")] {
            offer(&mut lanes, sequence, member);
        }
        assert_eq!(take(&mut lanes), Some(1));
        lanes.settle("a");
        assert_eq!((take(&mut lanes), take(&mut lanes)), (Some(2), Some(3)));
    }

    #[test]
    fn reading_ahead_is_bounded() {
        let mut lanes = Lanes::new(2);
        for sequence in 1..=3 {
            assert!(lanes.has_room());
            offer(&mut lanes, sequence, "a");
            if sequence == 1 {
                assert_eq!(take(&mut lanes), Some(1));
            }
        }
        assert!(!lanes.has_room());
        lanes.settle("a");
        assert_eq!(take(&mut lanes), Some(2));
        assert!(lanes.has_room());
    }
}
