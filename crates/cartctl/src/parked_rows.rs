//! The parked rows of the read tables, for the verbs that read these.

use std::collections::HashSet;
use std::fmt;

use cart::contract::{Contract as _, READ_MODELS, ReadModel, Store};
use cart::{Generation, ParkedRow, PurchasedItem, VendorId, day_row_key, month_row_key};
use chrono::{DateTime, SecondsFormat, Utc};
use kafka::KafkaArgs;
use scylla::client::session::Session;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::totals::{DayKey, MonthKey};

/// A parked row as it is shown; its fields are those of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedRow {
    /// The consumer group of its generation.
    pub projector: String,
    pub vendor_id: VendorId,
    /// The row within the vendor: a month, or a day and a product.
    pub row: String,
    /// The partition of item-purchased.
    pub partition: i32,
    pub state: &'static str,
    pub since: DateTime<Utc>,
    pub reason: String,
    /// The row includes its records before this offset.
    pub next_offset: i64,
}

impl ListedRow {
    pub(crate) fn of(projector: &str, row: &ParkedRow) -> Self {
        Self {
            projector: projector.to_owned(),
            vendor_id: row.vendor_id,
            row: row.row_key.clone(),
            partition: row.partition,
            state: row.state(),
            since: row.since,
            reason: row.reason.clone(),
            next_offset: row.next_position.offset(),
        }
    }
}

impl fmt::Display for ListedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { projector, vendor_id, row, partition, state, since, reason, next_offset } = self;
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        write!(
            f,
            "{projector}: vendor {vendor_id} {row}: {state} since {since} at item-purchased/{partition}/{next_offset}: {reason}"
        )
    }
}

/// The parked rows of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedKeys(HashSet<(Uuid, String)>);

impl ParkedKeys {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the row of a month is parked.
    #[must_use]
    pub fn has_month(&self, MonthKey { vendor, year, month }: &MonthKey) -> bool {
        !self.is_empty() && self.0.contains(&(*vendor, month_row_key(*year, *month)))
    }

    /// Whether the row of a day is parked.
    #[must_use]
    pub fn has_day(&self, DayKey { vendor, product, year, month, day }: &DayKey) -> bool {
        !self.is_empty() && self.0.contains(&(*vendor, day_row_key(*product, *year, *month, *day)))
    }
}

impl<'a> FromIterator<&'a ParkedRow> for ParkedKeys {
    fn from_iter<T: IntoIterator<Item = &'a ParkedRow>>(rows: T) -> Self {
        Self(rows.into_iter().map(|row| (row.vendor_id.as_uuid(), row.row_key.clone())).collect())
    }
}

/// The stores of the read tables.
#[derive(Clone, Copy)]
pub(crate) struct Stores<'a> {
    pub(crate) kafka: &'a KafkaArgs,
    pub(crate) session: &'a Session,
    pub(crate) database: &'a PgPool,
}

impl<'a> Stores<'a> {
    fn store_of(self, model: ReadModel) -> ModelStore<'a> {
        let Self { kafka, session, database } = self;
        match model.store {
            Store::Cassandra => ModelStore::Cassandra(session),
            Store::Postgres => ModelStore::Postgres { kafka, database },
        }
    }

    /// The parked rows of a generation.
    pub(crate) async fn parked(self, model: ReadModel, generation: Generation) -> anyhow::Result<Vec<ParkedRow>> {
        self.store_of(model).parked(model, generation).await
    }

    /// The parked rows of all generations, each with its projector's group.
    pub(crate) async fn all(self) -> anyhow::Result<Vec<(String, ParkedRow)>> {
        let mut all = Vec::new();
        for model in READ_MODELS {
            all.extend(self.store_of(model).all(model).await?);
        }
        Ok(all)
    }
}

/// The store of a read model.
#[derive(Clone, Copy)]
pub(crate) enum ModelStore<'a> {
    Cassandra(&'a Session),
    Postgres { kafka: &'a KafkaArgs, database: &'a PgPool },
}

impl ModelStore<'_> {
    async fn parked(self, model: ReadModel, generation: Generation) -> anyhow::Result<Vec<ParkedRow>> {
        let group = model.group_name(generation);
        Ok(match self {
            Self::Cassandra(session) => {
                cassandra::parked_rows::list(session, &model.table_name(generation), &group).await?
            }
            Self::Postgres { kafka, database } => {
                let topic = kafka.prefixed(PurchasedItem::TOPIC);
                let mut connection = database.acquire().await?;
                postgres::parked_rows::list(&mut connection, &group, &topic).await?
            }
        })
    }

    /// The parked rows of all generations of the model, each with its projector's group.
    pub(crate) async fn all(self, model: ReadModel) -> anyhow::Result<Vec<(String, ParkedRow)>> {
        let generations = match self {
            Self::Cassandra(session) => cassandra::read_models::generations(session, model).await?,
            Self::Postgres { database, .. } => postgres::read_models::generations(database, model).await?,
        };
        let mut all = Vec::new();
        for generation in generations {
            let rows = self.parked(model, generation).await?;
            all.extend(rows.into_iter().map(|row| (model.group_name(generation), row)));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use cart::{LogEpoch, Position, RowFault};

    use super::*;
    use crate::{product_id, vendor_id};

    #[test]
    fn a_parked_row_is_found_by_its_key() {
        let (vendor, product) = (vendor_id("V"), product_id("P"));
        let row = |row_key| ParkedRow {
            partition: 3,
            vendor_id: vendor.into(),
            row_key,
            first_position: Position::new(LogEpoch::FIRST, 77),
            next_position: Position::new(LogEpoch::FIRST, 77),
            reason: RowFault::Overflows(String::from("full")).reason(),
            since: DateTime::UNIX_EPOCH,
            retry_by: None,
            revision: 0,
        };
        let rows = [row(month_row_key(2026, 3)), row(day_row_key(product, 2026, 3, 7))];
        let keys: ParkedKeys = rows.iter().collect();
        let month = |month| MonthKey { vendor, year: 2026, month };
        assert!(keys.has_month(&month(3)) && !keys.has_month(&month(4)));
        let day = |day| DayKey { vendor, product, year: 2026, month: 3, day };
        assert!(keys.has_day(&day(7)) && !keys.has_day(&day(8)));
        assert_eq!(
            ListedRow::of("vendor-billing", &rows[0]).to_string(),
            format!(
                "vendor-billing: vendor {vendor} 2026-03: parked since 1970-01-01T00:00:00Z at item-purchased/3/77: \
                 row-overflows: full"
            )
        );
    }
}
