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
pub(crate) struct MemberQueues {
    busy: HashMap<Arc<str>, MemberQueue>,
    ready: BTreeMap<u64, Arc<Planned>>,
    queued: usize,
    look_ahead: usize,
}

#[derive(Debug)]
struct MemberQueue {
    head: Arc<Planned>,
    waiting: VecDeque<Arc<Planned>>,
}

impl MemberQueues {
    pub(crate) fn new(look_ahead: usize) -> Self {
        Self { busy: HashMap::new(), ready: BTreeMap::new(), queued: 0, look_ahead }
    }

    /// Whether another command may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.queued + self.ready.len() < self.look_ahead
    }

    /// Adds a command that was read. Its sequence number is higher than all before.
    pub(crate) fn offer(&mut self, planned: Planned) {
        let planned = Arc::new(planned);
        if let Some(queue) = self.busy.get_mut(&planned.command.member) {
            queue.waiting.push_back(planned);
            self.queued += 1;
            return;
        }
        let queue = MemberQueue { head: Arc::clone(&planned), waiting: VecDeque::new() };
        self.busy.insert(Arc::clone(&planned.command.member), queue);
        self.ready.insert(planned.sequence, planned);
    }

    /// The oldest command that may be sent now.
    pub(crate) fn take(&mut self) -> Option<Arc<Planned>> {
        self.ready.pop_first().map(|(_, planned)| planned)
    }

    /// The member's command in flight is complete: its next one may be sent.
    pub(crate) fn complete(&mut self, member: &str) {
        let Some(queue) = self.busy.get_mut(member) else {
            return;
        };
        match queue.waiting.pop_front() {
            Some(next) => {
                self.queued -= 1;
                queue.head = Arc::clone(&next);
                self.ready.insert(next.sequence, next);
            }
            None => {
                self.busy.remove(member);
            }
        }
    }

    /// The oldest command that is not complete, sent or not.
    pub(crate) fn oldest(&self) -> Option<&Planned> {
        self.busy.values().map(|queue| &*queue.head).min_by_key(|head| head.sequence)
    }

    /// The commands that were taken and are not complete yet, oldest first.
    pub(crate) fn in_flight(&self) -> Vec<Arc<Planned>> {
        let mut heads: Vec<_> = self
            .busy
            .values()
            .map(|queue| Arc::clone(&queue.head))
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

    fn offer(queues: &mut MemberQueues, sequence: u64, member: &str) {
        let command = Command {
            at: DateTime::UNIX_EPOCH,
            member: Arc::from(member),
            action: Action::Checkout,
            intended: Intended::Anything,
            reason: None,
        };
        queues.offer(Planned { sequence, line: Some(sequence + 1), command, due: None });
    }

    fn take(queues: &mut MemberQueues) -> Option<u64> {
        queues.take().map(|planned| planned.sequence)
    }

    #[test]
    fn a_member_waits_only_for_its_own_commands() {
        let mut queues = MemberQueues::new(10);
        for (sequence, member) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            offer(&mut queues, sequence, member);
        }
        assert_eq!((take(&mut queues), take(&mut queues), take(&mut queues)), (Some(1), Some(3), None));
        queues.complete("b");
        assert_eq!(take(&mut queues), None);
        assert_eq!(queues.oldest().map(|planned| planned.sequence), Some(1));
        queues.complete("a");
        assert_eq!(queues.oldest().map(|planned| planned.sequence), Some(2));
        assert_eq!((take(&mut queues), take(&mut queues)), (Some(2), None));
        assert_eq!(queues.in_flight().iter().map(|planned| planned.sequence).collect::<Vec<_>>(), [2]);
        queues.complete("a");
        assert_eq!(take(&mut queues), Some(4));
        queues.complete("a");
        assert!(queues.oldest().is_none());
        assert!(queues.busy.is_empty(), "a member without commands takes no memory");
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut queues = MemberQueues::new(10);
        for (sequence, member) in [(1, "a"), (2, "a"), (3, "b")] {
            offer(&mut queues, sequence, member);
        }
        assert_eq!(take(&mut queues), Some(1));
        queues.complete("a");
        assert_eq!((take(&mut queues), take(&mut queues)), (Some(2), Some(3)));
    }

    #[test]
    fn reading_ahead_is_bounded() {
        let mut queues = MemberQueues::new(2);
        for sequence in 1..=3 {
            assert!(queues.has_room());
            offer(&mut queues, sequence, "a");
            if sequence == 1 {
                assert_eq!(take(&mut queues), Some(1));
            }
        }
        assert!(!queues.has_room());
        queues.complete("a");
        assert_eq!(take(&mut queues), Some(2));
        assert!(queues.has_room());
    }
}
