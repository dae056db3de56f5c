//! Generations of read tables and their parked rows at the page, and another try of a row. No projector runs here, so the test writes
//! what one would have written.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, ReadModel, ReadTable, group};
use cart::{Generation, GenerationSwitch, LogEpoch, ParkedRow, Position, PurchasedItem, RowFault, month_row_key};
use cassandra::parked_rows::ParkedRows;
use chrono::{DateTime, Utc};
use e2e::harness::Installation;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::Console;

/// The group of the second generation in PostgreSQL.
pub(super) const SECOND: &str = "vendor-billing-jdbc-g2";

const BILLING: ReadModel = ReadTable::VendorBilling.model();

/// Makes a second generation in PostgreSQL.
pub(super) async fn create_second(database: &PgPool) -> anyhow::Result<Generation> {
    let second = Generation::new(2).context("a generation")?;
    postgres::read_models::create_generation(database, BILLING, second).await?;
    Ok(second)
}

/// Makes it, and lets readers see it.
async fn switch_to_second(database: &PgPool) -> anyhow::Result<()> {
    let second = create_second(database).await?;
    let run = Uuid::new_v4();
    let is_claimed = postgres::read_models::claim(database, BILLING, None, run, "olga").await?;
    ensure!(is_claimed, "another run is at work");
    let (by, reason, accepted_diff) = (String::from("olga"), String::from("new rule"), String::from("none"));
    let switch = GenerationSwitch { at: Utc::now(), by, reason, accepted_diff };
    postgres::read_models::switch(database, BILLING, Generation::FIRST, second, &switch, run).await?;
    Ok(postgres::read_models::release(database, BILLING, run).await?)
}

/// A parked row of November.
pub(super) fn parked(since_ms: i64) -> anyhow::Result<ParkedRow> {
    let position = Position::new(LogEpoch::FIRST, 7);
    Ok(ParkedRow {
        partition: 1,
        vendor_id: Uuid::new_v4().into(),
        row_key: month_row_key(2026, 11),
        first_position: position,
        next_position: position,
        reason: RowFault::Overflows(String::from("full")).reason(),
        since: DateTime::from_timestamp_millis(since_ms).context("a time")?,
        retry_by: None,
        revision: 0,
    })
}

async fn park_in_cassandra(installation: &Installation, row: &ParkedRow) -> anyhow::Result<()> {
    let session = Arc::new(cassandra::connect(installation.cassandra()).await?);
    let markers = ParkedRows::open(session, ReadTable::BalanceByVendor.name(), group::VENDOR_BILLING).await?;
    Ok(markers.write(row, row.next_position, 0).await?)
}

/// Parks a row of the second generation.
pub(super) async fn park_in_postgres(
    installation: &Installation,
    database: &PgPool,
    row: &ParkedRow,
) -> anyhow::Result<()> {
    let insert = "INSERT INTO parked_row (projection, topic, log_partition, vendor_id, row_key, first_position, \
        next_position, reason, since) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    sqlx::query(insert)
        .bind(SECOND)
        .bind(installation.kafka().prefixed(PurchasedItem::TOPIC))
        .bind(row.partition)
        .bind(row.vendor_id.as_uuid())
        .bind(&row.row_key)
        .bind(row.first_position.get())
        .bind(row.next_position.get())
        .bind(&row.reason)
        .bind(row.since)
        .execute(database)
        .await?;
    Ok(())
}

async fn generations_are_shown(console: &Console) -> anyhow::Result<()> {
    let part = |frame: &Value| -> Value {
        let models = frame["readModels"].as_array().into_iter().flatten();
        let generation = |one: &Value| json!([one["group"], one["isActive"], one["behind"]["records"]]);
        let of = |model: &Value| -> Value {
            let generations: Value = model["generations"].as_array().into_iter().flatten().map(generation).collect();
            json!([generations, model["switched"]["by"], model["switched"]["reason"]])
        };
        models.map(of).collect()
    };
    let first_only = |group: &str| json!([[[group, true, 0]], null, null]);
    let wanted = json!([
        first_only(group::POPULAR_ITEMS),
        first_only(group::VENDOR_BILLING),
        [[[group::VENDOR_BILLING_JDBC, false, 0], [SECOND, true, 0]], "olga", "new rule"],
    ]);
    console.shows("the generations", part, &wanted).await.map(drop)
}

/// The request of another try of a group's row.
fn retry((group, row): (&str, &ParkedRow)) -> Value {
    let ParkedRow { vendor_id, row_key, .. } = row;
    json!({"action": "retryRow", "group": group, "vendorId": vendor_id, "row": row_key})
}

/// Group, state and who wants another try of each parked row.
fn rows(frame: &Value) -> Value {
    let rows = frame["parkedRows"]["rows"].as_array().into_iter().flatten();
    rows.map(|row| json!([row["group"], row["state"], row["retryBy"]])).collect()
}

pub(crate) async fn the_page_shows_generations_and_requests_tries_of_rows() -> anyhow::Result<()> {
    let installation = Installation::new("console_rows")?;
    installation.setup().await?;
    let database = PgPool::connect(installation.database_url()).await?;
    switch_to_second(&database).await?;
    let (in_cassandra, in_postgres) = (parked(1_000)?, parked(2_000)?);
    park_in_cassandra(&installation, &in_cassandra).await?;
    park_in_postgres(&installation, &database, &in_postgres).await?;

    let console = Console::start(&installation, "console", &["--allow-operations"]).await?;
    let (of_cassandra, of_postgres) = ((group::VENDOR_BILLING, &in_cassandra), (SECOND, &in_postgres));
    let both = |state: &str, by: Option<&str>| json!([[of_cassandra.0, state, by], [of_postgres.0, state, by]]);
    let frame = console.shows("the parked rows", rows, &both("parked", None)).await?;
    let found = &frame["parkedRows"];
    ensure!(found["count"] == 2 && found["unknown"] == json!([]), "{found}");
    ensure!(found["rows"][0]["record"] == "item-purchased/1/7", "{found}");
    generations_are_shown(&console).await?;

    // The same vendor's row of the other table is not parked.
    let other = console.post("/api/operations", &retry((SECOND, &in_cassandra))).await;
    ensure!(other.is_err_and(|error| error.to_string().contains("409")), "a row that is not parked was tried");
    for row in [of_cassandra, of_postgres] {
        let done = console.post("/api/operations", &retry(row)).await?;
        ensure!(done["done"].as_str().is_some_and(|done| done.ends_with("is requested")), "{done}");
    }
    console.shows("the requests", rows, &both("retrying", Some("cart-console"))).await?;
    drop(console);
    database.close().await;
    installation.remove().await
}
