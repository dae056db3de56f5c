//! The page at `/docs` in a real Chromium: `scripts/test --browser openapi::page`. Requests are sent from it, with what it has
//! filled in.

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Process, Service, wait_until};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::DEADLINE;
use crate::auth::{AUDIENCE, ISSUER, Signer, claims, write_keys};
use crate::http::api::{PATIENT, PROCESSOR};
use crate::webdriver::{Browser, View};

/// The operations of the page, as selectors.
const ADD: &str = "#operations-commands-addItem";
const SHOW: &str = "#operations-carts-showCart";
const EVENTS: &str = "#operations-carts-showEvents";

/// Sends an operation's request, and returns the body of the answer that has this status and this text in its body.
async fn execute(browser: &Browser, operation: &str, status: u16, part: &str) -> anyhow::Result<String> {
    browser.click(&format!("{operation} button.execute")).await?;
    let shown = format!(
        "const shown = document.querySelector('{operation} .live-responses-table tbody'); \
         return [shown?.querySelector('.response-col_status').firstChild.textContent, \
            shown?.querySelector('.highlight-code pre')?.textContent]"
    );
    wait_until(&format!("{status} with '{part}' in {operation}"), DEADLINE, async || {
        let found = browser.run(&shown).await.map_err(|error| format!("{error:#}"))?;
        match (found[0].as_str(), found[1].as_str()) {
            (Some(code), Some(body)) if code == status.to_string() && body.contains(part) => Ok(body.to_owned()),
            _ => Err(found.to_string()),
        }
    })
    .await
}

async fn unfold(browser: &Browser, operation: &str) -> anyhow::Result<()> {
    browser.click(&format!("{operation} .opblock-summary-control")).await
}

/// Adds an item, and reads the cart and its events.
async fn commands_and_reads(browser: &Browser, url: &str) -> anyhow::Result<Value> {
    // The address of an operation unfolds it.
    browser.open(&format!("{url}/docs#/commands/addItem")).await?;
    let added: Value = serde_json::from_str(&execute(browser, ADD, 200, "commandId").await?)?;
    ensure!(added["version"] == 1 && added["item"]["name"] == "lamp", "the first example was not added: {added}");
    unfold(browser, SHOW).await?;
    let cart: Value = serde_json::from_str(&execute(browser, SHOW, 200, "total").await?)?;
    ensure!(cart["cartId"] == added["cartId"] && cart["items"] == json!([added["item"]]), "{cart}");

    unfold(browser, EVENTS).await?;
    let page: Value = serde_json::from_str(&execute(browser, EVENTS, 200, "events").await?)?;
    let event = &page["events"][0];
    ensure!(event["commandId"] == added["commandId"] && event["type"] == "ItemAdded", "{page}");
    // A stream goes on for ever, but the page shows what came so far.
    let choose = format!(
        "const list = document.querySelector('{EVENTS} .response-control-media-type--accept-controller select'); \
         list.value = 'text/event-stream'; list.dispatchEvent(new Event('change', {{bubbles: true}})); return list.value"
    );
    ensure!(browser.run(&choose).await? == "text/event-stream", "the page has no choice of a stream");
    let stream = execute(browser, EVENTS, 200, "id: 1").await?;
    let data = stream.lines().find_map(|line| line.strip_prefix("data: ")).with_context(|| stream.clone())?;
    ensure!(stream.starts_with("retry: ") && serde_json::from_str::<Value>(data)? == *event, "{stream}");

    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(cart)
}

/// Reads the cart from an ingest that asks for a token: without one, and with it.
async fn with_a_token(browser: &Browser, url: &str, token: &str, cart: &Value) -> anyhow::Result<()> {
    browser.open(&format!("{url}/docs#/carts/showCart")).await?;
    execute(browser, SHOW, 401, "urn:cart:problem:unauthenticated").await?;
    // The browser reports the status itself, and nothing else is wrong.
    let complaints = browser.complaints().await?;
    let is_status = |complaint: &Value| complaint["message"].as_str().is_some_and(|text| text.contains("401"));
    ensure!(complaints.len() == 1 && complaints.iter().all(is_status), "{complaints:?}");

    browser.click(".auth-wrapper > button.authorize").await?;
    browser.click("#auth-bearer-value").await?;
    browser.types(token).await?;
    browser.click(".auth-btn-wrapper button.authorize").await?;
    browser.click(".auth-btn-wrapper button.btn-done").await?;
    let shown: Value = serde_json::from_str(&execute(browser, SHOW, 200, "total").await?)?;
    ensure!(shown == *cart, "{shown}");
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

pub(crate) async fn requests_are_sent_from_the_page() -> anyhow::Result<()> {
    let installation = Installation::new("api_page")?;
    installation.setup().await?;
    let signer = Signer::read("ed", Algorithm::EdDSA)?;
    let jwks = installation.folder().join("jwks.json");
    write_keys(&jwks, &[&signer])?;
    let jwks = jwks.display().to_string();
    let verify = ["--auth", "jwt", "--jwks", &jwks, "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER];
    let services = [PROCESSOR, (Service::Ingest, "open", &PATIENT), (Service::Ingest, "secured", &verify)];
    let processes = installation.start_all(&services).await?;
    let url = |process: &Process| {
        let address = process.address().context("ingest has an address")?;
        anyhow::Ok(format!("http://{address}"))
    };

    let browser = Browser::start().await?;
    browser.look(View::DESKTOP).await?;
    let cart = commands_and_reads(&browser, &url(&processes[1])?).await?;
    let token = signer.sign(&claims(cart["cartId"].as_str().context("an id")?, ""))?;
    with_a_token(&browser, &url(&processes[2])?, &token, &cart).await?;
    drop((browser, processes));
    installation.remove().await
}
