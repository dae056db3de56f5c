//! The page in a real Chromium: `scripts/test --browser`. With `CART_SCREENSHOTS=FOLDER` it also writes the pictures of README.md
//! and docs/.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cartctl::reconcile::{read_balance_by_vendor, wait_for_rest};
use e2e::harness::{Installation, Process, Service};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::super::http::api::{DEADLINE, PROCESSOR};
use super::Console;
use super::picture::smaller;
use super::read_models::{SECOND, create_second, park_in_postgres, parked};
use crate::webdriver::{Browser, ENTER, ESCAPE, LEFT, View};

const SHOP: &str =
    "--concurrency 8 --commands 600 --members 60 --products 24 --vendors 9 --refused-share 0.05 --no-send-time";

/// The arguments of ingest: a late outcome is 202 before the page gives up, after 15 s.
const INGEST: [&str; 2] = ["--reply-timeout-ms", "10000"];

/// The traffic in the pictures, at a rate at which single dots can be seen.
const TRAFFIC: &str = "--concurrency 8 --commands 4000 --rate 25 --members 300 --products 24 --vendors 9 --refused-share 0.05 \
    --no-send-time --member-prefix picture";

/// Nothing answers there: the page only links to it.
const TRACE_URL: &str = "http://127.0.0.1:1/trace/{trace_id}";

/// What the page says of the table of balances, and of one that is not equal.
const BALANCES: &str =
    "return [...document.querySelectorAll('#balances td[data-state]')].map(cell => cell.dataset.state)";

async fn figures(browser: &Browser, installation: &Installation) -> anyhow::Result<()> {
    let session = cassandra::connect(installation.cassandra()).await?;
    let balances = read_balance_by_vendor(&session).await?;
    // The page groups thousands; the digits are those of the table.
    let shown = "return document.getElementById('total-turnover').textContent.replaceAll(',', '')";
    let mut balance = balances.values().sum::<Decimal>().normalize();
    balance.rescale(balance.scale().max(2));
    browser.sees("the turnover of the tables", shown, &balance.to_string().into()).await?;
    browser.sees("all commands", "return document.getElementById('log-len').textContent", &"600".into()).await?;
    let waiting = "return [...document.querySelectorAll('.waits')].map(label => label.textContent)";
    browser.sees("that none waits", waiting, &json!(vec!["0 waiting"; 5])).await?;
    let cells = browser.run(&format!("{BALANCES}.length")).await?;
    ensure!(cells == 18, "nine vendors in two tables: {cells}");
    browser.sees("equal balances", BALANCES, &json!(vec!["equal"; 18])).await?;
    browser
        .sees("that it says so", "return document.getElementById('balances-state').textContent", &"all equal".into())
        .await
}

/// Buys with the keyboard alone.
async fn purchase(browser: &Browser) -> anyhow::Result<()> {
    browser.tab_to("the products", "return document.activeElement.parentElement?.id === 'products'").await?;
    browser.press(ENTER).await?;
    let in_cart = "return document.querySelectorAll('#basket li').length";
    browser.sees("the item in the cart", in_cart, &1.into()).await?;
    browser.run("window.isOld = true; location.reload()").await?;
    browser.sees("the page anew", "return window.isOld === undefined", &true.into()).await?;
    browser.sees("the item that was in the cart before", in_cart, &1.into()).await?;
    browser.tab_to("the form", "return document.activeElement.id === 'own-name'").await?;
    browser.types("mug").await?;
    browser.tab_to("the price", "return document.activeElement.id === 'own-price'").await?;
    browser.types("1.25").await?;
    browser.press(ENTER).await?;
    browser.sees("another item in the cart", in_cart, &2.into()).await?;
    browser.tab_to("the checkout", "return document.activeElement.id === 'checkout'").await?;
    browser.press(ENTER).await?;
    browser
        .sees(
            "the purchase in all tables",
            "return document.getElementById('arrivals').dataset.arrived",
            &"true".into(),
        )
        .await?;
    let rows = "return [...document.querySelectorAll('#arrivals [data-table]')].map(row => [row.dataset.table, row.dataset.value])";
    let tables = |pieces: &str, balance: &str| {
        [["item_quantity_by_day", pieces], ["balance_by_vendor", balance], ["vendor_billing", balance]]
            .map(|row| json!(row))
    };
    let expected: Value = tables("1", "3.5").into_iter().chain(tables("1", "1.25")).collect();
    browser.sees("the rows with the purchase", rows, &expected).await?;
    let steps = "return [...document.querySelectorAll('#arrivals [data-step]')].map(step => step.dataset.step)";
    let once = ["ItemPurchased", "item-purchased", "tables"];
    let expected: Value = ["cart-commands", "accepted"].into_iter().chain(once).chain(once).map(Value::from).collect();
    let found = browser.run(steps).await?;
    ensure!(found == expected, "{found}");
    Ok(())
}

/// The open way of a command has a link to the command's trace, which is none of the page's own.
async fn is_linked_to_its_trace(browser: &Browser) -> anyhow::Result<()> {
    let link = "const body = document.getElementById('journey-body'), link = body.querySelector('dl a'); \
        return link ? [link.getAttribute('href'), link.textContent, link.target, link.rel] : body.textContent";
    let found = browser.run(link).await?;
    let id = found[1].as_str().with_context(|| format!("the way of a command has no link to a trace: {found}"))?;
    ensure!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id} is no id of a trace");
    let expected = json!([TRACE_URL.replace("{trace_id}", id), id, "_blank", "noopener"]);
    ensure!(found == expected, "{found} instead of {expected}");
    Ok(())
}

/// Opens a command's way, its cart's history and a group's partitions with the keyboard.
async fn dialogs(browser: &Browser) -> anyhow::Result<()> {
    // The list follows once a second. The load's commands carry no trace; what the page sends does.
    let is_own =
        "return document.querySelector('#newest .row').closest('tr').textContent.includes('everything in the cart')";
    browser.sees("the page's checkout as the newest command", is_own, &true.into()).await?;
    browser.tab_to("the newest commands", "return document.activeElement.matches('#newest .row')").await?;
    browser.press(ENTER).await?;
    let steps = "return document.querySelectorAll('#journey-body .way > li').length > 1";
    browser.sees("a command's way", steps, &true.into()).await?;
    is_linked_to_its_trace(browser).await?;
    browser.press(ESCAPE).await?;
    let is_back = "return !document.querySelector('dialog[open]') && document.activeElement.matches('#newest .row')";
    browser.sees("the focus where it was", is_back, &true.into()).await?;
    browser.run("document.getElementById('own-cart').focus()").await?;
    browser.press(ENTER).await?;
    let at = "return [document.querySelector('#cart-body output')?.textContent, document.querySelectorAll('#cart-body .at tbody tr').length]";
    browser.sees("the cart's history", at, &json!(["version 4 of 4", 0])).await?;
    browser.tab_to("the slider", "return document.activeElement.id === 'version'").await?;
    browser.press(LEFT).await?;
    browser.press(LEFT).await?;
    browser.sees("the cart before it was bought", at, &json!(["version 2 of 4", 2])).await?;
    browser.press(ESCAPE).await?;
    browser.sees("the closed dialog", "return document.querySelector('dialog[open]')", &Value::Null).await?;

    browser.run("document.querySelector('.skip').focus()").await?;
    browser.tab_to("a group", "return document.activeElement.dataset.group === 'popular-items'").await?;
    browser.press(ENTER).await?;
    let owners = "return [...document.querySelectorAll('#group-body tr[data-owner]')].map(row => row.dataset.owner.includes('@'))";
    browser.sees("its partitions with their owners", owners, &json!([true, true, true, true])).await?;
    browser.press(ESCAPE).await?;
    let is_back =
        "return !document.querySelector('dialog[open]') && document.activeElement.dataset.group !== undefined";
    browser.sees("the focus at the group again", is_back, &true.into()).await
}

/// Pauses a projector with the keyboard, and resumes it.
async fn operate(browser: &Browser) -> anyhow::Result<()> {
    let message = "return document.getElementById('act-message').textContent";
    let paused = "return [...document.querySelectorAll('#operations tr[data-kind=paused]')].map(row => row.cells[1].textContent)";
    browser.run("document.querySelector('#newest tr:last-child button').focus()").await?;
    browser.tab_to("the button for a pause", "return document.activeElement.id === 'pause'").await?;
    browser.press(ENTER).await?;
    browser.sees("the choice of a group", "return document.activeElement.id", &"act-group".into()).await?;
    // As with any list, what is typed is chosen.
    browser.types("popular").await?;
    let facts = "return document.querySelector('#act-body dl').textContent";
    browser.sees("what is to be paused", facts, &"pausespopular-itemspartitionall".into()).await?;
    browser.tab_to("the reason", "return document.activeElement.id === 'act-reason'").await?;
    browser.types("index build").await?;
    browser.press(ENTER).await?;
    let done = "popular-items is to pause: its members commit what they have read";
    browser.sees("that the pause is recorded", message, &done.into()).await?;
    browser.sees("the pause", paused, &json!(["index buildby cart-console"])).await?;

    browser.tab_to("the button to resume", "return document.activeElement.textContent === 'Resume'").await?;
    browser.press(ENTER).await?;
    browser.sees("the dialog", "return document.activeElement.id", &"act-reason".into()).await?;
    browser.press(ENTER).await?;
    browser.sees("that the group goes on", message, &"popular-items goes on".into()).await?;
    browser.sees("no pause", paused, &json!([])).await?;
    // The row with the focus is gone.
    browser.sees("the focus in the panel", "return document.activeElement.id", &"pause".into()).await
}

/// Lets a parked row be tried again with the keyboard. It is of a generation that no projector keeps, so it stays.
async fn retry_row(browser: &Browser, installation: &Installation, database: &PgPool) -> anyhow::Result<()> {
    create_second(database).await?;
    let row = parked(1_000)?;
    park_in_postgres(installation, database, &row).await?;
    let rows = |kind: &str| {
        let rows = format!("document.querySelectorAll('#operations tr[data-kind={kind}]')");
        format!("return [...{rows}].map(row => row.cells[1].textContent)")
    };
    let why = "row-overflows: fulllacks item-purchased/1/7 and later";
    browser.sees("the parked row", &rows("parked"), &json!([why])).await?;
    let models = "return [...document.querySelectorAll('#generations li')].map(line => line.dataset.model)";
    browser.sees("a model with two generations", models, &json!(["vendor-billing-jdbc"])).await?;
    browser.tab_to("the button to retry", "return document.activeElement.textContent === 'Retry'").await?;
    browser.press(ENTER).await?;
    browser.sees("the dialog", "return document.activeElement.id", &"act-submit".into()).await?;
    browser.press(ENTER).await?;
    let done = format!("another try of row 2026-11 of vendor {} in {SECOND} is requested", row.vendor_id);
    let message = "return document.getElementById('act-message').textContent";
    browser.sees("that another try is requested", message, &done.into()).await?;
    let wanted = format!("{why}another try by cart-console");
    browser.sees("who wants it", &rows("retrying"), &json!([wanted])).await?;

    browser.sees("the focus in the panel", "return document.activeElement.id", &"pause".into()).await?;
    browser.press(ENTER).await?;
    let groups = "return [...document.querySelectorAll('#act-group option')].at(-1)?.textContent";
    browser.sees("the later generation among the groups", groups, &SECOND.into()).await?;
    browser.press(ESCAPE).await
}

/// As before [`retry_row`].
async fn drop_second(browser: &Browser, database: &PgPool) -> anyhow::Result<()> {
    for statement in ["DELETE FROM parked_row", "DROP TABLE vendor_billing_g2"] {
        sqlx::query(statement).execute(database).await?;
    }
    let lines = "return [...document.querySelectorAll('#generations li, #operations tr[data-kind=retrying]')].length";
    browser.sees("neither the generation nor its row", lines, &0.into()).await
}

/// Neither errors nor violations of the policy, and the policy is in force.
async fn policy(browser: &Browser) -> anyhow::Result<()> {
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    let inline = "const script = document.createElement('script'); script.textContent = 'window.ran = true'; \
        document.body.append(script); script.remove(); return window.ran ?? false";
    ensure!(browser.run(inline).await? == false, "an inline script was run");
    let complaints = browser.complaints().await?;
    ensure!(!complaints.is_empty(), "the browser reports no violation");
    Ok(())
}

/// Nothing is wider than the window of a phone.
async fn phone(browser: &Browser) -> anyhow::Result<()> {
    browser.look(View { width: 390, height: 844, is_dark: false, is_phone: true }).await?;
    let width = "return document.documentElement.scrollWidth";
    browser.sees("a page as wide as a phone", width, &390.into()).await?;
    browser.look(View::DESKTOP).await
}

async fn save(browser: &Browser, folder: &Path, name: &str, view: View) -> anyhow::Result<()> {
    browser.look(view).await?;
    // The dots that a change of the size has removed come back.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let picture = smaller(&browser.picture().await?)?;
    std::fs::write(folder.join(name), picture).with_context(|| format!("writing {name}"))
}

async fn pictures(
    browser: &Browser,
    folder: &Path,
    installation: &Installation,
    ingest_url: &str,
    processes: &mut [Process],
) -> anyhow::Result<()> {
    let args = ["--url", ingest_url, "--expect-intended"].into_iter().chain(TRAFFIC.split_whitespace());
    let _traffic = installation.spawn("traffic", "replay", args)?;
    tokio::time::sleep(Duration::from_secs(45)).await;
    browser.run("window.scrollTo(0, 0)").await?;
    save(browser, folder, "console.png", View { height: 1_180, ..View::DESKTOP }).await?;
    save(browser, folder, "console-dark.png", View { height: 1_180, is_dark: true, ..View::DESKTOP }).await?;
    save(browser, folder, "console-phone.png", View { width: 390, height: 1_500, is_dark: false, is_phone: true })
        .await?;
    browser.look(View::DESKTOP).await?;
    // A purchase goes all the way.
    let click = "const rows = [...document.querySelectorAll('#newest tr')]; \
        const bought = rows.find((row) => row.textContent.startsWith('buy') && row.textContent.includes('accepted')); \
        bought?.querySelector('.row').click(); return bought !== undefined";
    browser.sees("a purchase among the newest commands", click, &true.into()).await?;
    browser.look(View { height: 700, ..View::DESKTOP }).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The shadow of the dialog has more shades than a palette.
    std::fs::write(folder.join("console-way.png"), browser.picture().await?).context("writing console-way.png")?;
    browser.press(ESCAPE).await?;
    // A projector that has stopped: what waits for it is red.
    processes.last_mut().context("the last projector")?.kill9()?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    save(browser, folder, "console-behind.png", View { height: 700, ..View::DESKTOP }).await
}

pub(crate) async fn a_visitor_sees_what_the_tables_have_and_buys_with_the_keyboard() -> anyhow::Result<()> {
    let installation = Installation::new("console_page")?;
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> = vec![PROCESSOR, (Service::Ingest, "0", &INGEST)];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let mut processes = installation.start_all(&services).await?;
    let ingest_url = format!("http://{}", processes[1].address().context("an address")?);
    let args = ["--ingest-url", &ingest_url, "--allow-operations", "--trace-url", TRACE_URL];
    let console = Console::start(&installation, "console", &args).await?;
    let args = ["--url", &ingest_url, "--expect-intended"].into_iter().chain(SHOP.split_whitespace());
    installation.run("replay", "replay", args, DEADLINE).await?;
    let database = PgPool::connect(installation.database_url()).await?;
    wait_for_rest(installation.kafka(), installation.cassandra(), &database, DEADLINE).await?;

    let browser = Browser::start().await?;
    browser.look(View::DESKTOP).await?;
    browser.open(&console.url).await?;
    figures(&browser, &installation).await?;
    purchase(&browser).await?;
    dialogs(&browser).await?;
    operate(&browser).await?;
    retry_row(&browser, &installation, &database).await?;
    phone(&browser).await?;
    drop_second(&browser, &database).await?;
    database.close().await;
    policy(&browser).await?;
    if let Some(folder) = std::env::var_os("CART_SCREENSHOTS").map(PathBuf::from) {
        browser.open(&console.url).await?;
        pictures(&browser, &folder, &installation, &ingest_url, &mut processes).await?;
    }
    drop((browser, console, processes));
    installation.remove().await
}
