//! How one member of a group follows the control topic.

use std::collections::{BTreeMap, BTreeSet};

use cart::{Control, ControlKey, ControlRecord};
use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use kafka::{Error, GroupConsumer};
use service::Readiness;

use crate::answers::Answers;
use crate::cuts::{Cut, Cuts};
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
    topic: String,
    /// The member's name in what it records.
    by: String,
    assigned: BTreeSet<i32>,
    /// Whether partitions were assigned after the control topic was read to its end.
    is_behind: bool,
    /// The version of what is in `wanted`, `skips` and `stops`; `None` when they are to be looked up again.
    seen: Option<u64>,
    wanted: BTreeMap<i32, Wanted>,
    skips: BTreeMap<(i32, i64), WantedSkip>,
    /// The offsets at which the control topic says that partitions are stopped.
    stops: BTreeMap<i32, i64>,
    held: BTreeMap<i32, Held>,
    /// Partitions of which records were dropped in front of a cut: they are read again, if they are not paused there in the end.
    dropped: BTreeSet<i32>,
    cuts: Cuts,
    answers: Answers,
}

/// A pause that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// The offset of the pause on the control topic.
    pause: i64,
    before: Option<i64>,
    by: String,
    at: DateTime<Utc>,
    reason: String,
}

/// A partition that is paused.
#[derive(Debug)]
struct Held {
    /// The pause that it was paused for.
    pause: i64,
    is_acked: bool,
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
        let answers = Answers::new(follower.topic().clone());
        Self {
            follower,
            readiness,
            group: group.to_owned(),
            topic: topic.to_owned(),
            by,
            assigned: BTreeSet::new(),
            is_behind: false,
            seen: None,
            wanted: BTreeMap::new(),
            skips: BTreeMap::new(),
            stops: BTreeMap::new(),
            held: BTreeMap::new(),
            dropped: BTreeSet::new(),
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
        self.held.remove(&partition);
        self.dropped.remove(&partition);
        self.cuts.forget(partition);
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
        if self.is_behind && !fail_points::is_off("guard-control") {
            self.follower.read_to_end()?;
        }
        self.is_behind = false;
        self.seen = None;
        self.look();
        // Before anything of them is read. What has to be committed first are other partitions' records.
        for partition in self.to_pause() {
            if !self.held.contains_key(&partition) {
                self.hold(consumer, partition)?;
            }
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
        (self.wanted, self.skips, self.stops) = self.follower.with(|controls| {
            let wanted =
                assigned.iter().filter_map(|partition| Some((*partition, wanted(controls, group, *partition)?)));
            let skips = controls.skips().filter(|skip| skip.group == group && skip.topic == topic).map(|skip| {
                let (by, reason) = (skip.entry.record.by.clone(), skip.entry.record.reason.clone());
                ((skip.partition, skip.offset), WantedSkip { sha256: skip.sha256.to_owned(), by, reason })
            });
            let stops =
                assigned.iter().filter_map(|partition| Some((*partition, controls.stop(group, *partition)?.offset)));
            (wanted.collect(), skips.collect(), stops.collect())
        });
        // A member has died while its partition was paused, and the operator has resumed it meanwhile.
        let is_stale = |partition: &&i32| !self.wanted.contains_key(partition) && !self.held.contains_key(partition);
        for partition in self.assigned.iter().filter(is_stale) {
            if self.follower.with(|controls| controls.ack(&self.group, *partition).is_some()) {
                self.answers.later(self.ack_key(*partition), None);
            }
        }
    }

    /// Whether a partition is to be paused now: also when it is already.
    fn is_due(&self, partition: i32, wanted: &Wanted) -> bool {
        wanted.before.is_none() || self.cuts.is_reached(partition, wanted.pause)
    }

    /// The partitions that are to be paused, and for this pause are not yet or have not said so.
    fn to_pause(&self) -> Vec<i32> {
        let due = self.wanted.iter().filter(|(partition, wanted)| self.is_due(**partition, wanted));
        let is_new = |partition: &i32, wanted: &Wanted| {
            self.held.get(partition).is_none_or(|held| held.pause != wanted.pause || !held.is_acked)
        };
        due.filter(|(partition, wanted)| is_new(partition, wanted)).map(|(partition, _)| *partition).collect()
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
        self.cuts.check(self.follower.topic().kafka(), consumer, &self.open_cuts());
        self.answers.write();
        let is_wanted =
            |partition: &i32| self.wanted.get(partition).is_some_and(|wanted| self.is_due(*partition, wanted));
        let kept: BTreeSet<i32> = self.held.keys().chain(&self.dropped).copied().collect();
        let resume: Vec<i32> = kept.into_iter().filter(|partition| !is_wanted(partition)).collect();
        Ok(Changes { pause: self.to_pause(), resume })
    }

    /// Partitions that [`MemberControl::changes`] wanted to be resumed are read again, from where they are committed. Until this is
    /// said, it names them again.
    pub fn resumed(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.dropped.remove(partition);
            if self.held.remove(partition).is_some() {
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
        if self.is_behind || self.held.contains_key(&partition) {
            return true;
        }
        let Some(wanted) = self.wanted.get(&partition) else { return false };
        if wanted.before.is_none_or(|before| offset < before) {
            return false;
        }
        self.cuts.reach(partition, wanted.pause);
        self.dropped.insert(partition);
        true
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
            let Some(wanted) = self.wanted.get(partition) else { continue };
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
            if let Some(held) = self.held.get_mut(partition) {
                held.is_acked = true;
            }
        }
        self.say();
        Ok(())
    }

    fn hold(&mut self, consumer: &GroupConsumer, partition: i32) -> Result<(), Error> {
        let Some(wanted) = self.wanted.get(&partition) else { return Ok(()) };
        consumer.pause(partition)?;
        let held = Held { pause: wanted.pause, is_acked: false };
        self.dropped.remove(&partition);
        let is_new = self.held.insert(partition, held).is_none();
        if is_new {
            let Wanted { by, reason, .. } = wanted;
            tracing::info!(group = self.group, partition, by, reason, "a partition is paused");
            self.say();
        }
        Ok(())
    }

    /// Pauses again what is paused, after the consumer was rewound or replaced.
    ///
    /// # Errors
    /// If a partition is not ours.
    pub fn hold_again(&self, consumer: &GroupConsumer) -> Result<(), Error> {
        self.held.keys().try_for_each(|partition| consumer.pause(*partition))
    }

    /// Whether the partition is paused.
    #[must_use]
    pub fn is_paused(&self, partition: i32) -> bool {
        self.held.contains_key(&partition)
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

    /// The offsets that pauses name and that are not reached yet.
    fn open_cuts(&self) -> BTreeMap<i32, Cut> {
        let open = self.wanted.iter().filter(|(partition, wanted)| !self.is_due(**partition, wanted));
        open.filter_map(|(partition, wanted)| Some((*partition, Cut { pause: wanted.pause, before: wanted.before? })))
            .collect()
    }

    fn said(&self, reason: String, control: Control) -> ControlRecord {
        // Avro has microseconds.
        let at = DateTime::<Utc>::from(fail_points::now()).trunc_subsecs(6);
        ControlRecord { by: self.by.clone(), at, reason, control }
    }

    /// Says in `/health/ready` what is paused.
    fn say(&self) {
        let mut pauses: BTreeMap<i64, (&Wanted, Vec<String>)> = BTreeMap::new();
        for (partition, held) in &self.held {
            if let Some(wanted) = self.wanted.get(partition).filter(|wanted| wanted.pause == held.pause) {
                pauses.entry(held.pause).or_insert((wanted, Vec::new())).1.push(partition.to_string());
            }
        }
        let lines = pauses.into_values().map(|(Wanted { by, at, reason, .. }, partitions)| {
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
