//! What a run gave: as data (JSON), as a table, and whether it is what was expected.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::args::Args;
use super::attempt::Retries;
use super::command::ActionKind;
use super::statistics::{Deviation, Latency, Statistics};

/// The result of a run; its fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What every idempotency key began with.
    pub run_id: String,
    /// `closed` or `open`.
    pub load: &'static str,
    /// Commands in flight at most.
    pub in_flight_max: usize,
    /// Commands a second that were scheduled; null in a closed loop.
    pub rate: Option<u32>,
    /// From the first command to the last answer.
    pub elapsed_seconds: f64,
    /// Settled commands: accepted, refused and unanswered.
    pub commands: u64,
    /// Settled commands by elapsed time.
    pub commands_per_second: f64,
    /// Commands that were executed.
    pub accepted: u64,
    /// Commands that a rule or a check refused.
    pub refused: u64,
    /// Commands without an answer in the end: executed or not, nobody knows.
    pub unanswered: u64,
    /// Answers other than the made-up shop intended.
    pub unintended: u64,
    /// How often commands were sent again, by cause.
    pub retries: RetryCounts,
    /// Settled commands by action and outcome.
    pub counts: Vec<Count>,
    /// Settled raw rows by the reason that they have and outcome.
    pub counts_by_reason: Vec<ReasonCount>,
    /// Latencies in microseconds, retries included: from the first sending (closed) or the schedule (open) to the answer.
    pub latency_us: Option<Latency>,
    /// The same by action.
    pub latency_by_action_us: BTreeMap<&'static str, Latency>,
    /// The first 20 refused commands.
    pub first_refused: Vec<Deviation>,
    /// The first 20 commands whose outcome was not intended.
    pub first_unintended: Vec<Deviation>,
    /// The first 20 unanswered commands.
    pub first_unanswered: Vec<Deviation>,
    /// Whether the run was ended early by a signal.
    pub interrupted: bool,
    /// What of a file was not carried out, and how to continue; null if all was.
    pub unfinished: Option<Unfinished>,
    /// Why the run is no success; empty if it is.
    pub failures: Vec<String>,
}

/// The rest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The first line that has no answer. All lines before it have one.
    pub line: u64,
    /// Why the line is no command, if that ended the run.
    pub fault: Option<String>,
    /// Commands on later lines that were answered all the same. They are sent again, with the same idempotency keys.
    pub answered_after: u64,
    /// What to add to the same options, or to replace there, to send the rest.
    pub options: String,
}

/// Retries by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RetryCounts {
    /// After a 202.
    pub pending: u64,
    /// After a 503.
    pub unavailable: u64,
    /// After a connection that could not be made.
    pub not_executed: u64,
    /// After a time-out, a lost connection or another server error.
    pub unknown: u64,
}

/// How often an action had an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// `add`, `adjust`, `remove` or `checkout`.
    pub action: &'static str,
    /// `accepted`, `unanswered` or the problem type's last part.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

/// How often raw rows of a reason had an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// Why the row is no clean command, as its file says.
    pub reason: String,
    /// `accepted`, `unanswered` or the problem type's last part.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

impl Report {
    pub(crate) fn new(
        args: &Args,
        run_id: String,
        elapsed: Duration,
        statistics: &Statistics,
        retries: &Retries,
    ) -> Self {
        let counts = statistics.counts();
        let latencies = ActionKind::ALL.into_iter();
        Self {
            run_id,
            load: if args.rate.is_some() { "open" } else { "closed" },
            in_flight_max: args.in_flight_max(),
            rate: args.rate.map(Into::into),
            elapsed_seconds: elapsed.as_secs_f64(),
            commands: statistics.settled,
            commands_per_second: per_second(statistics.settled, elapsed),
            accepted: statistics.accepted,
            refused: statistics.refused,
            unanswered: statistics.unanswered,
            unintended: statistics.unintended,
            retries: RetryCounts {
                pending: retries.pending.load(Ordering::Relaxed),
                unavailable: retries.unavailable.load(Ordering::Relaxed),
                not_executed: retries.not_executed.load(Ordering::Relaxed),
                unknown: retries.unknown.load(Ordering::Relaxed),
            },
            counts: counts
                .map(|(kind, outcome, count)| Count { action: kind.as_str(), outcome: outcome.to_owned(), count })
                .collect(),
            counts_by_reason: statistics
                .counts_by_reason()
                .map(|(reason, outcome, count)| ReasonCount { reason: reason.into(), outcome: outcome.into(), count })
                .collect(),
            latency_us: statistics.latency(),
            latency_by_action_us: latencies
                .filter_map(|kind| statistics.latency_of(kind).map(|latency| (kind.as_str(), latency)))
                .collect(),
            first_refused: statistics.first_refused.clone(),
            first_unintended: statistics.first_unintended.clone(),
            first_unanswered: statistics.first_unanswered.clone(),
            interrupted: false,
            unfinished: None,
            failures: Vec::new(),
        }
    }

    /// Adds what went against the expectations.
    pub(crate) fn judge(&mut self, args: &Args) {
        if self.unanswered > 0 {
            self.failures.push(format!("{} commands were not answered", self.unanswered));
        }
        if args.expect_no_refusals && self.refused > 0 {
            self.failures.push(format!("{} commands were rejected", self.refused));
        }
        if args.expect_intended && self.unintended > 0 {
            self.failures.push(format!("{} outcomes were not as intended", self.unintended));
        }
    }

    /// 0: as expected; 1: a failure; 130: interrupted, as a shell says it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.failures.is_empty(), self.interrupted) {
            (false, _) => 1,
            (true, true) => 130,
            (true, false) => 0,
        }
    }
}

#[expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}
