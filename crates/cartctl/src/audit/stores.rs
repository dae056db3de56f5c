//! Reads the read tables, with the newest purchase in each row.

use std::collections::HashMap;

use anyhow::{Context as _, anyhow};
use cart::{LogEpoch, Position};
use futures::TryStreamExt as _;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::value::CqlDecimal;
use sqlx::PgPool;
use uuid::Uuid;

use super::evidence::{Row, Tables};
use crate::reconcile::decimal;
use crate::totals::{DayKey, MonthKey};

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

/// Reads all rows of the read tables. `topic` is the full name of the topic of PostgreSQL's offsets.
pub(super) async fn read(session: &Session, database: &PgPool, topic: &str, epoch: LogEpoch) -> anyhow::Result<Tables> {
    let cassandra_months = cassandra_months(session, epoch).await.context("reading table balance_by_vendor")?;
    let cassandra_days = cassandra_days(session, epoch).await.context("reading table item_quantity_by_day")?;
    let (postgres_months, postgres_next) = postgres(database, topic).await.context("reading table vendor_billing")?;
    Ok(Tables { cassandra_months, cassandra_days, postgres_months, postgres_next })
}

/// The offset in the log of that epoch; -1 for a row of an earlier epoch.
fn offset(position: i64, epoch: LogEpoch) -> i64 {
    let position = Position::from(position);
    if position < Position::new(epoch, 0) { -1 } else { position.offset() }
}

pub(super) async fn cassandra_months(
    session: &Session,
    epoch: LogEpoch,
) -> anyhow::Result<HashMap<MonthKey, Row<Decimal>>> {
    const SELECT: &str = "SELECT vendorid, year, month, balance, position FROM balance_by_vendor";
    let pager = session.query_iter(Statement::new(SELECT).with_page_size(PAGE_ROWS), ()).await?;
    let mut rows = pager.rows_stream::<(Uuid, i32, i32, Option<CqlDecimal>, Option<i64>)>()?;
    let mut months = HashMap::new();
    while let Some((vendor, year, month, balance, position)) = rows.try_next().await? {
        let lacks = || anyhow!("the row of vendor {vendor}, {year}-{month:02} lacks a column");
        let total = decimal(&balance.ok_or_else(lacks)?)?;
        let offset = offset(position.ok_or_else(lacks)?, epoch);
        months.insert(MonthKey { vendor, year, month }, Row { total, offset });
    }
    Ok(months)
}

pub(super) async fn cassandra_days(
    session: &Session,
    epoch: LogEpoch,
) -> anyhow::Result<HashMap<DayKey, Row<(i64, String)>>> {
    const SELECT: &str =
        "SELECT vendorid, productid, year, month, day, quantity, name, position FROM item_quantity_by_day";
    type Columns = (Uuid, Uuid, i32, i32, i32, Option<i64>, Option<String>, Option<i64>);
    let pager = session.query_iter(Statement::new(SELECT).with_page_size(PAGE_ROWS), ()).await?;
    let mut rows = pager.rows_stream::<Columns>()?;
    let mut days = HashMap::new();
    while let Some((vendor, product, year, month, day, quantity, name, position)) = rows.try_next().await? {
        let lacks = || anyhow!("the row of product {product}, {year}-{month:02}-{day:02} lacks a column");
        let total = (quantity.ok_or_else(lacks)?, name.ok_or_else(lacks)?);
        let offset = offset(position.ok_or_else(lacks)?, epoch);
        days.insert(DayKey { vendor, product, year, month, day }, Row { total, offset });
    }
    Ok(days)
}

/// Reads the balances and the next offsets by partition, in one snapshot.
pub(super) async fn postgres(
    database: &PgPool,
    topic: &str,
) -> anyhow::Result<(HashMap<MonthKey, Decimal>, HashMap<i32, i64>)> {
    let mut transaction = database.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    let months: Vec<(Uuid, i32, i32, Decimal)> =
        sqlx::query_as("SELECT vendor_id, year, month, balance FROM vendor_billing")
            .fetch_all(&mut *transaction)
            .await?;
    let next: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT DISTINCT ON (partition) partition, next_offset FROM projection_offset \
         WHERE projection = 'vendor-billing-jdbc' AND topic = $1 ORDER BY partition, log_epoch DESC",
    )
    .bind(topic)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.rollback().await?;
    let months = months.into_iter().map(|(vendor, year, month, total)| (MonthKey { vendor, year, month }, total));
    Ok((months.collect(), next.into_iter().collect()))
}
