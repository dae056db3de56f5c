//! The state of the groups, and how it is printed.

use std::fmt;

use cart::{CartId, CommandId};
use chrono::{DateTime, Utc};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use control::{Controls, Stop};
use serde::Serialize;

use super::audit::LastAudit;
use super::numbers::{age, grouped};
use crate::operate::time;

/// What a partition of a group does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum State {
    Running,
    /// No process has the partition; also for moments while the group rebalances.
    NoMember,
    /// Its member has met a record that it cannot process.
    Stopped {
        offset: i64,
        /// The record's hash; empty where it cannot be skipped.
        sha256: String,
        reason: String,
        since: DateTime<Utc>,
    },
    Paused {
        by: String,
        since: DateTime<Utc>,
        reason: String,
        /// Applies what is before this offset first.
        before_offset: Option<i64>,
        /// Whether its member has recorded that it applies nothing more.
        is_followed: bool,
    },
}

impl State {
    /// From the control topic, the first record that is left, and whether the partition has a member.
    pub(crate) fn of(controls: &Controls, group: &str, partition: i32, first: Option<i64>, has_member: bool) -> Self {
        if let Some(pause) = controls.pause(group, partition) {
            let record = &pause.entry.record;
            let ack = controls.ack(group, partition);
            return Self::Paused {
                by: record.by.clone(),
                since: record.at,
                reason: record.reason.clone(),
                before_offset: pause.before,
                is_followed: ack.is_some_and(|ack| ack.pause == pause.entry.offset),
            };
        }
        // A stop that is not at the first record is of earlier: its member has ended before it could say that it went on. One without a hash is
        // not of a record: all of a batch waits, and the next member withdraws it when it is past.
        let is_now = |stop: &Stop<'_>| first == Some(stop.offset) || (stop.sha256.is_empty() && first.is_some());
        match controls.stop(group, partition).filter(is_now) {
            Some(stop) => Self::Stopped {
                offset: stop.offset,
                sha256: stop.sha256.to_owned(),
                reason: stop.entry.record.reason.clone(),
                since: stop.entry.record.at,
            },
            None if has_member => Self::Running,
            None => Self::NoMember,
        }
    }

    /// A word for the table.
    fn word(&self) -> String {
        match self {
            Self::Running => String::from("running"),
            Self::NoMember => String::from("no member"),
            Self::Stopped { offset, .. } => format!("stopped at {offset}"),
            Self::Paused { is_followed: true, .. } => String::from("paused"),
            Self::Paused { before_offset: Some(before), .. } => format!("pauses before {before}"),
            Self::Paused { .. } => String::from("to pause"),
        }
    }

    /// What there is to say behind the table.
    fn explained(&self, group: &str, topic: &str, partition: i32) -> Option<String> {
        match self {
            Self::Running | Self::NoMember => None,
            Self::Stopped { offset, sha256, reason, since } => {
                let since = time(*since);
                let start = format!("is stopped at {topic}/{partition}/{offset} since {since}: {reason}");
                let skip = format!(
                    "if the record is garbage: cartctl skip {group} {topic}/{partition}/{offset} --expect sha256:{sha256} --reason TEXT"
                );
                Some(if sha256.is_empty() { start } else { format!("{start}\n  {skip}") })
            }
            Self::Paused { by, since, reason, before_offset, is_followed } => {
                let before = before_offset.map(|before| format!(" before offset {before}")).unwrap_or_default();
                let not_yet = if *is_followed { "" } else { "; no member has confirmed it yet" };
                Some(format!("is paused{before} by {by} since {}: {reason}{not_yet}", time(*since)))
            }
        }
    }
}

/// A partition of a group.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Without the installation's prefix.
    pub group: String,
    /// The read model that the group keeps.
    pub model: Option<&'static str>,
    /// The generation of the read model.
    pub generation: Option<i32>,
    /// Whether readers see that generation. `None`: it is not known, or the group keeps no read model.
    pub is_active: Option<bool>,
    pub topic: &'static str,
    pub partition: i32,
    pub state: State,
    /// The committed offset.
    pub next: i64,
    /// 0 exactly when no record is left; otherwise the offsets up to the end.
    pub behind: i64,
    /// The age of the first record that is left.
    pub oldest_waiting_ms: Option<i64>,
    /// Offsets a second, since the last look.
    pub rate: Option<f64>,
    /// The client id of the member that has it.
    pub owner: Option<String>,
}

/// A record that a group skips.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedRecord {
    pub group: String,
    pub record: String,
    pub by: String,
    pub at: DateTime<Utc>,
    pub reason: String,
}

/// A command that is given up.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscardedCommand {
    /// As topic/partition/offset.
    pub record: String,
    pub cart_id: CartId,
    pub command_id: CommandId,
    pub by: String,
    pub at: DateTime<Utc>,
    pub reason: String,
}

/// All groups.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub at: DateTime<Utc>,
    pub partitions: Vec<Partition>,
    pub skipped: Vec<SkippedRecord>,
    pub discarded: Vec<DiscardedCommand>,
    /// With --audit-url.
    pub audit: Option<LastAudit>,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

impl Partition {
    /// The generation, with a mark if readers see it.
    fn generation(&self) -> String {
        let mark = if self.is_active == Some(true) { " *" } else { "" };
        self.generation.map_or_else(|| String::from("-"), |generation| format!("{generation}{mark}"))
    }
}

impl Status {
    /// What there is to say behind the table: one line for all partitions of a group of which the same is true.
    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<(String, &String, Vec<i32>)> = Vec::new();
        for Partition { group, topic, partition, state, .. } in &self.partitions {
            let Some(text) = state.explained(group, topic, *partition) else { continue };
            match notes.iter_mut().find(|(other, of, _)| *other == text && *of == group) {
                Some((_, _, partitions)) => partitions.push(*partition),
                None => notes.push((text, group, vec![*partition])),
            }
        }
        let line = |(text, group, partitions): (String, &String, Vec<i32>)| {
            let all = self.partitions.iter().filter(|other| other.group == *group).count();
            let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            match partitions.len() {
                len if len == all => format!("{group} {text}"),
                1 => format!("{group} partition {} {text}", numbers.join(", ")),
                _ => format!("{group} partitions {} {text}", numbers.join(", ")),
            }
        };
        notes.into_iter().map(line).collect()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(["group", "gen", "partition", "state", "next", "behind", "oldest waiting", "rate/s", "owner"]);
        for of in &self.partitions {
            table.add_row([
                of.group.clone(),
                of.generation(),
                of.partition.to_string(),
                of.state.word(),
                grouped(of.next),
                grouped(of.behind),
                of.oldest_waiting_ms.map_or_else(|| String::from("-"), age),
                of.rate.map_or_else(|| String::from("-"), |rate| format!("{rate:.0}")),
                of.owner.clone().unwrap_or_else(|| String::from("-")),
            ]);
        }
        for column in [2, 4, 5, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        write!(f, "{}\n{table}", time(self.at))?;
        for note in self.notes() {
            write!(f, "\n{note}")?;
        }
        for SkippedRecord { group, record, by, at, reason } in &self.skipped {
            write!(f, "\n{group} skips {record}: {by}, {}, {reason:?}", time(*at))?;
        }
        for DiscardedCommand { record, cart_id, command_id, by, at, reason } in &self.discarded {
            let at = time(*at);
            write!(f, "\ncommand {command_id} of cart {cart_id} is discarded ({record}): {by}, {at}, {reason:?}")?;
        }
        if let Some(audit) = &self.audit {
            write!(f, "\n{}", audit.at(self.at))?;
        }
        for unknown in &self.unknown {
            write!(f, "\n{unknown}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cart::{Control, ControlRecord};

    use super::*;

    fn controls(records: &[(&str, Control)]) -> Controls {
        let mut controls = Controls::default();
        for (offset, (key, control)) in (0..).zip(records) {
            let (by, reason) = (String::from("ops"), String::from("index build"));
            let record = ControlRecord { by, at: DateTime::UNIX_EPOCH, reason, control: control.clone() };
            controls.apply(offset, key.parse().expect("a key"), Some(record));
        }
        controls
    }

    fn partition(partition: i32, state: State) -> Partition {
        let owner = Some(String::from("myhost-0-0@myhost:7"));
        let (group, topic) = (String::from("popular-items"), "item-purchased");
        let (model, generation, is_active) = (Some("popular-items"), Some(2), Some(true));
        let (next, behind, oldest_waiting_ms, rate) = (81_233, 0, None, Some(410.0));
        Partition {
            group,
            model,
            generation,
            is_active,
            topic,
            partition,
            state,
            next,
            behind,
            oldest_waiting_ms,
            rate,
            owner,
        }
    }

    #[test]
    fn a_partition_is_paused_stopped_running_or_without_a_member() {
        let stopped = Control::Stopped { offset: 77, sha256: String::from("9f") };
        let all = controls(&[
            ("stopped/popular-items/1", stopped),
            ("stopped/popular-items/4", Control::Stopped { offset: 77, sha256: String::new() }),
            ("pause/popular-items/2", Control::Pause { before_offset: Some(9) }),
            ("ack/popular-items/2", Control::Paused { pause: 1, next_offset: 8 }),
            ("pause/popular-items/3", Control::Pause { before_offset: None }),
        ]);
        let state = |partition, first| State::of(&all, "popular-items", partition, first, true).word();
        assert_eq!(
            (state(0, None), state(1, Some(77)), state(2, None)),
            ("running".into(), "stopped at 77".into(), "paused".into())
        );
        assert_eq!(state(3, None), "to pause");
        assert_eq!(state(1, Some(80)), "running", "it went on");
        assert_eq!((state(4, Some(70)), state(4, None)), ("stopped at 77".into(), "running".into()), "no hash");
        assert_eq!(State::of(&all, "popular-items", 0, None, false), State::NoMember);
    }

    #[test]
    fn what_holds_of_several_partitions_is_said_once() {
        let all = controls(&[
            ("pause/popular-items", Control::Pause { before_offset: None }),
            ("ack/popular-items/0", Control::Paused { pause: 0, next_offset: 8 }),
            ("ack/popular-items/1", Control::Paused { pause: 0, next_offset: 9 }),
        ]);
        let partitions = (0..2).map(|p| partition(p, State::of(&all, "popular-items", p, None, true))).collect();
        let (at, skipped, discarded) = (DateTime::UNIX_EPOCH, vec![], vec![]);
        let status = Status { at, partitions, skipped, discarded, audit: None, unknown: vec![] };
        assert_eq!(status.notes(), ["popular-items is paused by ops since 1970-01-01T00:00:00Z: index build"]);
        let text = status.to_string();
        assert!(text.contains("81,233") && text.contains("410") && text.contains("myhost-0-0@myhost:7"), "{text}");
        assert!(text.contains("popular-items   2 * "), "{text}");
    }
}
