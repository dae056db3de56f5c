//! Lost data is rebuilt: read tables from `item-purchased`, `cart-events` from the journal, the journal from `cart-events`
//! and `cart-commands`, and all of Kafka from the journal. The commands and their order are those of docs/operations.md; they
//! reject harmful uses. Afterwards the shop continues, and every row is right.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC, READ_MODELS, ReadModel, STAGES, Store};
use cart::{CartCommand, CartEvent, CartParked, CartReply, PurchasedItem};
use cartctl::journal::{self, journal_equals_topic};
use cartctl::reconcile::wait_for_rest;
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{Admin, KafkaArgs};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::http::api::{Api, item};

const DEADLINE: Duration = Duration::from_secs(180);
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

/// The shop and the idempotency keys are the same each time, so that commands of earlier runs are repeats and change nothing.
const SHOP: &str =
    "--concurrency 16 --commands 900 --members 40 --products 40 --refused-share 0 --run-id again --expect-intended";

/// A shop whose services are started and stopped.
struct Shop {
    installation: Installation,
    processes: Vec<Process>,
}

impl Shop {
    async fn open() -> anyhow::Result<Self> {
        let installation = Installation::new("recovery")?;
        installation.setup().await?;
        let mut shop = Self { installation, processes: Vec::new() };
        shop.start(&Service::PROJECTORS).await?;
        Ok(shop)
    }

    /// Starts the write side and these projectors.
    async fn start(&mut self, projectors: &[Service]) -> anyhow::Result<()> {
        let ingest = (Service::Ingest, "0", &["--allow-client-time"][..]);
        let mut services = vec![ingest, (Service::CartProcessor, "0", &SESSION[..])];
        services.extend(projectors.iter().map(|projector| (*projector, "0", &SESSION[..])));
        self.processes = self.installation.start_all(&services).await?;
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        for mut process in self.processes.drain(..) {
            process.terminate(DEADLINE).await?;
        }
        Ok(())
    }

    /// Sends the shop's first commands. All must get their intended outcomes.
    async fn sell(&self, limit: u32) -> anyhow::Result<PathBuf> {
        let url = format!("http://{}", self.processes[0].address().context("ingest has an address")?);
        let sent = self.installation.folder().join(format!("sent-{limit}.csv.gz"));
        let (limit, sent_text) = (limit.to_string(), sent.display().to_string());
        let args = ["--url", &url, "--limit", &limit, "--sent", &sent_text];
        self.installation.run("replay", "replay", args.into_iter().chain(SHOP.split(' ')), DEADLINE).await?;
        Ok(sent)
    }

    /// Fills carts until the processor crashes, with events that are in the journal and not on the topic.
    /// These carts are not used elsewhere, so that each command makes an event; nothing is bought.
    async fn fill_until_crash(&mut self) -> anyhow::Result<()> {
        const CARTS: [&str; 4] = ["--member-prefix", "crashed", "--mix", "add=1"];
        let mut ingest = self.installation.start_all(&[(Service::Ingest, "0", &["--allow-client-time"])]).await?;
        // At once: otherwise the markers that end the open transaction would be in the recreated topic, which would not be
        // empty.
        let action = "processor-after-journal=return";
        let mut processor = self.installation.start_to_crash(Service::CartProcessor, "0", &SESSION, action)?;
        processor.ready(DEADLINE).await?;
        let url = format!("http://{}", ingest[0].address().context("ingest has an address")?);
        let args = ["--url", &url].into_iter().chain(SHOP.split(' ')).chain(CARTS);
        let mut replay = self.installation.spawn("crashed-replay", "replay", args)?;
        let status = processor.ended(DEADLINE).await?;
        ensure!(!status.success(), "the processor was to crash");
        replay.kill9()?;
        ingest[0].terminate(DEADLINE).await?;
        // The crashed processor is a member of the group until its session times out.
        let admin = Admin::new(self.installation.kafka())?;
        let group = self.installation.kafka().prefixed("cart-processor");
        wait_until("the dead processor to leave its group", DEADLINE, async || {
            tokio::task::block_in_place(|| admin.ensure_idle(&group))
        })
        .await
    }

    /// Continues the shop, then checks that every table has everything that was ever sent, and that journal and topic are
    /// equal byte for byte.
    async fn sell_and_check(&self, limit: u32) -> anyhow::Result<()> {
        let sent = self.sell(limit).await?;
        let args = [
            OsStr::new("reconcile"),
            OsStr::new("--sent"),
            sent.as_os_str(),
            OsStr::new("--timeout-s"),
            OsStr::new("60"),
        ];
        let report = self.installation.run("reconcile", "cartctl", args, 2 * DEADLINE).await?;
        ensure!(report.contains("0 differences"), "{report}");
        let differences = journal_equals_topic(self.installation.kafka(), self.installation.cassandra()).await?;
        ensure!(differences.is_empty(), "journal and topic differ: {differences:?}");
        Ok(())
    }

    /// Requests that do not follow from the events: rejected ones with a key, and an independent batch. Nothing is bought.
    async fn reject(&self) -> anyhow::Result<()> {
        let cart = Api::new(&self.processes[0]).cart();
        let batch = json!({"commands": [{"checkout": {}}, {"add": item(1, 2)}, {"add": item(1, 2)}]});
        for (key, path, body, status) in [
            ("empty", "/checkout", None, 409),
            ("batch", "/commands", Some(batch.to_string()), 200),
            ("again", "", Some(item(1, 1).to_string()), 409),
        ] {
            let answer = cart.send(Method::POST, path, &[("idempotency-key", key)], body).await?;
            ensure!(answer.status == status, "{key}: {answer:?}");
        }
        Ok(())
    }

    async fn rest(&self) -> anyhow::Result<()> {
        let database = PgPool::connect(self.installation.database_url()).await?;
        Ok(wait_for_rest(self.installation.kafka(), self.installation.cassandra(), &database, DEADLINE).await?)
    }

    /// Runs an operator's command: the binary, then its arguments.
    async fn does(&self, command: &str) -> anyhow::Result<String> {
        let mut words = command.split(' ');
        let binary = words.next().context("a command has a binary")?;
        self.installation.run(&command.replace(' ', "-"), binary, words, DEADLINE).await
    }

    /// An operator's command that must fail with this message.
    async fn refuses(&self, command: &str, word: &str) -> anyhow::Result<()> {
        let mut words = command.split(' ');
        let binary = words.next().context("a command has a binary")?;
        let mut process = self.installation.spawn(&format!("refused-{}", command.replace(' ', "-")), binary, words)?;
        let status = process.ended(DEADLINE).await?;
        let log = process.log();
        ensure!(!status.success(), "`{command}` ended well: {log}");
        ensure!(log.contains(word), "`{command}` does not say '{word}': {log}");
        Ok(())
    }
}

async fn remove_topics(kafka: &KafkaArgs, topics: &[&str]) -> anyhow::Result<()> {
    let admin = Admin::new(kafka)?;
    let topics: Vec<_> = topics.iter().map(|topic| kafka.prefixed(topic)).collect();
    admin.remove_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    wait_until("the topics to go", DEADLINE, async || {
        let left = topics.iter().filter(|topic| tokio::task::block_in_place(|| admin.partitions(topic)).is_ok());
        match left.cloned().collect::<Vec<_>>() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("still there: {left:?}")),
        }
    })
    .await
}

async fn in_cassandra(shop: &Shop, statements: &[String]) -> anyhow::Result<()> {
    let session = cassandra::connect(&shop.installation.cassandra().patient()).await?;
    for statement in statements {
        session.query_unpaged(statement.as_str(), ()).await?;
    }
    Ok(())
}

pub(crate) async fn read_tables_and_cart_events_are_rebuilt() -> anyhow::Result<()> {
    let mut shop = Shop::open().await?;
    shop.sell_and_check(300).await?;
    shop.refuses("cartctl rebuild popular-items --in-place", "stop them first").await?;
    shop.refuses("cartctl republish", "stop them first").await?;
    shop.refuses("cartctl restore-journal", "stop them first").await?;
    shop.stop().await?;

    // The read tables.
    let tables = ["item_quantity_by_day", "balance_by_vendor"].map(|table| format!("DROP TABLE {table}"));
    in_cassandra(&shop, &tables).await?;
    let database = PgPool::connect(shop.installation.database_url()).await?;
    sqlx::query("UPDATE vendor_billing SET balance = 7").execute(&database).await?;
    for ReadModel { group: table, .. } in READ_MODELS {
        shop.does(&format!("cartctl rebuild {table} --in-place")).await?;
    }
    shop.start(&Service::PROJECTORS).await?;
    shop.sell_and_check(450).await?;

    // The carts' events, while their purchases are not all published yet.
    shop.stop().await?;
    shop.start(&[]).await?;
    shop.sell(600).await?;
    shop.stop().await?;
    shop.fill_until_crash().await?;
    remove_topics(shop.installation.kafka(), &[CartEvent::TOPIC]).await?;
    shop.does("cart-processor setup").await?;
    let report = shop.does("cartctl republish").await?;
    ensure!(report.contains("uncommitted") && !report.contains("uncommitted=0"), "all was committed: {report}");
    shop.refuses("cartctl republish", "has records").await?;
    shop.refuses("projectors setup", "resume-purchases").await?;
    let report = shop.does("cartctl resume-purchases").await?;
    ensure!(report.contains("added") && !report.contains("added=0"), "no purchase was missing: {report}");
    // A second run has nothing to do.
    shop.does("cartctl resume-purchases").await?;
    shop.does("projectors setup").await?;
    shop.start(&Service::PROJECTORS).await?;
    shop.sell_and_check(900).await?;
    shop.stop().await?;
    shop.installation.remove().await
}

pub(crate) async fn the_journal_and_all_of_kafka_are_rebuilt() -> anyhow::Result<()> {
    let mut shop = Shop::open().await?;
    shop.sell_and_check(300).await?;
    shop.reject().await?;
    shop.rest().await?;
    shop.stop().await?;

    // Everything in Cassandra is lost: the journal, the read tables, and the recorded logs.
    let session = cassandra::connect(shop.installation.cassandra()).await?;
    let before = journal::read_tables(&session).await?;
    let requests = || before.1.values().flat_map(|requests| requests.values());
    ensure!(requests().filter(|kept| kept.unchanged.is_some()).count() == 2, "two requests were rejected");
    ensure!(requests().any(|kept| kept.unchanged.is_none() && kept.outcome.is_some()), "one was an independent batch");
    drop(session);
    // A table of another version is rejected.
    let table = format!("{}.cart_journal", shop.installation.name());
    in_cassandra(&shop, &[format!("ALTER TABLE {table} DROP events")]).await?;
    shop.refuses("cart-processor setup", "restore-journal").await?;
    shop.refuses("cart-processor --startup-timeout-s 1", "restore-journal").await?;
    in_cassandra(
        &shop,
        &[format!("DROP TABLE {table}"), format!("DROP TABLE {}.cart_unchanged", shop.installation.name())],
    )
    .await?;
    shop.does("cartctl restore-journal").await?;
    shop.does("cart-processor setup").await?;
    let session = cassandra::connect(shop.installation.cassandra()).await?;
    ensure!(journal::read_tables(&session).await? == before, "the journal is not what it was");
    drop(session);
    in_cassandra(&shop, &[format!("DROP KEYSPACE {}", shop.installation.name())]).await?;
    shop.refuses("cart-processor setup", "restore-journal").await?;
    // Twice, as after an interruption.
    for _ in 0..2 {
        shop.does("cartctl restore-journal").await?;
    }
    let session = cassandra::connect(shop.installation.cassandra()).await?;
    ensure!(journal::read_tables(&session).await? == before, "the journal is not what it was");
    shop.does("cart-processor setup").await?;
    shop.does("projectors setup").await?;
    for ReadModel { group: table, .. } in READ_MODELS.iter().filter(|table| table.store == Store::Cassandra) {
        shop.does(&format!("cartctl rebuild {table} --in-place")).await?;
    }
    shop.start(&Service::PROJECTORS).await?;
    shop.sell_and_check(600).await?;
    shop.rest().await?;
    shop.stop().await?;

    // Everything in Kafka is lost: topics and offsets.
    let kafka = shop.installation.kafka();
    let groups = STAGES.iter().map(|stage| kafka.prefixed(stage.group));
    Admin::new(kafka)?
        .remove_groups(&groups.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>())
        .await?;
    let topics = [
        CartCommand::TOPIC,
        CartEvent::TOPIC,
        CartReply::TOPIC,
        CartParked::TOPIC,
        PurchasedItem::TOPIC,
        DEAD_LETTER_TOPIC,
    ];
    remove_topics(kafka, &topics).await?;
    shop.refuses("cart-processor setup", "--accept-new-log").await?;
    shop.does("cart-processor setup --accept-new-log").await?;
    shop.does("cartctl republish").await?;
    shop.does("projectors setup --accept-new-log").await?;
    for ReadModel { group: table, .. } in READ_MODELS {
        shop.does(&format!("cartctl rebuild {table} --in-place")).await?;
    }
    shop.start(&Service::PROJECTORS).await?;
    shop.sell_and_check(900).await?;
    shop.stop().await?;
    shop.installation.remove().await
}
