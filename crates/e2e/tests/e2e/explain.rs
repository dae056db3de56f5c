//! `cartctl explain` on a pipeline at rest: it shows how each figure follows from the log, and where a wrong one does not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cartctl::reconcile::{read_balance_by_vendor, read_item_quantity_by_day};
use e2e::harness::Installation;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// Asks for an explanation. Returns the exit code and the output.
async fn explain(installation: &Installation, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Each has its own log file.
    let name = format!("explain-{}", ASKED.fetch_add(1, Ordering::Relaxed));
    let mut process = installation.spawn(&name, "cartctl", [&["explain"], args].concat())?;
    let status = process.ended(DEADLINE).await?;
    Ok((status.code(), process.log()))
}

async fn says(installation: &Installation, args: &[&str], code: i32, parts: &[&str]) -> anyhow::Result<String> {
    let (exit_code, output) = explain(installation, args).await?;
    let is_said = parts.iter().all(|part| output.contains(part));
    ensure!(
        exit_code == Some(code) && is_said,
        "{args:?}: exit code {exit_code:?}, expected {code} and {parts:?} in {output}"
    );
    Ok(output)
}

/// Explains figures of each table, then makes them wrong.
pub(crate) async fn explains_figures_and_finds_wrong_ones(installation: &Installation) -> anyhow::Result<()> {
    let session = cassandra::connect(installation.cassandra()).await?;
    let database = PgPool::connect(installation.database_url()).await?;
    let months = read_balance_by_vendor(&session).await?;
    let (month, balance) = months.iter().max_by_key(|(_, balance)| **balance).context("nothing was bought")?;
    let (vendor, of_year) = (month.vendor.to_string(), format!("{}-{:02}", month.year, month.month));
    let question = ["balance", &vendor, &of_year];
    let equal = |table: &str| format!("{table}: {}, equal to the log", balance.normalize());
    let both = [equal("balance_by_vendor (Cassandra)"), equal("vendor_billing (PostgreSQL)")];
    let parts = both.each_ref().map(String::as_str);
    says(installation, &question, 0, &parts).await?;
    let row = format!("vendorid = {vendor} AND year = {} AND month = {}", month.year, month.month);
    session
        .query_unpaged(format!("UPDATE balance_by_vendor SET balance = {} WHERE {row}", balance + balance), ())
        .await?;
    let wrong = format!("a difference of {}", balance.normalize());
    says(installation, &question, 1, &["balance_by_vendor (Cassandra)", &wrong, parts[1]]).await?;
    let json = [&question[..], &["--store", "postgres", "--json"]].concat();
    let ledger: Value = serde_json::from_str(&says(installation, &json, 0, &[]).await?)?;
    let entries = ledger["entries"].as_array().context("records")?;
    // As if the projector had stopped before its last record.
    let before_last = entries[entries.len() - 2]["total"].as_str().context("a total")?;
    let statement = "UPDATE vendor_billing SET balance = $1::numeric WHERE vendor_id = $2 AND year = $3 AND month = $4";
    let update = sqlx::query(statement).bind(before_last).bind(month.vendor).bind(month.year).bind(month.month);
    update.execute(&database).await?;
    let stopped = format!("the records after offset {} are missing", entries[entries.len() - 2]["offset"]);
    says(installation, &[&question[..], &["--store", "postgres"]].concat(), 1, &[&stopped]).await?;

    let days = read_item_quantity_by_day(&session).await?;
    let (day, sold) = days.iter().max_by_key(|(_, sold)| sold.quantity).context("nothing was bought")?;
    let date = format!("{}-{:02}-{:02}", day.year, day.month, day.day);
    let question = ["item", &day.vendor.to_string(), &day.product.to_string(), &date];
    let equal = format!("item_quantity_by_day (Cassandra): {}, equal to the log", sold.quantity);
    says(installation, &question, 0, &[&equal]).await?;

    carts(installation, &session).await
}

/// Explains the cart with the most events, then deletes one of its requests from the journal.
async fn carts(installation: &Installation, session: &scylla::client::session::Session) -> anyhow::Result<()> {
    let journal = cartctl::journal::read(session).await?;
    let (cart_id, events) = journal.iter().max_by_key(|(_, events)| events.len()).context("a cart")?;
    let cart: Uuid = *cart_id;
    let question = ["cart", &cart.to_string()];
    let json: Value = serde_json::from_str(&says(installation, &[&question[..], &["--json"]].concat(), 0, &[]).await?)?;
    let steps = json["commands"].as_array().context("commands")?;
    let explained: usize = steps.iter().map(|step| step["events"].as_array().map_or(0, Vec::len)).sum();
    ensure!(explained == events.len(), "{explained} events are explained, {} are journalled", events.len());
    let version = events.last().map_or(0, |event| event.sequence_number);
    let newest = format!("version {version}:");
    says(installation, &question, 0, &["journal equal", &newest, "outcome CheckedOut"]).await?;

    let first = events.iter().filter(|event| event.position == events[0].position).count();
    session
        .query_unpaged(format!("DELETE FROM cart_journal WHERE cart_id = {cart} AND sequence_number = {first}"), ())
        .await?;
    says(installation, &question, 1, &["WRONG: it is missing, a later request is there"]).await?;
    Ok(())
}
