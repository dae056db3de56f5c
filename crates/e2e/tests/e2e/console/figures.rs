//! The figures are those of the commands that were sent, and those of the tables.

use anyhow::{Context as _, ensure};
use cart::contract::STAGES;
use cartctl::reconcile::{read_balance_by_vendor, read_item_quantity_by_day, read_vendor_billing};
use cartctl::totals::Totals;
use e2e::harness::{Installation, Process, Service, wait_until};
use scylla::client::session::Session;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::super::http::api::{Api, DEADLINE, PATIENT, PROCESSOR, item};
use super::{Console, balances, waiting};

const CARTS: u64 = 5;

/// Commands of a generated shop, in addition.
const SHOP: &str =
    "--concurrency 8 --commands 400 --members 40 --products 30 --vendors 4 --refused-share 0.1 --no-send-time";

/// Five commands for each cart: three are accepted and make four events, of which two are purchases.
async fn send(api: &Api) -> anyhow::Result<()> {
    for _ in 0..CARTS {
        let cart = api.cart();
        cart.add(1, 2).await?.done();
        cart.add(2, 1).await?.done();
        cart.add(1, 1).await?.rejected(409, "item-already-in-cart", "");
        cart.checkout().await?.done();
        cart.checkout().await?.rejected(409, "empty-cart-checkout", "");
    }
    Ok(())
}

async fn compare_with_tables(frame: &Value, session: &Session, database: &PgPool) -> anyhow::Result<()> {
    let (months, days) = (read_balance_by_vendor(session).await?, read_item_quantity_by_day(session).await?);
    let cassandra = Totals { months, days, purchases: None };
    let postgres = Totals { months: read_vendor_billing(database).await?, ..Totals::default() };
    compare(frame, &cassandra, &postgres)
}

/// Compares the page's own totals, balances and best sellers with the tables.
fn compare(frame: &Value, cassandra: &Totals, postgres: &Totals) -> anyhow::Result<()> {
    ensure!(frame["totals"]["turnover"] == cassandra.balance().to_string(), "{}: {cassandra:?}", frame["totals"]);
    ensure!(frame["totals"]["turnover"] == postgres.balance().to_string(), "{}: {postgres:?}", frame["totals"]);
    ensure!(frame["totals"]["pieces"] == cassandra.quantity(), "{}: {cassandra:?}", frame["totals"]);
    for line in frame["balances"].as_array().context("a list")? {
        let (vendor, month) = (line["vendorId"].as_str().context("an id")?, line["month"].as_str().context("a month")?);
        for (store, totals) in [("cassandra", cassandra), ("postgres", postgres)] {
            let mut rows = totals.months.iter();
            let is_row = |key: &cartctl::totals::MonthKey| {
                key.vendor.to_string() == vendor && format!("{}-{:02}", key.year, key.month) == month
            };
            let (_, balance) = rows.find(|(key, _)| is_row(key)).with_context(|| format!("{vendor} {month}"))?;
            let shown = [&line["counted"], &line[store]["balance"]];
            ensure!(shown.iter().all(|shown| **shown == balance.normalize().to_string()), "{line} {balance}");
        }
    }
    let mut products: std::collections::HashMap<Uuid, i64> = std::collections::HashMap::new();
    for (key, sold) in &cassandra.days {
        *products.entry(key.product).or_default() += sold.quantity;
    }
    let mut pieces: Vec<i64> = products.into_values().collect();
    pieces.sort_unstable_by_key(|pieces| std::cmp::Reverse(*pieces));
    pieces.truncate(10);
    for top in &frame["top"].as_array().context("a list")?[1..] {
        let shown: Vec<_> =
            top["items"].as_array().into_iter().flatten().filter_map(|line| line["pieces"].as_i64()).collect();
        ensure!(shown == pieces, "{top}, but sold were {pieces:?}");
    }
    Ok(())
}

/// Buys through the page's form, and follows the purchase into the tables.
async fn visit(console: &Console, ingest: &Api) -> anyhow::Result<()> {
    let cart = ingest.cart();
    let path = format!("/api/shop/{}", cart.id);
    let added = console.post(&format!("{path}/items"), &item(7, 3)).await?;
    ensure!(added["status"] == 200 && added["body"]["version"] == 1, "{added}");
    let again = console.post(&format!("{path}/items"), &item(7, 3)).await?;
    ensure!(again["status"] == 409, "a refusal is shown too: {again}");
    let bought = console.post(&format!("{path}/checkout"), &json!({})).await?;
    let command_id = bought["body"]["commandId"].as_str().with_context(|| bought.to_string())?;
    let way = wait_until("the purchase to be in all tables", DEADLINE, async || {
        let way = console.get(&format!("/api/commands/{command_id}")).await.map_err(|error| format!("{error:#}"))?;
        let tables = way["events"][0]["purchase"]["tables"].as_array().cloned().unwrap_or_default();
        let is_in_all = tables.len() == 3 && tables.iter().all(|table| table["value"].is_string());
        if is_in_all { Ok(way) } else { Err(way.to_string()) }
    })
    .await?;
    let purchase = &way["events"][0]["purchase"];
    let values: Vec<_> = purchase["tables"].as_array().into_iter().flatten().map(|table| &table["value"]).collect();
    ensure!(values == ["3", "7.5", "7.5"], "{way}");
    ensure!(
        way["asked"]["traceId"].as_str().is_some_and(|id| id.len() == 32) && way["became"]["isRefused"] == false,
        "{way}"
    );
    // Each hop is later than the one before it, on one clock.
    let times = [&way["asked"]["atMs"], &way["became"]["atMs"]].map(Value::as_i64);
    ensure!(
        times[0] <= times[1] && way["events"][0]["hop"]["atMs"].as_i64() <= purchase["hop"]["atMs"].as_i64(),
        "{way}"
    );
    // By place, as in the list of the newest commands.
    let place = format!("/api/commands/{}/{}", way["partition"], way["offset"]);
    ensure!(console.get(&place).await? == way, "{place}");

    let history = console.get(&format!("/api/carts/{}?version=1", cart.id)).await?;
    ensure!(history["items"][0]["quantity"] == 3 && history["total"] == "7.5", "{history}");
    let history = console.get(&format!("/api/carts/{}", cart.id)).await?;
    ensure!(history["version"] == 2 && history["items"] == json!([]), "{history}");
    ensure!(history["events"][1]["name"] == "ItemPurchased" && history["isCut"] == false, "{history}");
    Ok(())
}

/// Each partition of each group has been read to its end, by the group's only process.
async fn partitions(
    console: &Console,
    processes: &[Process],
    installation: &Installation,
    log_len: u64,
) -> anyhow::Result<()> {
    // The second one is ingest, which is in no group.
    let members = processes.iter().take(1).chain(&processes[2..]);
    for (stage, member) in STAGES.iter().zip(members) {
        let pid = format!(":{}", member.id());
        let what = format!("the members of {}", stage.group);
        let group = wait_until(&what, DEADLINE, async || {
            let group = console.get(&format!("/api/groups/{}", stage.group)).await;
            let group = group.map_err(|error| format!("{error:#}"))?;
            let partitions = group["partitions"].as_array().into_iter().flatten();
            let is_done = |one: &&Value| {
                one["lag"]["behind"] == 0 && one["owner"].as_str().is_some_and(|owner| owner.ends_with(&pid))
            };
            let done = partitions.filter(is_done).count();
            if done == usize::from(installation.partitions()) { Ok(group) } else { Err(group.to_string()) }
        });
        let group = group.await?;
        ensure!(group["topic"] == stage.topic, "{group}");
        if stage.group == STAGES[0].group {
            let partitions = group["partitions"].as_array().into_iter().flatten();
            let next: u64 = partitions.filter_map(|one| one["nextOffset"].as_u64()).sum();
            ensure!(next == log_len, "{group}");
        }
    }
    let unknown = console.client.get(format!("{}/api/groups/nothing", console.url)).send().await?;
    ensure!(unknown.status() == 404, "{unknown:?}");
    Ok(())
}

async fn a_pause_is_shown(console: &Console, installation: &Installation) -> anyhow::Result<()> {
    let part = |frame: &Value| {
        let operations = &frame["operations"];
        let pause = &operations["pauses"][0];
        json!([pause["group"], pause["partition"], pause["reason"], operations["parkedCount"], operations["unknown"]])
    };
    let pause = ["pause", "vendor-billing", "--partition", "1", "--reason", "a test"];
    installation.run("pause", "cartctl", pause, DEADLINE).await?;
    console.shows("the pause", part, &json!(["vendor-billing", 1, "a test", 0, null])).await?;
    installation.run("resume", "cartctl", ["resume", "vendor-billing", "--partition", "1"], DEADLINE).await?;
    console.shows("no pause", part, &json!([null, null, null, 0, null])).await.map(drop)
}

/// What the headers tell a browser, and what another site's page must not do.
async fn secures(console: &Console) -> anyhow::Result<()> {
    for path in ["/", "/main.js", "/api/now", "/nothing"] {
        let response = console.client.get(format!("{}{path}", console.url)).send().await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(header("content-security-policy").starts_with("default-src 'self';"), "{path}: {response:?}");
        ensure!(header("x-content-type-options") == "nosniff", "{path}: {response:?}");
        ensure!((response.status() == 404) == (path == "/nothing"), "{path}: {response:?}");
    }
    let checkout = format!("{}/api/shop/{}/checkout", console.url, Uuid::new_v4());
    let foreign = console.client.post(&checkout).header("origin", "https://elsewhere.example").json(&json!({}));
    ensure!(foreign.send().await?.status() == 403, "a page of another origin");
    let simple = console.client.post(&checkout).header("content-type", "text/plain").body("{}");
    ensure!(simple.send().await?.status() == 403, "a form of another origin");
    let long = console.client.post(checkout.replace("checkout", "items")).json(&"x".repeat(10_000));
    ensure!(long.send().await?.status() == 413, "a long body");
    Ok(())
}

pub(crate) async fn the_page_shows_what_was_sent_and_what_the_tables_have() -> anyhow::Result<()> {
    let installation = Installation::new("console")?;
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> = vec![PROCESSOR, (Service::Ingest, "0", &PATIENT)];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let processes = installation.start_all(&services).await?;
    let api = Api::new(&processes[1]);
    let ingest_url = format!("http://{}", processes[1].address().context("an address")?);
    let console = Console::start(&installation, "console", &["--ingest-url", &ingest_url]).await?;

    // Half before somebody looks, half while the page reads.
    send(&api).await?;
    console.shows("the first figures", |frame| frame["window"]["accepted"].clone(), &(3 * CARTS).into()).await?;
    send(&api).await?;
    let carts = 2 * CARTS;
    let expected = json!({
        "window": {"commands": 5 * carts, "accepted": 3 * carts, "refused": 2 * carts, "events": 4 * carts, "purchases": 2 * carts},
        "logLen": 5 * carts,
        "totals": {"purchases": 2 * carts, "pieces": 3 * carts, "turnover": "75"},
        "waiting": [0, 0, 0, 0, 0],
        "balances": [
            [Uuid::from_u128(1), "50", ["50", "equal"], ["50", "equal"]],
            [Uuid::from_u128(2), "25", ["25", "equal"], ["25", "equal"]],
        ],
    });
    let part = |frame: &Value| {
        json!({"window": frame["window"], "logLen": frame["logLen"], "totals": frame["totals"], "waiting": waiting(frame),
            "balances": balances(frame)})
    };
    console.shows("the figures of what was sent", part, &expected).await?;
    visit(&console, &api).await?;
    secures(&console).await?;

    let sent = installation.folder().join("sent.csv.gz").display().to_string();
    let args = ["--url", &ingest_url, "--sent", &sent, "--expect-intended"].into_iter().chain(SHOP.split(' '));
    installation.run("replay", "replay", args, DEADLINE).await?;
    // 400 of the shop and three of the visitor.
    let all = json!([5 * carts + 403, [0, 0, 0, 0, 0]]);
    let answered = |frame: &Value| {
        let window = &frame["window"];
        json!([
            window["accepted"].as_u64().unwrap_or_default() + window["refused"].as_u64().unwrap_or_default(),
            waiting(frame)
        ])
    };
    console.shows("all commands to be answered, and none to wait", answered, &all).await?;
    partitions(&console, &processes, &installation, 5 * carts + 403).await?;
    a_pause_is_shown(&console, &installation).await?;
    let session = cassandra::connect(installation.cassandra()).await?;
    let database = PgPool::connect(installation.database_url()).await?;
    wait_until("the page's figures to be those of the tables", DEADLINE, async || {
        let frame = console.get("/api/now").await.map_err(|error| format!("{error:#}"))?;
        compare_with_tables(&frame, &session, &database).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    database.close().await;
    drop((console, processes));
    installation.remove().await
}
