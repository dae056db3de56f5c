//! How long commands take, from the times of their records.

use std::collections::VecDeque;

use serde::Serialize;

/// Percentiles are those of the last minute.
const WINDOW_MS: i64 = 60_000;

/// The newest times that are kept. They are sorted once a second.
const TIMES_MAX: usize = 10_000;

/// The times of one step.
#[derive(Debug, Default)]
pub(crate) struct Times(VecDeque<(i64, i64)>);

/// Two percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: i64,
    pub(crate) p99_ms: i64,
    /// How many times they are of.
    pub(crate) count: usize,
}

impl Times {
    /// Notes that something that began at one time ended at another (milliseconds since 1970). Clocks of different hosts may
    /// disagree: a negative time counts as none.
    pub(crate) fn add(&mut self, began_ms: i64, ended_ms: i64) {
        if self.0.len() == TIMES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((ended_ms, (ended_ms - began_ms).max(0)));
    }

    /// `None` if nothing ended within the last minute.
    pub(crate) fn percentiles(&mut self, now_ms: i64) -> Option<Percentiles> {
        self.0.retain(|(ended_ms, _)| now_ms - ended_ms <= WINDOW_MS);
        let mut times: Vec<i64> = self.0.iter().map(|(_, took)| *took).collect();
        times.sort_unstable();
        let count = times.len();
        // The smallest time that at least so many percent of all do not exceed.
        let percentile = |percent: usize| times.get((count * percent).div_ceil(100).max(1) - 1).copied();
        Some(Percentiles { p50_ms: percentile(50)?, p99_ms: percentile(99)?, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let mut times = Times::default();
        assert_eq!(times.percentiles(0), None);
        for took in (1..=100).rev() {
            times.add(0, took);
        }
        assert_eq!(times.percentiles(100), Some(Percentiles { p50_ms: 50, p99_ms: 99, count: 100 }));
        times.add(60_000, 59_000);
        assert_eq!(times.percentiles(61_000), Some(Percentiles { p50_ms: 0, p99_ms: 0, count: 1 }));
        for number in 0..20_000 {
            times.add(number, number + 3);
        }
        assert_eq!(times.percentiles(20_000).map(|found| found.count), Some(TIMES_MAX));
    }
}
