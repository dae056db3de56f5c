//! Requests above the limit are answered with 503, and are never executed.

use e2e::harness::{Installation, Service, wait_until};
use reqwest::Method;
use serde_json::json;

use super::api::{Answer, Api, DEADLINE, PROCESSOR, item, logged};

#[track_caller]
fn assert_not_taken(answer: &Answer) {
    assert_eq!(answer.unlike_problem(503, "unavailable", "not executed"), None);
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
}

pub(crate) async fn requests_above_the_limit_are_rejected_and_never_executed() -> anyhow::Result<()> {
    let installation = Installation::new("in_flight")?;
    installation.setup().await?;
    let services: [(Service, &str, &[&str]); 2] = [
        (Service::LimitedIngest, "commands", &["--reply-timeout-ms", "60000", "--commands-in-flight-max", "1"]),
        (Service::LimitedIngest, "requests", &["--reply-timeout-ms", "60000", "--requests-in-flight-max", "1"]),
    ];
    let processes = installation.start_all(&services).await?;
    for process in &processes {
        let api = Api::new(process);
        let before = logged(&installation)?;
        let cart = api.cart();
        // Without a processor the first request stays in flight.
        let first = tokio::spawn({
            let cart = cart.clone();
            async move { cart.add(1, 2).await }
        });
        let is_logged = wait_until("the first to be in the log", DEADLINE, async || match logged(&installation) {
            Ok(count) if count > before => Ok(()),
            other => Err(format!("{other:?}, before {before}")),
        });
        is_logged.await?;

        let key = [("idempotency-key", "second")];
        let second = async || cart.send(Method::POST, "", &key, Some(item(2, 1).to_string())).await;
        assert_not_taken(&second().await?);
        assert_not_taken(&cart.checkout().await?);
        let batch = json!({"atomic": true, "commands": [{"add": item(3, 1)}, {"checkout": {}}]});
        assert_not_taken(&cart.send(Method::POST, "/commands", &[], Some(batch.to_string())).await?);
        assert_eq!(logged(&installation)?, before + 1, "what was not taken is in the log");
        // Health is always answered.
        assert_eq!(api.send(&Method::GET, "/health/live", &[], None).await?.status, 200);

        let mut processor = installation.start_all(&[PROCESSOR]).await?.remove(0);
        assert_eq!(first.await??.done()["version"], 1);
        assert_eq!(cart.get().await?["items"], json!([item(1, 2)]), "what was not taken was carried out");
        // The key is unused, so the command is now executed, once.
        assert_eq!(second().await?.done()["version"], 2);
        processor.terminate(DEADLINE).await?;
    }
    drop(processes);
    installation.remove().await
}
