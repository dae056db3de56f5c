//! Reads whole stores: the read tables page by page, the purchases record by record.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, anyhow, bail};
use cart::PurchasedItem;
use cart::contract::{Contract as _, ReadTable};
use futures::TryStreamExt as _;
use kafka::{Codec, KafkaArgs, Registry};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::value::{CqlDecimal, CqlValue};
use sqlx::PgPool;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::compare::{Differences, Rows};
use crate::skips::{self, is_skipped};
use crate::topic;
use crate::totals::{DayKey, MonthKey, Purchase, Sold, Totals};
use crate::{ParkedKeys, SkippedRecord};

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

/// The purchases on their topic.
pub(super) struct Purchases {
    pub(super) totals: Totals,
    /// Records that groups skip.
    pub(super) skipped: Vec<SkippedRecord>,
    /// The purchases among them, by group: its table lacks them.
    pub(super) without: HashMap<String, Totals>,
}

/// Reads the purchases on their topic, and adds the invalid ones to the differences.
pub(super) async fn purchases(kafka: &KafkaArgs, differences: &mut Differences) -> anyhow::Result<Purchases> {
    let registry = Registry::new(kafka)?;
    let codec = Codec::<PurchasedItem>::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
    let skips = skips::load(kafka).await?;
    let (args, topic) = (kafka.clone(), kafka.prefixed(PurchasedItem::TOPIC));
    let runtime = Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let mut totals = Totals { purchases: Some(0), ..Totals::default() };
        let mut event_ids = HashSet::new();
        let mut wrong = Vec::new();
        let mut without: HashMap<String, Totals> = HashMap::new();
        topic::for_each::<anyhow::Error>(&args, &topic, |record| {
            let place = format!("record {}/{}", record.partition, record.offset);
            match codec.decode_or_fetch_blocking(&record.value.unwrap_or_default(), &runtime)? {
                Err(_) if is_skipped(&skips, PurchasedItem::TOPIC, record.partition, record.offset) => {}
                Err(error) => wrong.push((place, "a purchase", error.to_string())),
                Ok(purchase) => {
                    let event_id = purchase.event_id.as_uuid();
                    if !event_ids.insert(event_id) {
                        wrong.push((place, "each event once", format!("event {event_id} once more")));
                    }
                    let purchase = Purchase {
                        vendor: purchase.vendor_id.as_uuid(),
                        product: purchase.product_id.as_uuid(),
                        name: purchase.name.as_str(),
                        price: purchase.price.get(),
                        quantity: purchase.quantity.get().into(),
                        at: purchase.purchased_at,
                    };
                    totals.add(&purchase);
                    let is_of = |skip: &&SkippedRecord| {
                        skip.is_of(&skip.group, PurchasedItem::TOPIC, record.partition, record.offset)
                    };
                    for skip in skips.iter().filter(is_of) {
                        without.entry(skip.group.clone()).or_default().add(&purchase);
                    }
                }
            }
            Ok(())
        })?;
        let skipped = skips.into_iter().filter(SkippedRecord::holds).collect();
        Ok::<_, anyhow::Error>((Purchases { totals, skipped, without }, wrong))
    });
    let (purchases, wrong) = reading.await??;
    for (place, expected, found) in wrong {
        differences.add(PurchasedItem::TOPIC, place, Some(expected.to_owned()), Some(found));
    }
    Ok(purchases)
}

/// Reads the active generation of a table from its store.
///
/// # Errors
/// The store is unavailable, or a row is incomplete.
pub async fn read_table(table: ReadTable, session: &Session, database: &PgPool) -> anyhow::Result<Rows> {
    read_table_but(table, session, database, &ParkedKeys::default()).await
}

/// As [`read_table`], where a parked row may be incomplete: it is left out then.
pub(super) async fn read_table_but(
    table: ReadTable,
    session: &Session,
    database: &PgPool,
    parked: &ParkedKeys,
) -> anyhow::Result<Rows> {
    Ok(match table {
        ReadTable::ItemQuantityByDay => Rows::Days(item_quantity_by_day(session, parked).await?),
        ReadTable::BalanceByVendor => Rows::Months(balance_by_vendor(session, parked).await?),
        ReadTable::VendorBilling => Rows::Months(read_vendor_billing(database).await?),
    })
}

/// The name of the table of the generation that readers see, in Cassandra.
async fn active(table: ReadTable, session: &Session) -> anyhow::Result<String> {
    let model = table.model();
    Ok(model.table_name(cassandra::read_models::active(session, model).await?))
}

/// Reads Cassandra's `balance_by_vendor`.
///
/// # Errors
/// Cassandra is unavailable, or a row is incomplete.
pub async fn read_balance_by_vendor(session: &Session) -> anyhow::Result<HashMap<MonthKey, Decimal>> {
    balance_by_vendor(session, &ParkedKeys::default()).await
}

async fn balance_by_vendor(session: &Session, parked: &ParkedKeys) -> anyhow::Result<HashMap<MonthKey, Decimal>> {
    let table = active(ReadTable::BalanceByVendor, session).await?;
    let read = async {
        let select = format!("SELECT vendorid, year, month, balance FROM {table}");
        let pager = session.query_iter(Statement::new(select).with_page_size(PAGE_ROWS), ()).await?;
        let mut rows = pager.rows_stream::<(Uuid, i32, i32, Option<CqlDecimal>)>()?;
        let mut months = HashMap::new();
        while let Some((vendor, year, month, balance)) = rows.try_next().await? {
            let key = MonthKey { vendor, year, month };
            let balance = balance.ok_or_else(|| anyhow!("vendor {vendor}, {year}-{month:02} has no balance"));
            match balance.and_then(|balance| decimal(&balance)) {
                Err(_) if parked.has_month(&key) => {}
                balance => drop(months.insert(key, balance?)),
            }
        }
        anyhow::Ok(months)
    };
    read.await.with_context(|| format!("reading table {table}"))
}

/// Reads Cassandra's `item_quantity_by_day`.
///
/// # Errors
/// Cassandra is unavailable, or a row is incomplete.
pub async fn read_item_quantity_by_day(session: &Session) -> anyhow::Result<HashMap<DayKey, Sold>> {
    item_quantity_by_day(session, &ParkedKeys::default()).await
}

async fn item_quantity_by_day(session: &Session, parked: &ParkedKeys) -> anyhow::Result<HashMap<DayKey, Sold>> {
    type Row = (Uuid, Uuid, i32, i32, i32, Option<CqlValue>, Option<String>);
    let table = active(ReadTable::ItemQuantityByDay, session).await?;
    let read = async {
        let select = format!("SELECT vendorid, productid, year, month, day, quantity, name FROM {table}");
        let pager = session.query_iter(Statement::new(select).with_page_size(PAGE_ROWS), ()).await?;
        let mut rows = pager.rows_stream::<Row>()?;
        let mut days = HashMap::new();
        while let Some((vendor, product, year, month, day, quantity, name)) = rows.try_next().await? {
            let key = DayKey { vendor, product, year, month, day };
            let quantity = match quantity {
                Some(CqlValue::Int(quantity)) => quantity.into(),
                Some(CqlValue::BigInt(quantity)) => quantity,
                _ if parked.has_day(&key) => continue,
                other => bail!("the quantity of product {product} on {year}-{month:02}-{day:02} is {other:?}"),
            };
            let names = BTreeSet::from_iter(name);
            days.insert(key, Sold { quantity, names });
        }
        anyhow::Ok(days)
    };
    read.await.with_context(|| format!("reading table {table}"))
}

/// Reads PostgreSQL's `vendor_billing`, a view of the active generation.
///
/// # Errors
/// PostgreSQL is unavailable.
pub async fn read_vendor_billing(database: &PgPool) -> anyhow::Result<HashMap<MonthKey, Decimal>> {
    sqlx::query_as("SELECT vendor_id, year, month, balance FROM vendor_billing")
        .fetch(database)
        .map_ok(|(vendor, year, month, balance)| (MonthKey { vendor, year, month }, balance))
        .try_collect()
        .await
        .context("reading table vendor_billing")
}

/// Converts exactly; a value that does not fit is an error.
pub(crate) fn decimal(value: &CqlDecimal) -> anyhow::Result<Decimal> {
    let (bytes, scale) = value.as_signed_be_bytes_slice_and_exponent();
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [sign; size_of::<i128>()];
    let padding = wide.len().checked_sub(bytes.len()).context("a balance has more than 38 digits")?;
    wide[padding..].copy_from_slice(bytes);
    let mantissa = i128::from_be_bytes(wide);
    let too_large = || format!("a balance of {mantissa}, scale {scale}, has more than 28 digits");
    match u32::try_from(scale) {
        Ok(scale) => Decimal::try_from_i128_with_scale(mantissa, scale).with_context(too_large),
        // A negative scale stands for zeros before the point.
        Err(_) => 10_i128
            .checked_pow(scale.unsigned_abs())
            .and_then(|power| mantissa.checked_mul(power))
            .and_then(|whole| Decimal::try_from_i128_with_scale(whole, 0).ok())
            .with_context(too_large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cassandras_decimals_exactly() {
        for (bytes, scale, expected) in [
            (vec![0x01], 3, "0.001"),
            (vec![0xff], 0, "-1"),
            (vec![0x01, 0x05, 0x65, 0x86, 0x4c], 3, "4385506.892"),
            (vec![0x0c], -2, "1200"),
            (vec![], 0, "0"),
        ] {
            let value = CqlDecimal::from_signed_be_bytes_and_exponent(bytes, scale);
            assert_eq!(decimal(&value).expect("it fits").to_string(), expected);
        }
        assert!(decimal(&CqlDecimal::from_signed_be_bytes_and_exponent(vec![1; 16], 0)).is_err());
        assert!(decimal(&CqlDecimal::from_signed_be_bytes_and_exponent(vec![1], i32::MIN)).is_err());
    }
}
