//! What vendors have sold, from the tables that `popular-items` and `vendor-billing` keep in Cassandra.

use std::sync::Arc;

use cart::contract::ReadTable;
use cart::{Generation, ProductId, VendorId, month_row_key};
use cassandra::read_models::is_missing_table;
use cassandra::{Error, TableStatement, decimal_from_cql, parked_rows};
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
    /// The parked rows of each.
    parked_balances: TableStatement,
    parked_quantities: TableStatement,
}

/// The rows of a vendor that a read returns: their keys begin and end so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadRows {
    beginning: String,
    end: String,
}

impl ReadRows {
    /// All months of a year.
    pub(super) fn of_year(year: i32) -> Self {
        Self { beginning: format!("{year}-"), end: String::new() }
    }

    /// A product's days of a month.
    pub(super) fn of_month(product_id: ProductId, year: i32, month: i32) -> Self {
        Self { beginning: format!("{}-", month_row_key(year, month)), end: format!(" {product_id}") }
    }

    fn have(&self, row_key: &str) -> bool {
        row_key.starts_with(&self.beginning) && row_key.ends_with(&self.end)
    }

    /// The months, or the days, of those of these rows that are read.
    fn numbers(&self, keys: &[String]) -> Vec<i32> {
        let number = |key: &String| key.split(' ').next()?.rsplit('-').next()?.parse().ok();
        keys.iter().filter(|key| self.have(key)).filter_map(number).collect()
    }
}

/// The balances of a vendor in a year.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Billing {
    #[schemars(with = "Uuid")]
    vendor_id: VendorId,
    year: i32,
    balances: Vec<Balance>,
    /// The months whose balance may lack purchases until an operator has repaired its row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parked: Vec<i32>,
}

impl Billing {
    /// Names the parked rows by their keys.
    pub(super) fn with_parked(self, rows: &ReadRows, keys: &[String]) -> Self {
        Self { parked: rows.numbers(keys), ..self }
    }
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
    /// The days whose quantity may lack purchases until an operator has repaired its row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parked: Vec<i32>,
}

impl Quantities {
    /// As [`Billing::with_parked`].
    pub(super) fn with_parked(self, rows: &ReadRows, keys: &[String]) -> Self {
        Self { parked: rows.numbers(keys), ..self }
    }
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
        let parked = ["SELECT row_key, progress FROM ", "_parked WHERE log_partition = ? AND vendorid = ?"];
        Self {
            session,
            balances: TableStatement::new(ReadTable::BalanceByVendor, balances),
            quantities: TableStatement::new(ReadTable::ItemQuantityByDay, quantities),
            parked_balances: TableStatement::new(ReadTable::BalanceByVendor, parked),
            parked_quantities: TableStatement::new(ReadTable::ItemQuantityByDay, parked),
        }
    }

    /// A parked row of a vendor among those that are to be read: its key, and why; `None` if there is none. `partition` is the vendor's
    /// of item-purchased. A projector that has committed past a record has added it, or its row is among these.
    pub(super) async fn parked(
        &self,
        (table, generation): (ReadTable, Generation),
        (partition, vendor_id): (i32, VendorId),
        rows: &ReadRows,
    ) -> Result<Option<(String, String)>, Error> {
        let statement = match table {
            ReadTable::BalanceByVendor => &self.parked_balances,
            ReadTable::ItemQuantityByDay => &self.parked_quantities,
            // It is not in Cassandra.
            ReadTable::VendorBilling => return Ok(None),
        };
        let values = (partition, vendor_id.as_uuid());
        match self.rows::<(String, String)>(statement, generation, values).await {
            Ok(parked) => {
                let parked = parked.into_iter().find(|(row_key, _)| rows.have(row_key));
                Ok(parked.map(|(row_key, cell)| match parked_rows::parse_progress(&cell) {
                    Some((_, _, reason)) => (row_key, reason),
                    None => (row_key, cell),
                }))
            }
            // `setup` of this version has not run: its projectors do not run either.
            Err(error) if is_missing_table(&error, &parked_rows::table_name(&statement.table(generation))) => Ok(None),
            Err(error) => Err(error),
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
        Ok(Billing { vendor_id, year, balances: balances.collect::<Result<_, _>>()?, parked: Vec::new() })
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
        Ok(Quantities { vendor_id, product_id, year, month, name, days, parked: Vec::new() })
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

#[cfg(test)]
mod tests {
    use cart::day_row_key;

    use super::*;

    #[test]
    fn a_read_has_the_rows_of_its_time_and_product() {
        let year = ReadRows::of_year(2026);
        assert!(year.have(&month_row_key(2026, 1)) && !year.have(&month_row_key(2025, 12)));
        let [product, other] = [1, 2].map(Uuid::from_u128);
        let month = ReadRows::of_month(product.into(), 2026, 1);
        assert!(month.have(&day_row_key(product, 2026, 1, 31)));
        assert!(!month.have(&day_row_key(other, 2026, 1, 31)) && !month.have(&day_row_key(product, 2026, 11, 1)));
    }

    #[test]
    fn parked_rows_are_named_by_month_and_day() {
        let [vendor, product] = [1, 2].map(Uuid::from_u128);
        let billing = Billing { vendor_id: vendor.into(), year: 2026, balances: Vec::new(), parked: Vec::new() };
        let keys = vec![month_row_key(2026, 3), month_row_key(2025, 4), month_row_key(2026, 12)];
        assert_eq!(billing.with_parked(&ReadRows::of_year(2026), &keys).parked, [3, 12]);
        let quantities = Quantities {
            vendor_id: vendor.into(),
            product_id: product.into(),
            year: 2026,
            month: 3,
            name: None,
            days: Vec::new(),
            parked: Vec::new(),
        };
        let keys = vec![day_row_key(product, 2026, 3, 7), day_row_key(vendor, 2026, 3, 8)];
        assert_eq!(quantities.with_parked(&ReadRows::of_month(product.into(), 2026, 3), &keys).parked, [7]);
    }
}
