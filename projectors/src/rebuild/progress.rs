//! How far a generation is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cart::PurchasedItem;
use cart::contract::Contract as _;
use chrono::Utc;
use kafka::{Admin, GroupProgress, KafkaArgs};

/// A generation has caught up when its oldest record that waits is younger. The purchases of an ordinary load are applied
/// within a third of it.
const CAUGHT_UP: Duration = Duration::from_secs(1);

/// Between two lines of the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Between two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the offsets of a group without joining it.
pub(super) struct Progress {
    group: GroupProgress,
    partitions: i32,
    reported: Option<(Instant, i64)>,
}

/// Records, counted in offsets: markers of transactions count too.
struct Look {
    applied: i64,
    left: i64,
    oldest_ms: Option<i64>,
}

impl Progress {
    pub(super) fn new(kafka: &KafkaArgs, group: &str) -> Result<Self, kafka::Error> {
        let topic = kafka.prefixed(PurchasedItem::TOPIC);
        let partitions = Admin::new(kafka)?.partitions(&topic)?;
        let group = GroupProgress::new(kafka, &kafka.prefixed(group), &topic)?;
        Ok(Self { group, partitions, reported: None })
    }

    /// Looks how far the group is, and logs it now and then. Returns whether it has caught up. Blocks.
    pub(super) fn look(&mut self) -> Result<bool, kafka::Error> {
        let Look { applied, left, oldest_ms } = self.ask()?;
        let is_young =
            |sent_at_ms| i128::from(Utc::now().timestamp_millis() - sent_at_ms) < CAUGHT_UP.as_millis().cast_signed();
        let has_caught_up = oldest_ms.is_none_or(is_young);
        let due = self.reported.is_none_or(|(at, _)| at.elapsed() >= REPORT_INTERVAL);
        if due || has_caught_up {
            let rate = self.reported.and_then(|(at, earlier)| per_second(applied - earlier, at.elapsed()));
            let eta_s = rate.filter(|rate| *rate > 0).map(|rate| left / rate);
            tracing::info!(applied, left, rate, eta_s, "building");
            self.reported = Some((Instant::now(), applied));
        }
        Ok(has_caught_up)
    }

    fn ask(&self) -> Result<Look, kafka::Error> {
        let committed = self.group.committed(0..self.partitions)?;
        let (mut applied, mut left, mut waiting) = (0, 0, BTreeMap::new());
        for partition in 0..self.partitions {
            let (start, _) = self.group.bounds(partition)?;
            let end = self.group.last_stable_offset(partition)?;
            let next = committed.get(&partition).copied().unwrap_or(start);
            applied += next - start;
            left += (end - next).max(0);
            if next < end {
                waiting.insert(partition, next);
            }
        }
        let first = if waiting.is_empty() { BTreeMap::new() } else { self.group.first_records(&waiting)? };
        let oldest_ms = first.values().map(|record| record.sent_at_ms).min();
        Ok(Look { applied, left: if first.is_empty() { 0 } else { left }, oldest_ms })
    }
}

fn per_second(records: i64, elapsed: Duration) -> Option<i64> {
    let elapsed_ms = i64::try_from(elapsed.as_millis()).ok().filter(|ms| *ms > 0)?;
    Some(records * 1_000 / elapsed_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_in_records_a_second() {
        assert_eq!(per_second(500, Duration::from_millis(250)), Some(2_000));
        assert_eq!(per_second(500, Duration::ZERO), None);
    }
}
