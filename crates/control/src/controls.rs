//! What holds after all control records that were read: the last record of each key.

use std::collections::BTreeMap;

use cart::{CartCommand, CartId, CommandId, Control, ControlKey, ControlRecord, Position};

/// A record, and its offset on the control topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub offset: i64,
    pub record: ControlRecord,
}

/// The last record of each key.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    latest: BTreeMap<ControlKey, Entry>,
}

/// A pause of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause<'a> {
    /// What is before this offset is still applied; `None`: nothing more is.
    pub before: Option<i64>,
    pub entry: &'a Entry,
}

/// A skip of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip<'a> {
    pub topic: &'a str,
    pub group: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// The record's expected hash.
    pub sha256: &'a str,
    pub entry: &'a Entry,
}

/// A command that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discard<'a> {
    pub partition: i32,
    pub position: Position,
    pub cart_id: CartId,
    pub command_id: CommandId,
    /// The record's expected hash.
    pub sha256: &'a str,
    pub entry: &'a Entry,
}

impl Discard<'_> {
    /// Whether it is of this command, whose record has this hash: only that one is given up.
    #[must_use]
    pub fn is_of(&self, command: &CartCommand, sha256: &str) -> bool {
        (self.cart_id, self.command_id, self.sha256) == (command.cart_id, command.command_id, sha256)
    }
}

/// A record at which a partition is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop<'a> {
    pub offset: i64,
    /// The record's hash; empty where it cannot be skipped.
    pub sha256: &'a str,
    pub entry: &'a Entry,
}

/// A member's answer to a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The offset of the pause on the control topic.
    pub pause: i64,
    /// The committed offset.
    pub next_offset: i64,
    pub entry: &'a Entry,
}

impl Controls {
    /// Takes a record. One without a value ends what its key stood for; one whose value does not belong to its key changes
    /// nothing.
    pub fn apply(&mut self, offset: i64, key: ControlKey, record: Option<ControlRecord>) {
        match record {
            None => drop(self.latest.remove(&key)),
            Some(record) if fits(&key, &record.control) => drop(self.latest.insert(key, Entry { offset, record })),
            Some(_) => {}
        }
    }

    pub(crate) fn entry(&self, key: &ControlKey) -> Option<&Entry> {
        self.latest.get(key)
    }

    /// The pause of a partition: of its whole group, else its own.
    #[must_use]
    pub fn pause(&self, group: &str, partition: i32) -> Option<Pause<'_>> {
        self.pause_of_group(group).or_else(|| self.pause_of_partition(group, partition))
    }

    /// The pause of a whole group.
    #[must_use]
    pub fn pause_of_group(&self, group: &str) -> Option<Pause<'_>> {
        let entry = self.entry(&ControlKey::PauseGroup { group: group.to_owned() })?;
        // One offset can't stand for all partitions.
        matches!(entry.record.control, Control::Pause { .. }).then_some(Pause { before: None, entry })
    }

    /// The pause of one partition alone.
    #[must_use]
    pub fn pause_of_partition(&self, group: &str, partition: i32) -> Option<Pause<'_>> {
        let entry = self.entry(&ControlKey::PausePartition { group: group.to_owned(), partition })?;
        let Control::Pause { before_offset } = entry.record.control else { return None };
        Some(Pause { before: before_offset, entry })
    }

    /// The partitions of a group that are paused alone.
    #[must_use]
    pub fn paused_partitions(&self, group: &str) -> Vec<i32> {
        let partitions = self.latest.iter().filter_map(|(key, entry)| match (key, &entry.record.control) {
            (ControlKey::PausePartition { group: of, partition }, Control::Pause { .. }) if of == group => {
                Some(*partition)
            }
            _ => None,
        });
        partitions.collect()
    }

    /// All pauses, with their groups; of a partition, or of the whole group.
    pub fn pauses(&self) -> impl Iterator<Item = (&str, Option<i32>, Pause<'_>)> {
        self.latest.iter().filter_map(|(key, entry)| match (key, &entry.record.control) {
            // One offset can't stand for all partitions.
            (ControlKey::PauseGroup { group }, Control::Pause { .. }) => {
                Some((group.as_str(), None, Pause { before: None, entry }))
            }
            (ControlKey::PausePartition { group, partition }, Control::Pause { before_offset }) => {
                Some((group.as_str(), Some(*partition), Pause { before: *before_offset, entry }))
            }
            _ => None,
        })
    }

    /// All skips, in the order of their keys.
    pub fn skips(&self) -> impl Iterator<Item = Skip<'_>> {
        self.latest.iter().filter_map(|(key, entry)| match (key, &entry.record.control) {
            (ControlKey::Skip { group, topic, partition, offset }, Control::Skip { sha256 }) => {
                Some(Skip { topic, group, partition: *partition, offset: *offset, sha256, entry })
            }
            _ => None,
        })
    }

    /// All discards, in the order of their keys; also those of earlier logs.
    pub fn discards(&self) -> impl Iterator<Item = Discard<'_>> {
        self.latest.iter().filter_map(|(key, entry)| discard(key, entry))
    }

    /// The discard of the command at a position.
    #[must_use]
    pub fn discard(&self, partition: i32, position: Position) -> Option<Discard<'_>> {
        let (key, entry) = self.latest.get_key_value(&ControlKey::Discard { partition, offset: position.offset() })?;
        // The offset may have been that of another command in an earlier log.
        discard(key, entry).filter(|discard| discard.position == position)
    }

    /// Where a partition's member has said that it is stopped.
    #[must_use]
    pub fn stop(&self, group: &str, partition: i32) -> Option<Stop<'_>> {
        let entry = self.entry(&ControlKey::Stopped { group: group.to_owned(), partition })?;
        let Control::Stopped { offset, sha256 } = &entry.record.control else { return None };
        Some(Stop { offset: *offset, sha256, entry })
    }

    /// All stops, with their groups and partitions, in the order of their keys.
    pub fn stops(&self) -> impl Iterator<Item = (&str, i32, Stop<'_>)> {
        self.latest.iter().filter_map(|(key, entry)| match (key, &entry.record.control) {
            (ControlKey::Stopped { group, partition }, Control::Stopped { offset, sha256 }) => {
                Some((group.as_str(), *partition, Stop { offset: *offset, sha256, entry }))
            }
            _ => None,
        })
    }

    /// The partitions of a group where members have said that they are stopped.
    #[must_use]
    pub fn stopped_partitions(&self, group: &str) -> Vec<i32> {
        self.stops().filter(|(of, ..)| *of == group).map(|(_, partition, _)| partition).collect()
    }

    /// The newest answer of a partition's member to a pause.
    #[must_use]
    pub fn ack(&self, group: &str, partition: i32) -> Option<Ack<'_>> {
        let entry = self.entry(&ControlKey::Ack { group: group.to_owned(), partition })?;
        let Control::Paused { pause, next_offset } = entry.record.control else { return None };
        Some(Ack { pause, next_offset, entry })
    }
}

fn discard<'a>(key: &ControlKey, entry: &'a Entry) -> Option<Discard<'a>> {
    match (key, &entry.record.control) {
        (ControlKey::Discard { partition, .. }, Control::Discard { cart_id, command_id, position, sha256 }) => {
            let (partition, position) = (*partition, *position);
            Some(Discard { partition, position, cart_id: *cart_id, command_id: *command_id, sha256, entry })
        }
        _ => None,
    }
}

/// Whether a value belongs to a key of this kind. Otherwise the record changes nothing.
#[must_use]
pub fn fits(key: &ControlKey, control: &Control) -> bool {
    match key {
        ControlKey::PauseGroup { .. } | ControlKey::PausePartition { .. } => {
            matches!(control, Control::Pause { .. } | Control::Resume {})
        }
        ControlKey::Skip { .. } => matches!(control, Control::Skip { .. } | Control::Withdraw {}),
        ControlKey::Ack { .. } => matches!(control, Control::Paused { .. }),
        ControlKey::Stopped { .. } => matches!(control, Control::Stopped { .. }),
        ControlKey::Discard { offset, .. } => {
            matches!(control, Control::Discard { position, .. } if position.offset() == *offset)
                || matches!(control, Control::Withdraw {})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(records: &[(&str, Option<Control>)]) -> Controls {
        let mut controls = Controls::default();
        for (offset, (key, control)) in (0..).zip(records) {
            let record = control.clone().map(|control| ControlRecord {
                by: String::from("ops"),
                at: chrono::DateTime::UNIX_EPOCH,
                reason: String::from("a test"),
                control,
            });
            controls.apply(offset, key.parse().expect("a key"), record);
        }
        controls
    }

    fn pause(before_offset: Option<i64>) -> Option<Control> {
        Some(Control::Pause { before_offset })
    }

    #[test]
    fn the_last_record_of_a_key_holds() {
        let paused = [("pause/a", pause(None)), ("pause/b/1", pause(Some(7)))];
        let all = controls(&paused);
        assert_eq!(all.pause("a", 5).map(|pause| (pause.before, pause.entry.offset)), Some((None, 0)));
        assert_eq!(all.pause("b", 1).map(|pause| pause.before), Some(Some(7)));
        assert_eq!((all.pause("b", 0), all.pause("c", 0)), (None, None));
        assert_eq!((all.paused_partitions("a"), all.paused_partitions("b")), (vec![], vec![1]));
        let pauses = |controls: &Controls| {
            let pauses = controls.pauses().map(|(group, partition, pause)| (group.to_owned(), partition, pause.before));
            pauses.collect::<Vec<_>>()
        };
        assert_eq!(pauses(&all), [("a".to_owned(), None, None), ("b".to_owned(), Some(1), Some(7))]);
        let resumed = controls(&[&paused[..], &[("pause/a", Some(Control::Resume {})), ("pause/b/1", None)]].concat());
        assert_eq!((resumed.pause("a", 5), resumed.pause("b", 1), pauses(&resumed)), (None, None, vec![]));
        let again = controls(&[("pause/a", Some(Control::Resume {})), ("pause/a", pause(None))]);
        assert_eq!(again.pause("a", 0).map(|pause| pause.entry.offset), Some(1));
    }

    #[test]
    fn the_pause_of_a_group_comes_before_that_of_a_partition() {
        let all = controls(&[("pause/a/1", pause(Some(7))), ("pause/a", pause(Some(9)))]);
        assert_eq!(all.pause("a", 1).map(|pause| (pause.before, pause.entry.offset)), Some((None, 1)));
        let rest =
            controls(&[("pause/a/1", pause(Some(7))), ("pause/a", pause(None)), ("pause/a", Some(Control::Resume {}))]);
        assert_eq!(rest.pause("a", 1).map(|pause| pause.before), Some(Some(7)));
    }

    #[test]
    fn a_value_that_does_not_belong_to_its_key_changes_nothing() {
        let skip = Some(Control::Skip { sha256: String::from("00") });
        let all = controls(&[("pause/a", pause(None)), ("pause/a", skip.clone()), ("skip/a/t/0/3", pause(None))]);
        assert!(all.pause("a", 0).is_some() && all.skips().next().is_none());
        let all = controls(&[("skip/a/t/0/3", skip.clone())]);
        assert!(all.skips().map(|skip| (skip.group, skip.topic, skip.offset, skip.sha256)).eq([("a", "t", 3, "00")]));
        let all = controls(&[("skip/a/t/0/3", skip), ("skip/a/t/0/3", Some(Control::Withdraw {}))]);
        assert_eq!(all.skips().count(), 0);
    }

    #[test]
    fn a_discard_is_of_one_command_of_one_log() {
        const CART: &str = "7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff";
        let at = |epoch, offset| Position::new(cart::LogEpoch::new(epoch).expect("an epoch"), offset);
        let command_id = || "01a226a2-f5d5-742d-b035-6e8d73f3d93c".parse::<CommandId>().expect("an id");
        let discard = |position| {
            let cart_id = CART.parse().expect("an id");
            Some(Control::Discard { cart_id, command_id: command_id(), position, sha256: String::from("00") })
        };
        let all = controls(&[("discard/3/7", discard(at(2, 7))), ("discard/3/8", discard(at(2, 9)))]);
        let found = all.discard(3, at(2, 7)).map(|discard| (discard.command_id, discard.sha256, discard.entry.offset));
        assert_eq!(found, Some((command_id(), "00", 0)));
        let command = |command_id| cart::CartCommand {
            command_id,
            cart_id: CART.parse().expect("an id"),
            issued_at: chrono::DateTime::UNIX_EPOCH,
            command: cart::Command::Checkout {},
            expected_version: None,
            keyed: None,
        };
        let is_of =
            |command_id, sha256| all.discard(3, at(2, 7)).is_some_and(|one| one.is_of(&command(command_id), sha256));
        let other = "01a226a2-f5d5-742d-b035-6e8d73f3d93d".parse::<CommandId>().expect("an id");
        assert_eq!((is_of(command_id(), "00"), is_of(command_id(), "01"), is_of(other, "00")), (true, false, false));
        assert_eq!(
            (all.discard(3, at(1, 7)), all.discard(2, at(2, 7))),
            (None, None),
            "another log, another partition"
        );
        assert_eq!(all.discards().count(), 1, "the other one is not at the offset of its key");
        let withdrawn = [("discard/3/7", discard(at(2, 7))), ("discard/3/7", Some(Control::Withdraw {}))];
        assert_eq!(controls(&withdrawn).discards().count(), 0);
    }

    #[test]
    fn a_stop_ends_when_the_member_goes_on() {
        let stopped = ("stopped/a/1", Some(Control::Stopped { offset: 9, sha256: String::from("00") }));
        let all = controls(std::slice::from_ref(&stopped));
        assert_eq!(all.stop("a", 1).map(|stop| (stop.offset, stop.sha256)), Some((9, "00")));
        assert!(all.stops().map(|(group, partition, stop)| (group, partition, stop.offset)).eq([("a", 1, 9)]));
        let other = ("stopped/a-g2/0", stopped.1.clone());
        assert_eq!(controls(&[other, stopped.clone()]).stopped_partitions("a"), [1]);
        assert_eq!(controls(&[stopped, ("stopped/a/1", None)]).stop("a", 1), None);
    }
}
