//! The tables in Cassandra and PostgreSQL, read by primary key: the balances of the top vendors once a second, and the rows of
//! a visitor's purchase until they include it.

mod generations;
mod read_models;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract as _, READ_MODELS, ReadTable, STAGES, group};
use cart::{Generation, LogEpoch, Position, PurchasedItem};
use cassandra::{CassandraArgs, LazySession, TableStatement, decimal_from_cql};
use chrono::Datelike as _;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::value::CqlDecimal;
use service::LogLimit;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::audience::Audience;
use crate::board::{BalanceLine, Board, Cell};
use crate::clock::now_ms;
use crate::health::Server;
use crate::journeys::{Included, Watched};
use crate::ledger::{Compared, Counted, Key, Row};

pub(crate) use read_models::watch_read_models;

/// A server that does not answer for so long is away.
const TIMEOUT: Duration = Duration::from_secs(2);

const INTERVAL: Duration = Duration::from_secs(1);

/// The vendors whose balances are compared.
const VENDORS: usize = 10;

/// How often the rows of a visitor's purchase are read, and for how long.
const ROW_INTERVAL: Duration = Duration::from_millis(50);
const ROW_TIMEOUT: Duration = Duration::from_secs(30);

/// Purchases whose rows are read at a time. The others are shown by the committed offsets, once a second.
const WATCHES_MAX: usize = 32;

const EARLIER_LOG: &str = "the table also has purchases of an earlier log";
const NO_ANSWER: &str = "the server does not answer";

/// The tables.
#[derive(Debug)]
pub(crate) struct Stores {
    /// The full name of the topic, under which PostgreSQL has the offsets.
    topic: String,
    session: LazySession,
    balance: TableStatement,
    quantity: TableStatement,
    database: DatabaseArgs,
    pool: PgPool,
}

const BALANCE: [&str; 2] = ["SELECT balance, position FROM ", " WHERE vendorid = ? AND year = ? AND month = ?"];
const QUANTITY: [&str; 2] =
    ["SELECT quantity, position FROM ", " WHERE vendorid = ? AND productid = ? AND year = ? AND month = ? AND day = ?"];

/// The projection of the generation that readers see, of the model `$1`. Without a row that is the first one.
macro_rules! projection {
    () => {
        "COALESCE((SELECT CASE active WHEN 1 THEN name ELSE name || '-g' || active END FROM read_model WHERE name = $1), $1)"
    };
}

// One statement is one snapshot: the view is of the generation whose offsets are read, and the balance includes the records before the
// offset, and no others.
const BALANCES: &str = concat!(
    "SELECT wanted.number, billing.balance, read.next_offset, read.log_epoch \
    FROM UNNEST($3::int[], $4::uuid[], $5::int[], $6::int[], $7::int[]) AS wanted (number, vendor_id, year, month, partition) \
    LEFT JOIN vendor_billing AS billing USING (vendor_id, year, month) \
    LEFT JOIN LATERAL (SELECT next_offset, log_epoch FROM projection_offset AS stored \
        WHERE stored.projection = ",
    projection!(),
    " AND stored.topic = $2 AND stored.partition = wanted.partition ORDER BY log_epoch DESC LIMIT 1) AS read ON true"
);
const OFFSETS: &str = concat!(
    "SELECT DISTINCT ON (partition) partition, next_offset FROM projection_offset WHERE projection = ",
    projection!(),
    " AND topic = $2 ORDER BY partition, log_epoch DESC"
);

/// A row as it is, or why it cannot be compared.
type Found = Result<Row, &'static str>;

async fn in_time<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let too_late = |_| anyhow::anyhow!("{what}: no answer within {} s", TIMEOUT.as_secs());
    timeout(TIMEOUT, work).await.map_err(too_late)?.with_context(|| what.to_owned())
}

impl Stores {
    /// Does not wait for the servers.
    ///
    /// # Errors
    /// The database's URL is invalid.
    pub(crate) fn new(kafka: &KafkaArgs, cassandra: &CassandraArgs, database: &DatabaseArgs) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(TIMEOUT);
        Ok(Self {
            topic: kafka.prefixed(PurchasedItem::TOPIC),
            session: LazySession::new(cassandra),
            balance: TableStatement::new(ReadTable::BalanceByVendor, BALANCE),
            quantity: TableStatement::new(ReadTable::ItemQuantityByDay, QUANTITY),
            database: database.clone(),
            pool: database.connect_lazy(pool)?,
        })
    }

    /// The session of Cassandra, which is opened at the first use.
    ///
    /// # Errors
    /// Cassandra does not answer.
    pub(crate) async fn session(&self) -> anyhow::Result<&Arc<Session>> {
        Ok(self.session.get().await?)
    }

    async fn cassandra_balance(&self, key: &Key, generation: Generation) -> anyhow::Result<Found> {
        let session = self.session().await?;
        let statement = self.balance.prepare(session, generation).await?;
        let values = (key.vendor.as_uuid(), key.year, key.month);
        let rows = session.execute_unpaged(&statement, values).await?.into_rows_result()?;
        let Some((balance, position)) = rows.maybe_first_row::<(CqlDecimal, i64)>()? else {
            return Ok(Ok(Row { balance: None, next: 0 }));
        };
        let balance = decimal_from_cql(&balance).context("a balance has more than 28 digits")?;
        Ok(row(balance, position.into()))
    }

    async fn cassandra_quantity(
        &self,
        purchase: &PurchasedItem,
        generation: Generation,
    ) -> anyhow::Result<Option<(i64, Position)>> {
        let session = self.session().await?;
        let statement = self.quantity.prepare(session, generation).await?;
        let at = purchase.purchased_at;
        let (month, day) = (at.month().cast_signed(), at.day().cast_signed());
        let values = (purchase.vendor_id.as_uuid(), purchase.product_id.as_uuid(), at.year(), month, day);
        let rows = session.execute_unpaged(&statement, values).await?.into_rows_result()?;
        Ok(rows.maybe_first_row::<(i64, i64)>()?.map(|(quantity, position)| (quantity, position.into())))
    }

    async fn cassandra_balances(&self, counted: &[Counted], generation: Generation) -> anyhow::Result<Vec<Found>> {
        let balances = counted.iter().map(|line| self.cassandra_balance(&line.key, generation));
        in_time("reading balance_by_vendor", futures::future::try_join_all(balances)).await
    }

    async fn postgres_balances(&self, counted: &[Counted]) -> anyhow::Result<Vec<Found>> {
        // The number of the line, vendor, year, month, partition.
        type Columns = (Vec<i32>, Vec<Uuid>, Vec<i32>, Vec<i32>, Vec<i32>);
        // The number of the line, balance, next offset, log epoch.
        type Line = (i32, Option<Decimal>, Option<i64>, Option<i32>);
        let mut columns = Columns::default();
        for (number, line) in (0..).zip(counted) {
            columns.0.push(number);
            columns.1.push(line.key.vendor.as_uuid());
            columns.2.push(line.key.year);
            columns.3.push(line.key.month);
            columns.4.push(line.partition);
        }
        let query = sqlx::query_as(BALANCES)
            .bind(group::VENDOR_BILLING_JDBC)
            .bind(&self.topic)
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .bind(columns.3)
            .bind(columns.4);
        let rows: Vec<Line> =
            in_time("reading vendor_billing", async { Ok(query.fetch_all(&self.pool).await?) }).await?;
        let mut found: Vec<Found> = vec![Ok(Row { balance: None, next: 0 }); counted.len()];
        for (number, balance, next, epoch) in rows {
            let Some(slot) = usize::try_from(number).ok().and_then(|number| found.get_mut(number)) else { continue };
            let is_first = epoch.is_none_or(|epoch| epoch == LogEpoch::FIRST.get());
            *slot = if is_first { Ok(Row { balance, next: next.unwrap_or_default() }) } else { Err(EARLIER_LOG) };
        }
        Ok(found)
    }

    async fn postgres_offsets(&self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let query = sqlx::query_as(OFFSETS).bind(group::VENDOR_BILLING_JDBC).bind(&self.topic);
        let rows: anyhow::Result<Vec<(i32, i64)>> =
            in_time("reading projection_offset", async { Ok(query.fetch_all(&self.pool).await?) }).await;
        if rows.is_err() {
            self.database.renew_password(&self.pool)?;
        }
        Ok(rows?.into_iter().collect())
    }
}

/// A row of Cassandra: its position is that of the newest purchase that it includes.
fn row(balance: Decimal, position: Position) -> Found {
    if position.epoch() == Some(LogEpoch::FIRST) {
        Ok(Row { balance: Some(balance), next: position.offset() + 1 })
    } else {
        Err(EARLIER_LOG)
    }
}

/// Compares the balances once a second while somebody looks.
pub(crate) async fn compare_balances(stores: Arc<Stores>, board: Arc<Board>, audience: Audience) {
    let mut watched = audience.watched();
    while watched.wait_for(|watched| *watched).await.is_ok() {
        let started_at = Instant::now();
        let counted = {
            let top = board.sales().top_vendors();
            board.ledger().watched(&top, VENDORS)
        };
        let ((), offsets) = tokio::join!(stores.follow_generations(&board), stores.postgres_offsets());
        note_offsets(&board, offsets);
        let generation = board.generation(ReadTable::BalanceByVendor);
        let (cassandra, postgres) =
            tokio::join!(stores.cassandra_balances(&counted, generation), stores.postgres_balances(&counted));
        let (cassandra, postgres) =
            (known(&board, Server::Cassandra, cassandra), known(&board, Server::Postgres, postgres));
        let lines = lines(&board, &counted, cassandra.as_deref(), postgres.as_deref());
        *board.balances() = lines;
        sleep(INTERVAL.saturating_sub(started_at.elapsed())).await;
    }
}

fn known<T>(board: &Board, server: Server, found: anyhow::Result<T>) -> Option<T> {
    match found {
        Ok(found) => {
            board.health.up(server);
            Some(found)
        }
        Err(error) => {
            board.health.away(server, error);
            None
        }
    }
}

fn note_offsets(board: &Board, offsets: anyhow::Result<BTreeMap<i32, i64>>) {
    let offsets = offsets.ok();
    for (index, stage) in STAGES.iter().enumerate().filter(|(_, stage)| stage.has_offsets_in_postgres()) {
        let table = READ_MODELS.iter().position(|model| model.group == stage.group);
        if let (Some(table), Some(offsets)) = (table, &offsets) {
            board.journeys().committed(table, offsets, now_ms());
        }
        board.groups().note(index, offsets.clone(), now_ms());
    }
}

fn lines(
    board: &Board,
    counted: &[Counted],
    cassandra: Option<&[Found]>,
    postgres: Option<&[Found]>,
) -> Vec<BalanceLine> {
    // The count may have grown since, so that it is at or past what the tables include.
    let ledger = board.ledger();
    let cell = |found: Option<&[Found]>, number: usize, key: &Key| {
        let Some(found) = found.and_then(|found| found.get(number)) else {
            return Cell { balance: None, compared: Compared::NotYet { reason: NO_ANSWER } };
        };
        match found {
            Ok(row) => {
                Cell { balance: row.balance.map(|balance| balance.normalize()), compared: ledger.compare(key, row) }
            }
            Err(reason) => Cell { balance: None, compared: Compared::NotYet { reason } },
        }
    };
    let line = |(number, line): (usize, &Counted)| BalanceLine {
        vendor_id: line.key.vendor,
        month: format!("{}-{:02}", line.key.year, line.key.month),
        counted: line.total,
        cassandra: Some(cell(cassandra, number, &line.key)),
        postgres: Some(cell(postgres, number, &line.key)),
    };
    counted.iter().enumerate().map(line).collect()
}

/// Reads the rows of visitors' purchases until they include them.
pub(crate) async fn watch_purchases(stores: Arc<Stores>, board: Arc<Board>, audience: Audience) {
    let mut watched = audience.watched();
    let watches = Arc::new(Semaphore::new(WATCHES_MAX));
    while watched.wait_for(|watched| *watched).await.is_ok() {
        let found = board.journeys().found();
        spawn_within(&watches, found, |watched| watch_rows(stores.clone(), board.clone(), watched));
        sleep(ROW_INTERVAL).await;
    }
}

/// Spawns as many of the tasks as there are permits; the others are left out.
fn spawn_within<T, F>(permits: &Arc<Semaphore>, inputs: Vec<T>, task: impl Fn(T) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for input in inputs {
        let Ok(permit) = permits.clone().try_acquire_owned() else { break };
        let task = task(input);
        tokio::spawn(async move {
            task.await;
            drop(permit);
        });
    }
}

async fn watch_rows(stores: Arc<Stores>, board: Arc<Board>, watched: Watched) {
    let deadline = Instant::now() + ROW_TIMEOUT;
    let mut missing: Vec<usize> = (0..READ_MODELS.len()).collect();
    while !missing.is_empty() && Instant::now() < deadline {
        let mut still = Vec::new();
        for table in missing {
            // A server that is away is named by the comparison of the balances. A missing grant for one table is not.
            match timeout(TIMEOUT, value_with(&stores, &board, table, &watched)).await {
                Ok(Err(error)) => {
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        tracing::warn!(error = format!("{error:#}"), left_out, "the row of a purchase cannot be read");
                    }
                    still.push(table);
                }
                Ok(Ok(Some(value))) => {
                    let included = Included { at_ms: now_ms(), value: Some(value) };
                    board.journeys().included(watched.place, watched.index, table, included);
                }
                Ok(Ok(None)) | Err(_) => still.push(table),
            }
        }
        missing = still;
        sleep(ROW_INTERVAL).await;
    }
}

/// The value of a row that includes a purchase; `None` while it does not.
async fn value_with(stores: &Stores, board: &Board, table: usize, watched: &Watched) -> anyhow::Result<Option<String>> {
    let (purchase, hop) = (&watched.purchase, watched.hop);
    let at = purchase.purchased_at;
    let key = Key { vendor: purchase.vendor_id, year: at.year(), month: at.month().cast_signed() };
    let balance = |found: Found| found.ok().filter(|row| row.next > hop.offset).and_then(|row| row.balance);
    let table = READ_MODELS[table].table;
    let generation = board.generation(table);
    let found = match table {
        ReadTable::ItemQuantityByDay => {
            let found = stores.cassandra_quantity(purchase, generation).await?;
            let includes =
                |position: Position| position.epoch().is_some_and(|epoch| Position::new(epoch, hop.offset) <= position);
            return Ok(found.filter(|(_, position)| includes(*position)).map(|(quantity, _)| quantity.to_string()));
        }
        ReadTable::BalanceByVendor => stores.cassandra_balance(&key, generation).await?,
        ReadTable::VendorBilling => {
            let counted = [Counted { key, partition: hop.partition, total: Decimal::ZERO }];
            stores.postgres_balances(&counted).await?.into_iter().next().context("a row for each key")?
        }
    };
    Ok(balance(found).map(|balance| balance.normalize().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watches_beyond_the_limit_are_left_out_until_others_have_ended() {
        let (permits, ends) = (Arc::new(Semaphore::new(WATCHES_MAX)), Arc::new(Semaphore::new(0)));
        let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
        let spawn = |inputs: std::ops::Range<usize>| {
            spawn_within(&permits, inputs.collect(), |input| {
                let (sender, ends) = (sender.clone(), ends.clone());
                async move {
                    assert!(sender.send(input).is_ok());
                    ends.acquire().await.expect("it is never closed").forget();
                }
            });
        };
        spawn(0..WATCHES_MAX + 8);
        for input in 0..WATCHES_MAX {
            assert_eq!(started.recv().await, Some(input));
        }
        assert_eq!(permits.available_permits(), 0);
        ends.add_permits(1);
        let freed = permits.clone().acquire_owned().await;
        drop(freed);
        spawn(100..102);
        assert_eq!(started.recv().await, Some(100), "of those that were left out none starts later");
        tokio::task::yield_now().await;
        assert!(started.try_recv().is_err());
    }
}
