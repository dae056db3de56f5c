//! The progress of a run on standard error: a bar on a terminal, otherwise a line every few seconds.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::attempt::Retries;
use super::statistics::Statistics;
use super::table::millis;

/// The progress bar, and the counts at the last update.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    shown_at: Instant,
    finished: u64,
    retries: u64,
}

impl Progress {
    /// The pause between two updates: short enough to show activity, long enough to read.
    const BAR_INTERVAL: Duration = Duration::from_millis(500);
    const LINE_INTERVAL: Duration = Duration::from_secs(5);

    pub(crate) fn start(commands_expected: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(commands_expected));
        Self { bar, shown_at: Instant::now(), finished: 0, retries: 0 }
    }

    pub(crate) fn interval(&self) -> Duration {
        if self.bar.is_some() { Self::BAR_INTERVAL } else { Self::LINE_INTERVAL }
    }

    /// Shows rate and latency since the last call.
    pub(crate) fn show(&mut self, statistics: &mut Statistics, retries: &Retries, in_flight: usize) {
        let now = Instant::now();
        let elapsed_ms = u64::try_from(now.duration_since(self.shown_at).as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = (statistics.finished - self.finished) * 1_000 / elapsed_ms;
        let mut line = format!("{rate}/s");
        if let Some((p50, p99)) = statistics.take_recent() {
            line += &format!(", p50 {} ms, p99 {} ms", millis(p50), millis(p99));
        }
        line += &format!(", {} rejected, {in_flight} in flight", statistics.refused);
        let retried = retries.total();
        if retried > self.retries {
            line += &format!(", {} retries ({})", retried - self.retries, retries.last_reason());
        }
        (self.shown_at, self.finished, self.retries) = (now, statistics.finished, retried);
        match &self.bar {
            Some(bar) => {
                bar.set_position(statistics.finished);
                bar.set_message(line);
            }
            None => note(&format!("{} commands: {line}", statistics.finished)),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line that is not overwritten.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

fn bar(commands_expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match commands_expected {
        Some(commands) => (ProgressBar::new(commands), "{elapsed_precise} {bar:30} {human_pos}/{human_len} {msg}"),
        None => (ProgressBar::no_length(), "{elapsed_precise} {human_pos} commands {msg}"),
    };
    // If the template is invalid, the default one is used.
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Ignores errors: standard error may be closed, and the run continues.
fn note(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
}
