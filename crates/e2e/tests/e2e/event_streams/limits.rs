//! The number of streams, heartbeats, an event that is missing, clients that leave or stop to read, the shutdown.

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Service, wait_until};
use reqwest::Client;

use super::client::{EventStream, Part, request};
use super::{client, fill, open_streams, pages, path};
use crate::http::api::{Api, Cart, DEADLINE, PROCESSOR};

/// The heartbeat is a third of the idle timeout.
const INGEST: [&str; 12] = [
    "--reply-timeout-ms",
    "30000",
    "--event-streams-max",
    "2",
    "--requests-in-flight-max",
    "1",
    "--idle-timeout-ms",
    "1500",
    "--lame-duck-ms",
    "100",
    "--drain-timeout-s",
    "300",
];

async fn until_open(api: &Api, count: &str) -> anyhow::Result<()> {
    let what = format!("{count} open streams");
    let seen = wait_until(&what, DEADLINE, async || match open_streams(api).await {
        Ok(open) if open == count => Ok(()),
        other => Err(format!("{other:?}")),
    });
    seen.await
}

/// Takes an event out of a journal: the stream says so, and goes on when it is there again.
async fn gap(installation: &Installation, cart: &Cart, client: &Client, url: &str) -> anyhow::Result<()> {
    fill(cart).await?;
    let session = cassandra::connect(installation.cassandra()).await?;
    let one = "WHERE cart_id = ? AND sequence_number = 199";
    let select = format!(
        "SELECT JSON cart_id, sequence_number, position, command_id, events, keyed, outcome FROM cart_journal {one}"
    );
    let row = session.query_unpaged(select, (cart.id,)).await?.into_rows_result()?.single_row::<(String,)>()?;
    session.query_unpaged(format!("DELETE FROM cart_journal {one}"), (cart.id,)).await?;
    let mut stream = EventStream::open(client, url, Some(198)).await?;
    let mut comments = 0;
    while comments < 2 {
        match stream.next().await?.context("the stream goes on")? {
            Part::Comment(comment) => {
                ensure!(comment.starts_with("event 199 is missing in the journal"), "{comment}");
                comments += 1;
            }
            Part::Retry(_) => {}
            Part::Event { id, .. } => anyhow::bail!("event {id} comes from behind the gap"),
        }
    }
    session.query_unpaged("INSERT INTO cart_journal JSON ?", row).await?;
    let events = stream.events(2).await?;
    ensure!(events[0]["sequenceNumber"] == 199 && events[1]["sequenceNumber"] == 200, "{events:?}");
    Ok(())
}

pub(crate) async fn streams_are_limited_and_free_what_they_hold() -> anyhow::Result<()> {
    let installation = Installation::new("event_stream_limits")?;
    installation.setup().await?;
    let mut processes = installation.start_all(&[(Service::LimitedIngest, "0", &INGEST), PROCESSOR]).await?;
    let address = processes[0].address().context("ingest has an address")?;
    let api = Api::new(&processes[0]);
    let cart = api.cart();
    let url = format!("http://{address}{}", path(&cart));
    let http1 = client()?;
    ensure!(open_streams(&api).await? == "0", "the gauge is there before the first stream");
    fill(&cart).await?;

    // Two streams: no third, but any other request.
    let mut first = EventStream::open(&http1, &url, Some(200)).await?;
    let second = EventStream::open(&http1, &url, Some(100)).await?;
    until_open(&api, "2").await?;
    let refused = request(&http1, &url, &[]).await?;
    ensure!(refused.status() == 503 && refused.headers()["retry-after"] == "1", "{refused:?}");
    let text = refused.text().await?;
    ensure!(text.contains("urn:cart:problem:unavailable") && text.contains("--event-streams-max"), "{text}");
    assert_eq!(pages(&cart).await?.len(), 200);

    // Heartbeats keep a connection longer than the idle timeout.
    let mut beats = 0;
    while beats < 6 {
        match first.next().await?.context("the stream goes on")? {
            Part::Comment(comment) => {
                ensure!(comment == "up to date", "{comment}");
                beats += 1;
            }
            Part::Retry(_) => {}
            Part::Event { id, .. } => anyhow::bail!("there is no event {id}"),
        }
    }
    // A client that leaves frees its place.
    drop(second);
    until_open(&api, "1").await?;

    let other = api.cart();
    gap(&installation, &other, &http1, &format!("http://{address}{}", path(&other))).await?;
    ensure!(processes[0].log().contains("a journal lacks an event"), "{}", processes[0].log());
    until_open(&api, "1").await?;

    // So does one that reads nothing: its window takes less than the history.
    let small = Client::builder().no_proxy().http2_prior_knowledge().http2_initial_stream_window_size(16_384);
    let stopped = request(&small.build()?, &url, &[]).await?;
    until_open(&api, "2").await?;
    until_open(&api, "1").await?;
    drop(stopped);
    assert!(matches!(first.next().await?, Some(Part::Comment(_))), "the other stream goes on");

    // At the shutdown streams end, whole, long before the drain timeout.
    let http2 = Client::builder().no_proxy().read_timeout(DEADLINE).http2_prior_knowledge().build()?;
    let mut last = EventStream::open(&http2, &url, Some(199)).await?;
    assert_eq!(last.events(1).await?[0]["sequenceNumber"], 200);
    processes[0].interrupt()?;
    for stream in [&mut first, &mut last] {
        while stream.next().await?.is_some() {}
    }
    processes[0].succeeded(DEADLINE).await?;
    drop(processes);
    installation.remove().await
}
