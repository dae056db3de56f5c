//! When the next transaction starts.
//!
//! A transaction costs Kafka about twenty requests, however many events it has. So a worker starts at most one in each
//! interval: the first command after a pause is published at once, and under load a transaction starts with each interval.
//! Intervals are those of the clock, the same for all workers and processes: their events become visible together, and
//! readers fetch them together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The intervals of one worker.
#[derive(Debug)]
pub(crate) struct CommitPacing {
    interval: Duration,
    /// The interval in which the last transaction started.
    last: Option<u128>,
}

impl CommitPacing {
    /// Zero: no pause between two transactions.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// How long until a transaction may start.
    pub(crate) fn due_in(&self, now: SystemTime) -> Duration {
        let Some((number, left)) = self.interval_at(now) else { return Duration::ZERO };
        // The clock may have been set back, so it is compared for equality.
        if self.last == Some(number) { left } else { Duration::ZERO }
    }

    /// A transaction starts.
    pub(crate) fn start(&mut self, now: SystemTime) {
        self.last = self.interval_at(now).map(|(number, _)| number);
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
    fn each_interval_has_one_transaction_and_the_first_is_not_delayed() {
        let mut pacing = CommitPacing::every(Duration::from_millis(200));
        assert_eq!(pacing.due_in(at(1_050)), Duration::ZERO, "none has started");
        pacing.start(at(1_050));
        assert_eq!(pacing.due_in(at(1_050)), Duration::from_millis(150));
        assert_eq!(pacing.due_in(at(1_199)), Duration::from_millis(1));
        assert_eq!(pacing.due_in(at(1_200)), Duration::ZERO);
        pacing.start(at(1_200));
        assert_eq!(pacing.due_in(at(1_201)), Duration::from_millis(199));
        assert_eq!(pacing.due_in(at(9_999)), Duration::ZERO, "after a pause");
        assert_eq!(pacing.due_in(at(300)), Duration::ZERO, "the clock was set back");
    }

    #[test]
    fn an_interval_of_zero_never_delays() {
        let mut pacing = CommitPacing::every(Duration::ZERO);
        pacing.start(at(7));
        assert_eq!(pacing.due_in(at(7)), Duration::ZERO);
    }
}
