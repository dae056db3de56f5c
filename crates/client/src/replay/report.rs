//! The result of a run as data (JSON), and whether it meets the expectations.

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
    /// The prefix of every idempotency key.
    pub run_id: String,
    /// `closed` or `open`.
    pub load: &'static str,
    /// The maximum number of commands in flight.
    pub in_flight_max: usize,
    /// Scheduled commands per second; null in a closed loop.
    pub rate: Option<u32>,
    /// From the first command to the last answer.
    pub elapsed_seconds: f64,
    /// Finished commands: accepted, rejected and unanswered.
    pub commands: u64,
    /// Finished commands per second.
    pub commands_per_second: f64,
    /// Commands that were executed.
    pub accepted: u64,
    /// Commands that a rule or a check rejected.
    pub refused: u64,
    /// Commands without an answer in the end; they may have been executed.
    pub unanswered: u64,
    /// Outcomes other than the made-up shop intended.
    pub unintended: u64,
    /// How often commands were sent again, by cause.
    pub retries: RetryCounts,
    /// Finished commands by action and outcome.
    pub counts: Vec<Count>,
    /// Finished raw rows by reason and outcome.
    pub counts_by_reason: Vec<ReasonCount>,
    /// Latencies in microseconds, retries included: from the first attempt (closed loop) or the scheduled time (open loop) to
    /// the answer.
    pub latency_us: Option<Latency>,
    /// The same by action.
    pub latency_by_action_us: BTreeMap<&'static str, Latency>,
    /// The first 20 rejected commands.
    pub first_refused: Vec<Deviation>,
    /// The first 20 commands whose outcome was not intended.
    pub first_unintended: Vec<Deviation>,
    /// The first 20 unanswered commands.
    pub first_unanswered: Vec<Deviation>,
    /// Whether the run was ended early by a signal.
    pub interrupted: bool,
    /// The part of a file that was not sent, and how to continue; null if all was sent.
    pub unfinished: Option<Unfinished>,
    /// Why the run failed; empty if it did not.
    pub failures: Vec<String>,
}

/// The rest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The first line without an answer. All lines before it have one: `--from-line` continues here.
    pub line: u64,
    /// Why the line is invalid, if that ended the run.
    pub fault: Option<String>,
    /// Commands on later lines that were answered. They are sent again, with the same idempotency keys.
    pub answered_after: u64,
    /// The options to add to those of this run, or to replace, to send the rest.
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
    /// After a timeout, a lost connection or another server error.
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
    /// The reason in the row's file.
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
            commands: statistics.finished,
            commands_per_second: per_second(statistics.finished, elapsed),
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

    /// Adds a failure for each expectation that is not met.
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

    /// 0: success; 1: failure; 130: interrupted, as a shell has it.
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
