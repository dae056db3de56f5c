//! Pauses between attempts that fail.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause: a server that is back is used again within seconds.
const MAX: Duration = Duration::from_secs(5);

/// Failures in a row, each with a pause twice as long as the one before it.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure. Returns how long to wait before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Notes a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_maximum_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(), FIRST);
    }
}
