//! How one member of a group follows the control topic.

use std::collections::{BTreeMap, BTreeSet};

use cart::{Control, ControlKey, ControlRecord};
use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use kafka::{Error, GroupConsumer};
use service::Readiness;

use crate::answers::Answers;
use crate::cuts::Cuts;
use crate::holds::{Holds, Wanted};
use crate::{Controls, Follower};

/// What is to change in a member's partitions, between two batches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Finish and commit what was read, then call [`MemberControl::pause`].
    pub pause: Vec<i32>,
    /// Go on where they are committed, with [`GroupConsumer::resume`] and a seek, then call [`MemberControl::resumed`].
    pub resume: Vec<i32>,
}

/// What operators want of the partitions of one member. For one thread; its calls block.
#[derive(Debug)]
pub struct MemberControl {
    follower: Follower,
    readiness: Readiness,
    /// Without the installation's prefix, as the topic below.
    group: String,
    /// The group under whose name skips are recorded: that of the first generation, so that all generations skip the same.
    skip_group: String,
    topic: String,
    /// The member's name in what it records.
    by: String,
    assigned: BTreeSet<i32>,
    /// Whether partitions were assigned after the control topic was read to its end.
    is_behind: bool,
    /// The version of the pauses in `holds`, and of `skips` and `stops`; `None` when they are to be looked up again.
    seen: Option<u64>,
    holds: Holds,
    skips: BTreeMap<(i32, i64), WantedSkip>,
    /// The offsets at which the control topic says that partitions are stopped.
    stops: BTreeMap<i32, i64>,
    cuts: Cuts,
    answers: Answers,
}

#[derive(Debug)]
struct WantedSkip {
    sha256: String,
    by: String,
    reason: String,
}

impl MemberControl {
    /// For a member of `group` that reads `topic`, both without the installation's prefix. `by` names it in what it records.
    #[must_use]
    pub fn new(follower: Follower, readiness: Readiness, group: &str, topic: &str, by: String) -> Self {
        Self::of_generation(follower, readiness, group, group, topic, by)
    }

    /// As [`MemberControl::new`], for a member whose group keeps a later generation of the read model of `skip_group`: it goes
    /// past the records that `skip_group` skips.
    #[must_use]
    pub fn of_generation(
        follower: Follower,
        readiness: Readiness,
        group: &str,
        skip_group: &str,
        topic: &str,
        by: String,
    ) -> Self {
        let answers = Answers::new(follower.topic().clone());
        Self {
            follower,
            readiness,
            group: group.to_owned(),
            skip_group: skip_group.to_owned(),
            topic: topic.to_owned(),
            by,
            assigned: BTreeSet::new(),
            is_behind: false,
            seen: None,
            holds: Holds::default(),
            skips: BTreeMap::new(),
            stops: BTreeMap::new(),
            cuts: Cuts::default(),
            answers,
        }
    }

    /// Partitions were assigned: reads the control topic to its end, and pauses those that are to be. Nothing of them may be
    /// applied before this has succeeded; after an error, [`MemberControl::changes`] repeats it.
    ///
    /// # Errors
    /// If the brokers or the registry do not respond.
    pub fn assigned(&mut self, consumer: &GroupConsumer, partitions: &[i32]) -> Result<(), Error> {
        self.assigned.extend(partitions);
        self.is_behind = true;
        for partition in partitions {
            self.forget(*partition);
            // librdkafka would go on pausing what was paused when it was revoked.
            consumer.resume(*partition)?;
        }
        self.catch_up(consumer)
    }

    /// Partitions were revoked: their next owner follows the control topic.
    pub fn revoked(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.assigned.remove(partition);
            self.forget(*partition);
        }
        self.seen = None;
        self.say();
    }

    fn forget(&mut self, partition: i32) {
        self.holds.forget(partition);
        self.answers.forget(&self.stopped_key(partition));
        self.answers.forget(&self.ack_key(partition));
    }

    fn stopped_key(&self, partition: i32) -> ControlKey {
        ControlKey::Stopped { group: self.group.clone(), partition }
    }

    fn ack_key(&self, partition: i32) -> ControlKey {
        ControlKey::Ack { group: self.group.clone(), partition }
    }

    fn catch_up(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        if fail_points::fails("assignment-fails") {
            return Err(Error::retry("reading the control topic", "a test lets it fail"));
        }
        if self.is_behind && !fail_points::is_off("guard-control") {
            self.follower.read_to_end()?;
        }
        self.is_behind = false;
        self.seen = None;
        self.look();
        // Before anything of them is read. Pauses before an offset come later: what was read before it may not be committed yet.
        for partition in self.holds.to_pause_at_once() {
            self.hold(consumer, partition)?;
        }
        Ok(())
    }

    fn look(&mut self) {
        let version = self.follower.version();
        if self.seen == Some(version) {
            return;
        }
        self.seen = Some(version);
        let (group, topic, assigned) = (&self.group, &self.topic, &self.assigned);
        let skip_group = &self.skip_group;
        let (wanted, skips, stops) = self.follower.with(|controls| {
            let wanted =
                assigned.iter().filter_map(|partition| Some((*partition, wanted(controls, group, *partition)?)));
            let skips = controls.skips().filter(|skip| skip.group == skip_group && skip.topic == topic).map(|skip| {
                let (by, reason) = (skip.entry.record.by.clone(), skip.entry.record.reason.clone());
                ((skip.partition, skip.offset), WantedSkip { sha256: skip.sha256.to_owned(), by, reason })
            });
            let stops =
                assigned.iter().filter_map(|partition| Some((*partition, controls.stop(group, *partition)?.offset)));
            (wanted.collect(), skips.collect(), stops.collect())
        });
        self.holds.want(wanted);
        (self.skips, self.stops) = (skips, stops);
        // A member has died while its partition was paused, and the operator has resumed it meanwhile.
        let is_stale = |partition: &&i32| self.holds.wanted(**partition).is_none() && !self.holds.is_held(**partition);
        for partition in self.assigned.iter().filter(is_stale) {
            if self.follower.with(|controls| controls.ack(&self.group, *partition).is_some()) {
                self.answers.later(self.ack_key(*partition), None);
            }
        }
    }

    /// What is to change now. Call it between two batches.
    ///
    /// # Errors
    /// If partitions were assigned, and the brokers or the registry do not respond: nothing may be applied then.
    pub fn changes(&mut self, consumer: &GroupConsumer) -> Result<Changes, Error> {
        if self.is_behind {
            self.catch_up(consumer)?;
        }
        self.look();
        for (partition, pause) in self.cuts.check(self.follower.topic().kafka(), consumer, &self.holds.open_cuts()) {
            self.holds.reach(partition, pause);
        }
        self.answers.write();
        Ok(Changes { pause: self.holds.to_pause(), resume: self.holds.to_resume() })
    }

    /// Partitions that [`MemberControl::changes`] wanted to be resumed are read again, from where they are committed. Until this is
    /// said, it names them again.
    pub fn resumed(&mut self, partitions: &[i32]) {
        for partition in partitions {
            if self.holds.resumed(*partition) {
                self.answers.later(self.ack_key(*partition), None);
                tracing::info!(group = self.group, partition, "a partition goes on");
            }
        }
        self.say();
    }

    /// Whether a record must not be applied: its partition is paused, or is to be paused in front of it. The record does not
    /// count as read.
    #[must_use]
    pub fn holds(&mut self, partition: i32, offset: i64) -> bool {
        self.is_behind || self.holds.holds(partition, offset)
    }

    /// Pauses partitions whose records are all committed, and records with which offset.
    ///
    /// # Errors
    /// If the brokers do not respond. They are paused then, and [`MemberControl::changes`] names them again.
    pub fn pause(&mut self, consumer: &GroupConsumer, partitions: &[i32]) -> Result<(), Error> {
        for partition in partitions {
            self.hold(consumer, *partition)?;
        }
        let committed = consumer.committed(partitions)?;
        for partition in partitions {
            let Some(wanted) = self.holds.wanted(*partition) else { continue };
            let next_offset = committed.get(partition).copied().flatten().unwrap_or_default();
            let (pause, reason) = (wanted.pause, wanted.reason.clone());
            let is_known = self.follower.with(|controls| {
                controls
                    .ack(&self.group, *partition)
                    .is_some_and(|ack| (ack.pause, ack.next_offset) == (pause, next_offset))
            });
            let key = self.ack_key(*partition);
            if is_known {
                self.answers.forget(&key);
            } else {
                let record = self.said(reason, Control::Paused { pause, next_offset });
                self.answers.now(&key, Some(&record))?;
            }
            self.holds.acked(*partition);
        }
        self.say();
        Ok(())
    }

    fn hold(&mut self, consumer: &GroupConsumer, partition: i32) -> Result<(), Error> {
        let Some(Wanted { by, reason, .. }) = self.holds.wanted(partition).cloned() else { return Ok(()) };
        consumer.pause(partition)?;
        if self.holds.hold(partition) {
            tracing::info!(group = self.group, partition, by, reason, "a partition is paused");
            self.say();
        }
        Ok(())
    }

    /// After the consumer was rewound or replaced: pauses again what is paused. `rewound` are the partitions that are read again from
    /// where they are committed; a record that was read before does not count as read.
    ///
    /// # Errors
    /// If a partition is not ours.
    pub fn hold_again(&mut self, consumer: &GroupConsumer, rewound: &[i32]) -> Result<(), Error> {
        self.holds.rewound(rewound);
        self.holds.held().try_for_each(|partition| consumer.pause(partition))
    }

    /// Whether the partition is paused.
    #[must_use]
    pub fn is_paused(&self, partition: i32) -> bool {
        self.holds.is_held(partition)
    }

    /// Whether this record is to be skipped: an operator wants that, and it has the expected hash. Returns who, and why.
    #[must_use]
    pub fn skips(&self, partition: i32, offset: i64, value: Option<&[u8]>) -> Option<(&str, &str)> {
        let skip = self.skips.get(&(partition, offset))?;
        let found = crate::sha256(value);
        if found != skip.sha256 {
            tracing::warn!(partition, offset, expected = skip.sha256, found, "a skip is for another record");
        }
        (found == skip.sha256).then_some((&skip.by, &skip.reason))
    }

    /// The records of a partition that are to be skipped if they have the expected hash: the offset and the hash of each.
    #[must_use]
    pub fn skipped(&self, partition: i32) -> BTreeMap<i64, String> {
        let of_partition = self.skips.range((partition, i64::MIN)..=(partition, i64::MAX));
        of_partition.map(|((_, offset), skip)| (*offset, skip.sha256.clone())).collect()
    }

    /// Whether the record at which a partition is stopped, with this hash, is to be skipped.
    #[must_use]
    pub fn skips_stopped(&self, partition: i32, offset: i64, sha256: &str) -> bool {
        self.skips.get(&(partition, offset)).is_some_and(|skip| skip.sha256 == sha256)
    }

    /// Records that a partition is stopped, for `cartctl status` and `cartctl skip`. If that fails, it is repeated later.
    pub fn stopped(&mut self, partition: i32, offset: i64, sha256: &str, reason: &str) {
        let is_known = self.follower.with(|controls| {
            let stop = controls.stop(&self.group, partition);
            stop.is_some_and(|stop| (stop.offset, stop.sha256, &*stop.entry.record.reason) == (offset, sha256, reason))
        });
        if !is_known {
            let record = self.said(reason.to_owned(), Control::Stopped { offset, sha256: sha256.to_owned() });
            self.answers.later(self.stopped_key(partition), Some(record));
            self.answers.write();
        }
    }

    /// Everything before these offsets is applied or skipped: partitions that were stopped before them are not any more.
    pub fn went_on(&mut self, next_offsets: impl IntoIterator<Item = (i32, i64)>) {
        for (partition, next) in next_offsets {
            if self.stops.get(&partition).is_some_and(|offset| *offset < next) {
                self.stops.remove(&partition);
                self.answers.later(self.stopped_key(partition), None);
            }
        }
    }

    fn said(&self, reason: String, control: Control) -> ControlRecord {
        // Avro has microseconds.
        let at = DateTime::<Utc>::from(fail_points::now()).trunc_subsecs(6);
        ControlRecord { by: self.by.clone(), at, reason, control }
    }

    /// Says in `/health/ready` what is paused.
    fn say(&self) {
        let lines = self.holds.pauses().into_iter().map(|(Wanted { by, at, reason, .. }, partitions)| {
            let partitions: Vec<String> = partitions.iter().map(i32::to_string).collect();
            let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!("partitions {} of {} are paused by {by} since {at}: {reason}", partitions.join(", "), self.topic)
        });
        let note = lines.collect::<Vec<_>>().join("; ");
        self.readiness.set_note(&self.by, (!note.is_empty()).then_some(note));
    }
}

fn wanted(controls: &Controls, group: &str, partition: i32) -> Option<Wanted> {
    let pause = controls.pause(group, partition)?;
    let ControlRecord { by, at, reason, .. } = &pause.entry.record;
    let (by, reason) = (by.clone(), reason.clone());
    Some(Wanted { pause: pause.entry.offset, before: pause.before, by, at: *at, reason })
}
