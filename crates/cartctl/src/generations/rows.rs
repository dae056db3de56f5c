//! Rows of any read model, and what they are added up from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::Context as _;
use cart::contract::ReadTable;
use cart::{ParkedRow, PurchasedItem};
use chrono::Datelike as _;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::totals::{DayKey, MonthKey};

/// Names a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum RowKey {
    Day(DayKey),
    Month(MonthKey),
}

impl RowKey {
    /// The row that a purchase belongs to.
    pub(super) fn of(table: ReadTable, purchase: &PurchasedItem) -> Self {
        let (vendor, product, at) =
            (purchase.vendor_id.as_uuid(), purchase.product_id.as_uuid(), purchase.purchased_at);
        let (year, month, day) = (at.year(), at.month().cast_signed(), at.day().cast_signed());
        match table {
            ReadTable::ItemQuantityByDay => Self::Day(DayKey { vendor, product, year, month, day }),
            ReadTable::BalanceByVendor | ReadTable::VendorBilling => Self::Month(MonthKey { vendor, year, month }),
        }
    }

    /// The row that a marker is of; `None` if its key names none.
    pub(super) fn of_parked(row: &ParkedRow) -> Option<Self> {
        let vendor = row.vendor_id.as_uuid();
        let (period, product) = match row.row_key.split_once(' ') {
            Some((period, product)) => (period, Some(product.parse::<Uuid>().ok()?)),
            None => (row.row_key.as_str(), None),
        };
        let numbers = period.split('-').map(|number| number.parse::<i32>().ok()).collect::<Option<Vec<i32>>>()?;
        match (numbers.as_slice(), product) {
            (&[year, month, day], Some(product)) => Some(Self::Day(DayKey { vendor, product, year, month, day })),
            (&[year, month], None) => Some(Self::Month(MonthKey { vendor, year, month })),
            _ => None,
        }
    }

    pub(super) fn day(&self) -> Option<DayKey> {
        match self {
            Self::Day(key) => Some(*key),
            Self::Month(_) => None,
        }
    }

    pub(super) fn month(&self) -> Option<MonthKey> {
        match self {
            Self::Day(_) => None,
            Self::Month(key) => Some(*key),
        }
    }

    pub(super) fn vendor(&self) -> Uuid {
        match self {
            Self::Day(key) => key.vendor,
            Self::Month(key) => key.vendor,
        }
    }

    pub(super) fn product(&self) -> Option<Uuid> {
        match self {
            Self::Day(key) => Some(key.product),
            Self::Month(_) => None,
        }
    }

    /// The day or the month, as `2026-11-03` or `2026-11`.
    pub(super) fn period(&self) -> String {
        match self {
            Self::Day(DayKey { year, month, day, .. }) => format!("{year}-{month:02}-{day:02}"),
            Self::Month(MonthKey { year, month, .. }) => format!("{year}-{month:02}"),
        }
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vendor {}", self.vendor())?;
        if let Some(product) = self.product() {
            write!(f, " product {product}")?;
        }
        write!(f, " {}", self.period())
    }
}

/// What a row says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// Pieces, or a balance.
    pub(super) total: Decimal,
    /// The product's name, where the table has it.
    pub(super) name: Option<String>,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) value: Value,
    /// Behind the row's newest record; 0 where the table does not say it, or for a record of an earlier log.
    pub(super) next: i64,
}

/// The markers of parked rows.
pub(super) type ParkedByKey = BTreeMap<RowKey, ParkedRow>;

/// Finds out of which row each marker is.
pub(super) fn by_key(parked: Vec<ParkedRow>) -> anyhow::Result<ParkedByKey> {
    let with_key = |row: ParkedRow| {
        let key = RowKey::of_parked(&row);
        let key = key.with_context(|| format!("the marker of a parked row names none: '{}'", row.row_key))?;
        anyhow::Ok((key, row))
    };
    parked.into_iter().map(with_key).collect()
}

/// All rows of a generation.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: HashMap<RowKey, Row>,
    /// By partition: the rows include every record before these offsets. A row may include more.
    pub(super) next: BTreeMap<i32, i64>,
    /// Rows that lack records because they are parked; also those that are not in the table.
    pub(super) parked: ParkedByKey,
}

impl Rows {
    /// The row of this key, if there is one, includes every record of it before this offset and none behind.
    pub(super) fn frontier(&self, key: &RowKey, partition: i32) -> i64 {
        let of_row = self.rows.get(key).map_or(0, |row| row.next);
        of_row.max(self.next_in(partition))
    }

    /// The rows include every record of a partition before this offset.
    pub(super) fn next_in(&self, partition: i32) -> i64 {
        self.next.get(&partition).copied().unwrap_or_default()
    }
}

/// A record's part of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) offset: i64,
    pub(super) amount: Decimal,
    pub(super) name: Option<String>,
}

impl Change {
    pub(super) fn of(table: ReadTable, offset: i64, purchase: &PurchasedItem) -> Self {
        match table {
            ReadTable::ItemQuantityByDay => {
                Self { offset, amount: purchase.quantity.get().into(), name: Some(purchase.name.as_str().to_owned()) }
            }
            ReadTable::BalanceByVendor | ReadTable::VendorBilling => {
                Self { offset, amount: purchase.amount(), name: None }
            }
        }
    }
}

/// The changes of each row, in the order of their offsets.
pub(super) type Changes = HashMap<RowKey, Vec<Change>>;

#[cfg(test)]
mod tests {
    use cart::{LogEpoch, Position, day_row_key, month_row_key};

    use super::*;
    use crate::{product_id, vendor_id};

    #[test]
    fn a_marker_names_its_row() {
        let (vendor, product) = (vendor_id("V"), product_id("P"));
        let of = |row_key: &str| {
            RowKey::of_parked(&ParkedRow {
                partition: 3,
                vendor_id: vendor.into(),
                row_key: row_key.to_owned(),
                first_position: Position::new(LogEpoch::FIRST, 7),
                next_position: Position::new(LogEpoch::FIRST, 7),
                reason: String::from("row-overflows: full"),
                since: chrono::DateTime::UNIX_EPOCH,
                retry_by: None,
                revision: 0,
            })
        };
        let day = RowKey::Day(DayKey { vendor, product, year: 2026, month: 3, day: 7 });
        assert_eq!(of(&day_row_key(product, 2026, 3, 7)), Some(day));
        assert_eq!(of(&month_row_key(2026, 11)), Some(RowKey::Month(MonthKey { vendor, year: 2026, month: 11 })));
        assert_eq!((of("2026-11-03"), of("2026-11 mug"), of("")), (None, None, None));
    }
}
