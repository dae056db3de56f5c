//! Waits for a condition.

use std::fmt::Display;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// The pause between two checks.
const INTERVAL: Duration = Duration::from_millis(50);

/// Calls `look` until it returns a value. Its error is the state that it sees instead.
///
/// # Errors
/// `deadline` has passed; with what was waited for, and the last state.
pub async fn wait_until<T, S: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let seen = match look().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() >= deadline {
            bail!("waited {:.1} s for {what}; last seen: {seen:#}", deadline.as_secs_f32());
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_a_value_that_comes_in_time() {
        let mut looks = 0;
        let value = wait_until("the third look", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("look {looks}")) }
        });
        assert_eq!(value.await.expect("it comes"), 3);
    }

    #[tokio::test]
    async fn reports_the_last_state() {
        let never = wait_until("the end", Duration::ZERO, async || Err::<(), _>("the beginning"));
        let error = never.await.expect_err("it never comes");
        assert_eq!(error.to_string(), "waited 0.0 s for the end; last seen: the beginning");
    }
}
