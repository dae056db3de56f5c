//! Readers of every row: of the tables, knowing the active generation for a while as `ingest` does, and of `ingest` itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cart::contract::{READ_MODELS, ReadTable};
use cassandra::CassandraArgs;
use e2e::harness::Installation;
use futures::TryStreamExt as _;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long a reader goes by what it knows of the active generation: as `ingest`.
const POINTER_AGE: Duration = Duration::from_secs(1);

/// The timeout of a read, also of `ingest`'s: on a busy machine more than the usual one, and with [`POINTER_AGE`] less than a switch
/// waits for readers.
pub(super) const READ_TIMEOUT_MS: u64 = 3_500;

/// Between two rounds of questions to an `ingest`: each has one for each vendor and year.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Falls that are kept. One is a failure.
const FALLS_MAX: usize = 5;

/// A row of any table, by the table's name.
type Key = (&'static str, Uuid, Option<Uuid>, i32, i32, Option<i32>);

type Totals = BTreeMap<Key, Decimal>;

#[derive(Debug, Default)]
struct Shared {
    /// The most that any reader has seen of each row.
    seen: Mutex<Totals>,
    falls: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Tasks that read all rows again and again. What one has seen, another must see too.
pub(super) struct Readers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<anyhow::Result<u32>>>,
}

impl Readers {
    /// Starts so many readers of the tables, and one of the balances for each `ingest`.
    pub(super) async fn start(installation: &Installation, count: usize, ingests: Vec<String>) -> anyhow::Result<Self> {
        let shared = Arc::<Shared>::default();
        let mut tasks = Vec::new();
        let args = CassandraArgs { cassandra_request_timeout_ms: READ_TIMEOUT_MS, ..installation.cassandra().clone() };
        for _ in 0..count {
            let session = cassandra::connect(&args).await?;
            let database = PgPool::connect(installation.database_url()).await?;
            tasks.push(tokio::spawn(read_repeatedly(session, database, shared.clone())));
        }
        tasks.extend(ingests.into_iter().map(|url| tokio::spawn(ask_repeatedly(url, shared.clone()))));
        Ok(Self { shared, tasks })
    }

    /// Ends them. Returns the number of reads.
    ///
    /// # Errors
    /// A read has failed, or a total has fallen.
    pub(super) async fn finish(self) -> anyhow::Result<u32> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut reads = 0;
        for task in self.tasks {
            reads += task.await.context("a reader panicked")??;
        }
        let falls = self.shared.falls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        anyhow::ensure!(falls.is_empty(), "totals have fallen:\n{}", falls.join("\n"));
        Ok(reads)
    }
}

impl Shared {
    fn seen(&self) -> Totals {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares with what was seen before the read began.
    fn note(&self, before: &Totals, now: Totals, place: &str) {
        let fallen = before.iter().filter(|(key, before)| now.get(*key).is_none_or(|now| now < *before));
        let fallen = fallen.map(|(key, before)| format!("{key:?} of {place}: {before}, then {:?}", now.get(key)));
        let mut falls = self.falls.lock().unwrap_or_else(PoisonError::into_inner);
        falls.extend(fallen.take(FALLS_MAX));
        falls.truncate(FALLS_MAX);
        drop(falls);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, total) in now {
            let most = seen.entry(key).or_insert(total);
            *most = total.max(*most);
        }
    }
}

/// Asks an `ingest` for the balances of all vendors and years that the readers of the tables have seen.
async fn ask_repeatedly(url: String, shared: Arc<Shared>) -> anyhow::Result<u32> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let table = ReadTable::BalanceByVendor.name();
    let mut reads = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let before: Totals = shared.seen().into_iter().filter(|(key, _)| key.0 == table).collect();
        let years: BTreeSet<(Uuid, i32)> = before.keys().map(|(_, vendor, _, year, ..)| (*vendor, *year)).collect();
        let mut now = Totals::new();
        for (vendor, year) in years {
            let answer = client.get(format!("{url}/vendors/{vendor}/billing?year={year}")).send().await?;
            let body: Value = answer.error_for_status()?.json().await?;
            for month in body["balances"].as_array().context("balances")? {
                let number = month["month"].as_i64().and_then(|month| i32::try_from(month).ok()).context("a month")?;
                let balance = month["balance"].as_str().context("a balance")?;
                now.insert((table, vendor, None, year, number, None), Decimal::from_str_exact(balance)?);
            }
        }
        shared.note(&before, now, &url);
        reads += 1;
        tokio::time::sleep(ASK_PAUSE).await;
    }
    Ok(reads)
}

async fn read_repeatedly(session: Session, database: PgPool, shared: Arc<Shared>) -> anyhow::Result<u32> {
    let mut reads = 0;
    let mut tables = (Instant::now(), tables(&session).await?);
    while !shared.stop.load(Ordering::Relaxed) {
        if tables.0.elapsed() >= POINTER_AGE {
            tables = (Instant::now(), self::tables(&session).await?);
        }
        let before = shared.seen();
        let now = read(&session, &database, &tables.1).await?;
        shared.note(&before, now, &format!("{:?}", tables.1));
        reads += 1;
    }
    Ok(reads)
}

/// The tables of the active generations, in the order of [`READ_MODELS`].
async fn tables(session: &Session) -> anyhow::Result<Vec<String>> {
    let mut tables = Vec::new();
    for model in READ_MODELS {
        tables.push(match model.table {
            ReadTable::ItemQuantityByDay | ReadTable::BalanceByVendor => {
                model.table_name(cassandra::read_models::active(session, model).await?)
            }
            // The view is of the active one.
            ReadTable::VendorBilling => model.table.name().to_owned(),
        });
    }
    Ok(tables)
}

async fn read(session: &Session, database: &PgPool, tables: &[String]) -> anyhow::Result<Totals> {
    let mut totals = Totals::new();
    for (model, table) in READ_MODELS.into_iter().zip(tables) {
        let name = model.table.name();
        match model.table {
            ReadTable::ItemQuantityByDay => {
                let select = format!("SELECT vendorid, productid, year, month, day, quantity FROM {table}");
                let pager = session.query_iter(select, ()).await?;
                let mut rows = pager.rows_stream::<(Uuid, Uuid, i32, i32, i32, i64)>()?;
                while let Some((vendor, product, year, month, day, quantity)) = rows.try_next().await? {
                    totals.insert((name, vendor, Some(product), year, month, Some(day)), quantity.into());
                }
            }
            ReadTable::BalanceByVendor => {
                let select = format!("SELECT vendorid, year, month, CAST(balance AS text) FROM {table}");
                let pager = session.query_iter(select, ()).await?;
                let mut rows = pager.rows_stream::<(Uuid, i32, i32, String)>()?;
                while let Some((vendor, year, month, balance)) = rows.try_next().await? {
                    totals.insert((name, vendor, None, year, month, None), Decimal::from_str_exact(&balance)?);
                }
            }
            ReadTable::VendorBilling => {
                let select = "SELECT vendor_id, year, month, balance FROM vendor_billing";
                let rows: Vec<(Uuid, i32, i32, Decimal)> = sqlx::query_as(select).fetch_all(database).await?;
                let row = |(vendor, year, month, balance)| ((name, vendor, None, year, month, None), balance);
                totals.extend(rows.into_iter().map(row));
            }
        }
    }
    Ok(totals)
}
