//! An event stream needs the token of its cart, and ends when the token expires.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::wait_until;
use reqwest::Client;
use serde_json::json;
use uuid::Uuid;

use super::{Api, DEADLINE, Signer, changed, claims};
use crate::event_streams::client::{EventStream, request};

/// The service accepts a token for this long after it has expired.
const LEEWAY_S: i64 = 30;

const SECOND: Duration = Duration::from_secs(1);

/// Long enough to open a stream on a busy machine, and short enough to wait for.
const REST_S: i64 = 4;

pub(super) async fn ends_with_its_token(api: &Api, signer: &Signer, own: &str) -> anyhow::Result<()> {
    let client = Client::builder().no_proxy().read_timeout(DEADLINE).build()?;
    let url = format!("{}/cart/{own}/events", api.url);
    let open = async |token: Option<&str>| {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        request(&client, &url, &headers).await
    };
    ensure!(open(None).await?.status() == 401);
    let stranger = signer.sign(&claims(&Uuid::new_v4().to_string(), "vendors"))?;
    ensure!(open(Some(&stranger)).await?.status() == 403);

    // Heartbeats keep the stream open; only the token ends it.
    let mut lasting = EventStream::of(open(Some(&signer.sign(&claims(own, ""))?)).await?).await?;
    ensure!(lasting.event().await?.is_some(), "a stream with a token that lasts");
    let expires = chrono::Utc::now().timestamp() - LEEWAY_S + REST_S;
    let token = signer.sign(&changed(claims(own, ""), "exp", json!(expires)))?;
    let mut stream = EventStream::of(open(Some(&token)).await?).await?;
    ensure!(stream.event().await?.is_some(), "the history comes first");
    while stream.next().await?.is_some() {}
    // Requests are rejected from the next whole second on.
    let rejected = wait_until("the token to be rejected", 2 * SECOND, async || match open(Some(&token)).await {
        Ok(response) if response.status() == 401 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    rejected.await.context("the stream ended before its token expired")?;
    let goes_on = tokio::time::timeout(SECOND / 5, async {
        while lasting.next().await?.is_some() {}
        anyhow::Ok(())
    });
    ensure!(goes_on.await.is_err(), "a stream whose token lasts has ended");
    Ok(())
}
