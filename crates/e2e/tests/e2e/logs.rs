//! Logs: one line per event, JSON if asked for, without colours, secrets, and, from `info` on, cart ids.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Process, Service};
use reqwest::Method;
use serde_json::Value;

use crate::http::api::{Api, DEADLINE};

const SECRET: &str = "correct-horse-battery-staple";

/// The events of a log in JSON.
fn events(process: &Process) -> anyhow::Result<Vec<Value>> {
    let log = process.log();
    ensure!(!log.contains('\u{1b}'), "an escape sequence in {log}");
    let parsed = log.lines().map(|line| serde_json::from_str(line).with_context(|| format!("'{line}' is no JSON")));
    let events: Vec<Value> = parsed.collect::<anyhow::Result<_>>()?;
    for event in &events {
        for field in ["timestamp", "level", "target"] {
            ensure!(event[field].is_string(), "no {field}: {event}");
        }
        ensure!(event["fields"]["message"].is_string(), "no message: {event}");
    }
    Ok(events)
}

pub(crate) async fn each_event_is_one_line_without_cart_ids_and_secrets() -> anyhow::Result<()> {
    let installation = Installation::new("logs")?;
    installation.setup().await?;
    let json = ["--log-format", "json", "--log", "debug,librdkafka=info,hyper=info,h2=info,scylla=info"];
    let ingest = [&json[..], &["--reply-timeout-ms", "30000", "--lame-duck-ms", "100"]].concat();
    let services = [
        (Service::Ingest, "json", &ingest[..]),
        (Service::CartProcessor, "json", &json[..]),
        (Service::Projector("item-purchased-events"), "json", &json[..]),
        (Service::Projector("popular-items"), "text", &[][..]),
    ];
    let mut processes = installation.start_all(&services).await?;
    let cart = Api::new(&processes[0]).cart();
    cart.add(1, 1).await?.done();
    cart.checkout().await?.done();
    let headers = [("x-request-id", "logged-7"), ("authorization", SECRET)];
    let answer = cart.send(Method::GET, "/events?after=x", &headers, None).await?;
    ensure!(answer.status == 400, "{answer:?}");
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }

    let cart_id = cart.id.to_string();
    for process in &processes[..3] {
        for event in events(process)? {
            let is_quiet = event["level"] != "DEBUG" && event["level"] != "TRACE";
            ensure!(!is_quiet || !event.to_string().contains(&cart_id), "a cart id in {event}");
        }
        ensure!(!process.log().contains(SECRET), "{}", process.log());
    }
    let of_ingest = events(&processes[0])?;
    let rejected = of_ingest.iter().find(|event| event["fields"]["message"] == "a request was rejected");
    let rejected = rejected.context("the rejected request is logged at the level debug")?;
    ensure!(rejected["span"]["id"] == "logged-7" && rejected["fields"]["status"] == 400, "{rejected}");
    let text = processes[3].log();
    ensure!(!text.contains('\u{1b}') && !text.contains(&cart_id), "{text}");
    for line in text.lines() {
        ensure!(
            line.starts_with("20") && (line.contains("Z  INFO ") || line.contains("Z  WARN ")),
            "'{line}' is no event"
        );
    }

    // A start that fails: its error is an event too, and has no password.
    let url = format!("postgres://cart:{SECRET}@127.0.0.1:1/cart");
    let args = ["vendor-billing-jdbc", "--database-url", &url, "--startup-timeout-s", "1"];
    let args = args.into_iter().chain(["--log-format", "json", "--admin-listen", "127.0.0.1:0"]);
    let mut failed = installation.spawn("failed", "projectors", args)?;
    let status = failed.ended(DEADLINE + Duration::from_secs(1)).await?;
    ensure!(status.code() == Some(1), "{status}");
    // A probe of a server may end after it.
    let error = events(&failed)?.into_iter().find(|event| event["level"] == "ERROR").context("no error is logged")?;
    ensure!(error["fields"]["program"] == "projectors", "{error}");
    ensure!(!failed.log().contains(SECRET), "{}", failed.log());
    installation.remove().await
}
