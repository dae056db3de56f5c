//! Waiting, at the start, for what others have to provide.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two attempts. Short enough not to delay a start that others wait for.
const PAUSE: Duration = Duration::from_millis(500);

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
