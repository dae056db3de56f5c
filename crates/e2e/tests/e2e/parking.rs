//! Parked carts: a cart that cannot be read or decided waits, and all others go on; after its repair it has what it would have had.
//! A parked row of a read table is named, and is no wrong figure.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them).

pub(crate) mod damaged_file;
pub(crate) mod discard;
pub(crate) mod markers;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cart::contract::READ_MODELS;
use cartctl::audit::{Report, Target, audit};
use chrono::Datelike as _;
use e2e::harness::{Installation, Process, Service, UNKNOWN_SCHEMA, wait_until};
use kafka::partition_of;
use scylla::client::session::Session;
use serde_json::{Value, json};
use uuid::Uuid;

use super::console::Console;

pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// One worker with transactions that follow each other closely.
const WORKER: [&str; 6] = ["--session-timeout-ms", "2000", "--workers", "1", "--commit-interval-ms", "25"];

/// A running system; the test starts the cart-processors.
pub(crate) struct System {
    pub(crate) installation: Installation,
    url: String,
    vendor: Uuid,
    processors: u32,
    /// ingest, then the projectors.
    others: Vec<Process>,
}

impl System {
    pub(crate) async fn start(name: &str) -> anyhow::Result<Self> {
        Self::start_on(Installation::new(name)?).await
    }

    async fn start_on(installation: Installation) -> anyhow::Result<Self> {
        installation.setup().await?;
        let mut services: Vec<(Service, &str, &[&str])> = vec![(Service::Ingest, "0", &[])];
        services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
        let others = installation.start_all(&services).await?;
        let url = format!("http://{}", others[0].address().context("ingest has an address")?);
        Ok(Self { installation, url, vendor: Uuid::new_v4(), processors: 0, others })
    }

    pub(crate) async fn processor(&mut self, fail_points: &str) -> anyhow::Result<Process> {
        let mut process = self.processor_to_crash(fail_points)?;
        process.ready(DEADLINE).await?;
        Ok(process)
    }

    fn processor_to_crash(&mut self, fail_points: &str) -> anyhow::Result<Process> {
        self.processors += 1;
        let instance = format!("p{}", self.processors);
        self.installation.start_to_crash(Service::CartProcessor, &instance, &WORKER, fail_points)
    }

    /// Ends the projectors, and starts others.
    async fn restart_projectors(&mut self, instance: &str, fail_points: &str) -> anyhow::Result<()> {
        for mut process in self.others.split_off(1) {
            process.terminate(DEADLINE).await?;
        }
        for projector in Service::PROJECTORS {
            let mut process = self.installation.start_at(projector, instance, &[], None, Some(fail_points))?;
            process.ready(DEADLINE).await?;
            self.others.push(process);
        }
        Ok(())
    }

    /// Buys a mug of a vendor for 2. Returns the token of the checkout.
    async fn buy(&self, vendor: Uuid) -> anyhow::Result<String> {
        let (client, url) = (reqwest::Client::new(), format!("{}/cart/{}", self.url, Uuid::new_v4()));
        let product = Uuid::new_v4();
        let item = json!({"productId": product, "vendorId": vendor, "name": "mug", "price": "2", "quantity": 1});
        client.post(&url).json(&item).send().await?.error_for_status()?;
        let bought = client.post(format!("{url}/checkout")).json(&json!({})).send().await?.error_for_status()?;
        let token = bought.headers().get("read-after-token").context("a checkout has a token")?;
        Ok(token.to_str()?.to_owned())
    }

    /// A vendor's balances of this year, with a token.
    async fn balances(&self, vendor: Uuid, token: &str) -> anyhow::Result<(u16, Value)> {
        let year = chrono::Utc::now().year();
        let read = reqwest::Client::new().get(format!("{}/vendors/{vendor}/billing?year={year}", self.url));
        let answer = read.header("read-after", token).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// New carts of one partition.
    pub(crate) fn carts(&self, count: usize) -> Vec<Uuid> {
        let partitions = i32::from(self.installation.partitions());
        let of_one = |cart: &Uuid| partition_of(cart.to_string().as_bytes(), partitions) == 1;
        std::iter::repeat_with(Uuid::new_v4).filter(of_one).take(count).collect()
    }

    pub(crate) async fn send(&self, cart: Uuid, path: &str, body: Value) -> anyhow::Result<(u16, Value)> {
        let request = reqwest::Client::new().post(format!("{}/cart/{cart}{path}", self.url)).json(&body);
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    pub(crate) async fn add(&self, cart: Uuid, product: Uuid) -> anyhow::Result<(u16, Value)> {
        let item = json!({"productId": product, "vendorId": self.vendor, "name": "mug", "price": "2", "quantity": 1});
        self.send(cart, "", item).await
    }

    /// Adds an item, again until it is answered with 200: the processor may be busy with a rebalance.
    pub(crate) async fn added(&self, cart: Uuid) -> anyhow::Result<()> {
        wait_until("an item to be added", DEADLINE, async || match self.add(cart, Uuid::new_v4()).await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(reqwest::get(format!("{}{path}", self.url)).await?.json().await?)
    }

    async fn status(&self, cart: Uuid, answer: &Value) -> anyhow::Result<Value> {
        let command = answer["commandId"].as_str().context("a command has an id")?;
        // The command is of the last minutes.
        let since = chrono::Utc::now().timestamp_millis() - 600_000;
        self.get(&format!("/cart/{cart}/commands/{command}?since={since}")).await
    }

    async fn cartctl(&self, args: &[&str]) -> anyhow::Result<String> {
        // Each its own log file, which is its output.
        let name = format!("cartctl-{}", Uuid::new_v4().simple());
        self.installation.run(&name, "cartctl", args, DEADLINE).await
    }

    /// Waits until `cartctl status` has lines that begin so: it shows nothing of a store that takes longer than two seconds.
    async fn status_says(&self, expected: &[String]) -> anyhow::Result<()> {
        wait_until("cartctl status to say what is parked", DEADLINE, async || {
            let text = self.cartctl(&["status"]).await.map_err(|error| format!("{error:#}"))?;
            let is_said = |begin: &String| text.lines().any(|line| line.starts_with(begin.as_str()));
            if expected.iter().all(is_said) { Ok(()) } else { Err(text) }
        })
        .await
    }

    async fn audit(&self) -> anyhow::Result<Report> {
        let (kafka, cassandra) = (self.installation.kafka().clone(), self.installation.cassandra().clone());
        audit(&Target::new(kafka, cassandra, self.installation.database()), &[], DEADLINE).await
    }

    pub(crate) async fn clean(&self, when: &str) -> anyhow::Result<Report> {
        let report = self.audit().await?;
        ensure!(report.is_clean(), "{when}:\n{report}");
        Ok(report)
    }
}

/// The events of a journal's row, written anew behind what is there.
async fn write_events(session: &Session, cart: Uuid, events: Vec<Vec<u8>>, later: i64) -> anyhow::Result<()> {
    let (position, _) = row(session, cart).await?;
    let statement = "UPDATE cart_journal USING TIMESTAMP ? SET events = ? WHERE cart_id = ? AND sequence_number = 1";
    session.query_unpaged(statement, (position + later, events, cart)).await?;
    Ok(())
}

/// The position and the events of a cart's first row.
async fn row(session: &Session, cart: Uuid) -> anyhow::Result<(i64, Vec<Vec<u8>>)> {
    let statement = "SELECT position, events FROM cart_journal WHERE cart_id = ? AND sequence_number = 1";
    let rows = session.query_unpaged(statement, (cart,)).await?.into_rows_result()?;
    Ok(rows.single_row::<(i64, Vec<Vec<u8>>)>()?)
}

/// The carts that the live page lists as parked.
fn carts_at_the_page(frame: &Value) -> Value {
    let parked = frame["operations"]["parked"].as_array().into_iter().flatten();
    sorted(parked.filter_map(|cart| cart["cartId"].as_str().map(str::to_owned)).collect())
}

/// The groups whose parked rows the live page lists.
fn rows_at_the_page(frame: &Value) -> Value {
    let parked = frame["parkedRows"]["rows"].as_array().into_iter().flatten();
    sorted(parked.filter_map(|row| row["group"].as_str().map(str::to_owned)).collect())
}

fn sorted(texts: Vec<impl ToString>) -> Value {
    let mut texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts.into()
}

pub(crate) async fn bad_carts_wait_while_the_others_of_their_partition_go_on() -> anyhow::Result<()> {
    let mut system = System::start("parking").await?;
    let carts = system.carts(4);
    let [unreadable, panicking, unloadable, other] = carts[..] else { anyhow::bail!("four carts") };
    let mut processor = system.processor("").await?;
    let products: Vec<Uuid> = std::iter::repeat_with(Uuid::new_v4).take(3).collect();
    for cart in carts {
        let (status, answer) = system.add(cart, products[0]).await?;
        ensure!(status == 200, "{answer}");
    }
    processor.terminate(DEADLINE).await?;
    let session = cassandra::connect(system.installation.cassandra()).await?;
    let (_, events) = row(&session, unreadable).await?;
    write_events(&session, unreadable, vec![UNKNOWN_SCHEMA.to_vec()], 1).await?;

    let panics = format!("decide-panics=return({panicking});load-panics=return({unloadable})");
    let mut processor = system.processor(&panics).await?;
    system.added(other).await?;
    let sent_at = Instant::now();
    let (status, waits) = system.add(unreadable, products[0]).await?;
    ensure!(status == 202 && waits["parked"] == true && waits["reason"] == "journal-unreadable", "{status}: {waits}");
    for cart in [panicking, unloadable] {
        let (status, panics) = system.add(cart, products[1]).await?;
        ensure!(status == 202 && panics["reason"] == "rule-panicked", "{status}: {panics}");
    }
    // They were not answered because their time was over.
    ensure!(sent_at.elapsed() < Duration::from_secs(10), "{:?}", sent_at.elapsed());
    system.added(other).await?;
    for cart in [panicking, unloadable, unreadable] {
        system.installation.becomes_parked(cart, DEADLINE).await?;
    }
    let log = processor.log();
    let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains("a cart is parked")).count();
    ensure!(errors >= 3, "{errors} errors for three parked carts in {log}");
    // What comes now is behind what waits.
    for (cart, product) in [(unreadable, products[1]), (panicking, products[2]), (unloadable, products[2])] {
        let (status, answer) = system.add(cart, product).await?;
        ensure!(status == 202 && answer["parked"] == true, "{answer}");
    }
    let (status, bought) = system.send(unreadable, "/checkout", json!({})).await?;
    ensure!(status == 202 && bought["parked"] == true, "{bought}");
    system.added(other).await?;
    let asked = system.status(unreadable, &waits).await?;
    ensure!(asked["status"] == "pending" && asked["parked"] == true, "{asked}");
    // A token of a command that waits: the table does not have it, however long the read waits.
    let parked = system.installation.parked().await?;
    let waiting = parked.iter().find(|one| one["cartId"] == unreadable.to_string()).context("it is parked")?;
    let read = reqwest::Client::new().get(format!("{}/vendors/{}/billing?year=2026", system.url, system.vendor));
    let read = read.header("read-after", format!("1-1-{}", waiting["nextOffset"])).send().await?;
    let (status, problem): (u16, Value) = (read.status().as_u16(), read.json().await?);
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(status == 504 && detail.contains("is parked (journal-unreadable)"), "{status}: {problem}");
    // The damaged row is a finding, and nothing else is.
    let report = system.audit().await?;
    let is_of_row = |finding: &cartctl::audit::Finding| finding.place.contains(&unreadable.to_string());
    ensure!(!report.is_clean() && report.findings.iter().all(is_of_row), "with three parked carts:\n{report}");
    ensure!(report.counts.parked == 7, "{} commands are counted as parked", report.counts.parked);
    let shown = system.cartctl(&["parked", "show", &unreadable.to_string()]).await?;
    ensure!(shown.contains("journal-unreadable") && shown.contains("Checkout"), "{shown}");
    let parked = ["3 carts are parked, the oldest since ", "no row is parked"];
    system.status_says(&parked.map(String::from)).await?;

    // One that finds no committed offset ends: it does not wait for ever.
    processor.kill9()?;
    let mut lost = system.processor_to_crash("assignment-fails=1*return;offsets-lost=return")?;
    ensure!(!lost.ended(DEADLINE).await?.success(), "a processor without committed offsets has ended well");
    ensure!(lost.log().contains("no longer has any; `setup` shows what to do"), "{}", lost.log());
    // Another owner of the partition knows of them, also when it gets the partition while brokers do not answer.
    let _processor = system.processor("assignment-fails=1*return;restore-parked-fails=1*return").await?;
    system.added(other).await?;
    let (status, again) = system.send(unreadable, "/checkout", json!({})).await?;
    ensure!(status == 202 && again["parked"] == true, "{status}: {again}");
    let asked = system.status(unreadable, &bought).await?;
    ensure!(asked["parked"] == true, "{asked}");
    let tried = system.cartctl(&["parked", "retry", &unreadable.to_string()]).await;
    let text = tried.unwrap_or_else(|error| format!("{error:#}"));
    ensure!(text.contains("0 live, 1 still parked"), "a try before the repair: {text}");
    let console = Console::start(&system.installation, "console", &["--allow-operations"]).await?;
    console.shows("the parked carts", carts_at_the_page, &sorted(vec![unreadable, panicking, unloadable])).await?;
    write_events(&session, unreadable, events, 2).await?;
    let done = console.post("/api/operations", &json!({"action": "retry", "cartId": unreadable})).await?;
    ensure!(done["done"].as_str().is_some_and(|done| done.ends_with("is requested")), "{done}");
    console.shows("that one is live", carts_at_the_page, &sorted(vec![panicking, unloadable])).await?;
    let tried = system.cartctl(&["parked", "retry", "--all", "--wait-s", "60"]).await?;
    ensure!(tried.contains("2 live, 0 still parked"), "{tried}");
    console.shows("that no cart is parked", carts_at_the_page, &json!([])).await?;
    drop(console);

    let asked = system.status(unreadable, &waits).await?;
    ensure!(asked["status"] == "rejected", "the product was in the cart: {asked}");
    let asked = system.status(unreadable, &bought).await?;
    ensure!(asked["status"] == "accepted" && asked["outcome"]["total"] == "4", "{asked}");
    let asked = system.status(unreadable, &again).await?;
    ensure!(asked["status"] == "rejected", "the cart is empty: {asked}");
    for cart in [panicking, unloadable] {
        let asked = system.get(&format!("/cart/{cart}")).await?;
        ensure!(asked["version"] == 3, "three products: {asked}");
    }
    let (status, answer) = system.add(unreadable, products[0]).await?;
    ensure!(status == 200 && answer["version"] == 5, "it is live: {answer}");
    let report = system.clean("after the repair").await?;
    ensure!(report.counts.parked == 0 && system.installation.parked().await?.is_empty(), "some are still parked");
    system.installation.remove().await
}

/// Where a process dies: around the transaction with the marker or its end, and behind the journal write of a try.
const CRASHES: [&str; 4] =
    ["parking-before-transaction", "parking-in-transaction", "parking-after-commit", "parking-after-journal"];

/// A process dies while it parks a cart, and another while it decides what has waited.
pub(crate) async fn a_crash_at_any_point_of_parking_changes_nothing() -> anyhow::Result<()> {
    let mut system = System::start("parkcrash").await?;
    for crash in CRASHES {
        let carts = system.carts(2);
        let [bad, other] = carts[..] else { anyhow::bail!("two carts") };
        let panics = format!("decide-panics=return({bad})");
        if crash != "parking-after-journal" {
            let mut dies = system.processor(&format!("{panics};{crash}=return")).await?;
            let (status, answer) = system.add(bad, Uuid::new_v4()).await?;
            ensure!(status == 202, "{answer}");
            ensure!(!dies.ended(DEADLINE).await?.success(), "the processor was to crash at {crash}");
        }
        let mut parks = system.processor(&panics).await?;
        system.added(other).await?;
        for _ in 0..3 {
            let (status, answer) = system.add(bad, Uuid::new_v4()).await?;
            ensure!(status == 202 && answer["parked"] == true, "{status}: {answer}");
        }
        system.installation.becomes_parked(bad, DEADLINE).await?;
        let report = system.clean(&format!("parked, after a crash at {crash}")).await?;
        ensure!(report.counts.parked >= 3, "{} commands are counted as parked", report.counts.parked);
        parks.terminate(DEADLINE).await?;

        let mut dies = system.processor(&format!("{crash}=return")).await?;
        system.cartctl(&["parked", "retry", &bad.to_string(), "--wait-s", "0"]).await?;
        ensure!(!dies.ended(DEADLINE).await?.success(), "the processor was to crash at {crash} in a try");
        let mut repaired = system.processor("").await?;
        wait_until("the cart to be live", DEADLINE, async || match system.installation.parked().await {
            Ok(parked) if parked.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        system.added(bad).await?;
        let shown = system.get(&format!("/cart/{bad}")).await?;
        let version = if crash == "parking-after-journal" { 4 } else { 5 };
        ensure!(shown["version"].as_i64() >= Some(version), "after a crash at {crash}: {shown}");
        let report = system.clean(&format!("live again, after a crash at {crash}")).await?;
        ensure!(report.counts.parked == 0, "{} commands are counted as parked", report.counts.parked);
        repaired.terminate(DEADLINE).await?;
    }
    system.installation.remove().await
}

/// All three tables park a vendor's rows.
pub(crate) async fn a_parked_row_is_no_finding_and_a_read_does_not_promise_it() -> anyhow::Result<()> {
    let mut system = System::start("parkedrow").await?;
    let _processor = system.processor("").await?;
    let (bad, other) = (Uuid::new_v4(), Uuid::new_v4());
    system.restart_projectors("full", &format!("row-overflows=return({bad})")).await?;
    // The processor has its partitions then.
    system.added(Uuid::new_v4()).await?;
    let (token, token_of_other) = (system.buy(bad).await?, system.buy(other).await?);
    for model in READ_MODELS {
        system.installation.rows_become_parked(model.group, 1, DEADLINE).await?;
    }
    let (status, read) = system.balances(other, &token_of_other).await?;
    ensure!(status == 200 && read["balances"][0]["balance"] == "2", "another vendor: {status}, {read}");
    let (status, problem) = system.balances(bad, &token).await?;
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(status == 504 && detail.contains("is parked (row-overflows)"), "{status}: {problem}");
    let (year, month) = (chrono::Utc::now().year(), chrono::Utc::now().month());
    wait_until("a read without a token to name the parked month", DEADLINE, async || {
        let read = system.get(&format!("/vendors/{bad}/billing?year={year}")).await;
        let read = read.map_err(|error| format!("{error:#}"))?;
        if read["parked"] == json!([month]) && read["balances"] == json!([]) { Ok(()) } else { Err(read.to_string()) }
    })
    .await?;
    let report = system.clean("with a parked row in each table").await?;
    ensure!(report.counts.parked_rows == 3 && report.parked_rows.len() == 3, "{report}");
    let month = format!("{year}-{month:02}");
    let explained = system.cartctl(&["explain", "balance", &bad.to_string(), &month]).await?;
    ensure!(explained.matches("(parked, 1 records wait: row-overflows").count() == 2, "{explained}");
    let of_model = READ_MODELS.map(|model| format!("{}: 1 row is parked: cartctl parked rows", model.group));
    system.status_says(&of_model).await?;

    let groups = READ_MODELS.map(|model| model.group);
    let console = Console::start(&system.installation, "console", &["--allow-operations"]).await?;
    console.shows("the parked rows", rows_at_the_page, &sorted(groups.to_vec())).await?;
    system.restart_projectors("repaired", "").await?;
    let [by_day, by_month @ ..] = groups;
    for group in by_month {
        let retry = json!({"action": "retryRow", "group": group, "vendorId": bad, "row": month});
        let done = console.post("/api/operations", &retry).await?;
        ensure!(done["done"].as_str().is_some_and(|done| done.ends_with("is requested")), "{done}");
    }
    console.shows("that the rows of the month are live", rows_at_the_page, &json!([by_day])).await?;
    drop(console);
    system.installation.retry_parked_rows(1).await?;
    let (status, read) = system.balances(bad, &token).await?;
    ensure!(status == 200 && read["balances"][0]["balance"] == "2", "after the repair: {status}, {read}");
    let report = system.clean("after the repair").await?;
    ensure!(report.counts.parked_rows == 0, "{report}");
    system.status_says(&[String::from("no cart and no row is parked")]).await?;
    system.installation.remove().await
}
