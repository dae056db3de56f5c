//! The expected tables: sums of integers, and the newest position of each row.

use std::collections::BTreeMap;
use std::fmt::Debug;

use cart::EventId;
use cart::contract::{READ_MODELS, ReadTable};
use chrono::Datelike as _;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::shop::Line;

/// How many differences of a table are reported.
const TOLD_MAX: usize = 10;

/// Vendor, year, month.
pub(crate) type Month = (Uuid, i32, i32);

/// Vendor, product, year, month, day.
pub(crate) type Day = (Uuid, Uuid, i32, i32, i32);

/// A row of `balance_by_vendor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) balance: Decimal,
    pub(crate) position: i64,
    /// Cassandra's WRITETIME.
    pub(crate) written_at: i64,
}

/// A row of `item_quantity_by_day`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sold {
    pub(crate) quantity: i64,
    pub(crate) name: String,
    pub(crate) position: i64,
    /// Cassandra's WRITETIME.
    pub(crate) written_at: i64,
}

/// All rows of the read tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) months: BTreeMap<Month, Balance>,
    pub(crate) days: BTreeMap<Day, Sold>,
    pub(crate) billing: BTreeMap<Month, Decimal>,
}

impl Rows {
    /// Adds up the lines. `positions` are those of the lines' purchases: a row has the name and the time of its newest one.
    pub(crate) fn expected(lines: &[Line], positions: &BTreeMap<EventId, i64>) -> Self {
        let mut sums: BTreeMap<Month, (i128, i64)> = BTreeMap::new();
        let mut days: BTreeMap<Day, Sold> = BTreeMap::new();
        for line in lines {
            let position = positions.get(&line.event_id()).copied().unwrap_or_default();
            let (year, month, day) = (line.at.year(), line.at.month().cast_signed(), line.at.day().cast_signed());
            let (sum, newest) = sums.entry((line.vendor, year, month)).or_default();
            *sum += i128::from(line.price) * i128::from(line.quantity);
            *newest = position.max(*newest);
            let nothing = Sold { quantity: 0, name: String::new(), position: 0, written_at: 0 };
            let sold = days.entry((line.vendor, line.product, year, month, day)).or_insert(nothing);
            sold.quantity += i64::from(line.quantity);
            if position > sold.position {
                sold.name.clone_from(&line.name);
                (sold.position, sold.written_at) = (position, position);
            }
        }
        let decimal = |sum| Decimal::from_i128_with_scale(sum, 4).normalize();
        let billing = sums.iter().map(|(month, (sum, _))| (*month, decimal(*sum))).collect();
        let balance = |(sum, position)| Balance { balance: decimal(sum), position, written_at: position };
        let months = sums.into_iter().map(|(month, sum)| (month, balance(sum))).collect();
        Self { months, days, billing }
    }

    /// The differences of `found` from these.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let of_table = |table: ReadTable| match table {
            ReadTable::BalanceByVendor => differences(table.name(), &self.months, &found.months),
            ReadTable::ItemQuantityByDay => differences(table.name(), &self.days, &found.days),
            ReadTable::VendorBilling => differences(table.name(), &self.billing, &found.billing),
        };
        READ_MODELS.into_iter().flat_map(|model| of_table(model.table)).collect()
    }
}

/// Each key whose values differ, or that only one of them has.
pub(crate) fn differences<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Vec<String> {
    let missing = expected.iter().filter(|(key, row)| found.get(key) != Some(row));
    let missing = missing.map(|(key, row)| format!("{what} {key:?}: expected {row:?}, found {:?}", found.get(key)));
    let too_many = found.iter().filter(|(key, _)| !expected.contains_key(key));
    let too_many = too_many.map(|(key, row)| format!("{what} {key:?}: expected no such row, found {row:?}"));
    let mut differences: Vec<_> = missing.chain(too_many).collect();
    let more = differences.len().saturating_sub(TOLD_MAX);
    if more > 0 {
        differences.truncate(TOLD_MAX);
        differences.push(format!("{what}: {more} more differences"));
    }
    differences
}
