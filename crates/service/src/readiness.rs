//! Readiness and liveness of a service.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A loop without a heartbeat for this long is not ready. Longer than its waits for servers that respond.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A loop without a heartbeat for this long is stuck. Its group has reassigned its partitions by then (`max.poll.interval.ms`).
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// Named conditions; the service is ready when all hold. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<BTreeMap<String, Condition>>>,
    notes: Arc<RwLock<BTreeMap<String, String>>>,
}

#[derive(Debug, Default)]
struct Condition {
    /// Why the condition does not hold.
    reason: Option<String>,
    /// The last heartbeat, for the condition of a loop.
    heard_at: Option<Instant>,
}

impl Condition {
    fn silence(&self, now: Instant) -> Duration {
        self.heard_at.map(|heard_at| now.saturating_duration_since(heard_at)).unwrap_or_default()
    }
}

impl Readiness {
    /// Sets a condition.
    pub fn set_ready(&self, condition: &str) {
        self.set(condition, None, Instant::now());
    }

    /// Clears a condition, with the reason.
    pub fn set_unready(&self, condition: &str, reason: impl std::fmt::Display) {
        self.set(condition, Some(format!("{reason:#}")), Instant::now());
    }

    /// Requires a heartbeat for the condition from now on: the loop has to set or clear it in each round, and without that it
    /// does not hold.
    pub fn expect_heartbeat(&self, condition: &str) {
        let mut conditions = self.conditions.write().unwrap_or_else(PoisonError::into_inner);
        conditions.entry(condition.to_owned()).or_default().heard_at = Some(Instant::now());
    }

    fn set(&self, name: &str, reason: Option<String>, now: Instant) {
        let mut conditions = self.conditions.write().unwrap_or_else(PoisonError::into_inner);
        let known = conditions.get_mut(name);
        // Logs only changes: a loop may report the same a hundred times per second.
        if known.as_ref().is_none_or(|known| known.reason != reason) {
            match &reason {
                Some(reason) => tracing::warn!(condition = name, reason, "not ready"),
                None => tracing::info!(condition = name, "ready"),
            }
        }
        match known {
            Some(known) => {
                known.reason = reason;
                known.heard_at = known.heard_at.map(|_| now);
            }
            None => drop(conditions.insert(name.to_owned(), Condition { reason, heard_at: None })),
        }
    }

    /// Sets what a part of the service has to say although it is ready; `None` when there is nothing any more.
    pub fn set_note(&self, part: &str, note: Option<String>) {
        let mut notes = self.notes.write().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => drop(notes.insert(part.to_owned(), note)),
            None => drop(notes.remove(part)),
        }
    }

    /// All notes, one per line.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.read().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|(part, note)| format!("{part}: {note}")).collect()
    }

    /// The conditions that do not hold, one per line; empty when the service is ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.missing_at(Instant::now())
    }

    fn missing_at(&self, now: Instant) -> Vec<String> {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        let missing = conditions.iter().filter_map(|(name, condition)| {
            let silence = condition.silence(now);
            match &condition.reason {
                Some(reason) => Some(format!("{name}: {reason}")),
                None if silence >= SILENCE_MAX => Some(format!("{name}: no progress for {} s", silence.as_secs())),
                None => None,
            }
        });
        missing.collect()
    }

    /// The loops that are stuck, one per line. If there are any, the process should be restarted.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Vec<String> {
        let conditions = self.conditions.read().unwrap_or_else(PoisonError::into_inner);
        let silences = conditions.iter().map(|(name, condition)| (name, condition.silence(now)));
        let stuck = silences.filter(|(_, silence)| *silence >= STUCK_AFTER);
        stuck.map(|(name, silence)| format!("{name}: no progress for {} s", silence.as_secs())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_without_heartbeat_never_expires() {
        let readiness = Readiness::default();
        readiness.set_ready("Kafka");
        let much_later = Instant::now() + 10 * STUCK_AFTER;
        assert_eq!(readiness.missing_at(much_later), [""; 0]);
        assert_eq!(readiness.stuck_at(much_later), [""; 0]);
        readiness.set_unready("Kafka", "no broker answers");
        assert_eq!(readiness.missing(), ["Kafka: no broker answers"]);
        readiness.set_ready("Kafka");
        assert_eq!(readiness.missing(), [""; 0]);
    }

    #[test]
    fn a_note_is_no_condition() {
        let readiness = Readiness::default();
        readiness.set_note("worker 0", Some(String::from("paused")));
        assert_eq!((readiness.missing(), readiness.notes()), (vec![], vec![String::from("worker 0: paused")]));
        readiness.set_note("worker 0", None);
        assert_eq!(readiness.notes(), [""; 0]);
    }

    #[test]
    fn a_loop_without_heartbeats_is_not_ready_and_later_not_alive() {
        let readiness = Readiness::default();
        readiness.expect_heartbeat("worker 0");
        readiness.set_ready("worker 0");
        let now = Instant::now();
        assert_eq!(readiness.missing_at(now), [""; 0]);
        assert_eq!(readiness.missing_at(now + SILENCE_MAX), ["worker 0: no progress for 30 s"]);
        assert_eq!(readiness.stuck_at(now + SILENCE_MAX), [""; 0]);
        assert_eq!(readiness.stuck_at(now + STUCK_AFTER), ["worker 0: no progress for 300 s"]);
        // An unavailable server is a reason to wait, not to restart.
        readiness.set("worker 0", Some(String::from("Kafka is away")), now + STUCK_AFTER);
        assert_eq!(readiness.missing_at(now + STUCK_AFTER), ["worker 0: Kafka is away"]);
        assert_eq!(readiness.stuck_at(now + STUCK_AFTER), [""; 0]);
        readiness.set("worker 0", None, now + STUCK_AFTER);
        assert_eq!(readiness.missing_at(now + STUCK_AFTER), [""; 0]);
    }
}
