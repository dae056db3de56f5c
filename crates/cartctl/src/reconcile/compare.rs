//! Finds every difference between the expected values and those of a store.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::ParkedKeys;
use crate::totals::{DayKey, Labels, MonthKey, Sold, Totals};

/// The rows of a read table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// The balance of each vendor in each month.
    Months(HashMap<MonthKey, Decimal>),
    /// The pieces of each product on each day.
    Days(HashMap<DayKey, Sold>),
}

/// Totals without the rows that are parked in a table.
pub(super) fn without_parked(totals: &Totals, parked: &ParkedKeys) -> Totals {
    let mut rest = totals.clone();
    rest.months.retain(|key, _| !parked.has_month(key));
    rest.days.retain(|key, _| !parked.has_day(key));
    rest
}

impl Rows {
    /// Without rows that are parked.
    pub(super) fn without(self, parked: &ParkedKeys) -> Self {
        match self {
            Self::Months(mut months) => {
                months.retain(|key, _| !parked.has_month(key));
                Self::Months(months)
            }
            Self::Days(mut days) => {
                days.retain(|key, _| !parked.has_day(key));
                Self::Days(days)
            }
        }
    }
}

/// One value that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The store or file.
    pub store: String,
    /// The row, sum or record.
    pub what: String,
    /// The expected value; `None` if there should be none.
    pub expected: Option<String>,
    /// The value that is there; `None` if there is none.
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.store, self.what)?;
        match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => write!(f, "expected {expected}, found {found}"),
            (Some(expected), None) => write!(f, "expected {expected}, is missing"),
            (None, Some(found)) => write!(f, "not expected, found {found}"),
            (None, None) => f.write_str("differs"),
        }
    }
}

/// Counts all differences, and keeps the first ones.
#[derive(Debug)]
pub struct Differences {
    kept: Vec<Difference>,
    kept_max: usize,
    count: usize,
}

impl Differences {
    /// Keeps at most `kept_max`.
    #[must_use]
    pub fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), kept_max, count: 0 }
    }

    /// Adds a difference.
    pub fn add(&mut self, store: &str, what: impl fmt::Display, expected: Option<String>, found: Option<String>) {
        self.count += 1;
        if self.kept.len() < self.kept_max {
            self.kept.push(Difference { store: store.to_owned(), what: what.to_string(), expected, found });
        }
    }

    /// Adds a difference if the two are not equal.
    pub fn check<V: PartialEq + fmt::Display>(&mut self, store: &str, what: &str, expected: V, found: V) {
        if expected != found {
            self.add(store, what, Some(expected.to_string()), Some(found.to_string()));
        }
    }

    /// The number of differences.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first differences.
    #[must_use]
    pub fn kept(&self) -> &[Difference] {
        &self.kept
    }
}

/// Compares a store with the expected totals, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Comparison<'a> {
    /// The expected totals.
    pub expected: &'a Totals,
    /// The labels of the ids.
    pub labels: &'a Labels,
    /// Whether there may be rows that are not expected.
    pub more_rows_allowed: bool,
}

impl Comparison<'_> {
    /// A table's rows.
    pub fn rows(self, store: &str, found: &Rows, differences: &mut Differences) {
        match found {
            Rows::Months(months) => self.months(store, months, differences),
            Rows::Days(days) => self.days(store, days, differences),
        }
    }

    /// The vendors' balances by month.
    pub fn months(self, store: &str, found: &HashMap<MonthKey, Decimal>, differences: &mut Differences) {
        for row in self.unequal(&self.expected.months, found, |expected, found| expected == found) {
            let (key, expected, found) = row;
            let MonthKey { vendor, year, month } = key;
            let what = format!("balance of vendor {}, {year}-{month:02}", self.labels.text(vendor));
            let text = |balance: &Decimal| balance.normalize().to_string();
            differences.add(store, what, expected.map(text), found.map(text));
        }
    }

    /// The products' quantities by day; each name must be one of those under which the product was bought that day.
    pub fn days(self, store: &str, found: &HashMap<DayKey, Sold>, differences: &mut Differences) {
        let is_equal = |expected: &Sold, found: &Sold| {
            expected.quantity == found.quantity && found.names.is_subset(&expected.names) && !found.names.is_empty()
        };
        for (key, expected, found) in self.unequal(&self.expected.days, found, is_equal) {
            let DayKey { vendor, product, year, month, day } = key;
            let (vendor, product) = (self.labels.text(vendor), self.labels.text(product));
            let row = format!("product {product} of vendor {vendor}, {year}-{month:02}-{day:02}");
            let quantity = |sold: &Sold| sold.quantity.to_string();
            let names =
                |sold: &Sold| sold.names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
            if expected.map(quantity) != found.map(quantity) {
                differences.add(store, format!("quantity of {row}"), expected.map(quantity), found.map(quantity));
            }
            if let (Some(expected), Some(found)) = (expected, found)
                && (!found.names.is_subset(&expected.names) || found.names.is_empty())
            {
                differences.add(store, format!("name of {row}"), Some(names(expected)), Some(names(found)));
            }
        }
    }

    /// The rows that differ, in the order of their keys.
    fn unequal<'m, K: Ord + Hash + Copy, V>(
        self,
        expected: &'m HashMap<K, V>,
        found: &'m HashMap<K, V>,
        is_equal: impl Fn(&V, &V) -> bool,
    ) -> Vec<(K, Option<&'m V>, Option<&'m V>)> {
        let wrong = expected.iter().filter_map(|(key, expected)| match found.get(key) {
            Some(found) if is_equal(expected, found) => None,
            found => Some((*key, Some(expected), found)),
        });
        let too_many = found.iter().filter(|(key, _)| !self.more_rows_allowed && !expected.contains_key(key));
        let mut rows: Vec<_> = wrong.chain(too_many.map(|(key, found)| (*key, None, Some(found)))).collect();
        rows.sort_unstable_by_key(|(key, ..)| *key);
        rows
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::totals::Purchase;

    const VENDOR: Uuid = Uuid::from_u128(9);

    fn totals(purchases: &[(u128, i64, &str)]) -> Totals {
        let mut totals = Totals::default();
        for (product, quantity, name) in purchases {
            let (product, price) = (Uuid::from_u128(*product), Decimal::new(25, 1));
            let at = DateTime::UNIX_EPOCH;
            totals.add(&Purchase { vendor: VENDOR, product, name, price, quantity: *quantity, at });
        }
        totals
    }

    fn differences(expected: &Totals, found: &Totals, more_rows_allowed: bool) -> Vec<String> {
        let mut labels = Labels::default();
        labels.insert(VENDOR, "V");
        let mut differences = Differences::new(100);
        let comparison = Comparison { expected, labels: &labels, more_rows_allowed };
        comparison.months("bills", &found.months, &mut differences);
        comparison.days("items", &found.days, &mut differences);
        differences
            .kept()
            .iter()
            .map(|difference| difference.to_string().replace("00000000-0000-0000-0000-", ""))
            .collect()
    }

    #[test]
    fn finds_each_kind_of_difference() {
        let expected = totals(&[(1, 2, "A"), (1, 1, "B"), (2, 1, "C")]);
        assert_eq!(differences(&expected, &expected, false), [""; 0]);
        assert_eq!(
            differences(&expected, &totals(&[(1, 3, "B"), (2, 1, "C")]), false),
            [""; 0],
            "any of a day's names is right"
        );
        assert_eq!(
            differences(&expected, &totals(&[(1, 3, "A")]), false),
            [
                "bills: balance of vendor V (000000000009), 1970-01: expected 10, found 7.5",
                "items: quantity of product 000000000002 of vendor V (000000000009), 1970-01-01: expected 1, is missing",
            ]
        );
        assert_eq!(
            differences(&expected, &totals(&[(1, 3, "X"), (2, 1, "C")]), false),
            [
                "items: name of product 000000000001 of vendor V (000000000009), 1970-01-01: expected 'A' or 'B', found 'X'"
            ]
        );
        let more = totals(&[(1, 3, "A"), (2, 1, "C"), (3, 0, "D")]);
        assert_eq!(
            differences(&expected, &more, false),
            ["items: quantity of product 000000000003 of vendor V (000000000009), 1970-01-01: not expected, found 0"]
        );
        assert_eq!(differences(&expected, &more, true), [""; 0]);
    }

    #[test]
    fn counts_all_and_keeps_the_first() {
        let mut differences = Differences::new(2);
        for row in 0..5 {
            differences.add("store", row, None, None);
        }
        assert_eq!((differences.count(), differences.kept().len()), (5, 2));
    }
}
