//! A client that reconnects sees each event once, while `ingest` and `cart-processor` are killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use e2e::harness::{Installation, Process, Service, wait_until};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::client::EventStream;
use super::{client, pages, path};
use crate::http::api::{Api, Cart, DEADLINE, PATIENT, item};

/// How many events there are in the end.
const EVENTS: i64 = 60;

/// After so many a server is killed.
const INGEST_KILLED_AT: i64 = 15;
const RESTARTED_AT: i64 = 30;

/// The processor crashes between a journal write and its transaction, after so many: the journal then has an event that the
/// topic does not have.
const CRASH: &str = "processor-after-journal=40*off->return";

const PAUSE: Duration = Duration::from_millis(50);

const PROCESSOR: [&str; 2] = ["--session-timeout-ms", "2000"];

/// Sends commands through both instances, each until it is accepted.
async fn write(addresses: [SocketAddr; 2], cart_id: Uuid) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(35)).build()?;
    for number in 0..EVENTS {
        let mut attempt = usize::try_from(number)?;
        loop {
            let url = format!("http://{}/cart/{cart_id}", addresses[attempt % 2]);
            let request = client.post(url).header("idempotency-key", number.to_string());
            let sent = request.json(&item(u128::try_from(number)?, 1)).send().await;
            if sent.is_ok_and(|response| response.status() == 200) {
                break;
            }
            attempt += 1;
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Reads all events, as a browser does: after the end of a stream it reconnects, here to the other instance.
async fn follow(addresses: [SocketAddr; 2], path: String, seen: Arc<AtomicI64>) -> anyhow::Result<(Vec<Value>, u32)> {
    let client = client()?;
    let (mut events, mut last, mut streams) = (Vec::new(), None, 0);
    while events.len() < usize::try_from(EVENTS)? {
        let url = format!("http://{}{path}", addresses[usize::try_from(streams)? % 2]);
        streams += 1;
        let Ok(mut stream) = EventStream::open(&client, &url, last).await else {
            sleep(PAUSE).await;
            continue;
        };
        while events.len() < usize::try_from(EVENTS)?
            && let Ok(Some((id, data))) = stream.event().await
        {
            events.push(data);
            last = Some(id);
            seen.store(id, Ordering::Relaxed);
        }
    }
    Ok((events, streams))
}

async fn until_seen(seen: &AtomicI64, count: i64) -> anyhow::Result<()> {
    wait_until(&format!("event {count}"), DEADLINE, async || match seen.load(Ordering::Relaxed) {
        last if last >= count => Ok(()),
        last => Err(format!("event {last}")),
    })
    .await
}

pub(crate) async fn a_reconnecting_client_sees_each_event_once() -> anyhow::Result<()> {
    let installation = Installation::new("event_stream_kills")?;
    installation.setup().await?;
    let mut crashing = installation.start_to_crash(Service::CartProcessor, "0", &PROCESSOR, CRASH)?;
    let services = [(Service::Ingest, "0", &PATIENT[..]), (Service::Ingest, "1", &PATIENT[..])];
    let mut ingests = installation.start_all(&services).await?;
    crashing.ready(DEADLINE).await?;
    let address = |process: &Process| process.address().context("ingest has an address");
    let addresses = [address(&ingests[0])?, address(&ingests[1])?];
    let cart = Cart { api: Api::new(&ingests[1]), id: Uuid::new_v4() };

    let seen = Arc::new(AtomicI64::new(0));
    let following = tokio::spawn(follow(addresses, path(&cart), seen.clone()));
    let writing = tokio::spawn(write(addresses, cart.id));
    until_seen(&seen, INGEST_KILLED_AT).await?;
    // The one that serves the stream.
    ingests[0].kill9()?;
    until_seen(&seen, RESTARTED_AT).await?;
    ingests[0] = installation.start_at(Service::Ingest, "0", &PATIENT, Some(addresses[0]), None)?;
    ingests[0].ready(DEADLINE).await?;
    // The processor crashes meanwhile; its successor publishes what was journalled.
    let status = crashing.ended(DEADLINE).await?;
    assert!(!status.success(), "{status}");
    ingests[1].kill9()?;
    ingests[1] = installation.start_at(Service::Ingest, "1", &PATIENT, Some(addresses[1]), None)?;
    let successor = installation.start_all(&[(Service::CartProcessor, "1", &PROCESSOR)]).await?;
    ingests[1].ready(DEADLINE).await?;

    writing.await??;
    let (events, streams) = following.await??;
    assert!(streams >= 3, "{streams} streams");
    assert_eq!(events.len(), usize::try_from(EVENTS)?);
    assert_eq!(events, pages(&cart).await?, "the journal has other events");
    drop((successor, ingests));
    installation.remove().await
}
