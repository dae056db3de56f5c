//! The result of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

use super::client_outcomes::ClientOutcomes;
use super::plan::Fault;
use super::process_monitor::Observed;
use cartctl::audit::Report;

/// The results of all rounds with a fault.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    /// The number of rounds.
    pub times: u64,
    /// The longest time from its end until every service was ready.
    pub recovery_max_ms: u64,
    /// What clients got meanwhile.
    #[serde(rename = "told")]
    pub outcomes: ClientOutcomes,
}

/// The result of a run; its fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The seed, which gives the same faults again.
    pub seed: u64,
    /// Whether it ran on a cluster, in which clients must not get errors.
    pub is_cluster: bool,
    /// The results by fault; a name includes its random target.
    pub faults: BTreeMap<String, Injected>,
    /// The time from the last command's answer until all consumers had caught up and the audit was done.
    pub settled_ms: u64,
    /// The report of the audit.
    pub report: Option<Report>,
    /// The maximum memory of each process, in KiB.
    pub rss_max_kib: BTreeMap<String, u64>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Summary {
    pub(super) fn new(seed: u64, is_cluster: bool) -> Self {
        Self { seed, is_cluster, faults: BTreeMap::new(), settled_ms: 0, report: None, rss_max_kib: BTreeMap::new() }
    }

    pub(super) fn injected(&mut self, done: &str, recovery: Duration, outcomes: ClientOutcomes) {
        let injected = self.faults.entry(done.to_owned()).or_default();
        injected.times += 1;
        injected.recovery_max_ms = injected.recovery_max_ms.max(millis(recovery));
        injected.outcomes.add(outcomes);
    }

    /// What all clients got, in all rounds.
    #[must_use]
    pub fn outcomes(&self) -> ClientOutcomes {
        let mut all = ClientOutcomes::default();
        for injected in self.faults.values() {
            all.add(injected.outcomes.clone());
        }
        all
    }

    pub(super) fn checked(&mut self, report: Report, settled: Duration, observed: BTreeMap<String, Observed>) {
        self.settled_ms = millis(settled);
        self.report = Some(report);
        self.rss_max_kib = observed.into_iter().map(|(name, process)| (name, process.rss_max_kib)).collect();
    }

    /// Errors that clients should not have had: in a rolling restart only one instance is away at a time, and in a cluster any
    /// one server may be away.
    fn avoidable(&self) -> ClientOutcomes {
        let restarts = self.faults.get(&Fault::RollingRestart.to_string()).map(|restarts| restarts.outcomes.clone());
        if self.is_cluster { self.outcomes() } else { restarts.unwrap_or_default() }
    }

    /// Whether the audit was done, nothing is wrong, and no command or row waits. False without an acknowledged command, since then
    /// nothing was checked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.avoidable().errors == 0
            && self.report.as_ref().is_some_and(|report| {
                let is_parked = report.counts.parked > 0 || report.counts.parked_rows > 0;
                report.is_clean() && !is_parked && report.client.acknowledged > 0
            })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut faults = Table::new();
        faults.load_style(UTF8_BORDERS_ONLY);
        faults.set_header([
            "fault",
            "times",
            "ready again after (ms, at most)",
            "slowest outcome (ms)",
            "202",
            "errors",
        ]);
        for (fault, injected) in &self.faults {
            let ClientOutcomes { pending, errors, slowest_ms, .. } = injected.outcomes;
            let numbers = [injected.times, injected.recovery_max_ms, slowest_ms, pending, errors];
            faults.add_row(std::iter::once(fault.clone()).chain(numbers.map(|number| number.to_string())));
        }
        writeln!(f, "{faults}")?;
        let outcomes = self.outcomes();
        if self.is_cluster {
            writeln!(
                f,
                "clients met {} errors and {} answers 202; {} reads",
                outcomes.errors, outcomes.pending, outcomes.reads
            )?;
        }
        let ClientOutcomes { errors, first_error, .. } = self.avoidable();
        if let Some(error) = first_error {
            writeln!(f, "FINDING clients met {errors} errors that need not have been; the first: {error}")?;
        }
        let memory = self.rss_max_kib.iter().max_by_key(|(_, kib)| **kib);
        if let Some((name, kib)) = memory {
            writeln!(f, "most memory: {name}, {} MiB", kib / 1_024)?;
        }
        if let Some(report) = &self.report {
            let (counts, client) = (&report.counts, &report.client);
            writeln!(
                f,
                "{} commands sent: {} acknowledged, {} refused, {} unknown ({} of them happened), {} sent again\n\
                 {} events, {} purchases, {} rows; at rest and checked {} ms after the last command",
                client.commands,
                client.acknowledged,
                client.refused,
                client.unknown_happened + client.unknown_not,
                client.unknown_happened,
                client.retried,
                counts.events,
                counts.purchases,
                counts.rows,
                self.settled_ms,
            )?;
            if counts.parked > 0 {
                writeln!(f, "FINDING {} commands still wait, of parked carts", counts.parked)?;
            }
            if counts.parked_rows > 0 {
                writeln!(f, "FINDING {} rows of read tables are still parked", counts.parked_rows)?;
            }
            for finding in &report.findings {
                writeln!(f, "FINDING {finding:?}")?;
            }
            write!(f, "{} findings (seed {})", report.findings_count(), self.seed)?;
        }
        Ok(())
    }
}
