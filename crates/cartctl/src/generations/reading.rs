//! Reads the rows of generations, and how far each is.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, anyhow, bail, ensure};
use cart::contract::{Contract as _, ReadTable};
use cart::{Generation, LogEpoch, Position, PurchasedItem};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kafka::GroupProgress;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlDecimal;
use sqlx::{AssertSqlSafe, Postgres, Transaction};
use tokio::task::block_in_place;
use uuid::Uuid;

use super::rows::{ParkedByKey, Row, RowKey, Value, by_key};
use super::store::{Connection, ModelStore};
use crate::reconcile::decimal;
use crate::totals::{DayKey, MonthKey};

/// Rows per page. A page is one request, and must be answered within the request timeout.
pub(super) const PAGE_ROWS: i32 = 2_000;

/// Single rows that are read or written at the same time: a share of what Cassandra serves others with.
pub(super) const CONCURRENCY: usize = 64;

pub(super) const DAY: &str = "vendorid, productid, year, month, day, quantity, name, position";
pub(super) const MONTH: &str = "vendorid, year, month, balance, position";

pub(super) type DayColumns = (Uuid, Uuid, i32, i32, i32, Option<i64>, Option<String>, Option<i64>);
pub(super) type MonthColumns = (Uuid, i32, i32, Option<CqlDecimal>, Option<i64>);

/// One look at the generations of a read model. How far a generation is, is read before its rows: what its group has committed is in
/// the table. In PostgreSQL all is read in one snapshot, since rows have no offsets of their own there.
pub(super) struct Reading<'a> {
    store: &'a ModelStore,
    snapshot: Option<Transaction<'static, Postgres>>,
}

impl<'a> Reading<'a> {
    pub(super) async fn begin(store: &'a ModelStore) -> anyhow::Result<Self> {
        let snapshot = match &store.connection {
            Connection::Cassandra(..) => None,
            Connection::Postgres(pool, _) => {
                let mut snapshot = pool.begin().await?;
                sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    .execute(&mut *snapshot)
                    .await?;
                Some(snapshot)
            }
        };
        Ok(Self { store, snapshot })
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        if let Some(snapshot) = self.snapshot {
            snapshot.rollback().await?;
        }
        Ok(())
    }

    /// By partition: the rows of a generation include every record before these offsets.
    pub(super) async fn next(&mut self, generation: Generation) -> anyhow::Result<BTreeMap<i32, i64>> {
        let group = self.store.model.group_name(generation);
        let committed = match (&self.store.connection, &mut self.snapshot) {
            (Connection::Postgres(_, epoch), Some(snapshot)) => {
                Some(committed_in_postgres(self.store, snapshot, *epoch, &group).await?)
            }
            (Connection::Cassandra(..) | Connection::Postgres(..), _) => None,
        };
        let (kafka, partitions) = (&self.store.kafka, 0..self.store.identity.partitions);
        let next = block_in_place(|| {
            let progress = GroupProgress::new(kafka, &kafka.prefixed(&group), &kafka.prefixed(PurchasedItem::TOPIC))?;
            let mut next = match committed {
                Some(committed) => committed,
                None => progress.committed(partitions.clone())?,
            };
            for partition in partitions {
                // A partition without an offset is read from the log's first one on.
                if let Entry::Vacant(entry) = next.entry(partition) {
                    entry.insert(progress.bounds(partition)?.0);
                }
            }
            Ok::<_, kafka::Error>(next)
        })?;
        Ok(next)
    }

    /// The parked rows of a generation. They are read before the rows too: one that is tried again meanwhile includes more.
    pub(super) async fn parked(&mut self, generation: Generation) -> anyhow::Result<ParkedByKey> {
        let (table, group) = (self.store.model.table_name(generation), self.store.model.group_name(generation));
        let parked = match (&self.store.connection, &mut self.snapshot) {
            (Connection::Cassandra(session, _), _) => cassandra::parked_rows::list(session, &table, &group).await?,
            (Connection::Postgres(..), Some(snapshot)) => {
                let topic = self.store.kafka.prefixed(PurchasedItem::TOPIC);
                postgres::parked_rows::list(snapshot, &group, &topic).await?
            }
            (Connection::Postgres(..), None) => bail!("there is no snapshot"),
        };
        by_key(parked).with_context(|| format!("reading the parked rows of table {table}"))
    }

    /// All rows of a generation, but parked ones that cannot be read.
    pub(super) async fn all_rows(
        &mut self,
        generation: Generation,
        parked: &ParkedByKey,
    ) -> anyhow::Result<HashMap<RowKey, Row>> {
        let table = self.store.model.table_name(generation);
        let rows = match (&self.store.connection, &mut self.snapshot) {
            (Connection::Cassandra(session, epoch), _) => match self.store.model.table {
                ReadTable::ItemQuantityByDay => all_days(session, &table, *epoch, parked).await,
                ReadTable::BalanceByVendor => all_months(session, &table, *epoch, parked).await,
                ReadTable::VendorBilling => Err(anyhow!("it is not in Cassandra")),
            },
            (Connection::Postgres(..), Some(snapshot)) => all_in_postgres(snapshot, &table).await,
            (Connection::Postgres(..), None) => Err(anyhow!("there is no snapshot")),
        };
        rows.with_context(|| format!("reading table {table}"))
    }

    /// The rows of a generation that have these keys, but parked ones that cannot be read.
    pub(super) async fn rows(
        &mut self,
        generation: Generation,
        keys: &BTreeSet<RowKey>,
        parked: &ParkedByKey,
    ) -> anyhow::Result<HashMap<RowKey, Row>> {
        let table = self.store.model.table_name(generation);
        let rows = match (&self.store.connection, &mut self.snapshot) {
            (Connection::Cassandra(session, epoch), _) => in_cassandra(session, &table, *epoch, (keys, parked)).await,
            (Connection::Postgres(..), Some(snapshot)) => in_postgres(snapshot, &table, keys).await,
            (Connection::Postgres(..), None) => Err(anyhow!("there is no snapshot")),
        };
        rows.with_context(|| format!("reading rows of table {table}"))
    }
}

async fn committed_in_postgres(
    store: &ModelStore,
    snapshot: &mut Transaction<'static, Postgres>,
    epoch: LogEpoch,
    group: &str,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let next: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT partition, next_offset FROM projection_offset WHERE projection = $1 AND topic = $2 AND log_epoch = $3",
    )
    .bind(group)
    .bind(store.kafka.prefixed(PurchasedItem::TOPIC))
    .bind(epoch.get())
    .fetch_all(&mut **snapshot)
    .await
    .with_context(|| format!("reading the offsets of {group}"))?;
    Ok(next.into_iter().collect())
}

async fn all_in_postgres(
    snapshot: &mut Transaction<'static, Postgres>,
    table: &str,
) -> anyhow::Result<HashMap<RowKey, Row>> {
    let select = AssertSqlSafe(format!("SELECT vendor_id, year, month, balance FROM {table}"));
    let rows: Vec<(Uuid, i32, i32, Decimal)> = sqlx::query_as(select).fetch_all(&mut **snapshot).await?;
    Ok(rows.into_iter().map(month_in_postgres).collect())
}

async fn in_postgres(
    snapshot: &mut Transaction<'static, Postgres>,
    table: &str,
    keys: &BTreeSet<RowKey>,
) -> anyhow::Result<HashMap<RowKey, Row>> {
    let months: Vec<MonthKey> = keys.iter().filter_map(RowKey::month).collect();
    let select = AssertSqlSafe(format!(
        "SELECT vendor_id, year, month, balance FROM {table} \
         JOIN unnest($1::uuid[], $2::int[], $3::int[]) AS wanted (vendor_id, year, month) USING (vendor_id, year, month)"
    ));
    let rows: Vec<(Uuid, i32, i32, Decimal)> = sqlx::query_as(select)
        .bind(months.iter().map(|key| key.vendor).collect::<Vec<_>>())
        .bind(months.iter().map(|key| key.year).collect::<Vec<_>>())
        .bind(months.iter().map(|key| key.month).collect::<Vec<_>>())
        .fetch_all(&mut **snapshot)
        .await?;
    Ok(rows.into_iter().map(month_in_postgres).collect())
}

fn month_in_postgres((vendor, year, month, total): (Uuid, i32, i32, Decimal)) -> (RowKey, Row) {
    let key = RowKey::Month(MonthKey { vendor, year, month });
    (key, Row { value: Value { total, name: None }, next: 0 })
}

async fn all_days(
    session: &Session,
    table: &str,
    epoch: LogEpoch,
    parked: &ParkedByKey,
) -> anyhow::Result<HashMap<RowKey, Row>> {
    let select = Statement::new(format!("SELECT {DAY} FROM {table}")).with_page_size(PAGE_ROWS);
    let pager = session.query_iter(select, ()).await?;
    let mut stream = pager.rows_stream::<DayColumns>()?;
    let mut rows = HashMap::new();
    while let Some(columns) = stream.try_next().await? {
        rows.extend(day(columns, epoch, parked)?);
    }
    Ok(rows)
}

async fn all_months(
    session: &Session,
    table: &str,
    epoch: LogEpoch,
    parked: &ParkedByKey,
) -> anyhow::Result<HashMap<RowKey, Row>> {
    let select = Statement::new(format!("SELECT {MONTH} FROM {table}")).with_page_size(PAGE_ROWS);
    let pager = session.query_iter(select, ()).await?;
    let mut stream = pager.rows_stream::<MonthColumns>()?;
    let mut rows = HashMap::new();
    while let Some(columns) = stream.try_next().await? {
        rows.extend(month(columns, epoch, parked)?);
    }
    Ok(rows)
}

async fn in_cassandra(
    session: &Session,
    table: &str,
    epoch: LogEpoch,
    (keys, parked): (&BTreeSet<RowKey>, &ParkedByKey),
) -> anyhow::Result<HashMap<RowKey, Row>> {
    let (days, months) = (keys.iter().any(|key| key.day().is_some()), keys.iter().any(|key| key.month().is_some()));
    let select = match (days, months) {
        (false, false) => return Ok(HashMap::new()),
        (true, false) => format!(
            "SELECT {DAY} FROM {table} WHERE vendorid = ? AND productid = ? AND year = ? AND month = ? AND day = ?"
        ),
        (false, true) => format!("SELECT {MONTH} FROM {table} WHERE vendorid = ? AND year = ? AND month = ?"),
        (true, true) => bail!("the keys are of two tables"),
    };
    let mut select = session.prepare(select).await?;
    select.set_is_idempotent(true);
    let select = &select;
    let mut found = stream::iter(keys.iter().copied())
        .map(async |key| match key {
            RowKey::Day(key) => one_day(session, select, (epoch, parked), key).await,
            RowKey::Month(key) => one_month(session, select, (epoch, parked), key).await,
        })
        .buffer_unordered(CONCURRENCY);
    let mut rows = HashMap::new();
    while let Some(row) = found.try_next().await? {
        rows.extend(row);
    }
    Ok(rows)
}

async fn one_day(
    session: &Session,
    select: &PreparedStatement,
    (epoch, parked): (LogEpoch, &ParkedByKey),
    key: DayKey,
) -> anyhow::Result<Option<(RowKey, Row)>> {
    let DayKey { vendor, product, year, month, day: number } = key;
    let found = session.execute_unpaged(select, (vendor, product, year, month, number)).await?.into_rows_result()?;
    let Some(columns) = found.maybe_first_row::<DayColumns>()? else { return Ok(None) };
    self::day(columns, epoch, parked)
}

async fn one_month(
    session: &Session,
    select: &PreparedStatement,
    (epoch, parked): (LogEpoch, &ParkedByKey),
    key: MonthKey,
) -> anyhow::Result<Option<(RowKey, Row)>> {
    let MonthKey { vendor, year, month: number } = key;
    let found = session.execute_unpaged(select, (vendor, year, number)).await?.into_rows_result()?;
    let Some(columns) = found.maybe_first_row::<MonthColumns>()? else { return Ok(None) };
    self::month(columns, epoch, parked)
}

/// `None` for a parked row that lacks a column.
fn day(columns: DayColumns, epoch: LogEpoch, parked: &ParkedByKey) -> anyhow::Result<Option<(RowKey, Row)>> {
    let (vendor, product, year, month, day, quantity, name, position) = columns;
    let key = RowKey::Day(DayKey { vendor, product, year, month, day });
    let (Some(quantity), Some(name), Some(position)) = (quantity, name, position) else {
        ensure!(parked.contains_key(&key), "the row of {key} lacks a column");
        return Ok(None);
    };
    let value = Value { total: Decimal::from(quantity), name: Some(name) };
    Ok(Some((key, Row { value, next: behind(position, epoch) })))
}

/// `None` for a parked row that lacks a column, or whose balance is too long.
fn month(columns: MonthColumns, epoch: LogEpoch, parked: &ParkedByKey) -> anyhow::Result<Option<(RowKey, Row)>> {
    let (vendor, year, month, balance, position) = columns;
    let key = RowKey::Month(MonthKey { vendor, year, month });
    let (Some(balance), Some(position)) = (balance, position) else {
        ensure!(parked.contains_key(&key), "the row of {key} lacks a column");
        return Ok(None);
    };
    let total = match decimal(&balance) {
        Err(_) if parked.contains_key(&key) => return Ok(None),
        total => total?,
    };
    Ok(Some((key, Row { value: Value { total, name: None }, next: behind(position, epoch) })))
}

/// The offset behind a row's newest record; 0 for a record of an earlier log.
fn behind(position: i64, epoch: LogEpoch) -> i64 {
    let position = Position::from(position);
    if position < Position::new(epoch, 0) { 0 } else { position.offset() + 1 }
}
