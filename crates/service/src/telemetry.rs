//! Logs on standard error, metrics in Prometheus' text format.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::exit;
use crate::log_lines::{self, OneLine};

/// How often histograms are folded; otherwise they grow until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of every `*_seconds` histogram: from a fast reply to the timeout of a client.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The settings of the log.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Log levels in the syntax of tracing's EnvFilter, such as info,kafka=debug
    #[arg(help_heading = "Logs")]
    #[arg(long = "log", env = "LOG", default_value = "info,librdkafka=warn,rdkafka=warn,scylla=error")]
    pub log: String,

    /// Format of the log lines
    #[arg(long, env, help_heading = "Logs", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text, for reading
    Text,
    /// One JSON object per line, for log collectors
    Json,
}

impl LogArgs {
    /// Starts logging. Can be called once per process.
    ///
    /// # Errors
    /// The levels are invalid.
    pub fn init(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log).with_context(|| format!("reading the log levels '{}'", self.log))?;
        let is_coloured = is_coloured(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
        let output = move || OneLine::new(std::io::stderr(), is_coloured);
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_coloured).with_writer(output);
        let result = match self.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
        result.map_err(|error| anyhow::anyhow!(error).context("starting to log"))?;
        log_lines::log_panics();
        if self.log_format == LogFormat::Json {
            exit::log_the_error();
        }
        Ok(())
    }
}

/// Whether to use colours: only on a terminal, and not with NO_COLOR (<https://no-color.org>). In a file or a collector their
/// escape codes would break searches.
fn is_coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

fn builder(histograms: &[(&str, &[f64])]) -> Result<PrometheusBuilder, BuildError> {
    let all = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix(String::from("_seconds")), SECONDS);
    // A full name takes precedence over a suffix.
    histograms
        .iter()
        .fold(all, |builder, (name, bounds)| builder?.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds))
}

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Starts collecting. Can be called once per process, within a tokio runtime. The counters exist at 0 from the start,
    /// because a query for the growth of a counter does not see the step from absent to 1.
    ///
    /// # Errors
    /// Metrics are collected already.
    pub fn install(counters: &[&'static str]) -> anyhow::Result<Self> {
        Self::install_with(counters, &[])
    }

    /// Does the same, with other bounds for some histograms.
    ///
    /// # Errors
    /// As [`Metrics::install`].
    pub fn install_with(counters: &[&'static str], histograms: &[(&str, &[f64])]) -> anyhow::Result<Self> {
        let handle =
            builder(histograms).and_then(PrometheusBuilder::install_recorder).context("starting to collect metrics")?;
        for name in counters {
            metrics::counter!(*name).increment(0);
        }
        let upkeep = handle.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                interval.tick().await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self(handle))
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_may_have_bounds_of_its_own() {
        let recorder = builder(&[("audit_seconds", &[60.0, 3_600.0])]).expect("bounds").build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("audit_seconds").record(45.0);
            metrics::histogram!("reply_seconds").record(0.7);
            metrics::counter!("failures_total").increment(0);
        });
        let text = recorder.handle().render();
        for line in [
            "audit_seconds_bucket{le=\"60\"} 1",
            "audit_seconds_bucket{le=\"3600\"} 1",
            "reply_seconds_bucket{le=\"0.5\"} 0",
            "reply_seconds_bucket{le=\"1\"} 1",
            "failures_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("audit_seconds_bucket{le=\"30\"}"), "{text}");
    }

    #[test]
    fn colours_are_for_terminals_without_no_color() {
        assert!(is_coloured(true, None));
        assert!(is_coloured(true, Some(OsStr::new(""))));
        assert!(!is_coloured(true, Some(OsStr::new("1"))));
        assert!(!is_coloured(false, None));
    }
}
