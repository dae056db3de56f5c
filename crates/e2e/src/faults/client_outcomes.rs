//! The responses that clients got before they had an outcome, and how long they waited for it.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use cartctl::audit::{Attempt, SentCommand, read_sent_commands};

/// What the clients of a round got. Commands are sent again until they have an outcome; here every attempt counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientOutcomes {
    /// Reads of carts, bills and sold quantities.
    pub reads: u64,
    /// 202: in the log, no outcome in time.
    pub pending: u64,
    /// Errors: 503, 504, timeouts, failed and closed connections, and sold quantities that fell.
    pub errors: u64,
    pub first_error: Option<String>,
    /// The longest time from when a command was due until its outcome, retries included, or of a read.
    pub slowest_ms: u64,
}

/// The part of the replay's result that is needed.
#[derive(Debug, Deserialize)]
struct Replayed {
    latency_us: Option<Latency>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    max: u64,
}

impl ClientOutcomes {
    /// Reads the files that `replay --record` and `--json` have written.
    pub(crate) fn read(record: &Path, result: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(result).with_context(|| format!("reading {}", result.display()))?;
        let replayed: Replayed =
            serde_json::from_str(&text).with_context(|| format!("reading {}", result.display()))?;
        let slowest_ms = replayed.latency_us.map_or(0, |latency| latency.max / 1_000);
        Ok(Self { slowest_ms, ..Self::of(&read_sent_commands(record)?) })
    }

    fn of(commands: &[SentCommand]) -> Self {
        let mut outcomes = Self::default();
        for attempt in commands.iter().flat_map(|command| &command.attempts) {
            match attempt {
                Attempt::Pending {} => outcomes.pending += 1,
                Attempt::NotExecuted { reason } | Attempt::Unknown { reason } => outcomes.error(reason),
                Attempt::Accepted { .. } | Attempt::Rejected { .. } => {}
            }
        }
        outcomes
    }

    pub(super) fn error(&mut self, reason: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| reason.to_owned());
    }

    /// Adds what other clients got.
    pub(crate) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.pending += other.pending;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn counts_every_attempt_and_takes_a_rejection_for_an_outcome() {
        let refused = Attempt::Rejected { problem: String::from("cart-full"), command_id: None };
        let error = |reason: &str| Attempt::Unknown { reason: reason.to_owned() };
        let sent = |attempts| SentCommand { cart_id: Uuid::nil(), command_id: Uuid::nil(), attempts };
        let mut outcomes = ClientOutcomes::of(&[
            sent(vec![Attempt::Pending {}, error("504"), refused.clone()]),
            sent(vec![Attempt::NotExecuted { reason: String::from("503") }, refused]),
        ]);
        assert_eq!((outcomes.pending, outcomes.errors, outcomes.first_error.as_deref()), (1, 2, Some("504")));
        outcomes.add(ClientOutcomes { slowest_ms: 7, ..ClientOutcomes::of(&[sent(vec![error("reset")])]) });
        assert_eq!((outcomes.errors, outcomes.first_error.as_deref(), outcomes.slowest_ms), (3, Some("504"), 7));
    }
}
