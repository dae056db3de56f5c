//! Reads the whole tables, with the internal positions and write times.

use std::collections::BTreeMap;

use anyhow::Context as _;
use cart::Position;
use cart::contract::{READ_MODELS, ReadModel, ReadTable};
use futures::TryStreamExt as _;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use sqlx::PgPool;
use uuid::Uuid;

use super::oracle::{Balance, Day, Month, Rows, Sold};

// As text, a decimal has all its digits in any client.
const MONTHS: &str = "SELECT vendorid, year, month, CAST(balance AS text), position, WRITETIME(balance), \
    WRITETIME(position) FROM balance_by_vendor";
const DAYS: &str = "SELECT vendorid, productid, year, month, day, quantity, name, position, WRITETIME(quantity), \
    WRITETIME(name), WRITETIME(position) FROM item_quantity_by_day";
const BILLING: &str = "SELECT vendor_id, year, month, balance FROM vendor_billing";

/// All rows of the read tables, with write times as if no table had been replaced.
pub(crate) async fn read(session: &Session, database: &PgPool) -> anyhow::Result<Rows> {
    let mut rows = Rows::default();
    for model in READ_MODELS {
        match model.table {
            ReadTable::BalanceByVendor => rows.months = months(session, added(session, model).await?).await?,
            ReadTable::ItemQuantityByDay => rows.days = days(session, added(session, model).await?).await?,
            ReadTable::VendorBilling => rows.billing = billing(database).await?,
        }
    }
    Ok(rows)
}

/// What is added to the positions in the write times since the last replacement.
async fn added(session: &Session, model: ReadModel) -> anyhow::Result<i64> {
    let base = cassandra::read_models::write_base(session, model).await?;
    Ok(Position::from(0_i64).timestamp(base))
}

async fn months(session: &Session, added: i64) -> anyhow::Result<BTreeMap<Month, Balance>> {
    let mut rows = BTreeMap::new();
    let mut found = session.query_iter(MONTHS, ()).await?.rows_stream::<(Uuid, i32, i32, String, i64, i64, i64)>()?;
    while let Some((vendor, year, month, balance, position, written_at, position_written_at)) = found.try_next().await?
    {
        anyhow::ensure!(written_at == position_written_at, "{vendor} {year}-{month} is of two writes");
        let balance = Decimal::from_str_exact(&balance).with_context(|| format!("balance {balance}"))?;
        rows.insert((vendor, year, month), Balance { balance, position, written_at: written_at - added });
    }
    Ok(rows)
}

async fn days(session: &Session, added: i64) -> anyhow::Result<BTreeMap<Day, Sold>> {
    type DayRow = (Uuid, Uuid, i32, i32, i32, i64, String, i64, i64, i64, i64);
    let mut rows = BTreeMap::new();
    let mut found = session.query_iter(DAYS, ()).await?.rows_stream::<DayRow>()?;
    while let Some((vendor, product, year, month, day, quantity, name, position, written_at, name_at, position_at)) =
        found.try_next().await?
    {
        let day = (vendor, product, year, month, day);
        anyhow::ensure!((written_at, written_at) == (name_at, position_at), "{day:?} is of two writes");
        rows.insert(day, Sold { quantity, name, position, written_at: written_at - added });
    }
    Ok(rows)
}

async fn billing(database: &PgPool) -> anyhow::Result<BTreeMap<Month, Decimal>> {
    let rows: Vec<(Uuid, i32, i32, Decimal)> = sqlx::query_as(BILLING).fetch_all(database).await?;
    Ok(rows.into_iter().map(|(vendor, year, month, balance)| ((vendor, year, month), balance)).collect())
}

/// The next offsets of a projector that keeps them in PostgreSQL.
pub(crate) async fn stored_offsets(database: &PgPool, projector: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let select = "SELECT partition, next_offset FROM projection_offset WHERE projection = $1";
    let rows: Vec<(i32, i64)> = sqlx::query_as(select).bind(projector).fetch_all(database).await?;
    Ok(rows.into_iter().collect())
}
