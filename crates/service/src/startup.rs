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
                    readiness.set_ready(condition);
                }
                Err(error) => {
                    failures += 1;
                    if failures >= PROBE_FAILURES {
                        readiness.set_unready(condition, error.into());
                    }
                }
            }
        }
    });
}

/// Repeats `attempt` until it succeeds. Logs what it waits for.
///
/// # Errors
/// The last error, when `timeout` has passed.
pub async fn wait_for<T, E: Into<anyhow::Error>>(
    what: &str,
    timeout: Duration,
    attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    wait_for_unless(what, timeout, |_| false, attempt).await
}

/// As [`wait_for`]; an error that `is_final` ends the wait at once, since time would not change it.
///
/// # Errors
/// A final error, or the last one when `timeout` has passed.
pub async fn wait_for_unless<T, E: Into<anyhow::Error>>(
    what: &str,
    timeout: Duration,
    is_final: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let end = Instant::now() + timeout;
    let mut is_logged = false;
    loop {
        let error: anyhow::Error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if is_final(&error) => return Err(error.into().context("refusing to start")),
            Err(error) => error.into(),
        };
        if Instant::now() + PAUSE > end {
            return Err(error.context(format!("waited {} s for {what}", timeout.as_secs())));
        }
        if !is_logged {
            tracing::warn!(
                what,
                timeout_s = timeout.as_secs(),
                reason = format!("{error:#}"),
                "waiting for what the start needs"
            );
            is_logged = true;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn attempts_are_repeated_until_one_succeeds() {
        let mut attempts = 0;
        let result = wait_for("a server", TIMEOUT, async || {
            attempts += 1;
            if attempts < 3 { Err(anyhow::anyhow!("down")) } else { Ok(attempts) }
        });
        assert_eq!(result.await.expect("it is up"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_its_timeout_or_at_once_with_a_final_error() {
        let started_at = Instant::now();
        let is_final = |error: &anyhow::Error| error.to_string() == "another log";
        let error = wait_for_unless("a log", TIMEOUT, is_final, async || Err::<(), _>(anyhow::anyhow!("another log")));
        let error = error.await.expect_err("it is final");
        assert_eq!(format!("{error:#}"), "refusing to start: another log");
        assert_eq!(started_at.elapsed(), Duration::ZERO);
        let error = wait_for_unless("a log", TIMEOUT, is_final, async || Err::<(), _>(anyhow::anyhow!("down")));
        let error = error.await.expect_err("it stays down");
        assert_eq!(format!("{error:#}"), "waited 10 s for a log: down");
        assert!(started_at.elapsed() >= TIMEOUT - PAUSE);
    }
}
