//! The services' own counters (`/metrics`): commands, records, batches, transactions.

use anyhow::Context as _;

use super::environment::Named;
use super::server_requests::Counts;

/// The counters that are read, with their units.
const COUNTERS: [(&str, &str); 5] = [
    ("processor_commands_total", "commands"),
    ("processor_batch_records_count", "batches"),
    ("cart_transaction_seconds_count", "transactions"),
    ("projector_records_total", "records"),
    ("projector_apply_seconds_count", "batches"),
];

/// The URLs of the services' metrics.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    services: Vec<(String, String)>,
    client: reqwest::Client,
}

impl ServiceMetrics {
    pub(crate) fn of<'a>(processes: impl IntoIterator<Item = &'a Named>) -> Self {
        let url = |(name, process): &Named| Some((name.clone(), process.metrics_url().ok()?));
        Self { services: processes.into_iter().filter_map(url).collect(), client: reqwest::Client::new() }
    }

    /// Reads the counters. Several services of one name are added up.
    pub(crate) async fn read(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts::new();
        for (name, url) in &self.services {
            let response = self.client.get(url).send().await;
            let text = response.and_then(reqwest::Response::error_for_status);
            let text = text.with_context(|| format!("asking {name} for its metrics"))?.text().await?;
            for (what, count) in text.lines().filter_map(counter) {
                *counts.entry((what.to_owned(), name.clone())).or_default() += count;
            }
        }
        Ok(counts)
    }
}

/// The count in a line of Prometheus' text format, if the counter is one of these. Its series are added up.
fn counter(line: &str) -> Option<(&'static str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let name = series.split('{').next()?;
    let (_, what) = COUNTERS.iter().find(|(counter, _)| *counter == name)?;
    Some((what, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_its_counters() {
        assert_eq!(counter("processor_batch_records_count 12"), Some(("batches", 12.0)));
        assert_eq!(counter("projector_records_total{projector=\"a b\"} 3"), Some(("records", 3.0)));
        assert_eq!(counter("# TYPE processor_commands_total counter"), None);
        assert_eq!(counter("processor_batch_records_bucket{le=\"5\"} 3"), None);
    }
}
