//! All pages of a journal together have the events on `cart-events`.

use std::collections::BTreeSet;

use anyhow::Context as _;
use cart::CartEvent;
use cart::contract::Contract as _;
use cartctl::topic::read_all;
use e2e::harness::{Installation, Service, wait_until};
use kafka::{Codec, Registry};
use reqwest::header::LINK;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{Api, DEADLINE, PATIENT, item};

/// An event in the API's form, made from its readable form.
fn shown(event: &CartEvent) -> anyhow::Result<Value> {
    let Value::Object(mut body) = serde_json::to_value(event)? else { anyhow::bail!("an event is an object") };
    for internal in ["cartId", "position", "commandDigest"] {
        body.remove(internal).context(internal)?;
    }
    let event: Map<String, Value> = serde_json::from_value(body.remove("event").context("event")?)?;
    let (kind, fields) = event.into_iter().next().context("an alternative")?;
    body.insert("type".to_owned(), kind.into());
    body.extend(fields.as_object().context("its fields")?.clone());
    Ok(body.into())
}

/// A cart's events on the topic.
async fn on_topic(installation: &Installation, cart_id: Uuid) -> anyhow::Result<Vec<Value>> {
    let kafka = installation.kafka();
    let codec = Codec::<CartEvent>::register(&Registry::new(kafka)?, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    let records = read_all(kafka, &kafka.prefixed(CartEvent::TOPIC)).await?;
    let events = records.iter().filter(|record| record.key.as_deref() == Some(cart_id.to_string().as_bytes()));
    events.map(|record| shown(&codec.decode(record.value.as_deref().unwrap_or_default())?)).collect()
}

/// All pages of a cart's journal, by their links, and the number of events on each.
async fn all_pages(api: &Api, first: &str) -> anyhow::Result<(Vec<Value>, Vec<usize>)> {
    let (mut events, mut sizes) = (Vec::new(), Vec::new());
    let mut path = first.to_owned();
    loop {
        let page = api.get(&path, &[]).await?;
        let link = page.headers.get(LINK).map(|link| link.to_str().map(str::to_owned)).transpose()?;
        let body = page.done();
        let of_page = body["events"].as_array().context("events")?;
        sizes.push(of_page.len());
        events.extend(of_page.iter().cloned());
        match body["next"].as_str() {
            Some(next) => {
                assert_eq!(link, Some(format!("<{next}>; rel=\"next\"")));
                path = next.to_owned();
            }
            None => {
                assert!(link.is_none() && body.get("next").is_none(), "{link:?} {body}");
                return Ok((events, sizes));
            }
        }
    }
}

pub(crate) async fn a_journal_is_shown_page_by_page() -> anyhow::Result<()> {
    let installation = Installation::new("events")?;
    installation.setup().await?;
    let processes =
        installation.start_all(&[(Service::CartProcessor, "0", &[]), (Service::Ingest, "0", &PATIENT)]).await?;
    let api = Api::new(&processes[1]);

    // Three pages of the default size to the last event: 100 added, 99 adjusted, one removed, 99 bought, one more added.
    let cart_id = Uuid::new_v4();
    let path = format!("/cart/{cart_id}");
    let add: Vec<_> = (0..100).map(|product| json!({"add": item(product, product, "2.5", 2)})).collect();
    api.post(&format!("{path}/commands"), Some(json!({"atomic": true, "commands": add}))).await?.done();
    let adjusted = (1..100).map(|product| {
        let by = if product % 2 == 0 { 3 } else { -1 };
        json!({"adjust": {"productId": Uuid::from_u128(product), "adjustBy": by}})
    });
    let removed = json!({"remove": {"productId": Uuid::from_u128(0)}});
    let change: Vec<_> = adjusted.chain([removed]).collect();
    let changed = api.post(&format!("{path}/commands"), Some(json!({"commands": change}))).await?;
    assert!(changed.token().is_some(), "{changed:?}");
    let results = changed.done();
    assert!(results["results"].as_array().context("results")?.iter().all(|one| one["status"] == 200), "{results}");
    api.post(&format!("{path}/checkout"), None).await?.done();
    api.post(&path, Some(item(7, 7, "0.0001", 1))).await?.done();
    // Another cart's events are not among them.
    api.post(&format!("/cart/{}", Uuid::new_v4()), Some(item(7, 7, "1", 1))).await?.done();

    let (events, sizes) = all_pages(&api, &format!("{path}/events")).await?;
    assert_eq!(sizes, [100, 100, 100]);
    let expected = wait_until("all events on their topic", DEADLINE, async || {
        let events = on_topic(&installation, cart_id).await?;
        if events.len() == 300 { Ok(events) } else { Err(anyhow::anyhow!("{} events", events.len())) }
    });
    assert_eq!(events, expected.await?);
    let kinds: BTreeSet<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds.len(), 5, "{kinds:?}");

    let (by_limit, sizes) = all_pages(&api, &format!("{path}/events?limit=37&after=150")).await?;
    assert_eq!((&by_limit[..], &sizes[..]), (&events[150..], &[37, 37, 37, 37, 2][..]));
    assert_eq!(all_pages(&api, &format!("{path}/events?limit=1000")).await?, (events, vec![300]));
    for (of, after) in [(cart_id, 300), (Uuid::new_v4(), 0)] {
        let body = api.get(&format!("/cart/{of}/events?after={after}"), &[]).await?.done();
        assert_eq!(body, json!({"cartId": of, "events": []}));
    }
    for bad in ["after=-1", "after=x", "limit=0", "limit=1001", "before=7", "after=1&after=2"] {
        api.get(&format!("{path}/events?{bad}"), &[]).await?.problem(400, "invalid-parameter", &bad[..5]);
    }
    api.get("/cart/alice/events", &[]).await?.problem(400, "invalid-id", "cartId");
    api.post(&format!("{path}/events"), None).await?.problem(405, "method-not-allowed", "GET");
    drop(processes);
    installation.remove().await
}
