//! A limit for events that every request may cause: an outage must not fill the log with one line a request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one event a second through, and counts the others. One place in the code has one, in a `static`.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged_at: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// A limit that lets the first event through.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { logged_at: None, left_out: 0 }))
    }

    /// Whether the event is to be logged; with the number of those before it that were not.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.logged_at.is_some_and(|logged_at| now < logged_at + INTERVAL) {
            state.left_out += 1;
            return None;
        }
        state.logged_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_second_is_logged_and_the_others_are_counted() {
        let limit = LogLimit::new();
        let start = Instant::now();
        let admitted = [0, 1, 999, 1_000, 1_500, 9_000].map(|ms| limit.admit_at(start + Duration::from_millis(ms)));
        assert_eq!(admitted, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
