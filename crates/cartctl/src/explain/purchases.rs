//! The purchases of a row of a read table, and the row.

use anyhow::Context as _;
use cart::contract::{Contract as _, ReadTable};
use cart::{LogEpoch, ParkedRow, Position, ProductId, PurchasedItem, VendorId, day_row_key, month_row_key};
use chrono::{Datelike as _, NaiveDate};
use kafka::{Admin, Codec, Message as _, Registry, TopicReader};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::value::CqlDecimal;
use tokio::runtime::Handle;

use super::args::{Month, Store, System};
use super::ledger::{Entry, Ledger, Stored};
use crate::line::purchased;
use crate::read_tables::snapshot;
use crate::reconcile::decimal;
use crate::topic::SILENCE_MAX;

/// The log of the purchases, and the vendor's part of it.
struct Log {
    topic: String,
    partition: i32,
    epoch: LogEpoch,
    session: Session,
}

impl Log {
    async fn open(system: &System, vendor: VendorId) -> anyhow::Result<Self> {
        let topic = system.kafka.prefixed(PurchasedItem::TOPIC);
        let identity = tokio::task::block_in_place(|| Admin::new(&system.kafka)?.identity(&topic))?;
        let partition = kafka::partition_of(vendor.to_string().as_bytes(), identity.partitions);
        let session = cassandra::connect(&system.cassandra).await?;
        let epoch = cassandra::log_epoch(&session, &topic, &identity).await?;
        Ok(Self { topic, partition, epoch, session })
    }

    fn has_earlier(&self) -> bool {
        self.epoch != LogEpoch::FIRST
    }

    /// The group's next offset in the vendor's partition.
    fn committed(&self, system: &System, group: &str) -> anyhow::Result<i64> {
        let group = system.kafka.prefixed(group);
        let offsets = tokio::task::block_in_place(|| Admin::new(&system.kafka)?.committed(&group, &self.topic))?;
        let partition = usize::try_from(self.partition)?;
        Ok(offsets.get(partition).copied().flatten().unwrap_or(0))
    }

    /// Where a row in Cassandra is parked: the first record that waits, and why. Before the row is read: one that goes on meanwhile
    /// includes more.
    async fn parked(&self, table: &str, vendor: VendorId, row_key: &str) -> anyhow::Result<Option<(i64, String)>> {
        // The requests for another try do not matter here: the name is of no projector.
        let rows = cassandra::parked_rows::list(&self.session, table, table).await?;
        Ok(parked_at(&rows, vendor, row_key))
    }

    /// The offset after the row's newest record; 0 for a row of an earlier log.
    fn after(&self, position: i64) -> i64 {
        let position = Position::from(position);
        if position < Position::new(self.epoch, 0) { 0 } else { position.offset() + 1 }
    }
}

fn parked_at(rows: &[ParkedRow], vendor: VendorId, row_key: &str) -> Option<(i64, String)> {
    let row = rows.iter().find(|row| (row.vendor_id, row.row_key.as_str()) == (vendor, row_key))?;
    Some((row.next_position.offset(), row.reason.clone()))
}

/// Explains a vendor's balance of a month.
pub(super) async fn balance(
    system: &System,
    vendor: VendorId,
    month: Month,
    store: Option<Store>,
) -> anyhow::Result<Ledger> {
    let log = Log::open(system, vendor).await?;
    // Before the purchases: what a table includes is in the log by then.
    let mut stored = Vec::new();
    if store != Some(Store::Postgres) {
        stored.push(cassandra_balance(system, &log, vendor, month).await.context("reading balance_by_vendor")?);
    }
    if store != Some(Store::Cassandra) {
        stored.push(postgres_balance(system, &log, vendor, month).await.context("reading vendor_billing")?);
    }
    let Month { year, month } = month;
    let what = format!("Balance of vendor {vendor} in {year}-{month:02} (UTC)");
    let is_in =
        |purchase: &PurchasedItem| (purchase.purchased_at.year(), purchase.purchased_at.month()) == (year, month);
    ledger(system, log, vendor, what, is_in, PurchasedItem::amount, stored).await
}

/// Explains the pieces of a product on a day.
pub(super) async fn item(
    system: &System,
    vendor: VendorId,
    product: ProductId,
    day: NaiveDate,
) -> anyhow::Result<Ledger> {
    let log = Log::open(system, vendor).await?;
    let stored =
        cassandra_quantity(system, &log, vendor, product, day).await.context("reading item_quantity_by_day")?;
    let what = format!("Pieces of product {product} of vendor {vendor} on {day} (UTC)");
    let is_in = |purchase: &PurchasedItem| purchase.product_id == product && purchase.purchased_at.date_naive() == day;
    let pieces = |purchase: &PurchasedItem| Decimal::from(purchase.quantity.get());
    ledger(system, log, vendor, what, is_in, pieces, vec![stored]).await
}

async fn ledger(
    system: &System,
    log: Log,
    vendor: VendorId,
    what: String,
    is_in: impl Fn(&PurchasedItem) -> bool,
    change: impl Fn(&PurchasedItem) -> Decimal,
    stored: Vec<Stored>,
) -> anyhow::Result<Ledger> {
    let registry = Registry::new(&system.kafka)?;
    let codec = Codec::<PurchasedItem>::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
    let runtime = Handle::current();
    let mut ledger = Ledger::new(what, log.topic, log.partition);
    tokio::task::block_in_place(|| {
        let starts = Admin::new(&system.kafka)?.watermarks(&ledger.topic)?;
        let start = starts.get(usize::try_from(log.partition)?).context("the partition is gone")?.0;
        let mut reader = TopicReader::open(&system.kafka, &ledger.topic, [(log.partition, start)])?;
        let key = vendor.to_string();
        while let Some(message) = reader.next(SILENCE_MAX)? {
            if message.key() != Some(key.as_bytes()) {
                continue;
            }
            let offset = message.offset();
            let purchase = codec
                .decode_or_fetch_blocking(message.payload().unwrap_or_default(), &runtime)?
                .with_context(|| format!("decoding record {}/{offset} of {}", log.partition, ledger.topic))?;
            if !is_in(&purchase) {
                continue;
            }
            ledger.push(Entry {
                offset,
                purchased_at: purchase.purchased_at,
                cart_id: purchase.cart_id,
                trace_id: kafka::trace_headers(message.headers()).trace_id().map(str::to_owned),
                what: purchased(&purchase),
                change: change(&purchase),
                total: Decimal::ZERO,
            });
        }
        anyhow::Ok(())
    })?;
    stored.into_iter().for_each(|stored| ledger.compare(stored));
    Ok(ledger)
}

/// The table of a read model in Cassandra that readers see, and the next offset of its group. A projector commits after it has written, so
/// a row includes what was committed before it was read.
async fn cassandra_table(system: &System, log: &Log, table: ReadTable) -> anyhow::Result<(String, i64)> {
    let model = table.model();
    let generation = cassandra::read_models::active(&log.session, model).await?;
    Ok((model.table_name(generation), log.committed(system, &model.group_name(generation))?))
}

/// The first record that a parked row lacks, and why. The row may include more than its marker says: it is written first.
fn waiting_from(parked: Option<(i64, String)>, included: i64) -> Option<(i64, String)> {
    parked.map(|(offset, reason)| (offset.max(included), reason))
}

async fn cassandra_balance(system: &System, log: &Log, vendor: VendorId, month: Month) -> anyhow::Result<Stored> {
    let (table, committed) = cassandra_table(system, log, ReadTable::BalanceByVendor).await?;
    let select = format!("SELECT balance, position FROM {table} WHERE vendorid = ? AND year = ? AND month = ?");
    let key = (vendor.as_uuid(), month.year, i32::try_from(month.month)?);
    let parked = log.parked(&table, vendor, &month_row_key(key.1, key.2)).await?;
    let rows = log.session.query_unpaged(select, key).await?.into_rows_result()?;
    let row = rows.maybe_first_row::<(CqlDecimal, i64)>()?;
    let total = row.as_ref().map(|(balance, _)| decimal(balance)).transpose()?;
    let included = row.map_or(0, |(_, position)| log.after(position));
    let (next_offset, parked) = (committed.max(included), waiting_from(parked, included));
    let has_earlier_logs = log.has_earlier();
    Ok(Stored { table: format!("{table} (Cassandra)"), total, next_offset, has_earlier_logs, parked })
}

async fn cassandra_quantity(
    system: &System,
    log: &Log,
    vendor: VendorId,
    product: ProductId,
    day: NaiveDate,
) -> anyhow::Result<Stored> {
    let (table, committed) = cassandra_table(system, log, ReadTable::ItemQuantityByDay).await?;
    let select = format!(
        "SELECT quantity, position FROM {table} \
         WHERE vendorid = ? AND productid = ? AND year = ? AND month = ? AND day = ?"
    );
    let (month, of_month) = (i32::try_from(day.month())?, i32::try_from(day.day())?);
    let key = (vendor.as_uuid(), product.as_uuid(), day.year(), month, of_month);
    let parked = log.parked(&table, vendor, &day_row_key(key.1, key.2, month, of_month)).await?;
    let rows = log.session.query_unpaged(select, key).await?.into_rows_result()?;
    let row = rows.maybe_first_row::<(i64, i64)>()?;
    let included = row.map_or(0, |(_, position)| log.after(position));
    let (next_offset, parked) = (committed.max(included), waiting_from(parked, included));
    let total = row.map(|(quantity, _)| quantity.into());
    let has_earlier_logs = log.has_earlier();
    Ok(Stored { table: format!("{table} (Cassandra)"), total, next_offset, has_earlier_logs, parked })
}

/// Reads the balance and the offset in one snapshot.
async fn postgres_balance(system: &System, log: &Log, vendor: VendorId, month: Month) -> anyhow::Result<Stored> {
    const BALANCE: &str = "SELECT balance FROM vendor_billing WHERE vendor_id = $1 AND year = $2 AND month = $3";
    const NEXT: &str = "SELECT next_offset FROM projection_offset \
        WHERE projection = $1 AND topic = $2 AND partition = $3 AND log_epoch = $4";
    let database = system.database.connect().await?;
    let mut snapshot = snapshot(&database).await?;
    let model = ReadTable::VendorBilling.model();
    // Over another connection: no switch ends before this transaction.
    let group = model.group_name(postgres::read_models::active(&database, model).await?);
    let total: Option<Decimal> = sqlx::query_scalar(BALANCE)
        .bind(vendor.as_uuid())
        .bind(month.year)
        .bind(i32::try_from(month.month)?)
        .fetch_optional(&mut *snapshot)
        .await?;
    let next: Option<i64> = sqlx::query_scalar(NEXT)
        .bind(&group)
        .bind(&log.topic)
        .bind(log.partition)
        .bind(log.epoch.get())
        .fetch_optional(&mut *snapshot)
        .await?;
    let rows = postgres::parked_rows::list(&mut snapshot, &group, &log.topic).await?;
    snapshot.rollback().await?;
    let parked = parked_at(&rows, vendor, &month_row_key(month.year, i32::try_from(month.month)?));
    let next_offset = next.unwrap_or(0);
    let table = String::from("vendor_billing (PostgreSQL)");
    Ok(Stored { table, total, next_offset, has_earlier_logs: log.has_earlier(), parked })
}
