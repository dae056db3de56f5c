//! The delay from the answer to a checkout to its purchase in each read table, without other load and at half of the maximum
//! load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cart::contract::group;
use chrono::{DateTime, Datelike as _, Utc};
use hdrhistogram::Histogram;
use scylla::client::session::Session;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Running};
use super::load::{Load, Pace, Until};
use super::measurement::{Measurement, Subject, Values};
use super::progress::keep;
use super::wire::Connection;

const BENCH: &str = "freshness";

/// The number of checkouts per case.
const PROBES: u32 = 60;
const PROBES_QUICK: u32 = 10;

/// The pause between two reads of a table, and so the maximum error.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// The timeout of a delay.
const DEADLINE: Duration = Duration::from_secs(60);

/// A minute in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Clients of the closed loop that finds the maximum load.
const CLIENTS: u32 = 256;

/// The maximum number of connections in the open loop.
const OPEN_CLIENTS: u32 = 1_024;

const SHOWN: [&str; 3] = ["p50 ms", "p99 ms", "max ms"];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut system = environment.start(Subject::System).await?;
    let projectors = environment.start_projectors(1).await?;
    system.warm_up(args.warm_up()).await?;
    let tables = Tables::open(&environment).await?;
    let probes = probes(args);
    let mut measurements = Vec::new();
    for repetition in 0..args.repetitions() {
        let found = follow(&tables, system.address, probes).await?;
        keep_all(&mut measurements, "idle", repetition, &found);
        let length = Duration::from_secs(args.seconds());
        let most = system.load(CLIENTS, Pace::Closed, Until::After(length)).await?.rate();
        let probing = follow(&tables, system.address, probes);
        let found = under_load(&mut system, OPEN_CLIENTS, most / 2.0, probing).await?;
        keep_all(&mut measurements, "half load", repetition, &found);
    }
    drop((system, projectors));
    environment.remove().await?;
    Ok(measurements)
}

/// The pause before each checkout: longer than the system's intervals, and random, so that checkouts come at any time of an
/// interval.
fn pause(number: u32) -> Duration {
    Duration::from_millis(400 + u64::from(number) * 37 % 200)
}

pub(super) fn probes(args: &RunArgs) -> u32 {
    if args.quick { PROBES_QUICK } else { PROBES }
}

/// Probes while these clients send this many requests per second.
pub(super) async fn under_load<T>(
    system: &mut Running,
    clients: u32,
    rate: f64,
    probing: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let load = Load { stop: stop.clone(), ..Load::new(system.address, Pace::Open(rate), Until::After(10 * DEADLINE)) };
    let probing = async {
        let found = probing.await;
        stop.store(true, Ordering::Relaxed);
        found
    };
    let (outcome, found) = tokio::join!(system.run(load, clients), probing);
    outcome?;
    found
}

/// The projectors whose tables are read.
pub(super) const TABLES: [&str; 3] = [group::POPULAR_ITEMS, group::VENDOR_BILLING, group::VENDOR_BILLING_JDBC];

/// Delays in microseconds, of each of [`TABLES`].
type Found = [Histogram<u64>; 3];

fn keep_all(measurements: &mut Vec<Measurement>, load: &str, repetition: u32, found: &Found) {
    for (table, delays) in TABLES.iter().zip(found) {
        let values = values(delays);
        let (bench, case) = (BENCH.to_owned(), format!("{table}, {load}"));
        let one = Measurement { bench, case, subject: Subject::System, repetition, values };
        keep(measurements, one, &SHOWN);
    }
}

pub(super) fn values(delays: &Histogram<u64>) -> Values {
    let ms = |us: u64| us as f64 / 1_000.0;
    Values::from([
        ("p50 ms".to_owned(), ms(delays.value_at_quantile(0.5))),
        ("p95 ms".to_owned(), ms(delays.value_at_quantile(0.95))),
        ("p99 ms".to_owned(), ms(delays.value_at_quantile(0.99))),
        ("max ms".to_owned(), ms(delays.max())),
    ])
}

fn delays() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?)
}

/// Repeatedly buys an item of a new vendor, and reads the tables until it is there.
pub(super) async fn follow(tables: &Tables, address: SocketAddr, probes: u32) -> anyhow::Result<Found> {
    let mut found = [delays()?, delays()?, delays()?];
    let mut connection = Connection::open(address).await.context("connecting to ingest")?;
    for number in 0..probes {
        tokio::time::sleep(pause(number)).await;
        let Bought { vendor, product, at } = buy(&mut connection).await?;
        let answered_at = Instant::now();
        let (year, month) = (at.year(), at.month().cast_signed());
        let (quantity, balance, billing) = tokio::try_join!(
            seen(answered_at, async || tables.has(&tables.quantity, (vendor, product, year, month)).await),
            seen(answered_at, async || tables.has(&tables.balance, (vendor, year, month)).await),
            seen(answered_at, async || tables.has_billing(vendor).await),
        )?;
        for (delays, delay) in found.iter_mut().zip([quantity, balance, billing]) {
            delays.saturating_record(u64::try_from(delay.as_micros())?);
        }
    }
    Ok(found)
}

/// Repeatedly buys an item of a new vendor, and measures a read of the vendor's billing with the checkout's token.
pub(super) async fn read_after(address: SocketAddr, probes: u32) -> anyhow::Result<Histogram<u64>> {
    let mut delays = delays()?;
    let mut connection = Connection::open(address).await.context("connecting to ingest")?;
    for number in 0..probes {
        tokio::time::sleep(pause(number)).await;
        let Bought { vendor, at, .. } = buy(&mut connection).await?;
        let token = connection.header("read-after-token").context("a checkout's answer has a token")?;
        let year = at.year();
        let read =
            format!("GET /vendors/{vendor}/billing?year={year} HTTP/1.1\r\nhost: bench\r\nread-after: {token}\r\n\r\n");
        let started_at = Instant::now();
        exchange(&mut connection, &read).await?;
        delays.saturating_record(u64::try_from(started_at.elapsed().as_micros())?);
    }
    Ok(delays)
}

/// The purchase of a probe, with its time.
struct Bought {
    vendor: Uuid,
    product: Uuid,
    at: DateTime<Utc>,
}

/// A request that adds one piece to a cart.
pub(super) fn add_request(cart: Uuid, product: Uuid, vendor: Uuid) -> String {
    let body =
        format!(r#"{{"productId":"{product}","vendorId":"{vendor}","name":"PROBE","price":"1.00","quantity":1}}"#);
    format!(
        "POST /cart/{cart} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn buy(connection: &mut Connection) -> anyhow::Result<Bought> {
    let [cart, product, vendor] = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let add = add_request(cart, product, vendor);
    let checkout = format!("POST /cart/{cart}/checkout HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n");
    let at = Utc::now();
    for request in [add, checkout] {
        exchange(connection, &request).await?;
    }
    Ok(Bought { vendor, product, at })
}

async fn exchange(connection: &mut Connection, request: &str) -> anyhow::Result<()> {
    let status = connection.exchange(request.as_bytes()).await.context("sending a probe")?;
    ensure!(status == 200, "a probe was answered with {status}");
    Ok(())
}

async fn seen(since: Instant, is_there: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    loop {
        if is_there().await? {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < DEADLINE, "a purchase is in no table after {DEADLINE:?}");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// The read tables.
pub(super) struct Tables {
    session: Session,
    quantity: PreparedStatement,
    balance: PreparedStatement,
    database: PgPool,
}

impl Tables {
    pub(super) async fn open(environment: &BenchEnvironment) -> anyhow::Result<Self> {
        let session = cassandra::connect(environment.installation.cassandra()).await?;
        let quantity =
            "SELECT quantity FROM item_quantity_by_day WHERE vendorid = ? AND productid = ? AND year = ? AND month = ?";
        let quantity = session.prepare(quantity).await?;
        let balance = "SELECT balance FROM balance_by_vendor WHERE vendorid = ? AND year = ? AND month = ?";
        let balance = session.prepare(balance).await?;
        let database = PgPool::connect(environment.installation.database_url()).await?;
        Ok(Self { session, quantity, balance, database })
    }

    async fn has(&self, select: &PreparedStatement, key: impl SerializeRow) -> anyhow::Result<bool> {
        let rows = self.session.execute_unpaged(select, key).await?.into_rows_result()?;
        Ok(rows.rows_num() > 0)
    }

    async fn has_billing(&self, vendor: Uuid) -> anyhow::Result<bool> {
        let found = sqlx::query("SELECT 1 FROM vendor_billing WHERE vendor_id = $1").bind(vendor);
        Ok(found.fetch_optional(&self.database).await?.is_some())
    }
}
