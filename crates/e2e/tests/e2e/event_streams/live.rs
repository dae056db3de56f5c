//! History, then live; resumption at another instance; requests that are rejected.

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Service};
use reqwest::{Client, Method};

use super::client::{EventStream, Part, request};
use super::{client, fill, pages, path};
use crate::http::api::{Api, DEADLINE, PATIENT, PROCESSOR};

/// How many commands are sent one after the other, each when the event of the last one has come. At an event per heartbeat,
/// which is what is left without wake-ups, they take five minutes.
const ROUNDS: i64 = 20;

pub(crate) async fn a_stream_has_the_history_and_what_follows() -> anyhow::Result<()> {
    let installation = Installation::new("event_streams")?;
    installation.setup().await?;
    let services = [PROCESSOR, (Service::Ingest, "0", &PATIENT), (Service::Ingest, "1", &PATIENT)];
    let processes = installation.start_all(&services).await?;
    let apis = [Api::new(&processes[1]), Api::new(&processes[2])];
    let cart = apis[0].cart();
    let url = |instance: usize| {
        let address = processes[instance + 1].address().context("ingest has an address")?;
        anyhow::Ok(format!("http://{address}{}", path(&cart)))
    };
    let http1 = client()?;
    let http2 = Client::builder().no_proxy().read_timeout(DEADLINE).http2_prior_knowledge().build()?;

    // One stream before the cart's first event, one after its history, at two instances.
    let mut first = EventStream::open(&http1, &url(0)?, None).await?;
    let retry = first.next().await?;
    ensure!(matches!(retry, Some(Part::Retry(1_000..3_000))), "{retry:?}");
    fill(&cart).await?;
    let mut second = EventStream::open(&http2, &url(1)?, None).await?;
    let history = pages(&cart).await?;
    assert_eq!(history.len(), 200);
    assert_eq!(first.events(200).await?, history);
    assert_eq!(second.events(200).await?, history);

    let waited = tokio::time::timeout(DEADLINE, async {
        for round in 0..ROUNDS {
            // Another cart's events are not among them.
            apis[0].cart().add(1, 1).await?.done();
            cart.through(&apis[usize::try_from(round % 2)?]).add(1_000 + u128::try_from(round)?, 1).await?.done();
            for stream in [&mut first, &mut second] {
                let (id, _) = stream.event().await?.context("the stream goes on")?;
                ensure!(id == 201 + round, "event {id} in round {round}");
            }
        }
        Ok(())
    });
    waited.await.context("events come with heartbeats only")??;

    // A client that was away gets what it has missed, from any instance, and the rest.
    drop((first, second));
    let all = pages(&cart).await?;
    let mut resumed = EventStream::open(&http1, &url(1)?, Some(210)).await?;
    assert_eq!(resumed.events(10).await?, all[210..]);
    let mut at_end = EventStream::open(&http2, &format!("{}?after=7", url(0)?), Some(220)).await?;
    let mut by_parameter = EventStream::open(&http2, &format!("{}?after=219", url(0)?), None).await?;
    cart.checkout().await?.done();
    let all = pages(&cart).await?;
    assert_eq!(resumed.events(20).await?, all[220..]);
    assert_eq!(at_end.events(20).await?, all[220..]);
    assert_eq!(by_parameter.events(21).await?, all[219..]);

    for (id, detail) in
        [("x", "must be the id"), ("-1", "must be the id"), ("", "must be the id"), ("241", "no event 241")]
    {
        let response = request(&http1, &url(0)?, &[("last-event-id", id)]).await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status == 400 && text.contains("invalid-header") && text.contains(detail), "{id}: {status} {text}");
    }
    for query in ["after=241", "after=x", "limit=5"] {
        let response = request(&http1, &format!("{}?{query}", url(0)?), &[]).await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status == 400 && text.contains("invalid-parameter"), "{query}: {status} {text}");
    }
    // A request that names no stream gets a page, from the same place.
    let last = [("last-event-id", "239"), ("accept", "application/json, text/event-stream")];
    let page = apis[0].send(&Method::GET, &path(&cart), &last, None).await?;
    ensure!(page.json()["events"].as_array().is_some_and(|events| *events == all[239..]), "{page:?}");
    ensure!(page.header("vary") == Some("accept"), "{page:?}");
    let head = apis[0].send(&Method::HEAD, &path(&cart), &[("accept", "text/event-stream")], None).await?;
    ensure!(head.status == 200 && head.header("content-type") == Some("text/event-stream"), "{head:?}");
    drop(processes);
    installation.remove().await
}
