//! A partition of a group, and what it does.

use chrono::{DateTime, Utc};
use control::{Controls, Stop};
use serde::Serialize;

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
    pub(super) fn word(&self) -> String {
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
    pub(super) fn explained(&self, group: &str, topic: &str, partition: i32) -> Option<String> {
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

impl Partition {
    /// The generation, with a mark if readers see it.
    pub(super) fn generation(&self) -> String {
        let mark = if self.is_active == Some(true) { " *" } else { "" };
        self.generation.map_or_else(|| String::from("-"), |generation| format!("{generation}{mark}"))
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

    #[test]
    fn a_partition_is_paused_stopped_running_or_without_a_member() {
        let stopped = Control::Stopped { offset: 77, sha256: String::from("9f") };
        let all = controls(&[
            ("stopped/popular-items/1", stopped),
            ("stopped/popular-items/4", Control::Stopped { offset: 77, sha256: String::new() }),
            ("pause/popular-items/2", Control::Pause { before_offset: Some(9) }),
            ("ack/popular-items/2", Control::Paused { pause: 2, next_offset: 8 }),
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
}
