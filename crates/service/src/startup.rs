//! Waits for servers and `setup` at the start, and checks servers later.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Readiness, Shutdown};

/// The pause between two attempts. Short enough not to delay a start noticeably.
const PAUSE: Duration = Duration::from_millis(500);

/// The pause between two checks of a server. An idle service can't notice in another way that a server is unavailable.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How many checks in a row must fail. A single one may fail because the server is busy.
const PROBE_FAILURES: u32 = 2;

/// How long a service waits at its start.
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

/// Checks a server every few seconds until the shutdown, and sets `condition` by the result.
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

/// Repeats `attempt` until it succeeds. Logs what it waits for.
///
/// # Errors
/// The last error, when `deadline` has passed.
pub async fn wait_for<T, E: Into<anyhow::Error>>(
    what: &str,
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut is_logged = false;
    loop {
        let error: anyhow::Error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error.into(),
        };
        if Instant::now() + PAUSE > end {
            return Err(error.context(format!("waited {} s for {what}", deadline.as_secs())));
        }
        if !is_logged {
            tracing::warn!(reason = format!("{error:#}"), "waiting for {what}, at most {} s", deadline.as_secs());
            is_logged = true;
        }
        sleep(PAUSE).await;
    }
}
