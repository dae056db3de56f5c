//! Logs on standard error.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::exit;
use crate::log_lines::{self, OneLine};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_without_no_color() {
        assert!(is_coloured(true, None));
        assert!(is_coloured(true, Some(OsStr::new(""))));
        assert!(!is_coloured(true, Some(OsStr::new("1"))));
        assert!(!is_coloured(false, None));
    }
}
