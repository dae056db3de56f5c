//! Whether a generation is fit for readers.

use std::collections::BTreeMap;
use std::time::Duration;

use cart::contract::Contract as _;
use cart::{Generation, ParkedRow, PurchasedItem};
use chrono::Utc;
use control::Controls;
use kafka::{FirstRecord, GroupProgress};
use tokio::task::block_in_place;

use super::freeze::run_of;
use super::store::ModelStore;
use crate::operate::Kafka;
use crate::status::State;

/// A generation whose oldest record waits longer is not current: readers who wait for their own purchase would wait as long.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// Why readers must not see a generation now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not current, and may soon be.
    Behind(String),
    Other(String),
}

impl Unfit {
    pub(super) fn reason(self) -> String {
        match self {
            Self::Behind(reason) => format!("{reason}: run it again when it has caught up"),
            Self::Other(reason) => reason,
        }
    }
}

/// Why readers must not see `to` now; `None`: they may. Neither may be paused by an operator: that pause holds, so the two would not come to
/// one offset.
pub(super) fn refusal(
    kafka: &Kafka,
    store: &ModelStore,
    from: Generation,
    to: Generation,
) -> anyhow::Result<Option<Unfit>> {
    block_in_place(|| {
        let controls = kafka.control.controls()?;
        let groups = [from, to].map(|generation| store.model.group_name(generation));
        let partitions = 0..store.identity.partitions;
        for group in &groups {
            let pauses = partitions.clone().filter_map(|partition| controls.pause(group, partition));
            if let Some(pause) = pauses.map(|pause| &pause.entry.record).find(|pause| run_of(&pause.reason).is_none()) {
                let (by, reason) = (&pause.by, &pause.reason);
                let text = format!("{group} is paused by {by} ({reason}): run `cartctl resume {group}` first");
                return Ok(Some(Unfit::Other(text)));
            }
        }
        let [_, group] = &groups;
        let full_name = kafka.args.prefixed(group);
        if !kafka.admin.has_members(&full_name)? {
            let name = store.model.group;
            let text = format!("{group} does not run: start `projectors {name} --generation {to}`");
            return Ok(Some(Unfit::Other(text)));
        }
        let progress = GroupProgress::new(&kafka.args, &full_name, &kafka.args.prefixed(PurchasedItem::TOPIC))?;
        let first = first_waiting(&progress, store.identity.partitions)?;
        let behind = || behind(group, &first, Utc::now().timestamp_millis()).map(Unfit::Behind);
        Ok(stopped(&controls, group, &first).map(Unfit::Other).or_else(behind))
    })
}

/// The first record of each partition that the group has not applied.
fn first_waiting(progress: &GroupProgress, partitions: i32) -> Result<BTreeMap<i32, FirstRecord>, kafka::Error> {
    let committed = progress.committed(0..partitions)?;
    let mut starts = BTreeMap::new();
    for partition in 0..partitions {
        let next = match committed.get(&partition) {
            Some(next) => *next,
            None => progress.bounds(partition)?.0,
        };
        if next < progress.last_stable_offset(partition)? {
            starts.insert(partition, next);
        }
    }
    if starts.is_empty() { Ok(BTreeMap::new()) } else { progress.first_records(&starts) }
}

fn stopped(controls: &Controls, group: &str, first: &BTreeMap<i32, FirstRecord>) -> Option<String> {
    first.iter().find_map(|(partition, record)| {
        match State::of(controls, group, *partition, Some(record.offset), true) {
            State::Stopped { offset, reason, .. } => Some(format!(
                "partition {partition} of {group} is stopped at {offset}: {reason}; upgrade it, or see `cartctl skip`"
            )),
            State::Running | State::NoMember | State::Paused { .. } => None,
        }
    })
}

/// Why readers must not see a generation with these parked rows; `None` without any.
pub(super) fn parked(group: &str, rows: &[ParkedRow]) -> Option<String> {
    let ParkedRow { row_key, vendor_id, reason, .. } = rows.first()?;
    let parked = match rows.len() {
        1 => format!("1 row of {group} is parked, and lacks records:"),
        count => format!("{count} rows of {group} are parked, and lack records, such as"),
    };
    Some(format!(
        "{parked} {row_key} of vendor {vendor_id} ({reason}): correct the cause, then run `cartctl parked rows retry --projector {group}`"
    ))
}

fn behind(group: &str, first: &BTreeMap<i32, FirstRecord>, now_ms: i64) -> Option<String> {
    let (partition, record) = first.iter().min_by_key(|(_, record)| record.sent_at_ms)?;
    let age = Duration::from_millis(u64::try_from(now_ms - record.sent_at_ms).unwrap_or_default());
    (age > BEHIND_MAX).then(|| {
        let (age, most) = (age.as_secs(), BEHIND_MAX.as_secs());
        format!("partition {partition} of {group} is {age} s behind, more than {most} s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_with_parked_rows_is_not_shown() {
        let row = ParkedRow {
            partition: 3,
            vendor_id: uuid::Uuid::nil().into(),
            row_key: String::from("2026-11"),
            first_position: cart::Position::new(cart::LogEpoch::FIRST, 7),
            next_position: cart::Position::new(cart::LogEpoch::FIRST, 7),
            reason: String::from("row-overflows: full"),
            since: chrono::DateTime::UNIX_EPOCH,
            retry_by: None,
            revision: 0,
        };
        assert_eq!(parked("vendor-billing-g2", &[]), None);
        for (rows, words) in [
            (vec![row.clone()], "1 row of vendor-billing-g2 is parked, and lacks records: 2026-11 of vendor "),
            (
                vec![row.clone(), row],
                "2 rows of vendor-billing-g2 are parked, and lack records, such as 2026-11 of vendor ",
            ),
        ] {
            let reason = parked("vendor-billing-g2", &rows).unwrap_or_default();
            assert!(reason.starts_with(words), "{reason}");
        }
    }

    #[test]
    fn a_generation_whose_oldest_record_is_older_than_5_s_is_behind() {
        let record = |offset, sent_at_ms| FirstRecord { offset, sent_at_ms };
        let first = BTreeMap::from([(0, record(7, 9_000)), (3, record(12, 4_000))]);
        assert_eq!(behind("g", &first, 9_000), None);
        let refusal = behind("g", &first, 16_500);
        assert!(refusal.as_ref().is_some_and(|text| text.contains("partition 3 of g is 12 s behind")), "{refusal:?}");
        assert_eq!(behind("g", &BTreeMap::new(), 16_500), None);
    }
}
