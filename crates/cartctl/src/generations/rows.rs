//! Rows of any read model, and what they are added up from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use cart::PurchasedItem;
use cart::contract::ReadTable;
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

/// All rows of a generation.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: HashMap<RowKey, Row>,
    /// By partition: the rows include every record before these offsets. A row may include more.
    pub(super) next: BTreeMap<i32, i64>,
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
