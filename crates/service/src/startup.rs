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
    /// The start of a service that shows in `readiness` what it waits for.
    #[must_use]
    pub fn start(&self, readiness: &Readiness) -> Startup {
        readiness.set_unready(CONDITION, CONNECTING);
        Startup { timeout: Duration::from_secs(self.startup_timeout_s), readiness: readiness.clone() }
    }
}

/// The condition of [`Readiness`] that holds from the end of the start on.
const CONDITION: &str = "start";

/// What the condition says while nothing has failed.
const CONNECTING: &str = "connecting";

/// The start of a service.
#[derive(Debug, Clone)]
pub struct Startup {
    timeout: Duration,
    readiness: Readiness,
}

impl Startup {
    /// The service works from now on.
    pub fn ready(&self) {
        self.readiness.set_ready(CONDITION);
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

/// Repeats `attempt` until it succeeds. Log and readiness say what it waits for, and why.
///
/// # Errors
/// The last error, when the time for the start has passed.
pub async fn wait_for<T, E: Into<anyhow::Error>>(
    what: &str,
    startup: &Startup,
    attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    wait_for_unless(what, startup, |_| false, attempt).await
}

/// As [`wait_for`]; an error that `is_final` ends the wait at once, since time would not change it.
///
/// # Errors
/// A final error, or the last one when the time for the start has passed.
pub async fn wait_for_unless<T, E: Into<anyhow::Error>>(
    what: &str,
    startup: &Startup,
    is_final: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let timeout = startup.timeout;
    let end = Instant::now() + timeout;
    let mut logged = String::new();
    loop {
        let error: anyhow::Error = match attempt().await {
            Ok(value) => {
                if !logged.is_empty() {
                    startup.readiness.set_unready(CONDITION, CONNECTING);
                }
                return Ok(value);
            }
            Err(error) if is_final(&error) => return Err(error.into().context("refusing to start")),
            Err(error) => error.into(),
        };
        if Instant::now() + PAUSE > end {
            return Err(error.context(format!("waited {} s for {what}", timeout.as_secs())));
        }
        let reason = format!("{error:#}");
        // Another reason than before is news: the server may be up by now, and reject the password.
        if logged != reason {
            tracing::warn!(what, timeout_s = timeout.as_secs(), reason, "waiting for what the start needs");
            startup.readiness.set_unready(CONDITION, format!("waiting for {what}: {reason}"));
            logged = reason;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn start() -> Startup {
        StartupArgs { startup_timeout_s: TIMEOUT.as_secs() }.start(&Readiness::default())
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_repeated_until_one_succeeds() {
        let mut attempts = 0;
        let startup = start();
        let result = wait_for("a server", &startup, async || {
            attempts += 1;
            if attempts == 3 {
                assert_eq!(startup.readiness.missing(), ["start: waiting for a server: down"]);
            }
            if attempts < 3 { Err(anyhow::anyhow!("down")) } else { Ok(attempts) }
        });
        assert_eq!(result.await.expect("it is up"), 3);
        assert_eq!(startup.readiness.missing(), ["start: connecting"]);
        startup.ready();
        assert_eq!(startup.readiness.missing(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_its_timeout_or_at_once_with_a_final_error() {
        let (started_at, startup) = (Instant::now(), start());
        let is_final = |error: &anyhow::Error| error.to_string() == "another log";
        let error = wait_for_unless("a log", &startup, is_final, async || Err::<(), _>(anyhow::anyhow!("another log")));
        let error = error.await.expect_err("it is final");
        assert_eq!(format!("{error:#}"), "refusing to start: another log");
        assert_eq!(started_at.elapsed(), Duration::ZERO);
        let error = wait_for_unless("a log", &startup, is_final, async || Err::<(), _>(anyhow::anyhow!("down")));
        let error = error.await.expect_err("it stays down");
        assert_eq!(format!("{error:#}"), "waited 10 s for a log: down");
        assert!(started_at.elapsed() >= TIMEOUT - PAUSE);
    }
}
