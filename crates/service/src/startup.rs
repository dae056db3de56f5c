//! Waiting, at the start, for what others have to provide; noticing, later, that it has gone.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Readiness, Shutdown};

/// Between two attempts. Short enough not to delay a start that others wait for.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two looks at a server. An idle service has no other way to notice that one has gone.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A look that failed this often in a row counts: one may have met a busy moment.
const PROBE_FAILURES: u32 = 2;

/// How patient a service is at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct StartupArgs {
    /// Maximum wait at the start for servers that do not respond and for `setup`
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub startup_timeout_s: u64,
}

impl StartupArgs {
    /// The wait.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.startup_timeout_s)
    }
}

/// Looks at a server every few seconds until the shutdown, and makes `condition` tell whether it answers.
pub fn probe<T, C, F, E>(condition: &'static str, readiness: &Readiness, shutdown: &Shutdown, server: T, check: C)
where
    T: Clone + Send + Sync + 'static,
    C: Fn(T) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send,
    E: Into<anyhow::Error> + Send,
{
    let (readiness, mut shutdown) = (readiness.clone(), shutdown.clone());
    tokio::spawn(async move {
        let mut failures = 0;
        loop {
            tokio::select! { () = sleep(PROBE_INTERVAL) => {}, () = shutdown.requested() => return }
            match check(server.clone()).await {
                Ok(()) => {
                    failures = 0;
                    readiness.up(condition);
                }
                Err(error) => {
                    failures += 1;
                    if failures >= PROBE_FAILURES {
                        readiness.down(condition, error.into());
                    }
                }
            }
        }
    });
}

/// Repeats `attempt` until it succeeds, saying what is waited for.
///
/// # Errors
/// The last error, when `deadline` has passed.
pub async fn wait_for<T, E: Into<anyhow::Error>>(
    what: &str,
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut told = false;
    loop {
        let error: anyhow::Error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error.into(),
        };
        if Instant::now() + PAUSE > end {
            return Err(error.context(format!("waited {} s for {what}", deadline.as_secs())));
        }
        if !told {
            tracing::warn!(reason = format!("{error:#}"), "waiting for {what}, at most {} s", deadline.as_secs());
            told = true;
        }
        sleep(PAUSE).await;
    }
}
