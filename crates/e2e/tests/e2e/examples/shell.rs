//! Runs the commands of a page as a reader's shell does, with the variables of earlier commands.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::answer::Run;
use super::page::Example;

/// The options of curl: it prints each status to standard error, and ignores the user's settings.
const CURL: &str = r#"curl() { command curl -q -sS --noproxy '*' --max-time 120 -D /dev/stderr "$@"; }"#;

#[derive(Debug)]
pub(super) struct Shell {
    /// The folder for the commands and the variables.
    pub(super) folder: PathBuf,
    /// The addresses of the pages, each with the real one.
    pub(super) addresses: Vec<(String, String)>,
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Shell {
    fn variables(&self) -> PathBuf {
        self.folder.join("variables")
    }

    /// Forgets the variables.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        std::fs::write(self.variables(), "").context("writing the file of variables")
    }

    pub(super) fn run(&self, example: &Example) -> anyhow::Result<Run> {
        let addressed = |command: String, (shown, real): &(String, String)| command.replace(shown, real);
        let command = self.addresses.iter().fold(example.command.clone(), addressed);
        let keep = example.variable().map(|name| format!("declare -p {name} >>variables")).unwrap_or_default();
        let script = format!("set -euo pipefail\n{CURL}\n. ./variables\n{command}\n{keep}\n");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{}: running bash", example.place))?;
        let errors = String::from_utf8(output.stderr).with_context(|| format!("{}: no UTF-8", example.place))?;
        let statuses = errors.lines().filter_map(|line| line.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok());
        Ok(Run {
            succeeded: output.status.success(),
            output: String::from_utf8(output.stdout).with_context(|| format!("{}: no UTF-8", example.place))?,
            statuses: statuses.collect(),
            errors,
        })
    }
}
