//! Cross-origin requests: pages of the configured origins may use the API, others may not.

use anyhow::ensure;
use e2e::harness::{Installation, Service};
use reqwest::Method;

use super::api::{Answer, Api, Headers, item};

const SHOP: &str = "https://shop.example";
const OTHER: &str = "https://shop.example.evil";

/// The values of a header that is a list, in lower case.
fn words(answer: &Answer, name: &str) -> Vec<String> {
    let all = answer.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase()).collect()
}

fn has(answer: &Answer, name: &str, expected: &[&str]) -> anyhow::Result<()> {
    let words = words(answer, name);
    ensure!(expected.iter().all(|word| words.iter().any(|found| found == word)), "{name} is {words:?}");
    Ok(())
}

pub(crate) async fn pages_of_named_origins_may_use_the_api() -> anyhow::Result<()> {
    let installation = Installation::new("browsers")?;
    installation.setup().await?;
    let named: &[&str] =
        &["--cors-origin", "https://shop.example,http://localhost:3000", "--reply-timeout-ms", "30000"];
    let services =
        [(Service::Ingest, "named", named), (Service::Ingest, "none", &[][..]), (Service::CartProcessor, "0", &[][..])];
    let processes = installation.start_all(&services).await?;
    let (api, without) = (Api::new(&processes[0]), Api::new(&processes[1]));
    let cart = api.cart();
    let path = format!("/cart/{}", cart.id);

    // A browser sends a preflight before JSON, which is answered without a token.
    let preflight = |origin| {
        [("origin", origin), ("access-control-request-method", "PATCH"), ("access-control-request-headers", "if-match")]
    };
    for origin in [SHOP, "http://localhost:3000"] {
        let answer = api.send(&Method::OPTIONS, &path, &preflight(origin), None).await?;
        ensure!(answer.status == 200 && answer.text.is_empty(), "{answer:?}");
        ensure!(answer.header("access-control-allow-origin") == Some(origin), "{answer:?}");
        ensure!(answer.header("access-control-max-age") == Some("600"), "{answer:?}");
        ensure!(answer.header("access-control-allow-credentials").is_none(), "{answer:?}");
        ensure!(answer.header("x-request-id").is_some(), "{answer:?}");
        has(&answer, "access-control-allow-methods", &["get", "head", "post", "patch", "delete"])?;
        let headers = [
            "authorization",
            "content-type",
            "idempotency-key",
            "if-match",
            "if-none-match",
            "last-event-id",
            "prefer",
            "read-after",
        ];
        has(&answer, "access-control-allow-headers", &headers)?;
        has(&answer, "vary", &["origin"])?;
    }
    // A page may read the answer, including a rejection.
    let from = |origin| [("origin", origin), ("content-type", "application/json")];
    let add = item(1, 1).to_string();
    for status in [200, 409] {
        let answer = cart.send(Method::POST, "", &from(SHOP), Some(add.clone())).await?;
        ensure!(answer.status == status && answer.header("access-control-allow-origin") == Some(SHOP), "{answer:?}");
        has(
            &answer,
            "access-control-expose-headers",
            &["etag", "location", "retry-after", "read-after-token", "x-request-id"],
        )?;
        has(&answer, "vary", &["origin"])?;
    }
    // An event stream too; HEAD has its headers, and ends.
    let stream = [("origin", SHOP), ("accept", "text/event-stream")];
    let answer = cart.send(Method::HEAD, "/events", &stream, None).await?;
    ensure!(answer.header("content-type") == Some("text/event-stream"), "{answer:?}");
    ensure!(answer.header("access-control-allow-origin") == Some(SHOP), "{answer:?}");
    has(&answer, "vary", &["accept", "origin"])?;
    // Without an origin nothing is allowed, but `Vary` must tell caches that the answer depends on the origin.
    let answer = api.send(&Method::GET, &path, &[], None).await?;
    ensure!(answer.status == 200 && answer.header("access-control-allow-origin").is_none(), "{answer:?}");
    has(&answer, "vary", &["origin"])?;
    // OPTIONS is a preflight only if a browser sends it.
    let answer = api.send(&Method::OPTIONS, &path, &[("origin", SHOP)], None).await?;
    ensure!(answer.status == 405 && answer.header("allow") == Some("GET, POST"), "{answer:?}");

    // Other origins, and any origin if none is configured.
    for (api, origin) in [(&api, OTHER), (&api, "null"), (&api, "http://shop.example"), (&without, SHOP)] {
        let preflight = api.send(&Method::OPTIONS, &path, &preflight(origin), None).await?;
        let headers: Headers<'_> = &[("origin", origin)];
        let answer = api.send(&Method::GET, &path, headers, None).await?;
        for answer in [preflight, answer] {
            ensure!(answer.header("access-control-allow-origin").is_none(), "{origin}: {answer:?}");
        }
    }
    let answer = without.send(&Method::OPTIONS, &path, &preflight(SHOP), None).await?;
    ensure!(answer.status == 405 && words(&answer, "vary").is_empty(), "{answer:?}");
    drop(processes);
    installation.remove().await
}
