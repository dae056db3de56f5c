//! What vendors have sold, from the tables that `popular-items` and `vendor-billing` keep in Cassandra.

use std::sync::Arc;

use cart::{ProductId, VendorId};
use cassandra::{Error, decimal_from_cql};
use futures::TryStreamExt as _;
use schemars::JsonSchema;
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlDecimal;
use serde::Serialize;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::schema;

/// The read tables. Statements are prepared at the first read: `projectors setup` may create the tables after ingest has
/// started.
#[derive(Debug)]
pub(super) struct Tables {
    session: Arc<Session>,
    statements: OnceCell<Statements>,
}

#[derive(Debug)]
struct Statements {
    balances: PreparedStatement,
    quantities: PreparedStatement,
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
        Self { session, statements: OnceCell::new() }
    }

    /// The months of a vendor's year in which something was sold.
    pub(super) async fn billing(&self, vendor_id: VendorId, year: i32) -> Result<Billing, Error> {
        const OPERATION: &str = "reading table balance_by_vendor";
        let statements = self.statements().await?;
        let rows: Vec<(i32, CqlDecimal)> =
            self.rows(OPERATION, &statements.balances, (vendor_id.as_uuid(), year)).await?;
        let balances = rows.into_iter().map(|(month, balance)| {
            let balance = decimal_from_cql(&balance).ok_or_else(|| {
                Error::new(OPERATION, format!("{vendor_id}'s balance of {year}-{month} does not fit"))
            })?;
            Ok(Balance { month, balance: balance.normalize().to_string() })
        });
        Ok(Billing { vendor_id, year, balances: balances.collect::<Result<_, _>>()? })
    }

    /// The days of a month on which a product of a vendor's was sold.
    pub(super) async fn quantities(
        &self,
        vendor_id: VendorId,
        product_id: ProductId,
        year: i32,
        month: i32,
    ) -> Result<Quantities, Error> {
        let statements = self.statements().await?;
        let values = (vendor_id.as_uuid(), product_id.as_uuid(), year, month);
        let mut rows: Vec<(i32, i64, String)> =
            self.rows("reading table item_quantity_by_day", &statements.quantities, values).await?;
        let name = rows.last_mut().map(|(_, _, name)| std::mem::take(name));
        let days = rows.into_iter().map(|(day, quantity, _)| Day { day, quantity }).collect();
        Ok(Quantities { vendor_id, product_id, year, month, name, days })
    }

    async fn statements(&self) -> Result<&Statements, Error> {
        let prepare = async || {
            Ok(Statements {
                balances: self
                    .prepare(
                        "SELECT month, balance FROM balance_by_vendor WHERE vendorid = ? AND year = ? ORDER BY month ASC",
                    )
                    .await?,
                quantities: self
                    .prepare(
                        "SELECT day, quantity, name FROM item_quantity_by_day \
                         WHERE vendorid = ? AND productid = ? AND year = ? AND month = ?",
                    )
                    .await?,
            })
        };
        self.statements.get_or_try_init(prepare).await
    }

    async fn prepare(&self, statement: &str) -> Result<PreparedStatement, Error> {
        let prepared = self.session.prepare(statement).await;
        let mut prepared = prepared.map_err(|error| Error::new(format!("preparing '{statement}'"), error))?;
        prepared.set_is_idempotent(true);
        Ok(prepared)
    }

    /// The rows of one partition: at most as many as a year has months, or a month has days.
    async fn rows<R>(
        &self,
        operation: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, Error>
    where
        R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata> + 'static,
    {
        let pager = self.session.execute_iter(statement.clone(), values).await;
        let rows = pager
            .map_err(|error| Error::new(operation, error))?
            .rows_stream::<R>()
            .map_err(|error| Error::new(operation, error))?;
        rows.try_collect().await.map_err(|error| Error::new(operation, error))
    }
}
