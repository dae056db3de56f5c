//! Which partitions of a member are paused, which are to be, and which are to be read again. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

/// A pause that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The offset of the pause on the control topic.
    pub(crate) pause: i64,
    pub(crate) before: Option<i64>,
    pub(crate) by: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) reason: String,
}

/// A pause, by its offset on the control topic, and the offset before which it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) pause: i64,
    pub(crate) before: i64,
}

/// A partition that is paused.
#[derive(Debug)]
struct Held {
    /// The pause that it was paused for.
    pause: i64,
    is_acked: bool,
}

/// The pauses of a member's partitions.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    wanted: BTreeMap<i32, Wanted>,
    held: BTreeMap<i32, Held>,
    /// Partitions of which records were dropped at a cut. Until they are paused, or read again from where they are committed, none of
    /// their records is applied.
    dropped: BTreeSet<i32>,
    /// The partitions that have reached their cut, with its pause. What is before the cut may not be committed yet.
    reached: BTreeMap<i32, i64>,
}

impl Holds {
    /// These pauses hold now, and no others.
    pub(crate) fn want(&mut self, wanted: BTreeMap<i32, Wanted>) {
        self.wanted = wanted;
    }

    pub(crate) fn wanted(&self, partition: i32) -> Option<&Wanted> {
        self.wanted.get(&partition)
    }

    pub(crate) fn is_held(&self, partition: i32) -> bool {
        self.held.contains_key(&partition)
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = i32> + '_ {
        self.held.keys().copied()
    }

    /// Forgets a partition that came or went.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.held.remove(&partition);
        self.dropped.remove(&partition);
        self.reached.remove(&partition);
    }

    /// Whether a partition is to be paused now: also when it is already.
    fn is_due(&self, partition: i32, wanted: &Wanted) -> bool {
        wanted.before.is_none() || self.reached.get(&partition) == Some(&wanted.pause)
    }

    /// The partitions that are to be paused, and for this pause are not yet or have not said so.
    pub(crate) fn to_pause(&self) -> Vec<i32> {
        let due = self.wanted.iter().filter(|(partition, wanted)| self.is_due(**partition, wanted));
        let is_new = |partition: &i32, wanted: &Wanted| {
            self.held.get(partition).is_none_or(|held| held.pause != wanted.pause || !held.is_acked)
        };
        due.filter(|(partition, wanted)| is_new(partition, wanted)).map(|(partition, _)| *partition).collect()
    }

    /// The partitions that are to be paused wherever they are, and are not paused yet. One with a cut is not among them: what is before
    /// its cut has to be committed first.
    pub(crate) fn to_pause_at_once(&self) -> Vec<i32> {
        let at_once = self.wanted.iter().filter(|(_, wanted)| wanted.before.is_none());
        at_once.map(|(partition, _)| *partition).filter(|partition| !self.is_held(*partition)).collect()
    }

    /// The partitions that are paused, or have dropped records, and are not to be paused. Until [`Holds::resumed`].
    pub(crate) fn to_resume(&self) -> Vec<i32> {
        let is_wanted =
            |partition: &i32| self.wanted.get(partition).is_some_and(|wanted| self.is_due(*partition, wanted));
        let kept: BTreeSet<i32> = self.held.keys().chain(&self.dropped).copied().collect();
        kept.into_iter().filter(|partition| !is_wanted(partition)).collect()
    }

    /// Whether a record must not be applied. It is dropped then.
    pub(crate) fn holds(&mut self, partition: i32, offset: i64) -> bool {
        // The pause may have ended since the first record was dropped: what comes behind that one would be applied without it.
        if self.is_held(partition) || self.dropped.contains(&partition) {
            return true;
        }
        let Some(wanted) = self.wanted.get(&partition) else { return false };
        if wanted.before.is_none_or(|before| offset < before) {
            return false;
        }
        self.reached.insert(partition, wanted.pause);
        self.dropped.insert(partition);
        true
    }

    /// A partition has nothing left before the offset of this pause.
    pub(crate) fn reach(&mut self, partition: i32, pause: i64) {
        self.reached.insert(partition, pause);
    }

    /// The offsets that pauses name and that are not reached yet.
    pub(crate) fn open_cuts(&self) -> BTreeMap<i32, Cut> {
        let open = self.wanted.iter().filter(|(partition, wanted)| !self.is_due(**partition, wanted));
        open.filter_map(|(partition, wanted)| Some((*partition, Cut { pause: wanted.pause, before: wanted.before? })))
            .collect()
    }

    /// A partition is paused for the pause that is wanted. Returns whether it was not before.
    pub(crate) fn hold(&mut self, partition: i32) -> bool {
        let Some(wanted) = self.wanted.get(&partition) else { return false };
        self.dropped.remove(&partition);
        self.held.insert(partition, Held { pause: wanted.pause, is_acked: false }).is_none()
    }

    /// The pause of a partition is recorded.
    pub(crate) fn acked(&mut self, partition: i32) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.is_acked = true;
        }
    }

    /// A partition is read again from where it is committed. Returns whether it was paused.
    pub(crate) fn resumed(&mut self, partition: i32) -> bool {
        self.dropped.remove(&partition);
        self.reached.remove(&partition);
        self.held.remove(&partition).is_some()
    }

    /// After a failure partitions are read again from where they are committed, which may be before their cut. Those that are paused stay
    /// paused.
    pub(crate) fn rewound(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.dropped.remove(partition);
            // A partition that is paused for its cut has committed what is before it.
            let held = self.held.get(partition).map(|held| held.pause);
            if self.reached.get(partition).copied() != held {
                self.reached.remove(partition);
            }
        }
    }

    /// The pauses for which partitions are paused, with these partitions.
    pub(crate) fn pauses(&self) -> Vec<(&Wanted, Vec<i32>)> {
        let mut pauses: BTreeMap<i64, (&Wanted, Vec<i32>)> = BTreeMap::new();
        for (partition, held) in &self.held {
            if let Some(wanted) = self.wanted.get(partition).filter(|wanted| wanted.pause == held.pause) {
                pauses.entry(held.pause).or_insert((wanted, Vec::new())).1.push(*partition);
            }
        }
        pauses.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTITION: i32 = 3;

    /// What happens next.
    #[derive(Debug, Clone)]
    enum Step {
        /// Records come.
        Append(i64),
        /// The member reads at most so many, and applies those that it may.
        Poll(usize),
        /// As `Poll`. Behind the first records another partition is assigned, so that the member looks what operators want.
        PollAroundAssignment(usize, usize),
        /// What is applied is committed.
        Commit,
        /// The member follows the control topic, as `follow_control` of a processor and of a projector.
        Follow,
        /// As `Follow`, and a broker does not answer when partitions are to go on.
        FollowAndFail,
        /// Something else fails: the member goes back to the committed offset.
        Rewind,
        /// An operator wants a pause before the record that comes after so many others.
        PauseAhead(i64),
        Pause,
        Resume,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..6_i64).prop_map(Step::Append),
            4 => (1..6_usize).prop_map(Step::Poll),
            4 => (0..6_usize, 0..6_usize).prop_map(|(first, then)| Step::PollAroundAssignment(first, then)),
            2 => Just(Step::Commit),
            4 => Just(Step::Follow),
            2 => Just(Step::FollowAndFail),
            1 => Just(Step::Rewind),
            3 => (0..8_i64).prop_map(Step::PauseAhead),
            1 => Just(Step::Pause),
            3 => Just(Step::Resume),
        ]
    }

    /// A member of one partition whose records are their offsets.
    #[derive(Debug, Default)]
    struct Member {
        holds: Holds,
        /// What the control topic says.
        controls: BTreeMap<i32, Wanted>,
        pauses: i64,
        end: i64,
        /// The offset that Kafka's client reads next, and whether it may.
        next: i64,
        is_paused: bool,
        applied: i64,
        committed: i64,
    }

    impl Member {
        fn pause(&mut self, before: Option<i64>) {
            self.pauses += 1;
            let (by, at, reason) = (String::from("ops"), DateTime::UNIX_EPOCH, String::from("a test"));
            self.controls.insert(PARTITION, Wanted { pause: self.pauses, before, by, at, reason });
        }

        fn poll(&mut self, len: usize) {
            for _ in 0..len {
                if self.is_paused || self.next == self.end {
                    return;
                }
                let offset = self.next;
                self.next += 1;
                if self.holds.holds(PARTITION, offset) {
                    continue;
                }
                assert_eq!(offset, self.applied, "a record was passed over, or comes again");
                let before = self.holds.wanted(PARTITION).and_then(|wanted| wanted.before);
                assert!(before.is_none_or(|before| offset < before), "{offset} is behind the cut {before:?}");
                self.applied += 1;
            }
        }

        /// As `MemberControl::assigned` of another partition.
        fn look(&mut self) {
            self.holds.want(self.controls.clone());
            for partition in self.holds.to_pause_at_once() {
                self.holds.hold(partition);
                self.is_paused = true;
            }
        }

        fn go_back(&mut self) {
            (self.next, self.applied) = (self.committed, self.committed);
        }

        fn follow(&mut self, fails: bool) {
            self.holds.want(self.controls.clone());
            for (partition, cut) in self.holds.open_cuts() {
                if self.committed >= cut.before {
                    self.holds.reach(partition, cut.pause);
                }
            }
            let (pause, resume) = (self.holds.to_pause(), self.holds.to_resume());
            if !pause.is_empty() {
                self.committed = self.applied;
                let before = self.holds.wanted(PARTITION).and_then(|wanted| wanted.before);
                let next = self.committed;
                assert!(before.is_none_or(|before| next >= before), "paused at {next}, in front of the cut {before:?}");
                self.holds.hold(PARTITION);
                self.is_paused = true;
                self.holds.acked(PARTITION);
            }
            if resume.is_empty() {
                return;
            }
            self.committed = self.applied;
            if fails {
                self.rewind();
                return;
            }
            self.is_paused = false;
            self.go_back();
            self.holds.resumed(PARTITION);
        }

        /// Kafka's client goes on pausing what is paused.
        fn rewind(&mut self) {
            self.go_back();
            self.holds.rewound(&[PARTITION]);
            self.is_paused |= self.holds.is_held(PARTITION);
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Append(len) => self.end += len,
                Step::Poll(len) => self.poll(*len),
                Step::PollAroundAssignment(first, then) => {
                    self.poll(*first);
                    self.look();
                    self.poll(*then);
                }
                Step::Commit => self.committed = self.applied,
                Step::Follow => self.follow(false),
                Step::FollowAndFail => self.follow(true),
                Step::Rewind => self.rewind(),
                Step::PauseAhead(len) => self.pause(Some(self.applied + len)),
                Step::Pause => self.pause(None),
                Step::Resume => self.controls.clear(),
            }
        }

        /// Follows the operators, and reads what there is.
        fn rest(&mut self) {
            for _ in 0..3 {
                self.follow(false);
                self.poll(1_000);
                self.committed = self.applied;
            }
            self.follow(false);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn each_record_is_applied_once_whatever_is_paused_resumed_and_fails(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut member = Member::default();
            steps.iter().for_each(|step| member.step(step));
            let wanted = member.controls.get(&PARTITION).map(|wanted| wanted.before);
            let applied = member.applied;
            member.rest();
            let expected = match wanted {
                None => member.end,
                Some(None) => applied,
                // A partition that is past the cut pauses where it is.
                Some(Some(before)) => applied.max(member.end.min(before)),
            };
            prop_assert_eq!(member.applied, expected);
            member.controls.clear();
            member.rest();
            prop_assert_eq!(member.applied, member.end, "all is applied once nothing is paused");
            prop_assert!(!member.is_paused);
        }
    }

    #[test]
    fn a_resume_that_fails_is_repeated() {
        let mut member = Member { end: 3, ..Member::default() };
        for step in [Step::Pause, Step::Follow, Step::Resume, Step::FollowAndFail] {
            member.step(&step);
        }
        assert_eq!(member.holds.to_resume(), [PARTITION], "until it is done");
        member.rest();
        assert_eq!(member.applied, 3);
    }

    #[test]
    fn records_that_were_dropped_at_a_cut_come_again_although_it_was_never_paused() {
        let mut member = Member { end: 5, ..Member::default() };
        for step in [Step::PauseAhead(2), Step::Follow, Step::Poll(5), Step::Resume, Step::Follow] {
            member.step(&step);
        }
        assert_eq!((member.applied, member.next), (2, 2));
        member.rest();
        assert_eq!(member.applied, 5);
    }

    #[test]
    fn records_behind_dropped_ones_are_dropped_when_the_pause_ends_while_they_are_read() {
        for then in [Step::Resume, Step::PauseAhead(20)] {
            let mut member = Member { end: 15, ..Member::default() };
            for step in [Step::PauseAhead(10), Step::Follow, then, Step::PollAroundAssignment(13, 2)] {
                member.step(&step);
            }
            assert_eq!((member.applied, member.next), (10, 15), "10 to 12 were dropped, so 13 must not be applied");
            member.step(&Step::Follow);
            assert_eq!((member.applied, member.next), (10, 10));
            member.rest();
            assert_eq!(member.applied, 15);
        }
    }

    #[test]
    fn a_cut_that_was_reached_before_a_failure_is_reached_again() {
        // The second time another partition is assigned when the cut is reached.
        for poll in [Step::Poll(20), Step::PollAroundAssignment(10, 10)] {
            let mut member = Member { end: 20, ..Member::default() };
            for step in [Step::PauseAhead(10), Step::Follow, Step::Poll(5), Step::Commit, poll, Step::Rewind] {
                member.step(&step);
            }
            assert_eq!((member.applied, member.next), (5, 5));
            member.step(&Step::Follow);
            assert!(!member.is_paused, "5 to 9 are not applied");
            member.rest();
            assert_eq!((member.applied, member.is_paused), (10, true));
        }
    }

    #[test]
    fn a_partition_that_is_paused_at_its_cut_stays_paused_after_a_failure() {
        let mut member = Member { end: 5, ..Member::default() };
        for step in [Step::PauseAhead(2), Step::Follow, Step::Poll(5), Step::Follow, Step::Rewind] {
            member.step(&step);
        }
        assert!(member.holds.to_resume().is_empty() && member.holds.to_pause().is_empty());
        member.rest();
        assert_eq!((member.applied, member.is_paused), (2, true));
    }
}
