//! `vendor-billing`: what a vendor has sold for in a month (UTC). Cassandra `balance_by_vendor`.

use std::sync::Arc;

use cart::PurchasedItem;
use cassandra::{Error, decimal_from_cql, decimal_to_cql};
use chrono::Datelike as _;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlDecimal;
use uuid::Uuid;

use crate::totals::{Row, Rows, Table};

const TABLE: &str = "balance_by_vendor";

/// A row, about.
const ROW_LEN: usize = 80;

// Readers know all columns but `position`.
pub(crate) const CREATE: &str = "CREATE TABLE IF NOT EXISTS balance_by_vendor (\
    vendorid uuid, year int, month int, balance decimal, position bigint, \
    PRIMARY KEY ((vendorid, year), month)) WITH CLUSTERING ORDER BY (month DESC)";

/// The table, prepared.
#[derive(Debug)]
pub(crate) struct VendorBilling {
    session: Arc<Session>,
    select: PreparedStatement,
    insert: PreparedStatement,
}

/// A vendor in a month.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) vendor_id: Uuid,
    pub(crate) year: i32,
    pub(crate) month: i32,
}

impl Key {
    pub(crate) fn of(purchase: &PurchasedItem) -> Self {
        let at = purchase.purchased_at;
        Self { vendor_id: purchase.vendor_id.as_uuid(), year: at.year(), month: at.month().cast_signed() }
    }
}

impl VendorBilling {
    pub(crate) async fn open(session: Arc<Session>) -> Result<Self, Error> {
        let select = "SELECT vendorid, balance, position FROM balance_by_vendor \
            WHERE vendorid IN ? AND year = ? AND month = ?";
        let insert = "INSERT INTO balance_by_vendor (vendorid, year, month, balance, position) VALUES (?, ?, ?, ?, ?) \
            USING TIMESTAMP ?";
        let failed = |error| Error::new("preparing the statements of balance_by_vendor", error);
        let mut select = session.prepare(select).await.map_err(failed)?;
        let mut insert = session.prepare(insert).await.map_err(failed)?;
        select.set_is_idempotent(true);
        insert.set_is_idempotent(true);
        Ok(Self { session, select, insert })
    }
}

impl Table for VendorBilling {
    type Key = Key;
    /// Year and month.
    type Common = (i32, i32);
    type Total = Decimal;

    fn key(purchase: &PurchasedItem) -> Key {
        Key::of(purchase)
    }

    fn add(total: Option<&Decimal>, purchase: &PurchasedItem) -> Option<Decimal> {
        add_exactly(total.copied().unwrap_or_default(), purchase.amount())
    }

    fn common(key: &Key) -> (i32, i32) {
        (key.year, key.month)
    }

    async fn read(&self, keys: &[Key]) -> Result<Rows<Self>, Error> {
        let Some(&Key { year, month, .. }) = keys.first() else { return Ok(Vec::new()) };
        let operation = || format!("reading {} balances of {year}-{month:02}", keys.len());
        let vendors: Vec<_> = keys.iter().map(|key| key.vendor_id).collect();
        let result = self
            .session
            .execute_unpaged(&self.select, (vendors, year, month))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<(Uuid, CqlDecimal, i64)>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| {
            let (vendor_id, balance, position) = row.map_err(|error| Error::new(operation(), error))?;
            let total = decimal_from_cql(&balance)
                .ok_or_else(|| Error::new(operation(), "a balance is not a decimal of at most 28 digits"))?;
            Ok((Key { vendor_id, year, month }, Row { total, position: position.into() }))
        })
        .collect()
    }

    fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>> {
        cassandra::groups(&self.session, TABLE, rows, |(key, _)| ((key.vendor_id, key.year), ROW_LEN))
    }

    async fn write(&self, rows: &Rows<Self>) -> Result<(), Error> {
        let values = rows.iter().map(|(key, row)| {
            let balance = decimal_to_cql(row.total);
            (key.vendor_id, key.year, key.month, balance, row.position.get(), row.timestamp())
        });
        cassandra::write_rows(&self.session, &self.insert, values.collect())
            .await
            .map_err(|error| Error::new(format!("writing {} balances", rows.len()), error))
    }
}

/// The sum, or `None` where a `Decimal` would have to round it.
pub(crate) fn add_exactly(total: Decimal, amount: Decimal) -> Option<Decimal> {
    let scale = total.scale().max(amount.scale());
    total.checked_add(amount).filter(|sum| sum.scale() == scale || sum.is_zero()).map(|sum| sum.normalize())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_exact_or_none() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        assert_eq!(add_exactly(decimal("0.1"), decimal("0.2")), Some(decimal("0.3")));
        assert_eq!(add_exactly(decimal("0.5"), decimal("0.5")), Some(decimal("1")));
        assert_eq!(add_exactly(decimal("79228162514264337593543950335"), decimal("1")), None);
        assert_eq!(add_exactly(decimal("7922816251426433759354395033.5"), decimal("0.0001")), None);
    }
}
