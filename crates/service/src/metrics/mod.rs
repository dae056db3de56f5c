//! Metrics in Prometheus' text format.

mod common;
mod definition;
mod scrape;
mod text;

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub use common::{ALL as COMMON_METRICS, Store};
pub use definition::{Counter, Definition, Gauge, Histogram, Kind, Label};
pub use scrape::{Collect, Sample};
pub use text::MetricsText;

/// How often histograms are folded; otherwise they grow until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

fn builder<'a>(mut definitions: impl Iterator<Item = &'a Definition>) -> Result<PrometheusBuilder, BuildError> {
    definitions.try_fold(PrometheusBuilder::new(), |builder, definition| match definition.kind {
        Kind::Histogram(bounds) => builder.set_buckets_for_metric(Matcher::Full(definition.name.to_owned()), bounds),
        Kind::Counter | Kind::Gauge => Ok(builder),
    })
}

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    collect: Vec<Collect>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Starts collecting for the service of this name: what [`crate::define_metrics`] defined in its crates, and `collect` at each
    /// scrape. Can be called once per process, within a tokio runtime. Counters exist at 0 from the start, with all of their
    /// labels' values that are known.
    ///
    /// # Errors
    /// Metrics are collected already.
    pub fn install(service: &str, definitions: &[&[Definition]], collect: &[Collect]) -> anyhow::Result<Self> {
        let all = || definitions.iter().copied().chain([COMMON_METRICS]).flatten();
        let handle =
            builder(all()).and_then(PrometheusBuilder::install_recorder).context("starting to collect metrics")?;
        for definition in all() {
            definition.describe();
            definition.start(&[]);
        }
        common::BUILD_INFO.with(&[service, env!("CARGO_PKG_VERSION")]).set(1.0);
        common::READY.with(&[]).set(0.0);
        let upkeep = handle.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                interval.tick().await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { handle, process: metrics_process::Collector::default(), collect: collect.to_vec() })
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self, is_ready: bool) -> String {
        common::READY.with(&[]).set(f64::from(u8::from(is_ready)));
        self.process.collect();
        let mut text = self.handle.render();
        scrape::render(self.collect.iter().flat_map(|collect| collect()).collect(), &mut text);
        text
    }
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro is for the root of a crate")]
mod tests {
    use super::*;

    crate::define_metrics! {
        AUDIT: Histogram = Histogram::new("audit_seconds", &[60.0, 3_600.0], "Time of an audit");
        REPLY: Histogram = Histogram::seconds("reply_seconds", "Time of a reply").labels(&[Label::one_of("to", &["a", "b"])]);
        FAILURES: Counter = Counter::new("failures_total", "Failures");
        WORK: Counter = Counter::new("work_total", "Work").labels(&[Label::any("by")]);
    }

    #[test]
    fn what_is_defined_is_described_and_there_from_the_start() {
        let recorder = builder(ALL.iter()).expect("bounds").build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            for definition in ALL {
                definition.describe();
                definition.start(&[]);
            }
            AUDIT.with(&[]).record(45.0);
            REPLY.with(&["b"]).record(0.7);
            FAILURES.with(&[]).increment(0);
            WORK.start(&["me"]);
        });
        let text = recorder.handle().render();
        for line in [
            "# HELP audit_seconds Time of an audit",
            "# TYPE audit_seconds histogram",
            "audit_seconds_bucket{le=\"60\"} 1",
            "audit_seconds_bucket{le=\"3600\"} 1",
            "reply_seconds_bucket{to=\"b\",le=\"0.5\"} 0",
            "reply_seconds_bucket{to=\"b\",le=\"1\"} 1",
            "reply_seconds_bucket{to=\"a\",le=\"1\"} 0",
            "# HELP failures_total Failures",
            "failures_total 0",
            "work_total{by=\"me\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("audit_seconds_bucket{le=\"30\"}"), "{text}");
    }
}
