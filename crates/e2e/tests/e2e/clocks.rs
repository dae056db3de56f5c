//! Clocks of an ingest, a cart-processor and a client that are a day ahead or behind. Commands are answered as usual and can be
//! looked up, nothing is lost or doubled, and a purchase has its command's time.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them). The clock of the machine does not change.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cartctl::audit::{Target, audit};
use chrono::{Days, NaiveDate, Utc};
use e2e::harness::{Installation, Process, Service, wait_until};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(180);

/// The offsets in seconds.
const DAY_OFF: [&str; 2] = ["86400", "-86400"];

/// Long enough that a busy machine does not answer with 202, and shorter than the client's timeout.
const INGEST: [&str; 3] = ["--allow-client-time", "--reply-timeout-ms", "30000"];

const SESSION: [&str; 2] = ["--session-timeout-ms", "3000"];

/// Starts ingest and cart-processor, which use the time, with these fail points.
async fn start(installation: &Installation, name: &str, ingest: &str, processor: &str) -> anyhow::Result<[Process; 2]> {
    let mut ingest = installation.start_to_crash(Service::Ingest, name, &INGEST, ingest)?;
    let mut processor = installation.start_to_crash(Service::CartProcessor, name, &SESSION, processor)?;
    ingest.ready(DEADLINE).await?;
    processor.ready(DEADLINE).await?;
    Ok([ingest, processor])
}

/// Sends a shop's commands; the first request of each must be answered with its outcome.
async fn replay(installation: &Installation, url: &str, name: &str, times: &[&str]) -> anyhow::Result<PathBuf> {
    let (record, report) = (
        installation.folder().join(format!("record-{name}.jsonl")),
        installation.folder().join(format!("{name}.json")),
    );
    let (record_text, report_text) = (record.display().to_string(), report.display().to_string());
    let shop = ["--commands", "200", "--members", "20", "--products", "20", "--vendors", "3", "--run-id", name];
    let run = ["--url", url, "--concurrency", "8", "--answer-timeout", "60s"];
    let files = ["--record", &record_text, "--json", &report_text];
    let args = run.into_iter().chain(shop).chain(files).chain(times.iter().copied());
    installation.run(&format!("replay-{name}"), "replay", args, DEADLINE).await?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report)?)?;
    let retries = &report["retries"];
    ensure!(report["commands"] == 200 && report["accepted"].as_u64() > Some(100), "{report:#}");
    ensure!(retries["pending"] == 0 && retries["unknown"] == 0, "not answered at once: {report:#}");
    Ok(record)
}

/// Looks up the status of an asynchronous command.
async fn looked_up(url: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    let item =
        json!({"productId": Uuid::new_v4(), "vendorId": Uuid::new_v4(), "name": "mug", "price": "1", "quantity": 1});
    let sent = http.post(format!("{url}/cart/{}", Uuid::new_v4())).header("prefer", "respond-async").json(&item);
    let sent = sent.send().await?;
    ensure!(sent.status() == StatusCode::ACCEPTED, "{}", sent.status());
    let location = sent.headers().get("location").context("it has a location")?.to_str()?.to_owned();
    wait_until("the command to be found", DEADLINE, async || {
        let answer = http.get(format!("{url}{location}")).send().await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if text.contains("\"accepted\"") { Ok(()) } else { Err(text) }
    })
    .await
}

async fn audited(installation: &Installation, records: &[PathBuf]) -> anyhow::Result<()> {
    let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
    let target = Target::new(kafka, cassandra, installation.database());
    let report = audit(&target, records, DEADLINE).await?;
    ensure!(report.is_clean() && report.counts.purchases > 0, "{report}");
    Ok(())
}

/// The days with purchases.
async fn days(installation: &Installation) -> anyhow::Result<Vec<NaiveDate>> {
    let session = cassandra::connect(installation.cassandra()).await?;
    let rows =
        session.query_unpaged("SELECT year, month, day FROM item_quantity_by_day", ()).await?.into_rows_result()?;
    let mut days = Vec::new();
    for row in rows.rows::<(i32, i32, i32)>()? {
        let (year, month, day) = row?;
        days.extend(NaiveDate::from_ymd_opt(year, u32::try_from(month)?, u32::try_from(day)?));
    }
    days.sort();
    days.dedup();
    Ok(days)
}

pub(crate) async fn a_clock_that_is_a_day_off_delays_no_answer() -> anyhow::Result<()> {
    let installation = Installation::new("clocks")?;
    installation.setup().await?;
    let projectors = Service::PROJECTORS.map(|projector| (projector, "0", &[][..]));
    let projectors = installation.start_all(&projectors).await?;
    let (mut records, began) = (Vec::new(), Utc::now().date_naive());
    for (n, by) in DAY_OFF.into_iter().enumerate() {
        let off = format!("clock=return({by})");
        for (whose, ingest, processor) in [("ingest", off.as_str(), ""), ("processor", "", off.as_str())] {
            let name = format!("{whose}-{n}");
            let mut services = start(&installation, &name, ingest, processor).await?;
            let url = format!("http://{}", services[0].address().context("ingest has an address")?);
            // The service's own clock is the command's time.
            records.push(replay(&installation, &url, &name, &["--no-send-time"]).await?);
            looked_up(&url).await?;
            for service in &mut services {
                service.terminate(DEADLINE).await?;
            }
        }
    }
    audited(&installation, &records).await?;
    // Midnight may have passed.
    let (today, day) = ([began, Utc::now().date_naive()], Days::new(1));
    let sold = days(&installation).await?;
    let (first, last) = (sold.first().context("nothing was sold")?, sold.last().context("nothing was sold")?);
    ensure!(today.iter().any(|today| *today - day == *first), "{today:?}, sold on {sold:?}");
    ensure!(today.iter().any(|today| *today + day == *last), "{today:?}, sold on {sold:?}");
    drop(projectors);
    installation.remove().await
}

pub(crate) async fn a_clients_time_is_the_purchases_time() -> anyhow::Result<()> {
    let installation = Installation::new("clocks")?;
    installation.setup().await?;
    let projectors = Service::PROJECTORS.map(|projector| (projector, "0", &[][..]));
    let projectors = installation.start_all(&projectors).await?;
    let services = start(&installation, "0", "", "").await?;
    let url = format!("http://{}", services[0].address().context("ingest has an address")?);
    let today = Utc::now().date_naive();
    let wrong = [today - Days::new(1), today + Days::new(1)];
    let mut records = Vec::new();
    for (n, day) in wrong.into_iter().enumerate() {
        let (start, prefix) = (day.to_string(), format!("client-{n}-"));
        let times = ["--send-time", "--start", &start, "--days", "1", "--member-prefix", &prefix];
        records.push(replay(&installation, &url, &format!("client-{n}"), &times).await?);
    }
    audited(&installation, &records).await?;
    assert_eq!(days(&installation).await?, wrong);
    drop((projectors, services));
    installation.remove().await
}
