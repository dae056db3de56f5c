//! A repeat gets the first outcome, byte for byte, and changes nothing.

use anyhow::Context as _;
use cart::CartEvent;
use cart::contract::Contract as _;
use cartctl::topic::read_all;
use e2e::harness::{Installation, Service, wait_until};
use futures::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{Answer, Api, Cart, DEADLINE, PATIENT, PROCESSOR, item, product_path};

const DUPLICATES: usize = 20;

/// A command under its idempotency key.
#[derive(Debug, Clone)]
struct Keyed {
    key: String,
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Keyed {
    fn add(key: &str, product: u128, quantity: i64) -> Self {
        Self { key: key.to_owned(), method: Method::POST, path: String::new(), body: Some(item(product, quantity)) }
    }

    fn adjust(key: &str, product: u128, by: i64) -> Self {
        Self {
            key: key.to_owned(),
            method: Method::PATCH,
            path: product_path(product),
            body: Some(json!({"adjustBy": by})),
        }
    }

    fn remove(key: &str, product: u128) -> Self {
        Self { key: key.to_owned(), method: Method::DELETE, path: product_path(product), body: None }
    }

    fn checkout(key: &str) -> Self {
        Self { key: key.to_owned(), method: Method::POST, path: "/checkout".to_owned(), body: None }
    }

    async fn send(&self, cart: &Cart) -> anyhow::Result<Answer> {
        let body = self.body.as_ref().map(Value::to_string);
        cart.send(self.method.clone(), &self.path, &[("idempotency-key", &self.key)], body).await
    }
}

/// The number of committed events of this cart.
async fn published(installation: &Installation, cart_id: Uuid) -> anyhow::Result<usize> {
    let kafka = installation.kafka();
    let records = read_all(kafka, &kafka.prefixed(CartEvent::TOPIC)).await?;
    let key = cart_id.to_string();
    Ok(records.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes())).count())
}

pub(crate) async fn concurrent_duplicates_through_two_ingests_are_one_command() -> anyhow::Result<()> {
    let installation = Installation::new("duplicates")?;
    installation.setup().await?;
    let processes = installation
        .start_all(&[PROCESSOR, (Service::Ingest, "0", &PATIENT), (Service::Ingest, "1", &PATIENT)])
        .await?;
    let apis = [Api::new(&processes[1]), Api::new(&processes[2])];
    let cart = apis[0].cart();
    let commands = [Keyed::add("a", 1, 2), Keyed::adjust("b", 1, 3), Keyed::checkout("c")];
    for (version, command) in (1..).zip(&commands) {
        let sent = (0..DUPLICATES).map(|number| {
            let cart = cart.through(&apis[number % 2]);
            async move { command.send(&cart).await }
        });
        let answers = try_join_all(sent).await?;
        for answer in &answers {
            assert_eq!(answer.done()["version"], version, "{answer:?}");
            assert_eq!(answer.text, answers[0].text);
        }
    }
    assert_eq!(cart.get().await?["version"], 3);
    // Once this event is published, all earlier ones are too, since a cart's events are in one partition.
    cart.add(9, 1).await?.done();
    let count =
        wait_until("the last event on the topic", DEADLINE, async || match published(&installation, cart.id).await {
            Ok(count) if count > commands.len() => Ok(count),
            other => Err(format!("{other:?}")),
        });
    assert_eq!(count.await?, commands.len() + 1);
    drop(processes);
    installation.remove().await
}

/// Checks that each repeat gets the first outcome, another command under a key is rejected, and the cart does not change.
async fn check_repeats(cart: &Cart, first: &[(Keyed, Answer)], when: &str) -> anyhow::Result<()> {
    let before = cart.get().await?;
    for (command, answer) in first {
        let repeat = command.send(cart).await?;
        assert_eq!((repeat.status, &repeat.text), (answer.status, &answer.text), "{} {when}", command.key);
        assert_eq!(repeat.header("etag"), answer.header("etag"), "{} {when}", command.key);
    }
    let key = first[0].0.key.as_str();
    for other in [Keyed::add(key, 1, 3), Keyed::add(key, 8, 2), Keyed::adjust(key, 1, 1), Keyed::checkout(key)] {
        other.send(cart).await?.rejected(422, "idempotency-key-reused", "used for another request");
    }
    assert_eq!(cart.get().await?, before, "{when}");
    Ok(())
}

async fn has_snapshot(installation: &Installation, cart_id: Uuid) -> anyhow::Result<bool> {
    const SELECT: &str = "SELECT snapshot FROM cart_journal WHERE cart_id = ? LIMIT 1";
    let session = cassandra::connect(installation.cassandra()).await?;
    let rows = session.query_unpaged(SELECT, (cart_id,)).await?.into_rows_result()?;
    let (snapshot,) = rows.single_row::<(Option<Vec<u8>>,)>().context("reading the snapshot")?;
    Ok(snapshot.is_some())
}

pub(crate) async fn a_repeat_gets_the_first_outcome_also_after_crashes_and_a_snapshot() -> anyhow::Result<()> {
    /// More commands than between two snapshots.
    const BETWEEN: i64 = 40;
    let ingest: (Service, &str, &[&str]) = (Service::Ingest, "0", &PATIENT);
    let installation = Installation::new("repeats")?;
    installation.setup().await?;
    let mut processes = installation.start_all(&[PROCESSOR, ingest]).await?;
    let cart = Api::new(&processes[1]).cart();
    let mut first = Vec::new();
    let longest = "鍵".repeat(200);
    for command in [
        Keyed::add("add", 1, 2),
        Keyed::adjust("adjust", 1, 3),
        Keyed::add(&longest, 2, 7),
        Keyed::remove("remove", 2),
        Keyed::add("~!@#$%^&*()", 3, 1),
    ] {
        let answer = command.send(&cart).await?;
        answer.done();
        first.push((command, answer));
    }
    check_repeats(&cart, &first, "at once").await?;
    assert!(!has_snapshot(&installation, cart.id).await?, "it is too early for one");

    processes[1].kill9()?;
    processes[1] = installation.start_all(&[ingest]).await?.remove(0);
    let cart = cart.through(&Api::new(&processes[1]));
    check_repeats(&cart, &first, "after a crash of ingest").await?;

    for _ in 0..BETWEEN {
        cart.adjust(1, 1).await?.done();
    }
    assert!(has_snapshot(&installation, cart.id).await?);
    processes[0].kill9()?;
    processes[0] = installation.start_all(&[PROCESSOR]).await?.remove(0);
    check_repeats(&cart, &first, "after a crash of cart-processor").await?;

    // A repeated checkout gets its first outcome from the journal, also after the next session has begun.
    let checkout = Keyed::checkout("checkout");
    let answer = checkout.send(&cart).await?;
    assert_eq!(answer.done()["items"], json!([item(1, 2 + 3 + BETWEEN), item(3, 1)]));
    first.push((checkout, answer));
    cart.add(4, 1).await?.done();
    processes[0].kill9()?;
    processes[0] = installation.start_all(&[PROCESSOR]).await?.remove(0);
    check_repeats(&cart, &first, "in the next session").await?;
    drop(processes);
    installation.remove().await
}
