//! A pause.

use cart::ControlKey;
use kafka::{Error, GroupProgress};

use super::group::{Group, PartitionCut};
use crate::{ControlTopic, Controls};

/// A pause that an operator wants: of a group, of one of its partitions, or of partitions before an offset each.
#[derive(Debug, Clone, Copy)]
pub struct PauseRequest<'a> {
    pub group: &'a Group,
    /// Only this partition.
    pub partition: Option<i32>,
    /// Only these partitions, each before its offset. Not together with `partition`.
    pub cuts: &'a [PartitionCut],
}

/// A pause that is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPause {
    pub key: ControlKey,
    /// What is before this offset is still applied; `None`: nothing more is.
    pub before: Option<i64>,
    /// The partitions that it is for.
    pub partitions: Vec<i32>,
}

impl PauseRequest<'_> {
    /// Why it is refused; `None`: it is not. `count` is the number of the topic's partitions. Blocks.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn refusal(&self, control: &ControlTopic, controls: &Controls, count: i32) -> Result<Option<String>, Error> {
        let Group { name, stage } = self.group;
        if let Some(reason) = self.contradiction(controls, count) {
            return Ok(Some(reason));
        }
        if self.cuts.is_empty() {
            return Ok(None);
        }
        let kafka = control.kafka();
        let (group, topic) = (kafka.prefixed(name), kafka.prefixed(stage.topic));
        let committed = GroupProgress::new(kafka, &group, &topic)?.committed(self.named())?;
        let past = self.cuts.iter().find_map(|PartitionCut { partition, offset }| {
            committed.get(partition).filter(|next| *next > offset).map(|next| (partition, offset, next))
        });
        Ok(past.map(|(partition, offset, next)| {
            format!("partition {partition} of {name} has applied offset {offset}: it goes on at {next}")
        }))
    }

    fn named(&self) -> impl Iterator<Item = i32> {
        self.cuts.iter().map(|cut| cut.partition).chain(self.partition)
    }

    /// Why what is recorded forbids it.
    fn contradiction(&self, controls: &Controls, count: i32) -> Option<String> {
        let Group { name, stage } = self.group;
        if let Some(partition) = self.named().find(|partition| *partition >= count) {
            return Some(format!("topic {} has partitions 0 to {}, not {partition}", stage.topic, count - 1));
        }
        self.named().next()?;
        let pause = controls.pause_of_group(name)?;
        Some(format!("{name} is paused as a whole by {}: resume it first", pause.entry.record.by))
    }

    /// The pauses that are to be recorded.
    #[must_use]
    pub fn wanted(&self, count: i32) -> Vec<WantedPause> {
        let group = || self.group.name.clone();
        let of = |partition, before| WantedPause {
            key: ControlKey::PausePartition { group: group(), partition },
            before,
            partitions: vec![partition],
        };
        match self.partition {
            Some(partition) => vec![of(partition, None)],
            None if self.cuts.is_empty() => {
                let key = ControlKey::PauseGroup { group: group() };
                vec![WantedPause { key, before: None, partitions: (0..count).collect() }]
            }
            None => self.cuts.iter().map(|cut| of(cut.partition, Some(cut.offset))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use cart::{Control, ControlRecord};

    use super::*;

    #[test]
    fn a_partition_is_one_of_the_topic_and_not_of_a_group_that_is_paused_as_a_whole() {
        let group: Group = "vendor-billing".parse().expect("a group");
        let contradiction = |partition, controls: &Controls| {
            PauseRequest { group: &group, partition, cuts: &[] }.contradiction(controls, 4)
        };
        let mut controls = Controls::default();
        assert_eq!((contradiction(None, &controls), contradiction(Some(3), &controls)), (None, None));
        let text = contradiction(Some(4), &controls).expect("there is no partition 4");
        assert_eq!(text, "topic item-purchased has partitions 0 to 3, not 4");
        let (by, reason) = (String::from("ops"), String::from("a test"));
        let control = Control::Pause { before_offset: None };
        let record = ControlRecord { by, at: chrono::DateTime::UNIX_EPOCH, reason, control };
        controls.apply(0, "pause/vendor-billing".parse().expect("a key"), Some(record));
        assert_eq!(contradiction(None, &controls), None, "the last record holds");
        let text = contradiction(Some(3), &controls).expect("it is paused as a whole");
        assert_eq!(text, "vendor-billing is paused as a whole by ops: resume it first");
    }

    #[test]
    fn a_pause_is_one_record_or_one_for_each_cut() {
        let group: Group = "vendor-billing".parse().expect("a group");
        let keys = |partition, cuts: &[PartitionCut]| {
            let wanted = PauseRequest { group: &group, partition, cuts }.wanted(3);
            wanted.into_iter().map(|one| (one.key.to_string(), one.before, one.partitions)).collect::<Vec<_>>()
        };
        assert_eq!(keys(None, &[]), [(String::from("pause/vendor-billing"), None, vec![0, 1, 2])]);
        assert_eq!(keys(Some(1), &[]), [(String::from("pause/vendor-billing/1"), None, vec![1])]);
        let cut = PartitionCut { partition: 2, offset: 7 };
        assert_eq!(keys(None, &[cut]), [(String::from("pause/vendor-billing/2"), Some(7), vec![2])]);
    }
}
