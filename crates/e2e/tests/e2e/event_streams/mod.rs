//! Event streams: all events of a cart in order, from its first to those that follow, each once.
//!
//! * [`live`]: history, then live; resumption at another instance; requests that are rejected.
//! * [`limits`]: the number of streams, heartbeats, clients that leave or stop to read, the shutdown.
//! * [`kills`]: through crashes of `ingest` and of `cart-processor`.

pub(crate) mod client;
pub(crate) mod kills;
pub(crate) mod limits;
pub(crate) mod live;

use reqwest::Client;
use serde_json::{Value, json};

use crate::http::api::{Api, Cart, DEADLINE, item};

/// A client without a timeout of the whole answer.
fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().read_timeout(DEADLINE).build()?)
}

/// The path of a cart's events.
fn path(cart: &Cart) -> String {
    format!("/cart/{}/events", cart.id)
}

/// All events, as the pages have them.
async fn pages(cart: &Cart) -> anyhow::Result<Vec<Value>> {
    let (mut events, mut next) = (Vec::new(), Some(path(cart)));
    while let Some(path) = next {
        let mut body = cart.api.send(&reqwest::Method::GET, &path, &[], None).await?.json();
        events.append(body["events"].as_array_mut().expect("events"));
        next = body["next"].as_str().map(str::to_owned);
    }
    Ok(events)
}

/// Makes 200 events: a hundred items are added and bought.
async fn fill(cart: &Cart) -> anyhow::Result<()> {
    let mut commands: Vec<_> = (1..100).map(|product| json!({"add": item(product, 1)})).collect();
    commands.push(json!({"checkout": {}}));
    let batch = json!({"atomic": true, "commands": commands});
    cart.send(reqwest::Method::POST, "/commands", &[], Some(batch.to_string())).await?.done();
    cart.add(100, 1).await?.done();
    cart.checkout().await?.done();
    Ok(())
}

/// The value of the gauge of open streams.
async fn open_streams(api: &Api) -> anyhow::Result<String> {
    let metrics = api.metrics().await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("ingest_event_streams "));
    Ok(line.unwrap_or("none").to_owned())
}
