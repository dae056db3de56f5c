//! When the next transaction starts.
//!
//! A transaction costs Kafka about twenty requests, however many events it has. So a worker starts one in each interval on
//! average, and saves up to [`CREDIT_MAX`]: after a pause the first commands are published at once, and under load a
//! transaction starts with each interval. Intervals are those of the clock, the same for all workers and processes: their
//! events become visible together, and readers fetch them together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Transactions that may follow each other at once after a pause: a client that adds an item and checks out at once does not
/// wait for its purchase.
const CREDIT_MAX: u128 = 2;

/// The intervals of one worker.
#[derive(Debug)]
pub(crate) struct CommitPacing {
    interval: Duration,
    /// The interval in which the last transaction started, and how many more may start in it.
    last: Option<(u128, u128)>,
}

impl CommitPacing {
    /// Zero: no pause between two transactions.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// How long until a transaction may start.
    pub(crate) fn due_in(&self, now: SystemTime) -> Duration {
        let Some((number, left)) = self.interval_at(now) else { return Duration::ZERO };
        if self.credit(number) > 0 { Duration::ZERO } else { left }
    }

    /// A transaction starts.
    pub(crate) fn start(&mut self, now: SystemTime) {
        // A full outbox does not wait for credit.
        self.last = self.interval_at(now).map(|(number, _)| (number, self.credit(number).saturating_sub(1)));
    }

    /// How many transactions may start in an interval. After the clock was set back: as after a pause.
    fn credit(&self, number: u128) -> u128 {
        let Some((last, credit)) = self.last else { return CREDIT_MAX };
        number.checked_sub(last).map_or(CREDIT_MAX, |passed| passed.saturating_add(credit).min(CREDIT_MAX))
    }

    /// The number of the interval at `now`, and what is left of it.
    fn interval_at(&self, now: SystemTime) -> Option<(u128, Duration)> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let interval = self.interval.as_nanos();
        let number = since.checked_div(interval)?;
        let left = (number + 1) * interval - since;
        Some((number, Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn under_load_a_transaction_starts_with_each_interval_and_after_a_pause_two_at_once() {
        let mut pacing = CommitPacing::every(Duration::from_millis(200));
        for ms in [1_050, 1_060] {
            assert_eq!(pacing.due_in(at(ms)), Duration::ZERO, "none has started");
            pacing.start(at(ms));
        }
        assert_eq!(pacing.due_in(at(1_060)), Duration::from_millis(140));
        assert_eq!(pacing.due_in(at(1_199)), Duration::from_millis(1));
        for ms in [1_200, 1_400, 1_600] {
            assert_eq!(pacing.due_in(at(ms)), Duration::ZERO);
            pacing.start(at(ms));
            assert_eq!(pacing.due_in(at(ms + 1)), Duration::from_millis(199), "one in each interval");
        }
        for ms in [9_900, 9_901] {
            assert_eq!(pacing.due_in(at(ms)), Duration::ZERO, "after a pause");
            pacing.start(at(ms));
        }
        assert_eq!(pacing.due_in(at(9_902)), Duration::from_millis(98));
        assert_eq!(pacing.due_in(at(300)), Duration::ZERO, "the clock was set back");
    }

    #[test]
    fn a_full_outbox_does_not_wait_and_gives_no_credit() {
        let mut pacing = CommitPacing::every(Duration::from_millis(200));
        for ms in [1_000, 1_010, 1_020, 1_030] {
            pacing.start(at(ms));
        }
        assert_eq!(pacing.due_in(at(1_030)), Duration::from_millis(170));
        assert_eq!(pacing.due_in(at(1_200)), Duration::ZERO);
    }

    #[test]
    fn an_interval_of_zero_never_delays() {
        let mut pacing = CommitPacing::every(Duration::ZERO);
        pacing.start(at(7));
        assert_eq!(pacing.due_in(at(7)), Duration::ZERO);
    }
}
