//! Operators' actions at the page: they are refused as by `cartctl`, and recorded as its own, under the name of the token.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{Control, ControlKey, PurchasedItem};
use control::{ControlTopic, signed};
use e2e::harness::Installation;
use jsonwebtoken::Algorithm;
use kafka::{Admin, Producer, Record, Registry};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::auth::{AUDIENCE, ISSUER, Signer, claims, write_keys};
use super::super::http::api::DEADLINE;
use super::Console;

/// A client of the page with some token.
struct Operator<'a> {
    console: &'a Console,
    token: Option<String>,
}

impl Operator<'_> {
    async fn ask(&self, action: &Value) -> anyhow::Result<(u16, String)> {
        let Self { console, token } = self;
        let request = console.client.post(format!("{}/api/operations", console.url)).json(action);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    async fn expect(&self, action: Value, status: u16, text: &str) -> anyhow::Result<()> {
        let (found, answer) = self.ask(&action).await?;
        ensure!(found == status && answer.contains(text), "{action}: {found} {answer}, not {status} {text}");
        Ok(())
    }
}

async fn a_pause_is_recorded_and_ended(operator: &Operator<'_>) -> anyhow::Result<()> {
    let pause = |partition: i32| {
        let (action, reason) = ("pause", "a test");
        json!({"action": action, "group": "vendor-billing", "partition": partition, "reason": reason})
    };
    let resume = json!({"action": "resume", "group": "vendor-billing", "partition": 1});
    let part = |frame: &Value| -> Value {
        let pauses = frame["operations"]["pauses"].as_array().into_iter().flatten();
        pauses.map(|pause| json!([pause["group"], pause["partition"], pause["by"], pause["reason"]])).collect()
    };
    operator.expect(pause(1), 200, "partition 1 of vendor-billing is to pause").await?;
    operator.console.shows("the pause", part, &json!([["vendor-billing", 1, "olga", "a test"]])).await?;
    operator.expect(pause(999), 409, "not 999").await?;
    operator.expect(resume.clone(), 200, "partition 1 of vendor-billing goes on").await?;
    operator.console.shows("no pause", part, &json!([])).await?;
    operator.expect(resume, 200, "is not paused").await
}

/// The member of the partition says that it is stopped. None runs here, so the test says it.
async fn a_skip_is_of_the_record_that_the_page_shows(
    installation: &Installation,
    operator: &Operator<'_>,
) -> anyhow::Result<()> {
    let kafka = installation.kafka();
    let value = b"no Avro".to_vec();
    let sha256 = control::sha256(Some(value.as_slice()));
    let producer = Producer::durable(kafka, &kafka.prefixed(PurchasedItem::TOPIC))?;
    let record = Record { partition: Some(1), key: None, value: Some(value), headers: None };
    let offset = producer.send(&record)?.await?;
    let skip = |sha256: &str| {
        json!({
            "action": "skip", "group": "popular-items", "partition": 1, "offset": offset, "sha256": sha256, "reason": "a test"
        })
    };
    operator.expect(skip(&sha256), 409, "partition 1 of popular-items is not stopped").await?;
    let control = ControlTopic::open(kafka, &Registry::new(kafka)?, Arc::new(Admin::new(kafka)?)).await?;
    let key = ControlKey::Stopped { group: String::from("popular-items"), partition: 1 };
    let stopped = signed("popular-items-0", "can't be read", Control::Stopped { offset, sha256: sha256.clone() });
    control.send(&key, Some(&stopped)).await?;
    let part = |frame: &Value| -> Value {
        let stops = frame["operations"]["stops"].as_array().into_iter().flatten();
        stops.map(|stop| json!([stop["record"], stop["sha256"], stop["reason"]])).collect()
    };
    let shown = json!([[format!("item-purchased/1/{offset}"), sha256, "can't be read"]]);
    operator.console.shows("the stop", part, &shown).await?;
    operator.expect(skip(&"0".repeat(64)), 409, "the record there has sha256:").await?;
    operator.expect(skip(&sha256), 200, "popular-items skips item-purchased/1/").await?;
    operator.console.shows("no stop", part, &json!([])).await?;
    operator.expect(skip(&sha256), 200, "already").await
}

pub(crate) async fn an_operator_acts_at_the_page_as_with_cartctl() -> anyhow::Result<()> {
    let installation = Installation::new("console_acts")?;
    installation.setup().await?;
    let signer = Signer::read("ed", Algorithm::EdDSA)?;
    let jwks = installation.folder().join("jwks.json");
    write_keys(&jwks, &[&signer])?;
    let jwks = jwks.display().to_string();
    let verify = ["--auth", "jwt", "--jwks", &jwks, "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER];
    let console = Console::start(&installation, "console", &[&["--allow-operations"][..], &verify].concat()).await?;
    let with = |token| Operator { console: &console, token };
    let operator = with(Some(signer.sign(&claims("olga", "operator"))?));

    let retry = json!({"action": "retry", "cartId": Uuid::new_v4()});
    with(None).expect(retry.clone(), 401, "Authorization").await?;
    with(Some(signer.sign(&claims("mallory", "carts vendors"))?)).expect(retry.clone(), 403, "scope operator").await?;
    operator.expect(retry, 409, "is not parked").await?;
    a_pause_is_recorded_and_ended(&operator).await?;
    a_skip_is_of_the_record_that_the_page_shows(&installation, &operator).await?;

    // Each act that was done, and none that was refused.
    let log = installation.run("log", "cartctl", ["log"], DEADLINE).await?;
    for act in
        ["pause/vendor-billing/1: pause, by olga: a test", "pause/vendor-billing/1: resume, by olga", "skip sha256:"]
    {
        ensure!(log.lines().filter(|line| line.contains(act) && line.contains("by olga")).count() == 1, "{act}: {log}");
    }
    ensure!(log.lines().filter(|line| line.contains("by olga")).count() == 3 && !log.contains("mallory"), "{log}");
    drop(console);
    installation.remove().await
}

pub(crate) async fn actions_that_everybody_could_do_are_refused_at_the_start() -> anyhow::Result<()> {
    let installation = Installation::new("console_open")?;
    for (name, address) in [("open", "0.0.0.0:0"), ("open-6", "[::]:0")] {
        let mut refused = installation.spawn(name, "cart-console", ["--allow-operations", "--listen", address])?;
        let status = refused.ended(DEADLINE).await?;
        ensure!(!status.success() && refused.log().contains("--auth jwt"), "{status}: {}", refused.log());
    }
    std::fs::remove_dir_all(installation.folder()).context("removing the logs")
}
