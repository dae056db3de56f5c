//! Downstream consumers: one in another language, `scripts/python/consumer.py`, gets every purchase once, and its decimals
//! add up to the vendors' table; `cartctl tail` prints the same.
//!
//! Needs python3 with venv: `scripts/python-env` installs the client into the target folder.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::CartCommand;
use cart::contract::Contract as _;
use cartctl::reconcile::wait_for_rest;
use chrono::DateTime;
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{Codec, Producer, Record, Registry};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(180);

const SHOP: &str = "--concurrency 16 --commands 600 --members 40 --products 40 --vendors 5 --refused-share 0";

/// A child process that is killed when it is dropped.
struct Consumer(Child);

impl Drop for Consumer {
    fn drop(&mut self) {
        // If it has ended by itself, its output says why.
        drop((self.0.kill(), self.0.wait()));
    }
}

fn consumer(installation: &Installation, printed: &Path) -> anyhow::Result<Consumer> {
    let scripts = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts"));
    let made = Command::new(scripts.join("python-env")).arg("consumer").output().context("running python-env")?;
    ensure!(made.status.success(), "installing the client failed: {}", String::from_utf8_lossy(&made.stderr));
    let folder = String::from_utf8(made.stdout)?;
    let output = File::create(printed)?;
    let child = Command::new(Path::new(folder.trim()).join("bin/python"))
        .arg(scripts.join("python/consumer.py"))
        .envs(installation.environment())
        .env("GROUP_ID", installation.kafka().prefixed("turnover"))
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .spawn()
        .context("starting the consumer")?;
    Ok(Consumer(child))
}

/// A topic's records until its end, from `cartctl tail`.
async fn shown(installation: &Installation, topic: &str, filter: &[&str]) -> anyhow::Result<Vec<Value>> {
    let args = [&["tail", topic, "--from", "beginning", "--until-end", "--json"], filter].concat();
    let text = installation.run(&format!("tail-{}", args.join("-")), "cartctl", args, DEADLINE).await?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| text.clone())).collect()
}

/// `cartctl tail` prints the commands, events, replies and purchases of one cart.
async fn one_cart(installation: &Installation) -> anyhow::Result<()> {
    let purchase = shown(installation, "item-purchased", &[]).await?.pop().context("something was bought")?;
    let cart = purchase["value"]["cartId"].as_str().context("a purchase names its cart")?;
    let ids = |records: &[Value], field: &str| -> HashSet<String> {
        records.iter().filter_map(|record| Some(record["value"][field].as_str()?.to_owned())).collect()
    };
    let mut of_cart = Vec::new();
    for topic in ["cart-commands", "cart-events", "cart-replies", "item-purchased"] {
        let records = shown(installation, topic, &["--cart", cart]).await?;
        ensure!(ids(&records, "cartId") == HashSet::from([cart.to_owned()]), "{topic} of {cart}: {records:?}");
        of_cart.push(records);
    }
    let [commands, events, replies, purchases] = &of_cart[..] else { anyhow::bail!("four topics") };
    let asked = ids(commands, "commandId");
    ensure!(asked.len() == commands.len() && asked == ids(replies, "commandId"), "{commands:?} {replies:?}");
    ensure!(ids(events, "commandId").is_subset(&asked), "{events:?}");
    ensure!(!purchases.is_empty() && purchases.len() < events.len(), "{purchases:?}");
    Ok(())
}

/// `cartctl tail` prints each vendor's purchases, with the same sum.
async fn tailed(installation: &Installation, expected: &BTreeMap<String, Decimal>) -> anyhow::Result<()> {
    for (vendor, sum) in expected {
        let args = ["tail", "item-purchased", "--from", "beginning", "--until-end", "--json", "--vendor", vendor];
        let shown = installation.run(&format!("tail-{vendor}"), "cartctl", args, DEADLINE).await?;
        let mut total = Decimal::ZERO;
        for line in shown.lines() {
            let record: Value = serde_json::from_str(line).with_context(|| shown.clone())?;
            ensure!(record["value"]["vendorId"] == vendor.as_str(), "it is another's: {line}");
            let price: Decimal = record["value"]["price"].as_str().context("a price is a text")?.parse()?;
            total += price * Decimal::from(record["value"]["quantity"].as_i64().context("a quantity is a number")?);
        }
        ensure!(total == *sum, "{vendor} sold for {sum}, but {total} are shown");
    }
    // A dead letter is printed with its reason; later ones are waited for.
    let mut tail = installation.spawn("follow", "cartctl", ["tail", "cart-commands", "--from", "end"])?;
    let kafka = installation.kafka();
    let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
    wait_until("cartctl to show what comes", DEADLINE, async || {
        let garbage = Record { partition: None, key: Some(b"7".to_vec()), value: Some(vec![7; 9]), headers: None };
        let sent = async { anyhow::Ok(producer.send(&garbage)?.await?) };
        sent.await.map_err(|error| format!("{error:#}"))?;
        let shown = tail.log();
        if shown.contains("the value starts with byte 0x07") { Ok(()) } else { Err(shown) }
    })
    .await?;
    tail.kill9()?;
    wait_until("cartctl to print the dead letter", DEADLINE, async || {
        let dead = shown(installation, "cart-commands-dead-letter", &[]).await;
        let dead = dead.map_err(|error| format!("{error:#}"))?;
        let is_right =
            |record: &Value| record["key"] == "7" && record["error"].is_string() && record["headers"] != json!({});
        if !dead.is_empty() && dead.iter().all(is_right) { Ok(()) } else { Err(format!("{dead:?}")) }
    })
    .await?;
    // A command that can be decoded, with another cart's key: it is printed with the reason.
    let (command_id, cart_id) = (Uuid::from_u128(1).into(), Uuid::from_u128(2).into());
    let command = cart::Command::Checkout {};
    let issued_at = DateTime::UNIX_EPOCH;
    let command = CartCommand { command_id, cart_id, issued_at, command, expected_version: None, keyed: Some(false) };
    let codec = Codec::<CartCommand>::register(&Registry::new(kafka)?, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let value = Some(codec.encode(&command)?);
    producer.send(&Record { partition: None, key: Some(b"7".to_vec()), value, headers: None })?.await?;
    wait_until("cartctl to show a dead letter that decodes", DEADLINE, async || {
        let args = ["tail", "cart-commands-dead-letter", "--from", "beginning", "--until-end"];
        let text = installation.run("tail-dead", "cartctl", args, DEADLINE).await;
        let text = text.map_err(|error| format!("{error:#}"))?;
        let is_right = |line: &str| line.contains("(the key is not the cart id ") && line.ends_with("): Checkout");
        if text.lines().any(is_right) { Ok(()) } else { Err(text) }
    })
    .await
}

pub(crate) async fn a_consumer_in_python_adds_up_to_the_same() -> anyhow::Result<()> {
    let installation = Installation::new("downstream")?;
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::Ingest, "0", &["--allow-client-time"]), (Service::CartProcessor, "0", &[])];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let mut processes: Vec<Process> = installation.start_all(&services).await?;
    let url = format!("http://{}", processes[0].address().context("ingest has an address")?);
    installation.run("replay", "replay", ["--url", &url].into_iter().chain(SHOP.split(' ')), DEADLINE).await?;

    let printed = installation.folder().join("consumer.txt");
    let consumer = tokio::task::block_in_place(|| consumer(&installation, &printed))?;
    let database = PgPool::connect(installation.database_url()).await?;
    wait_for_rest(installation.kafka(), installation.cassandra(), &database, DEADLINE).await?;
    let sums = "SELECT vendor_id::text, sum(balance) FROM vendor_billing GROUP BY 1";
    let expected: BTreeMap<String, Decimal> =
        sqlx::query_as::<_, (String, Decimal)>(sums).fetch_all(&database).await?.into_iter().collect();
    ensure!(!expected.is_empty(), "nothing was sold");

    wait_until("the consumer to add up to the vendors' table", DEADLINE, async || {
        let text = fs::read_to_string(&printed).map_err(|error| error.to_string())?;
        let mut turnover = BTreeMap::new();
        let mut events = HashSet::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(event), Some(vendor), Some(Ok(sum))) =
                (words.next(), words.next(), words.next().map(str::parse::<Decimal>))
            else {
                return Err(text);
            };
            if !events.insert(event.to_owned()) {
                return Err(format!("{event} came twice"));
            }
            turnover.insert(vendor.to_owned(), sum);
        }
        if turnover == expected { Ok(()) } else { Err(format!("{turnover:?} is not {expected:?}")) }
    })
    .await?;
    drop(consumer);
    one_cart(&installation).await?;
    tailed(&installation, &expected).await?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}
