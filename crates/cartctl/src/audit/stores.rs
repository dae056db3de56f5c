//! Reads the read tables, with the newest purchase in each row.

use std::collections::HashMap;

use anyhow::{Context as _, anyhow};
use cart::contract::ReadTable;
use cart::{LogEpoch, ParkedRow, Position};
use futures::TryStreamExt as _;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::value::CqlDecimal;
use sqlx::PgPool;
use uuid::Uuid;

use super::evidence::{Row, Tables, WrongGeneration};
use super::generations;
use crate::ParkedKeys;
use crate::read_tables::snapshot;
use crate::reconcile::decimal;
use crate::totals::{DayKey, MonthKey};

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

/// Reads all rows of the read tables. `topic` is the full name of the topic of PostgreSQL's offsets.
///
/// A switch after the last wait (`catch_up.rs`) does no harm. Before readers see the other generation, it has reached the offset
/// at which the first one was paused; and the first one had reached the noted ends.
pub(super) async fn read(session: &Session, database: &PgPool, topic: &str, epoch: LogEpoch) -> anyhow::Result<Tables> {
    let active = generations::in_cassandra(session).await?;
    let mut tables = Tables::default();
    if let Some(table) = active.table(ReadTable::BalanceByVendor) {
        let parked = parked(session, &active, ReadTable::BalanceByVendor).await?;
        tables.cassandra_months = cassandra_months(session, &table, epoch, &parked.iter().collect()).await?;
        tables.parked.extend(parked.into_iter().map(|row| (ReadTable::BalanceByVendor, row)));
    }
    if let Some(table) = active.table(ReadTable::ItemQuantityByDay) {
        let parked = parked(session, &active, ReadTable::ItemQuantityByDay).await?;
        tables.cassandra_days = cassandra_days(session, &table, epoch, &parked.iter().collect()).await?;
        tables.parked.extend(parked.into_iter().map(|row| (ReadTable::ItemQuantityByDay, row)));
    }
    let Postgres { months, next, parked, wrong } =
        postgres(database, topic).await.context("reading table vendor_billing")?;
    (tables.postgres_months, tables.postgres_next) = (months, next);
    tables.parked.extend(parked.into_iter().map(|row| (ReadTable::VendorBilling, row)));
    tables.wrong_generations = active.wrong.into_iter().chain(wrong).collect();
    Ok(tables)
}

/// The parked rows of the generation that readers see. Before its rows: one that goes on meanwhile includes more than its marker says.
async fn parked(session: &Session, active: &generations::Active, table: ReadTable) -> anyhow::Result<Vec<ParkedRow>> {
    let (Some(name), Some(group)) = (active.table(table), active.group(table)) else { return Ok(Vec::new()) };
    Ok(cassandra::parked_rows::list(session, &name, &group).await?)
}

/// The offset in the log of that epoch; -1 for a row of an earlier epoch.
fn offset(position: i64, epoch: LogEpoch) -> i64 {
    let position = Position::from(position);
    if position < Position::new(epoch, 0) { -1 } else { position.offset() }
}

/// Reads a table of balances. A row that cannot be read is left out if it is parked.
pub(super) async fn cassandra_months(
    session: &Session,
    table: &str,
    epoch: LogEpoch,
    parked: &ParkedKeys,
) -> anyhow::Result<HashMap<MonthKey, Row<Decimal>>> {
    let read = async {
        let select = format!("SELECT vendorid, year, month, balance, position FROM {table}");
        let pager = session.query_iter(Statement::new(select).with_page_size(PAGE_ROWS), ()).await?;
        let mut rows = pager.rows_stream::<(Uuid, i32, i32, Option<CqlDecimal>, Option<i64>)>()?;
        let mut months = HashMap::new();
        while let Some((vendor, year, month, balance, position)) = rows.try_next().await? {
            let key = MonthKey { vendor, year, month };
            let lacks = || anyhow!("the row of vendor {vendor}, {year}-{month:02} lacks a column");
            let row = || {
                let total = decimal(&balance.ok_or_else(lacks)?)?;
                anyhow::Ok(Row { total, offset: offset(position.ok_or_else(lacks)?, epoch) })
            };
            match row() {
                Err(_) if parked.has_month(&key) => {}
                row => drop(months.insert(key, row?)),
            }
        }
        anyhow::Ok(months)
    };
    read.await.with_context(|| format!("reading table {table}"))
}

/// Reads a table of pieces. A row that cannot be read is left out if it is parked.
pub(super) async fn cassandra_days(
    session: &Session,
    table: &str,
    epoch: LogEpoch,
    parked: &ParkedKeys,
) -> anyhow::Result<HashMap<DayKey, Row<(i64, String)>>> {
    type Columns = (Uuid, Uuid, i32, i32, i32, Option<i64>, Option<String>, Option<i64>);
    let read = async {
        let select = format!("SELECT vendorid, productid, year, month, day, quantity, name, position FROM {table}");
        let pager = session.query_iter(Statement::new(select).with_page_size(PAGE_ROWS), ()).await?;
        let mut rows = pager.rows_stream::<Columns>()?;
        let mut days = HashMap::new();
        while let Some((vendor, product, year, month, day, quantity, name, position)) = rows.try_next().await? {
            let key = DayKey { vendor, product, year, month, day };
            let lacks = || anyhow!("the row of product {product}, {year}-{month:02}-{day:02} lacks a column");
            let row = || {
                let total = (quantity.ok_or_else(lacks)?, name.ok_or_else(lacks)?);
                anyhow::Ok(Row { total, offset: offset(position.ok_or_else(lacks)?, epoch) })
            };
            match row() {
                Err(_) if parked.has_day(&key) => {}
                row => drop(days.insert(key, row?)),
            }
        }
        anyhow::Ok(days)
    };
    read.await.with_context(|| format!("reading table {table}"))
}

/// What PostgreSQL has.
#[derive(Debug, Default)]
pub(super) struct Postgres {
    /// The balances.
    pub(super) months: HashMap<MonthKey, Decimal>,
    /// The next offsets by partition.
    pub(super) next: HashMap<i32, i64>,
    parked: Vec<ParkedRow>,
    /// What is wrong with the generation.
    wrong: Vec<WrongGeneration>,
}

/// Reads all that in one snapshot.
pub(super) async fn postgres(database: &PgPool, topic: &str) -> anyhow::Result<Postgres> {
    let mut transaction = snapshot(database).await?;
    let active = generations::in_postgres(&mut transaction).await?;
    let Some(group) = active.group(ReadTable::VendorBilling) else {
        return Ok(Postgres { wrong: active.wrong, ..Postgres::default() });
    };
    let months: Vec<(Uuid, i32, i32, Decimal)> =
        sqlx::query_as("SELECT vendor_id, year, month, balance FROM vendor_billing")
            .fetch_all(&mut *transaction)
            .await?;
    let next: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT DISTINCT ON (partition) partition, next_offset FROM projection_offset \
         WHERE projection = $1 AND topic = $2 ORDER BY partition, log_epoch DESC",
    )
    .bind(&group)
    .bind(topic)
    .fetch_all(&mut *transaction)
    .await?;
    let parked = postgres::parked_rows::list(&mut transaction, &group, topic).await?;
    transaction.rollback().await?;
    let months = months.into_iter().map(|(vendor, year, month, total)| (MonthKey { vendor, year, month }, total));
    Ok(Postgres { months: months.collect(), next: next.into_iter().collect(), parked, wrong: active.wrong })
}
