//! `vendor-billing`: what a vendor has sold for in a month (UTC). Cassandra `balance_by_vendor`.

use std::sync::Arc;

use cart::PurchasedItem;
use cassandra::{Error, decimal_from_cql, decimal_to_cql};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlDecimal;
use uuid::Uuid;

use crate::balance::{Month, add_exactly};
use crate::totals::{Key, Row, Rows, Table};
use crate::write_base::WriteBase;

/// A row, about.
const ROW_LEN: usize = 80;

/// The statement that creates the table of a generation. Readers know all columns but `position`.
pub(crate) fn create(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (vendorid uuid, year int, month int, balance decimal, position bigint, \
         PRIMARY KEY ((vendorid, year), month)) WITH CLUSTERING ORDER BY (month DESC)"
    )
}

/// The table, prepared.
#[derive(Debug)]
pub(crate) struct VendorBilling {
    session: Arc<Session>,
    table: String,
    select: PreparedStatement,
    insert: PreparedStatement,
    base: WriteBase,
}

impl VendorBilling {
    pub(crate) async fn open(session: Arc<Session>, table: String, base: WriteBase) -> Result<Self, Error> {
        let select =
            format!("SELECT vendorid, balance, position FROM {table} WHERE vendorid IN ? AND year = ? AND month = ?");
        let insert = format!(
            "INSERT INTO {table} (vendorid, year, month, balance, position) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let failed = |error| Error::new(format!("preparing the statements of {table}"), error);
        let mut select = session.prepare(select).await.map_err(failed)?;
        let mut insert = session.prepare(insert).await.map_err(failed)?;
        select.set_is_idempotent(true);
        insert.set_is_idempotent(true);
        Ok(Self { session, table, select, insert, base })
    }
}

impl Table for VendorBilling {
    type Within = Month;
    type Common = Month;
    type Total = Decimal;

    fn name(&self) -> &str {
        &self.table
    }

    fn within(purchase: &PurchasedItem) -> Month {
        Month::of(purchase)
    }

    fn add(total: Option<&Decimal>, purchase: &PurchasedItem) -> Option<Decimal> {
        add_exactly(total.copied().unwrap_or_default(), purchase.amount())
    }

    fn common(key: &Key<Month>) -> Month {
        key.within
    }

    async fn read(&self, keys: &[Key<Month>]) -> Result<Rows<Self>, Error> {
        let Some(&Key { within: month, .. }) = keys.first() else { return Ok(Vec::new()) };
        let operation = || format!("reading {} balances of {}-{:02}", keys.len(), month.year, month.month);
        let vendors: Vec<_> = keys.iter().map(|key| key.vendor_id.as_uuid()).collect();
        let result = self
            .session
            .execute_unpaged(&self.select, (vendors, month.year, month.month))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<(Uuid, CqlDecimal, i64)>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| {
            let (vendor_id, balance, position) = row.map_err(|error| Error::new(operation(), error))?;
            let total = decimal_from_cql(&balance)
                .ok_or_else(|| Error::undecodable(operation(), "a balance is not a decimal of at most 28 digits"))?;
            Ok((Key { vendor_id: vendor_id.into(), within: month }, Row { total, position: position.into() }))
        })
        .collect()
    }

    async fn renew(&self) -> Result<(), Error> {
        self.base.renew().await
    }

    fn write_base(&self) -> i16 {
        self.base.get()
    }

    fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>> {
        cassandra::groups(&self.session, &self.table, rows, |(key, _)| {
            ((key.vendor_id.as_uuid(), key.within.year), ROW_LEN)
        })
    }

    async fn write(&self, rows: &Rows<Self>) -> Result<(), Error> {
        let base = self.write_base();
        let values = rows.iter().map(|(key, row)| {
            let balance = decimal_to_cql(row.total);
            (
                key.vendor_id.as_uuid(),
                key.within.year,
                key.within.month,
                balance,
                row.position.get(),
                row.timestamp_above(base),
            )
        });
        cassandra::write_rows(&self.session, &self.insert, values.collect())
            .await
            .map_err(|error| Error::new(format!("writing {} balances", rows.len()), error))
    }
}
