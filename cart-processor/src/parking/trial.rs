//! When a cart that fails is tried again, and when it is parked. No I/O, no clock.

use std::time::{Duration, Instant};

/// Tries of a cart that cannot be read, before it is parked. A server's short fault is over by then.
const TRIES: u32 = 3;

/// The time over which those tries are spread at least.
const TRIAL_TIME: Duration = Duration::from_secs(10);

/// Times that the rules panic for a cart, or that one of its commands is too new, before it is parked: once more says the same.
const PANICS: u32 = 2;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// Before the rules are tried again. Until a first try, the commands before one that is too new wait, too.
const PANIC_PAUSE: Duration = Duration::from_millis(200);

/// Why a cart fails, while others do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its rows in the journal cannot be read or decoded.
    Unreadable(String),
    /// The rules panic.
    Panicked(String),
    /// One of its commands is newer than this program.
    TooNew(String),
}

/// The longest reason that a marker keeps.
const REASON_LEN_MAX: usize = 500;

impl Cause {
    /// The reason of a marker: a code, and behind a colon the error.
    pub(crate) fn reason(&self) -> String {
        let (code, error) = match self {
            Self::Unreadable(error) => ("journal-unreadable", error),
            Self::Panicked(error) => ("rule-panicked", error),
            Self::TooNew(error) => ("command-too-new", error),
        };
        let error: String = error.chars().take(REASON_LEN_MAX).collect();
        format!("{code}: {error}")
    }

    fn pause(&self) -> Duration {
        match self {
            Self::Unreadable(_) => PAUSE,
            Self::Panicked(_) | Self::TooNew(_) => PANIC_PAUSE,
        }
    }
}

/// Whether carts of a batch fail alone: others of it were read or decided, or it is one and the store answers. Otherwise it is no
/// matter of carts, and none is set aside.
pub(crate) fn is_alone(failed: usize, succeeded: usize, store_answers: bool) -> bool {
    succeeded > 0 || (failed == 1 && store_answers)
}

/// The tries of one cart.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    failures: u32,
    first_at: Instant,
    next_at: Instant,
}

impl Trial {
    /// A first failure.
    pub(crate) fn failed_first(cause: &Cause, now: Instant) -> Self {
        Self { failures: 1, first_at: now, next_at: now + cause.pause() }
    }

    /// A cart whose earlier failures another process has seen, or that an operator wants to be tried.
    pub(crate) fn begin(now: Instant) -> Self {
        Self { failures: 0, first_at: now, next_at: now }
    }

    pub(crate) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Tries again at once: there is more to decide.
    pub(crate) fn go_on(&mut self, now: Instant) {
        self.next_at = now;
    }

    /// Tries again later: a server does not respond, which says nothing of the cart.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.next_at = now + PAUSE;
    }

    /// One more failure; whether the cart is to be parked. It counts only if others have succeeded meanwhile.
    pub(crate) fn failed(&mut self, cause: &Cause, have_others_succeeded: bool, now: Instant) -> bool {
        self.next_at = now + cause.pause();
        if !have_others_succeeded {
            return false;
        }
        if self.failures == 0 {
            self.first_at = now;
        }
        self.failures = self.failures.saturating_add(1);
        match cause {
            Cause::Unreadable(_) => self.failures >= TRIES && now.duration_since(self.first_at) >= TRIAL_TIME,
            Cause::Panicked(_) | Cause::TooNew(_) => self.failures >= PANICS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn unreadable() -> Cause {
        Cause::Unreadable(String::from("schema 9 is unknown"))
    }

    #[test]
    fn an_unreadable_cart_is_parked_after_three_failures_and_ten_seconds() {
        let start = Instant::now();
        let mut trial = Trial::failed_first(&unreadable(), start);
        assert_eq!(trial.next_at(), start + 5 * SECOND);
        assert!(!trial.failed(&unreadable(), true, start + 5 * SECOND), "two failures");
        assert!(trial.failed(&unreadable(), true, start + 10 * SECOND), "three in ten seconds");
        let mut fast = Trial::failed_first(&unreadable(), start);
        assert!(!fast.failed(&unreadable(), true, start + SECOND));
        assert!(!fast.failed(&unreadable(), true, start + 2 * SECOND), "three, but in two seconds");
        assert!(fast.failed(&unreadable(), true, start + 10 * SECOND));
    }

    #[test]
    fn an_outage_counts_for_nothing() {
        let start = Instant::now();
        let mut trial = Trial::failed_first(&unreadable(), start);
        for tries in 1..100 {
            let now = start + tries * 5 * SECOND;
            assert!(!trial.failed(&unreadable(), false, now), "no other cart has succeeded");
            trial.wait(now);
            assert_eq!(trial.next_at(), now + 5 * SECOND);
        }
        assert!(!trial.failed(&unreadable(), true, start + 600 * SECOND), "the second that counts");
        assert!(trial.failed(&unreadable(), true, start + 605 * SECOND));
    }

    #[test]
    fn a_panic_parks_after_one_repeat() {
        let start = Instant::now();
        let panicked = Cause::Panicked(String::from("overflow"));
        let mut trial = Trial::failed_first(&panicked, start);
        assert!(trial.next_at() < start + SECOND);
        assert!(trial.failed(&panicked, true, trial.next_at()));
    }

    #[test]
    fn another_process_begins_to_count_anew() {
        let start = Instant::now();
        let mut trial = Trial::begin(start);
        assert!(!trial.failed(&unreadable(), true, start));
        assert!(!trial.failed(&unreadable(), true, start + 5 * SECOND));
        assert!(trial.failed(&unreadable(), true, start + 10 * SECOND));
    }

    #[test]
    fn carts_fail_alone_only_beside_others() {
        assert!(is_alone(1, 5, false) && is_alone(3, 1, false), "others succeed");
        assert!(is_alone(1, 0, true), "one cart in the batch, and the store answers for another");
        assert!(!is_alone(1, 0, false), "the store is away");
        assert!(!is_alone(2, 0, true), "all carts fail: a lost schema, a broken rule");
    }

    #[test]
    fn a_reason_is_bounded() {
        let long = Cause::Panicked("ä".repeat(10_000)).reason();
        assert!(long.starts_with("rule-panicked: ä") && long.chars().count() < 600, "{}", long.len());
    }
}
