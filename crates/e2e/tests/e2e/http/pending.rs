//! Without an outcome in time the answer is 202, and the command is executed once there is a processor.

use e2e::harness::{Installation, Service, wait_until};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::api::{Answer, Api, Cart, DEADLINE, Headers, PATIENT, PROCESSOR, item, logged, product_path};

/// Repeats a command with a key until the answer has this status.
async fn until(cart: &Cart, status: u16, method: &Method, path: &str, body: Option<String>, key: &str) -> Answer {
    until_with(cart, status, method, path, body, &[("idempotency-key", key)]).await
}

async fn until_with(
    cart: &Cart,
    status: u16,
    method: &Method,
    path: &str,
    body: Option<String>,
    headers: Headers<'_>,
) -> Answer {
    let what = format!("a {status} for {headers:?}");
    let answer = wait_until(&what, DEADLINE, async || {
        let answer = cart.send(method.clone(), path, headers, body.clone()).await;
        match answer.map_err(|error| format!("{error:#}"))? {
            answer if answer.status == status => Ok(answer),
            // On a busy machine the delivery may take longer than this ingest waits.
            answer if [202, 504].contains(&answer.status) => Err(format!("{answer:?}")),
            answer => panic!("neither {status} nor unknown: {answer:?}"),
        }
    });
    answer.await.expect("it comes in time")
}

pub(crate) async fn without_an_outcome_in_time_a_command_is_pending_and_a_retry_finds_it() -> anyhow::Result<()> {
    let installation = Installation::new("pending")?;
    installation.setup().await?;
    let ingest = installation.start_all(&[(Service::Ingest, "0", &["--reply-timeout-ms", "300"])]).await?;
    let cart = Api::new(&ingest[0]).cart();
    let add = Some(item(1, 2).to_string());
    let adjust = Some(json!({"adjustBy": -5}).to_string());

    let (post, patch) = (Method::POST, Method::PATCH);
    let pending = until(&cart, 202, &post, "", add.clone(), "add").await;
    let refused = until(&cart, 202, &patch, &product_path(1), adjust.clone(), "adjust").await;
    let mut ids = Vec::new();
    for answer in [&pending, &refused] {
        let body = answer.json();
        let id: Uuid = body["commandId"].as_str().unwrap_or_default().parse()?;
        assert_eq!(body, json!({"commandId": id, "cartId": cart.id, "status": "pending"}));
        let location = answer.header("location").unwrap_or_default();
        assert!(location.starts_with(&format!("/cart/{}/commands/{id}?since=", cart.id)), "{location}");
        assert_eq!(answer.header("etag"), None, "there is no version yet");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(cart.get().await?["version"], 0, "it is not decided");

    let processor = installation.start_all(&[PROCESSOR]).await?;
    let shown = wait_until("the command to take effect", DEADLINE, async || {
        let cart = cart.get().await.map_err(|error| format!("{error:#}"))?;
        if cart["version"] == 0 { Err(cart.to_string()) } else { Ok(cart) }
    });
    let shown = shown.await?;
    assert_eq!((&shown["version"], &shown["items"]), (&json!(1), &json!([item(1, 2)])));

    let retried = until(&cart, 200, &post, "", add, "add").await.done();
    assert_eq!((&retried["commandId"], &retried["version"]), (&json!(ids[0]), &json!(1)));
    assert_eq!(retried["item"], item(1, 2));
    let retried = until(&cart, 422, &patch, &product_path(1), adjust, "adjust").await;
    retried.rejected(422, "negative-quantity", "would be -3");
    assert_eq!(retried.json()["commandId"], json!(ids[1]));
    assert_eq!(cart.get().await?["version"], 1);
    drop((processor, ingest));
    installation.remove().await
}

/// Two requests with one key have one command id. The second one gets its own outcome, and not that of the first.
pub(crate) async fn each_request_under_a_key_is_answered_with_its_own_outcome() -> anyhow::Result<()> {
    let installation = Installation::new("retry")?;
    installation.setup().await?;
    let ingest = installation.start_all(&[(Service::Ingest, "0", &PATIENT)]).await?;
    let cart = Api::new(&ingest[0]).cart();
    let (path, adjust) = (product_path(1), Some(json!({"adjustBy": 3}).to_string()));

    // In the log: an adjustment of an item that is not in the cart yet, its addition, and another adjustment with the first
    // key.
    let gives_up: Headers<'_> = &[("idempotency-key", "adjust"), ("prefer", "wait=1")];
    until_with(&cart, 202, &Method::PATCH, &path, adjust.clone(), gives_up).await;
    let leaves: Headers<'_> = &[("idempotency-key", "add"), ("prefer", "respond-async")];
    until_with(&cart, 202, &Method::POST, "", Some(item(1, 2).to_string()), leaves).await;
    let before = logged(&installation)?;
    let other = {
        let (cart, path, other) = (cart.clone(), path.clone(), Some(json!({"adjustBy": 4}).to_string()));
        let sent = async move { cart.send(Method::PATCH, &path, &[("idempotency-key", "adjust")], other).await };
        tokio::spawn(sent)
    };
    let is_logged = wait_until("the other to be in the log", DEADLINE, async || match logged(&installation) {
        Ok(count) if count > before => Ok(()),
        other => Err(format!("{other:?}, before {before}")),
    });
    is_logged.await?;

    let processor = installation.start_all(&[PROCESSOR]).await?;
    other.await??.rejected(422, "idempotency-key-reused", "used for another request");
    let retry = cart.send(Method::PATCH, &path, &[("idempotency-key", "adjust")], adjust).await?;
    retry.rejected(404, "item-not-in-cart", "only items in the cart");
    assert_eq!(cart.get().await?["items"], json!([item(1, 2)]));
    drop((processor, ingest));
    installation.remove().await
}
