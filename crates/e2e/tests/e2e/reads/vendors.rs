//! A vendor's sales include the latest purchase, or the answer names the projector that lags.

use anyhow::Context as _;
use e2e::harness::{Installation, Service, wait_until};
use futures::future::try_join_all;
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

use super::api::{Api, DEADLINE, PATIENT, item};

/// The arguments of an ingest that waits for a read table as long as a working pipeline may take.
const IMPATIENT: [&str; 2] = ["--read-after-timeout-ms", "3000"];

const VENDORS: u128 = 5;
const CHECKOUTS: u128 = 6;

/// A vendor from which every cart also buys.
const COMMON_VENDOR: u128 = 99;

/// The token of a checkout's answer for a read after it.
#[derive(Debug)]
struct Bought {
    token: String,
    /// Year, month and day.
    date: [i64; 3],
}

/// A vendor's balance in the only month with sales; zero without sales.
async fn balance(api: &Api, vendor: u128, year: i64, token: &str) -> anyhow::Result<Decimal> {
    let path = format!("/vendors/{}/billing?year={year}", Uuid::from_u128(vendor));
    let body = api.get(&path, &[("read-after", token)]).await?.done();
    let balances = body["balances"].as_array().context("balances")?;
    assert!(balances.len() <= 1, "{body}");
    Ok(balances.first().map_or(Ok(Decimal::ZERO), |one| one["balance"].as_str().unwrap_or_default().parse())?)
}

/// Buys a product of a vendor, and one of the common vendor at 0.01, in a new cart.
async fn buy(api: &Api, vendor: u128, price: &str, quantity: u128) -> anyhow::Result<Bought> {
    let path = format!("/cart/{}", Uuid::new_v4());
    let added = api.post(&path, Some(item(1, vendor, price, quantity))).await?;
    assert!(added.token().is_some(), "{added:?}");
    let again = api.post(&path, Some(item(1, vendor, price, quantity))).await?;
    again.problem(409, "item-already-in-cart", "");
    assert!(again.token().is_none(), "what is refused is in no table: {again:?}");
    api.post(&path, Some(item(2, COMMON_VENDOR, "0.01", 1))).await?.done();
    let answer = api.post(&format!("{path}/checkout"), None).await?;
    let token = answer.token().context("a token")?.to_owned();
    let body = answer.done();
    let date = body["purchasedAt"].as_str().and_then(|at| at.split('T').next()).context("purchasedAt")?;
    let date: Result<Vec<i64>, _> = date.split('-').map(str::parse).collect();
    Ok(Bought { token, date: date?.try_into().ok().context("a date")? })
}

/// Repeatedly buys and reads right after that: the purchase is always included, exactly.
async fn vendor(writes: &Api, reads: &Api, vendor: u128) -> anyhow::Result<(Bought, Decimal)> {
    let (mut total, mut pieces, mut last) = (Decimal::ZERO, 0, None);
    for number in 1..=CHECKOUTS {
        let price = format!("{number}.{vendor}00{number}");
        let bought = buy(writes, vendor, &price, number).await?;
        let [year, month, day] = bought.date;
        total += price.parse::<Decimal>()? * Decimal::from(number);
        pieces += number;
        assert_eq!(balance(reads, vendor, year, &bought.token).await?, total, "vendor {vendor}, checkout {number}");
        let path = format!(
            "/vendors/{}/products/{}/quantities?year={year}&month={month}",
            Uuid::from_u128(vendor),
            Uuid::from_u128(1)
        );
        let quantities = reads.get(&path, &[("read-after", &bought.token)]).await?.done();
        assert_eq!(quantities["days"], json!([{"day": day, "quantity": pieces}]), "{quantities}");
        assert_eq!(quantities["name"], "red mug", "{quantities}");
        last = Some(bought);
    }
    Ok((last.context("nothing was bought")?, total))
}

/// The pipeline is idle, and the last record of each topic is a transaction's marker: reads do not wait.
async fn at_rest(api: &Api, Bought { token, date: [year, month, _] }: &Bought) -> anyhow::Result<()> {
    for vendor in 200..206 {
        let vendor = Uuid::from_u128(vendor);
        let billing = format!("/vendors/{vendor}/billing?year={year}");
        let quantities = format!("/vendors/{vendor}/products/{vendor}/quantities?year={year}&month={month}");
        for path in [billing, quantities] {
            let read = wait_until("a read at rest", DEADLINE, async || {
                let answer = api.get(&path, &[("read-after", token)]).await?;
                if answer.status == 200 { Ok(()) } else { Err(anyhow::anyhow!("{answer:?}")) }
            });
            read.await?;
        }
    }
    Ok(())
}

/// Before the projectors' `setup`: commands are accepted, and the vendors' tables do not exist.
async fn before_the_tables(api: &Api) -> anyhow::Result<()> {
    let added = api.post(&format!("/cart/{}", Uuid::new_v4()), Some(item(1, 1, "1", 1))).await?;
    let token = added.token().context("a token")?.to_owned();
    let path = format!("/vendors/{}/billing?year=2026", Uuid::from_u128(1));
    let without = api.get(&path, &[]).await?;
    without.problem(503, "unavailable", "does not exist yet");
    assert!(without.headers.contains_key("retry-after"), "{without:?}");
    api.get(&path, &[("read-after", &token)]).await?.problem(503, "unavailable", "");
    Ok(())
}

async fn errors_are_reported(api: &Api, token: &str) -> anyhow::Result<()> {
    let id = Uuid::from_u128(1);
    let billing = |query: &str| format!("/vendors/{id}/billing{query}");
    let quantities = |query: &str| format!("/vendors/{id}/products/{id}/quantities{query}");
    for path in ["", "?year=x", "?year=10000", "?year=2026&month=1", "?year=2026&year=2026"].map(billing) {
        api.get(&path, &[]).await?.problem(400, "invalid-parameter", "");
    }
    for path in ["?year=2026", "?month=1", "?year=2026&month=13", "?year=2026&month=1&day=1"].map(quantities) {
        api.get(&path, &[]).await?.problem(400, "invalid-parameter", "");
    }
    api.get("/vendors/acme/billing?year=2026", &[]).await?.problem(400, "invalid-id", "vendorId");
    let path = format!("/vendors/{id}/products/mug/quantities?year=2026&month=1");
    api.get(&path, &[]).await?.problem(400, "invalid-id", "productId");
    api.post(&billing("?year=2026"), None).await?.problem(405, "method-not-allowed", "GET");
    let (epoch, place) = token.split_once('-').context("a token")?;
    let (partition, _) = place.split_once('-').context("a token")?;
    for (token, detail) in [
        ("soon".to_owned(), "must be a Read-After-Token"),
        (format!("{epoch}-4-0"), "must be a Read-After-Token"),
        (format!("2-{place}"), "from a log of commands that was replaced"),
        (format!("{epoch}-{partition}-1000000"), "not in the log"),
    ] {
        api.get(&billing("?year=2026"), &[("read-after", &token)]).await?.problem(400, "invalid-header", detail);
    }
    let body = api.get(&billing("?year=1999"), &[]).await?.done();
    assert_eq!(body, json!({"vendorId": id, "year": 1999, "balances": []}));
    let body = api.get(&quantities("?year=1999&month=2"), &[("read-after", token)]).await?.done();
    assert_eq!(body, json!({"vendorId": id, "productId": id, "year": 1999, "month": 2, "days": []}));
    Ok(())
}

pub(crate) async fn vendors_reads_include_the_latest_purchase() -> anyhow::Result<()> {
    let installation = Installation::new("sold")?;
    installation.create_database().await?;
    for binary in ["cart-processor", "ingest"] {
        installation.run(&format!("{binary}-setup"), binary, ["setup"], DEADLINE).await?;
    }
    let services: [(Service, &str, &[&str]); 4] = [
        // Each reply comes long before its events, so that the read has to wait for every stage.
        (Service::CartProcessor, "0", &["--commit-interval-ms", "150"]),
        (Service::Ingest, "a", &PATIENT),
        (Service::Ingest, "b", &PATIENT),
        (Service::Ingest, "impatient", &IMPATIENT),
    ];
    let processes = installation.start_all(&services).await?;
    let [api, other, impatient] = [1, 2, 3].map(|ingest| Api::new(&processes[ingest]));
    before_the_tables(&api).await?;

    installation.run("projectors-setup", "projectors", ["setup"], DEADLINE).await?;
    let services = Service::PROJECTORS.map(|projector| (projector, "0", &["--session-timeout-ms", "2000"][..]));
    let mut projectors = installation.start_all(&services).await?;

    // Each reads through the same ingest, or through another one.
    let vendors = (1..=VENDORS).map(|number| vendor(&api, if number % 2 == 0 { &api } else { &other }, number));
    let bought = try_join_all(vendors).await?;
    // A read after all purchases includes all.
    let mut common = Decimal::ZERO;
    for (Bought { token, date: [year, ..] }, _) in &bought {
        common = balance(&api, COMMON_VENDOR, *year, token).await?;
    }
    let expected = Decimal::new(i64::try_from(VENDORS * CHECKOUTS)?, 2);
    assert_eq!(common, expected);
    at_rest(&impatient, &bought[0].0).await?;
    errors_are_reported(&api, &bought[0].0.token).await?;

    projectors[2].terminate(DEADLINE).await?;
    let late = buy(&api, 1, "0.0001", 1).await?;
    let billing = format!("/vendors/{}/billing?year={}", Uuid::from_u128(1), late.date[0]);
    let after = [("read-after", late.token.as_str())];
    impatient.get(&billing, &after).await?.problem(504, "read-table-behind", "vendor-billing is at most ");
    impatient.get(&billing, &[]).await?.done();
    // The other table is still up to date.
    let path = format!("/vendors/{}/products/{}/quantities", Uuid::from_u128(1), Uuid::from_u128(1));
    let path = format!("{path}?year={}&month={}", late.date[0], late.date[1]);
    api.get(&path, &after).await?.done();
    let _successor = installation.start(Service::Projector("vendor-billing"), "0", &[])?;
    let expected = bought[0].1 + Decimal::new(1, 4);
    assert_eq!(balance(&api, 1, late.date[0], &late.token).await?, expected);
    drop((processes, projectors));
    installation.remove().await
}
