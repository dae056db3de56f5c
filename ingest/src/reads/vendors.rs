//! What vendors have sold, from the tables that `popular-items` and `vendor-billing` keep in Cassandra.

use std::sync::Arc;

use cart::contract::ReadTable;
use cart::{Generation, ProductId, VendorId};
use cassandra::{Error, TableStatement, decimal_from_cql};
use futures::TryStreamExt as _;
use schemars::JsonSchema;
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::value::CqlDecimal;
use serde::Serialize;
use uuid::Uuid;

use crate::schema;

/// The read tables, each of the generation that a read names.
#[derive(Debug)]
pub(super) struct Tables {
    session: Arc<Session>,
    balances: TableStatement,
    quantities: TableStatement,
}

/// The balances of a vendor in a year.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Billing {
    #[schemars(with = "Uuid")]
    vendor_id: VendorId,
    year: i32,
    balances: Vec<Balance>,
}

/// A vendor's sales in a month (UTC).
#[derive(Debug, Serialize, JsonSchema)]
struct Balance {
    month: i32,
    #[schemars(with = "schema::Amount")]
    balance: String,
}

/// The sold pieces of a vendor's product in a month.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quantities {
    #[schemars(with = "Uuid")]
    vendor_id: VendorId,
    #[schemars(with = "Uuid")]
    product_id: ProductId,
    year: i32,
    month: i32,
    /// The product's name in the newest purchase of the month, in the order of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    days: Vec<Day>,
}

/// The number of pieces sold on a day (UTC).
#[derive(Debug, Serialize, JsonSchema)]
struct Day {
    day: i32,
    quantity: i64,
}

impl Tables {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let balances = ["SELECT month, balance FROM ", " WHERE vendorid = ? AND year = ? ORDER BY month ASC"];
        let quantities =
            ["SELECT day, quantity, name FROM ", " WHERE vendorid = ? AND productid = ? AND year = ? AND month = ?"];
        Self {
            session,
            balances: TableStatement::new(ReadTable::BalanceByVendor, balances),
            quantities: TableStatement::new(ReadTable::ItemQuantityByDay, quantities),
        }
    }

    /// The months of a vendor's year in which something was sold.
    pub(super) async fn billing(
        &self,
        generation: Generation,
        vendor_id: VendorId,
        year: i32,
    ) -> Result<Billing, Error> {
        let rows: Vec<(i32, CqlDecimal)> = self.rows(&self.balances, generation, (vendor_id.as_uuid(), year)).await?;
        let balances = rows.into_iter().map(|(month, balance)| {
            let balance = decimal_from_cql(&balance).ok_or_else(|| {
                let operation = reading(&self.balances.table(generation));
                Error::new(operation, format!("{vendor_id}'s balance of {year}-{month} does not fit"))
            })?;
            Ok(Balance { month, balance: balance.normalize().to_string() })
        });
        Ok(Billing { vendor_id, year, balances: balances.collect::<Result<_, _>>()? })
    }

    /// The days of a month on which a product of a vendor's was sold.
    pub(super) async fn quantities(
        &self,
        generation: Generation,
        vendor_id: VendorId,
        product_id: ProductId,
        year: i32,
        month: i32,
    ) -> Result<Quantities, Error> {
        let values = (vendor_id.as_uuid(), product_id.as_uuid(), year, month);
        let mut rows: Vec<(i32, i64, String)> = self.rows(&self.quantities, generation, values).await?;
        let name = rows.last_mut().map(|(_, _, name)| std::mem::take(name));
        let days = rows.into_iter().map(|(day, quantity, _)| Day { day, quantity }).collect();
        Ok(Quantities { vendor_id, product_id, year, month, name, days })
    }

    /// The rows of one partition: at most as many as a year has months, or a month has days.
    async fn rows<R>(
        &self,
        statement: &TableStatement,
        generation: Generation,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, Error>
    where
        R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata> + 'static,
    {
        let prepared = statement.prepare(&self.session, generation).await?;
        let name = statement.table(generation);
        let pager = self.session.execute_iter(prepared, values).await;
        let rows = pager
            .map_err(|error| Error::new(reading(&name), error))?
            .rows_stream::<R>()
            .map_err(|error| Error::new(reading(&name), error))?;
        rows.try_collect().await.map_err(|error| Error::new(reading(&name), error))
    }
}

fn reading(table: &str) -> String {
    format!("reading table {table}")
}
