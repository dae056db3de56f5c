//! Counts and latencies of finished commands. They are recorded on the thread of the loop, without locks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::attempt::{Answer, Finished};
use super::command::{ActionKind, Intended};
use super::queues::Planned;

/// An hour in microseconds: longer than any command is retried.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// The maximum number of commands that each list in the report shows.
const SHOWN_MAX: usize = 20;

/// A latency distribution in microseconds (HdrHistogram, three digits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The number of answers.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// The 95th percentile.
    pub p95: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// A command with an outcome that the report shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deviation {
    /// Its place in the source, from 1.
    pub sequence: u64,
    /// Its line in the file; null for the made-up shop.
    pub line: Option<u64>,
    /// Its own time.
    pub time: String,
    /// The label of the cart's member.
    pub member: String,
    /// The command.
    pub action: String,
    /// `accepted`, `unanswered` or the problem type's last part.
    pub outcome: String,
    /// The service's reason, or why there is no answer.
    pub reason: String,
}

/// The counts and latencies so far.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) finished: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    /// The number of outcomes that the made-up shop did not intend.
    pub(crate) unintended: u64,
    pub(crate) first_refused: Vec<Deviation>,
    pub(crate) first_unintended: Vec<Deviation>,
    pub(crate) first_unanswered: Vec<Deviation>,
    counts: [BTreeMap<String, u64>; ActionKind::ALL.len()],
    reasons: BTreeMap<(Arc<str>, String), u64>,
    latency: [Histogram<u64>; ActionKind::ALL.len()],
    recent: Histogram<u64>,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self {
            finished: 0,
            accepted: 0,
            refused: 0,
            unanswered: 0,
            unintended: 0,
            first_refused: Vec::new(),
            first_unintended: Vec::new(),
            first_unanswered: Vec::new(),
            counts: std::array::from_fn(|_| BTreeMap::new()),
            reasons: BTreeMap::new(),
            latency: std::array::from_fn(|_| histogram()),
            recent: histogram(),
        }
    }

    pub(crate) fn record(&mut self, finished: &Finished) {
        let kind = finished.planned.command.action.kind().index();
        let (code, reason) = match &finished.answer {
            Answer::Accepted => ("accepted", ""),
            Answer::Refused { code, detail } => (code.as_str(), detail.as_str()),
            Answer::Unanswered { reason } => ("unanswered", reason.as_str()),
        };
        match self.counts[kind].get_mut(code) {
            Some(count) => *count += 1,
            None => {
                self.counts[kind].insert(code.to_owned(), 1);
            }
        }
        if let Some(reason) = &finished.planned.command.reason {
            *self.reasons.entry((reason.clone(), code.to_owned())).or_default() += 1;
        }
        self.finished += 1;
        let show = |list: &mut Vec<Deviation>| {
            if list.len() < SHOWN_MAX {
                list.push(Deviation::of(&finished.planned, code, reason));
            }
        };
        match finished.answer {
            Answer::Accepted => self.accepted += 1,
            Answer::Refused { .. } => {
                self.refused += 1;
                show(&mut self.first_refused);
            }
            Answer::Unanswered { .. } => {
                // Without an answer there is no latency.
                self.unanswered += 1;
                show(&mut self.first_unanswered);
                return;
            }
        }
        let as_intended = match finished.planned.command.intended {
            Intended::Anything => true,
            Intended::Accepted => code == "accepted",
            Intended::Refused(intended) => code == intended,
        };
        if !as_intended {
            self.unintended += 1;
            show(&mut self.first_unintended);
        }
        let latency_us = micros(finished.latency);
        self.latency[kind].saturating_record(latency_us);
        self.recent.saturating_record(latency_us);
    }

    /// Median and 99th percentile in microseconds since the last call.
    pub(crate) fn take_recent(&mut self) -> Option<(u64, u64)> {
        let some = !self.recent.is_empty();
        let quantiles = some.then(|| (self.recent.value_at_quantile(0.5), self.recent.value_at_quantile(0.99)));
        self.recent.reset();
        quantiles
    }

    /// How often each action had each outcome.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (ActionKind, &str, u64)> {
        ActionKind::ALL.into_iter().flat_map(|kind| {
            self.counts[kind.index()].iter().map(move |(outcome, count)| (kind, outcome.as_str(), *count))
        })
    }

    /// How often rows of each reason had each outcome.
    pub(crate) fn counts_by_reason(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.reasons.iter().map(|((reason, outcome), count)| (&**reason, outcome.as_str(), *count))
    }

    /// Latencies of one action, if it was ever answered.
    pub(crate) fn latency_of(&self, kind: ActionKind) -> Option<Latency> {
        Latency::of(&self.latency[kind.index()])
    }

    /// Latencies of all actions together.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let mut all = histogram();
        for histogram in &self.latency {
            all += histogram;
        }
        Latency::of(&all)
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min: histogram.min(),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }
}

impl Deviation {
    fn of(planned: &Planned, outcome: &str, reason: &str) -> Self {
        let command = &planned.command;
        Self {
            sequence: planned.sequence,
            line: planned.line,
            time: command.at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            member: command.member.to_string(),
            action: format!("{:?}", command.action),
            outcome: outcome.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Bounds and digits are constants that the type allows.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("good constants")
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US)
}
