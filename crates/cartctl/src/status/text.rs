//! All that a look has found out, and how it is printed.

use cart::contract::ReadModel;
use cart::{CartId, CommandId};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::audit::Audit;
use super::parked::{self, ListedCart};
use super::partition::Partition;
use super::table::{self, View};
use crate::operate::time;
use crate::parked_rows::ListedRow;

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
    /// `None`: they are not known.
    pub parked_carts: Option<Vec<ListedCart>>,
    /// Those of the read models whose store has answered. `None`: these have none, and others are not known.
    pub parked_rows: Option<Vec<ListedRow>>,
    pub audit: Audit,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

impl Status {
    /// Notes the parked rows of each read model, or why they are not known.
    pub(super) fn note_rows(&mut self, found: Vec<(ReadModel, anyhow::Result<Vec<ListedRow>>)>) {
        let (mut rows, mut is_whole) = (Vec::new(), true);
        for (model, found) in found {
            match found {
                Ok(found) => rows.extend(found),
                Err(error) => {
                    is_whole = false;
                    self.unknown.push(format!("the parked rows of {} are not known: {error:#}", model.group));
                }
            }
        }
        // An empty list says that no row is parked.
        self.parked_rows = (is_whole || !rows.is_empty()).then_some(rows);
    }

    /// The table, and below it what there is to say. Only the table is clipped: the rest has commands to copy.
    pub(super) fn text(&self, view: View) -> String {
        let skipped = self.skipped.iter().map(|skip| {
            let SkippedRecord { group, record, by, at, reason } = skip;
            format!("{group} skips {record}: {by}, {}, {reason:?}", time(*at))
        });
        let discarded = self.discarded.iter().map(|discard| {
            let DiscardedCommand { record, cart_id, command_id, by, at, reason } = discard;
            let at = time(*at);
            format!("command {command_id} of cart {cart_id} is discarded ({record}): {by}, {at}, {reason:?}")
        });
        let mut lines = vec![time(self.at)];
        lines.extend(table::lines(&self.partitions, view));
        lines.extend(table::legend(&self.partitions, view));
        lines.extend(self.notes());
        lines.extend(skipped.chain(discarded));
        lines.extend(parked::lines(self.parked_carts.as_deref(), self.parked_rows.as_deref()));
        lines.extend(self.audit.at(self.at));
        lines.extend(self.unknown.iter().cloned());
        lines.join("\n")
    }

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

#[cfg(test)]
mod tests {
    use cart::contract::READ_MODELS;

    use super::*;
    use crate::status::partition::State;

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

    fn status(partitions: Vec<Partition>) -> Status {
        Status {
            at: DateTime::UNIX_EPOCH,
            partitions,
            skipped: vec![],
            discarded: vec![],
            parked_carts: Some(vec![]),
            parked_rows: Some(vec![]),
            audit: Audit::NotAsked,
            unknown: vec![],
        }
    }

    #[test]
    fn what_holds_of_several_partitions_is_said_once() {
        let state = State::Paused {
            by: String::from("ops"),
            since: DateTime::UNIX_EPOCH,
            reason: String::from("index build"),
            before_offset: None,
            is_followed: true,
        };
        let partitions = (0..2).map(|number| partition(number, state.clone())).collect();
        let status = status(partitions);
        assert_eq!(status.notes(), ["popular-items is paused by ops since 1970-01-01T00:00:00Z: index build"]);
        let text = status.text(View::default());
        assert!(text.contains("81,233") && text.contains("410") && text.contains("myhost-0-0@myhost:7"), "{text}");
        assert!(text.contains("popular-items  2 * "), "{text}");
    }

    #[test]
    fn what_there_is_to_say_follows_the_table_whole() {
        let stopped = State::Stopped {
            offset: 77,
            sha256: "9f".repeat(32),
            reason: String::from("cannot be read"),
            since: DateTime::UNIX_EPOCH,
        };
        let mut status = status(vec![partition(0, stopped)]);
        status.parked_rows = None;
        status.unknown.push(String::from("the parked rows are not known: no answer within 2 s"));
        let text = status.text(View { each_partition: false, columns: Some(20) });
        let lines: Vec<&str> = text.lines().collect();
        // Behind the time: a header of two lines, its separator, a row, and what `*` means.
        assert!(lines[1..6].iter().all(|line| line.chars().count() <= 20), "{text}");
        assert!(lines[5].starts_with("*: ") && lines[6].ends_with(": cannot be read"), "{text}");
        assert!(lines[7].ends_with("--reason TEXT"), "{text}");
        let rest = [
            "no cart is parked",
            "last audit: not asked for (--audit-url)",
            "the parked rows are not known: no answer within 2 s",
        ];
        assert_eq!(lines[8..], rest);
    }

    #[test]
    fn the_parked_rows_of_one_store_are_listed_while_the_other_is_away() {
        let [first, second, third] = READ_MODELS;
        let row = || ListedRow {
            projector: first.group.to_owned(),
            vendor_id: crate::vendor_id("V").into(),
            row: String::from("2026-03"),
            partition: 3,
            state: "parked",
            since: DateTime::UNIX_EPOCH,
            reason: String::from("row-overflows: full"),
            next_offset: 77,
        };
        let away = || Err(anyhow::anyhow!("no answer within 2 s"));
        let noted = |found| {
            let mut status = status(vec![]);
            status.note_rows(found);
            (status.parked_rows.map(|rows| rows.len()), status.unknown)
        };
        let why = |model: ReadModel| format!("the parked rows of {} are not known: no answer within 2 s", model.group);
        let some = noted(vec![(first, Ok(vec![row()])), (second, Ok(vec![])), (third, away())]);
        assert_eq!(some, (Some(1), vec![why(third)]));
        let unsure = noted(vec![(first, away()), (second, away()), (third, Ok(vec![]))]);
        assert_eq!(unsure, (None, vec![why(first), why(second)]), "whether a row is parked is not known");
        let none = noted(vec![(first, Ok(vec![])), (second, Ok(vec![])), (third, Ok(vec![]))]);
        assert_eq!(none, (Some(0), vec![]));
    }

    #[test]
    fn programs_get_lists_of_what_is_parked_and_null_where_it_is_not_known() {
        let mut status = status(vec![partition(0, State::Running), partition(1, State::Running)]);
        status.parked_rows = None;
        let json = serde_json::to_value(&status).expect("JSON");
        assert_eq!(json["parkedCarts"], serde_json::json!([]));
        assert!(json["parkedRows"].is_null() && json["audit"].is_null(), "{json}");
        assert_eq!(json["partitions"].as_array().map(Vec::len), Some(2), "each partition");
    }
}
