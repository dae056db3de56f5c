//! Runs of `cartctl`, with what they have ended with.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::installation::Installation;
use super::process::Process;

/// What an operator's command has ended with.
#[derive(Debug)]
pub struct Ended {
    /// `None`: a signal ended it.
    pub code: Option<i32>,
    /// All that it has written, also to standard error.
    pub output: String,
}

impl Ended {
    /// Waits for the end.
    ///
    /// # Errors
    /// It does not come in time.
    pub async fn of(mut process: Process, deadline: Duration) -> anyhow::Result<Self> {
        let code = process.ended(deadline).await?.code();
        Ok(Self { code, output: process.log() })
    }

    /// Returns it, if it has ended with this exit code and has written this.
    ///
    /// # Errors
    /// It has not; with what it has written.
    pub fn with(self, code: i32, word: &str) -> anyhow::Result<Self> {
        ensure!(self.code == Some(code) && self.output.contains(word), "not {code} with '{word}': {self:?}");
        Ok(self)
    }

    /// Returns it, if it has not written this.
    ///
    /// # Errors
    /// It has; with all that it has written.
    pub fn without(self, word: &str) -> anyhow::Result<Self> {
        ensure!(!self.output.contains(word), "'{word}' is in: {self:?}");
        Ok(self)
    }

    /// The JSON object that it has written.
    ///
    /// # Errors
    /// It has written none.
    pub fn json(&self) -> anyhow::Result<Value> {
        // Behind the lines of its log.
        let start = self.output.rfind("\n{").map(|start| start + 1).or_else(|| self.output.find('{'));
        let json = start.and_then(|start| self.output.get(start..));
        serde_json::from_str(json.with_context(|| self.output.clone())?).with_context(|| self.output.clone())
    }
}

impl Installation {
    /// Starts `cartctl` with more environment variables. Each run has a log of its own.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn start_cartctl(&self, args: &[&str], environment: &[(&'static str, String)]) -> anyhow::Result<Process> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let verb = args.first().copied().unwrap_or_default();
        let name = format!("cartctl-{verb}-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        self.spawn_as(&name, "cartctl", args, environment, None)
    }

    /// Runs `cartctl` to its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn cartctl(
        &self,
        args: &[&str],
        environment: &[(&'static str, String)],
        deadline: Duration,
    ) -> anyhow::Result<Ended> {
        Ended::of(self.start_cartctl(args, environment)?, deadline).await
    }

    /// Runs `cartctl` until it dies at a fail point.
    ///
    /// # Errors
    /// It ends otherwise.
    pub async fn cartctl_dies(&self, args: &[&str], fail_point: &str, deadline: Duration) -> anyhow::Result<()> {
        let died = self.cartctl(args, &[("FAILPOINTS", fail_point.to_owned())], deadline).await?;
        ensure!(died.code.is_none(), "it did not die at {fail_point}: {died:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_compared_by_exit_code_and_words() {
        let ended = || Ended { code: Some(1), output: String::from("a line\nrefused: {\"a\": 1}") };
        assert!(ended().with(1, "refused").is_ok() && ended().with(0, "refused").is_err());
        assert!(ended().without("done").is_ok() && ended().without("refused").is_err());
        let error = ended().with(1, "done").expect_err("it has not said so").to_string();
        assert!(error.contains("a line"), "{error}");
        assert_eq!(ended().json().expect("an object")["a"], 1);
        assert!(Ended { code: None, output: String::from("killed") }.json().is_err());
    }
}
