//! The page's own count: each vendor's balance by month, added up from all of `item-purchased`.
//!
//! A table is compared at the position that it includes, not at the time of the look: so a difference is a defect, and never a
//! table that is only late.

use std::collections::{BTreeMap, HashMap, VecDeque};

use cart::{PurchasedItem, VendorId};
use chrono::Datelike as _;
use rust_decimal::Decimal;
use serde::Serialize;

/// The balances that are kept: about 30 MB. Later vendors and months are not counted.
const KEPT_MAX: usize = 200_000;

/// The newest changes of a partition that are kept. A table that is further behind cannot be compared.
const CHANGES_MAX: usize = 50_000;

/// A row of a table of balances (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) vendor: VendorId,
    pub(crate) year: i32,
    pub(crate) month: i32,
}

#[derive(Debug)]
struct Balance {
    partition: i32,
    total: Decimal,
    /// The offset of its newest purchase.
    newest: i64,
}

#[derive(Debug)]
struct Change {
    offset: i64,
    key: Key,
    amount: Decimal,
}

#[derive(Debug, Default)]
struct Partition {
    /// All records before this offset are counted.
    next: i64,
    changes: VecDeque<Change>,
    /// Changes before this offset are not kept.
    changes_from: i64,
}

/// The count.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    balances: HashMap<Key, Balance>,
    months: HashMap<VendorId, (i32, i32)>,
    partitions: BTreeMap<i32, Partition>,
    purchases: u64,
    pieces: i64,
    turnover: Decimal,
    /// Whether the first record of the topic was there, so that nothing is missing.
    begins_at_start: bool,
    is_full: bool,
}

/// What was bought in all, in the whole log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    pub(crate) purchases: u64,
    pub(crate) pieces: i64,
    pub(crate) turnover: Decimal,
}

/// A balance as it was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) key: Key,
    pub(crate) partition: i32,
    pub(crate) total: Decimal,
}

/// What a table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The balance; nothing if there is no row yet.
    pub(crate) balance: Option<Decimal>,
    /// All records of the partition before this offset are in the balance, and no others.
    pub(crate) next: i64,
}

/// A table's balance beside the page's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(crate) enum Compared {
    /// Equal at the position of the table, which lacks this many of the vendor's purchases.
    Equal { behind: usize },
    /// Different at the same position: a defect.
    Different {
        /// What the page counted up to that position.
        counted: Decimal,
    },
    /// Nothing can be said yet.
    NotYet { reason: &'static str },
}

impl Ledger {
    /// Starts at the first offsets of the topic. A log that has lost its beginning cannot be counted.
    pub(crate) fn start(&mut self, firsts: &[i64]) {
        self.begins_at_start = firsts.iter().all(|first| *first == 0);
        for (partition, first) in (0..).zip(firsts) {
            self.partitions.entry(partition).or_insert(Partition { next: *first, ..Partition::default() });
        }
    }

    /// The offsets at which to go on, by partition.
    pub(crate) fn next(&self) -> BTreeMap<i32, i64> {
        self.partitions.iter().map(|(partition, known)| (*partition, known.next)).collect()
    }

    /// Counts a purchase. Returns whether it is the first time.
    pub(crate) fn add(&mut self, purchase: &PurchasedItem, partition: i32, offset: i64) -> bool {
        let known = self.partitions.entry(partition).or_default();
        if offset < known.next {
            return false;
        }
        known.next = offset + 1;
        let (at, vendor, amount) = (purchase.purchased_at, purchase.vendor_id, purchase.amount());
        self.purchases += 1;
        self.pieces += i64::from(purchase.quantity.get());
        self.turnover += amount;
        let key = Key { vendor, year: at.year(), month: at.month().cast_signed() };
        let is_new = !self.balances.contains_key(&key);
        if is_new && self.balances.len() >= KEPT_MAX {
            self.is_full = true;
            return true;
        }
        let balance = self.balances.entry(key).or_insert(Balance { partition, total: Decimal::ZERO, newest: offset });
        balance.total += amount;
        balance.newest = offset;
        self.months.insert(vendor, (key.year, key.month));
        if known.changes.len() == CHANGES_MAX
            && let Some(oldest) = known.changes.pop_front()
        {
            known.changes_from = oldest.offset + 1;
        }
        known.changes.push_back(Change { offset, key, amount });
        true
    }

    /// The sums over the whole log.
    pub(crate) fn totals(&self) -> Totals {
        Totals { purchases: self.purchases, pieces: self.pieces, turnover: self.turnover.normalize() }
    }

    /// The month of each of these vendors' newest purchase, filled up to `len` with the highest balances.
    pub(crate) fn watched(&self, vendors: &[VendorId], len: usize) -> Vec<Counted> {
        let mut keys: Vec<Key> = vendors.iter().filter_map(|vendor| self.newest_month(*vendor)).take(len).collect();
        if keys.len() < len {
            let newest = self.months.keys().filter(|vendor| !vendors.contains(vendor));
            let mut others: Vec<Key> = newest.filter_map(|vendor| self.newest_month(*vendor)).collect();
            others.sort_unstable_by_key(|key| (std::cmp::Reverse(self.total(key)), *key));
            keys.extend(others.into_iter().take(len - keys.len()));
        }
        keys.into_iter().filter_map(|key| self.counted(key)).collect()
    }

    fn newest_month(&self, vendor: VendorId) -> Option<Key> {
        self.months.get(&vendor).map(|(year, month)| Key { vendor, year: *year, month: *month })
    }

    fn total(&self, key: &Key) -> Decimal {
        self.balances.get(key).map(|balance| balance.total).unwrap_or_default()
    }

    fn counted(&self, key: Key) -> Option<Counted> {
        let balance = self.balances.get(&key)?;
        Some(Counted { key, partition: balance.partition, total: balance.total.normalize() })
    }

    /// Compares a row with the count at the same position.
    pub(crate) fn compare(&self, key: &Key, row: &Row) -> Compared {
        let not_yet = |reason| Compared::NotYet { reason };
        let (Some(balance), true) = (self.balances.get(key), self.begins_at_start && !self.is_full) else {
            return not_yet("the page has not counted this row");
        };
        let Some(known) = self.partitions.get(&balance.partition) else {
            return not_yet("the page has not counted this row");
        };
        if known.next < row.next {
            return not_yet("the page is behind the table");
        }
        if row.next < known.changes_from && balance.newest >= row.next {
            return not_yet("the table is too far behind");
        }
        let later = known.changes.iter().rev().take_while(|change| change.offset >= row.next);
        let (behind, amount) = later
            .filter(|change| change.key == *key)
            .fold((0, Decimal::ZERO), |(count, sum), change| (count + 1, sum + change.amount));
        let counted = (balance.total - amount).normalize();
        if counted == row.balance.unwrap_or_default() {
            Compared::Equal { behind }
        } else {
            Compared::Different { counted }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::sales::tests::purchase;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn row(balance: &str, next: i64) -> Row {
        Row { balance: Some(decimal(balance)), next }
    }

    /// Vendor 7 sells for 1.5 at offset 0, for 3 at 2 and for 4.5 at 5; vendor 8 for 10 at 3.
    fn ledger() -> (Ledger, Key) {
        let mut ledger = Ledger::default();
        ledger.start(&[0]);
        for (offset, vendor, quantity, price) in [(0, 7, 1, "1.5"), (2, 7, 2, "1.5"), (3, 8, 1, "10"), (5, 7, 3, "1.5")]
        {
            assert!(ledger.add(&purchase(1, vendor, quantity, price), 0, offset));
        }
        let key = ledger.watched(&[uuid::Uuid::from_u128(7).into()], 1)[0].key;
        (ledger, key)
    }

    #[test]
    fn a_row_is_compared_at_its_position() {
        let (ledger, key) = ledger();
        assert_eq!(ledger.compare(&key, &row("9", 6)), Compared::Equal { behind: 0 });
        assert_eq!(ledger.compare(&key, &row("4.50", 3)), Compared::Equal { behind: 1 });
        assert_eq!(ledger.compare(&key, &row("1.5", 1)), Compared::Equal { behind: 2 });
        assert_eq!(ledger.compare(&key, &Row { balance: None, next: 0 }), Compared::Equal { behind: 3 });
        // The balance of a later position, and one that lacks a purchase.
        assert_eq!(ledger.compare(&key, &row("9", 3)), Compared::Different { counted: decimal("4.5") });
        assert_eq!(ledger.compare(&key, &row("4.5", 6)), Compared::Different { counted: decimal("9") });
        assert!(matches!(ledger.compare(&key, &row("12", 8)), Compared::NotYet { .. }), "the page is behind");
    }

    #[test]
    fn a_record_counts_once() {
        let (mut ledger, key) = ledger();
        assert!(!ledger.add(&purchase(1, 7, 3, "1.5"), 0, 5));
        assert_eq!(ledger.compare(&key, &row("9", 6)), Compared::Equal { behind: 0 });
        let totals = Totals { purchases: 4, pieces: 7, turnover: decimal("19") };
        assert_eq!(ledger.totals(), totals);
        assert_eq!(ledger.next(), BTreeMap::from([(0, 6)]));
    }

    #[test]
    fn raises_no_false_alarm_when_it_cannot_know() {
        let (mut ledger, key) = ledger();
        for offset in 6..6 + i64::try_from(CHANGES_MAX).unwrap() {
            ledger.add(&purchase(1, 7, 1, "1"), 0, offset);
        }
        assert!(matches!(ledger.compare(&key, &row("1.5", 1)), Compared::NotYet { .. }), "changes are gone");
        let mut without_beginning = Ledger::default();
        without_beginning.start(&[4]);
        without_beginning.add(&purchase(1, 7, 3, "1.5"), 0, 5);
        assert!(matches!(without_beginning.compare(&key, &row("9", 6)), Compared::NotYet { .. }));
    }

    #[test]
    fn vendors_without_sales_today_are_filled_up_by_balance() {
        let (ledger, _) = ledger();
        let totals: Vec<_> = ledger.watched(&[], 5).into_iter().map(|counted| counted.total).collect();
        assert_eq!(totals, [decimal("10"), decimal("9")]);
    }
}
