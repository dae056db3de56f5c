//! An added read model, written as docs/extending.md says: how many purchases a vendor had in each hour (UTC).
//!
//! It is a program of its own, beside `projectors`. The end-to-end test `projectors::added` runs it.

use std::process::ExitCode;
use std::sync::Arc;

use cart::PurchasedItem;
use cassandra::{Error, parked_rows, schema_change};
use chrono::{DateTime, Utc};
use clap::Parser as _;
use projectors::{CassandraProjectorArgs, Key, Row, Rows, Table};
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

/// The consumer group.
const GROUP: &str = "purchases-by-hour";

const TABLE: &str = "purchases_by_hour";

/// Bytes of a row, approximately.
const ROW_LEN: usize = 50;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS purchases_by_hour (\
    vendorid uuid, hour timestamp, purchases bigint, position bigint, PRIMARY KEY (vendorid, hour))";

const SELECT: &str = "SELECT hour, purchases, position FROM purchases_by_hour WHERE vendorid = ? AND hour IN ?";

const INSERT: &str = "INSERT INTO purchases_by_hour (vendorid, hour, purchases, position) VALUES (?, ?, ?, ?) \
    USING TIMESTAMP ?";

/// The table, prepared.
struct PurchasesByHour {
    session: Arc<Session>,
    select: PreparedStatement,
    insert: PreparedStatement,
}

impl PurchasesByHour {
    /// Creates the table and that of its parked rows if they are missing. A service leaves that to its `setup`.
    async fn open(session: Arc<Session>) -> Result<Self, Error> {
        let created = session.query_unpaged(schema_change(CREATE), ()).await;
        created.map_err(|error| Error::new("creating purchases_by_hour", error))?;
        let created = session.query_unpaged(schema_change(parked_rows::create(TABLE)), ()).await;
        created.map_err(|error| Error::new("creating the table of its parked rows", error))?;
        let failed = |error| Error::new("preparing the statements of purchases_by_hour", error);
        let mut select = session.prepare(SELECT).await.map_err(failed)?;
        let mut insert = session.prepare(INSERT).await.map_err(failed)?;
        // A retry writes and reads the same.
        select.set_is_idempotent(true);
        insert.set_is_idempotent(true);
        Ok(Self { session, select, insert })
    }
}

/// The hour in which a purchase was made, as seconds since 1970.
fn hour_of(purchase: &PurchasedItem) -> i64 {
    let seconds = purchase.purchased_at.timestamp();
    seconds - seconds.rem_euclid(3_600)
}

fn time(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(hour, 0).unwrap_or_default()
}

impl Table for PurchasesByHour {
    type Within = i64;
    /// The vendor.
    type Common = Uuid;
    type Total = i64;

    fn name(&self) -> &str {
        TABLE
    }

    fn within(purchase: &PurchasedItem) -> i64 {
        hour_of(purchase)
    }

    fn add(total: Option<&i64>, _: &PurchasedItem) -> Option<i64> {
        total.copied().unwrap_or_default().checked_add(1)
    }

    fn common(key: &Key<i64>) -> Uuid {
        key.vendor_id.as_uuid()
    }

    async fn read(&self, keys: &[Key<i64>]) -> Result<Rows<Self>, Error> {
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let operation = || format!("reading {} hours of vendor {}", keys.len(), first.vendor_id);
        let hours: Vec<_> = keys.iter().map(|key| time(key.within)).collect();
        let result = self
            .session
            .execute_unpaged(&self.select, (first.vendor_id.as_uuid(), hours))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<(DateTime<Utc>, i64, i64)>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| {
            let (hour, total, position) = row.map_err(|error| Error::new(operation(), error))?;
            let key = Key { vendor_id: first.vendor_id, within: hour.timestamp() };
            Ok((key, Row { total, position: position.into() }))
        })
        .collect()
    }

    fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>> {
        cassandra::groups(&self.session, TABLE, rows, |(key, _)| ((key.vendor_id.as_uuid(),), ROW_LEN))
    }

    async fn write(&self, rows: &Rows<Self>) -> Result<(), Error> {
        let values = rows.iter().map(|(key, row)| {
            (key.vendor_id.as_uuid(), time(key.within), row.total, row.position.get(), row.timestamp())
        });
        cassandra::write_rows(&self.session, &self.insert, values.collect())
            .await
            .map_err(|error| Error::new(format!("writing {} hours", rows.len()), error))
    }
}

/// Counts each vendor's purchases by hour
#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: CassandraProjectorArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    service::exit_code(GROUP, projectors::totals(Cli::parse().args, GROUP, PurchasesByHour::open).await)
}
