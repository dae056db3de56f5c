//! `popular-items`: how many pieces of a product were sold on a day (UTC). Cassandra `item_quantity_by_day`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use cart::{PurchasedItem, day_row_key};
use cassandra::Error;
use chrono::Datelike as _;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::totals::{Key, Row, Rows, Table};
use crate::write_base::WriteBase;

/// A row without its name.
const ROW_LEN: usize = 100;

/// The statement that creates the table of a generation. Readers know all columns but `position`.
pub(crate) fn create(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (\
         vendorid uuid, productid uuid, year int, month int, day int, quantity bigint, name text, position bigint, \
         PRIMARY KEY ((vendorid, productid, year, month), day)) WITH CLUSTERING ORDER BY (day ASC)"
    )
}

/// The table, prepared.
#[derive(Debug)]
pub(crate) struct PopularItems {
    session: Arc<Session>,
    table: String,
    select: PreparedStatement,
    insert: PreparedStatement,
    base: WriteBase,
}

/// A product on a day.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProductDay {
    product_id: Uuid,
    year: i32,
    month: i32,
    day: i32,
}

impl fmt::Display for ProductDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&day_row_key(self.product_id, self.year, self.month, self.day))
    }
}

/// Pieces, and what the product was called when it was last bought.
#[derive(Debug, Clone)]
pub(crate) struct Sold {
    quantity: i64,
    name: String,
}

impl PopularItems {
    pub(crate) async fn open(session: Arc<Session>, table: String, base: WriteBase) -> Result<Self, Error> {
        let select = format!(
            "SELECT productid, day, quantity, name, position FROM {table} \
             WHERE vendorid = ? AND productid IN ? AND year = ? AND month = ? AND day IN ?"
        );
        let insert = format!(
            "INSERT INTO {table} (vendorid, productid, year, month, day, quantity, name, position) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let failed = |error| Error::new(format!("preparing the statements of {table}"), error);
        let mut select = session.prepare(select).await.map_err(failed)?;
        let mut insert = session.prepare(insert).await.map_err(failed)?;
        select.set_is_idempotent(true);
        insert.set_is_idempotent(true);
        Ok(Self { session, table, select, insert, base })
    }
}

impl Table for PopularItems {
    type Within = ProductDay;
    /// Vendor, year and month.
    type Common = (Uuid, i32, i32);
    type Total = Sold;

    fn name(&self) -> &str {
        &self.table
    }

    fn within(purchase: &PurchasedItem) -> ProductDay {
        let day = purchase.purchased_at;
        ProductDay {
            product_id: purchase.product_id.as_uuid(),
            year: day.year(),
            month: day.month().cast_signed(),
            day: day.day().cast_signed(),
        }
    }

    fn add(total: Option<&Sold>, purchase: &PurchasedItem) -> Option<Sold> {
        let quantity = total.map_or(0, |sold| sold.quantity).checked_add(purchase.quantity.get().into())?;
        Some(Sold { quantity, name: purchase.name.as_str().to_owned() })
    }

    fn common(key: &Key<ProductDay>) -> (Uuid, i32, i32) {
        (key.vendor_id.as_uuid(), key.within.year, key.within.month)
    }

    async fn read(&self, keys: &[Key<ProductDay>]) -> Result<Rows<Self>, Error> {
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let (vendor_id, year, month) = Self::common(first);
        let operation = || format!("reading {} quantities of vendor {vendor_id} in {year}-{month:02}", keys.len());
        let products: BTreeSet<_> = keys.iter().map(|key| key.within.product_id).collect();
        let days: BTreeSet<_> = keys.iter().map(|key| key.within.day).collect();
        let result = self
            .session
            .execute_unpaged(&self.select, (vendor_id, products, year, month, days))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<(Uuid, i32, i64, String, i64)>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| {
            let (product_id, day, quantity, name, position) = row.map_err(|error| Error::new(operation(), error))?;
            let within = ProductDay { product_id, year, month, day };
            let key = Key { vendor_id: vendor_id.into(), within };
            Ok((key, Row { total: Sold { quantity, name }, position: position.into() }))
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
        cassandra::groups(&self.session, &self.table, rows, |(key, row)| {
            let ProductDay { product_id, year, month, .. } = key.within;
            let partition = (key.vendor_id.as_uuid(), product_id, year, month);
            (partition, ROW_LEN + row.total.name.len())
        })
    }

    async fn write(&self, rows: &Rows<Self>) -> Result<(), Error> {
        let base = self.write_base();
        let values = rows.iter().map(|(key, row)| {
            let ProductDay { product_id, year, month, day } = &key.within;
            let Sold { quantity, name } = &row.total;
            (
                key.vendor_id.as_uuid(),
                product_id,
                year,
                month,
                day,
                quantity,
                name,
                row.position.get(),
                row.timestamp_above(base),
            )
        });
        cassandra::write_rows(&self.session, &self.insert, values.collect())
            .await
            .map_err(|error| Error::new(format!("writing {} quantities", rows.len()), error))
    }
}
