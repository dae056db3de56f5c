//! Compares rows of two generations at one offset a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rust_decimal::Decimal;
use sha2::{Digest as _, Sha256};

use super::rows::{Changes, Row, RowKey, Rows, Value};

/// A row that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) key: RowKey,
    pub(super) partition: i32,
    /// Both are as they are, or will be, before this offset.
    pub(super) before: i64,
    /// The values; one that is missing is not there.
    pub(super) values: [Option<Value>; 2],
}

/// What two generations have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) equal: u64,
    /// In the order of their keys.
    pub(super) differences: Vec<Difference>,
    /// The sums of all rows.
    pub(super) totals: [Decimal; 2],
    /// By partition: records that rows of this generation did not include, and that were added.
    pub(super) added: [BTreeMap<i32, u64>; 2],
    /// Rows that are parked in one of them: they lack records, and are not compared.
    pub(super) parked: BTreeSet<RowKey>,
}

/// A row with what was bought since, up to an offset, and the number of records that were added.
fn rolled_forward(row: Option<&Row>, key: &RowKey, from: i64, to: i64, changes: &Changes) -> (Option<Value>, u64) {
    let mut value = row.map(|row| row.value.clone());
    let mut added = 0;
    let of_row = changes.get(key).map(Vec::as_slice).unwrap_or_default();
    for change in of_row.iter().filter(|change| (from..to).contains(&change.offset)) {
        let value = value.get_or_insert_default();
        value.total += change.amount;
        value.name.clone_from(&change.name);
        added += 1;
    }
    (value.map(|Value { total, name }| Value { total: total.normalize(), name }), added)
}

/// Compares all rows. `changes` are those from the lower of both offsets of each partition on.
pub(super) fn compare(tables: [&Rows; 2], changes: &Changes, partition_of: impl Fn(&RowKey) -> i32) -> Comparison {
    let keys: BTreeSet<&RowKey> =
        tables.iter().flat_map(|table| table.rows.keys().chain(table.parked.keys())).collect();
    compare_rows(keys, tables, changes, partition_of)
}

/// As [`compare`], of the rows with these keys, in their order. A row that neither table has does not count, unless it is parked.
pub(super) fn compare_rows<'a>(
    keys: impl IntoIterator<Item = &'a RowKey>,
    tables: [&Rows; 2],
    changes: &Changes,
    partition_of: impl Fn(&RowKey) -> i32,
) -> Comparison {
    let mut comparison = Comparison::default();
    for key in keys {
        if tables.iter().any(|table| table.parked.contains_key(key)) {
            comparison.parked.insert(*key);
            continue;
        }
        if !tables.iter().any(|table| table.rows.contains_key(key)) {
            continue;
        }
        let partition = partition_of(key);
        let frontiers = tables.map(|table| table.frontier(key, partition));
        let before = frontiers[0].max(frontiers[1]);
        let values = [0, 1].map(|side| {
            let (value, added) = rolled_forward(tables[side].rows.get(key), key, frontiers[side], before, changes);
            if added > 0 {
                *comparison.added[side].entry(partition).or_default() += added;
            }
            value
        });
        for (total, value) in comparison.totals.iter_mut().zip(&values) {
            *total += value.as_ref().map(|value| value.total).unwrap_or_default();
        }
        if values[0] == values[1] {
            comparison.equal += 1;
        } else {
            comparison.differences.push(Difference { key: *key, partition, before, values });
        }
    }
    comparison.totals = comparison.totals.map(|total| total.normalize());
    comparison
}

impl Comparison {
    /// Takes out what these rows were found to be, and puts in what they are found to be now. Of the others no record was added.
    pub(super) fn replace(&mut self, keys: &BTreeSet<RowKey>, before: &Self, now: Self) {
        self.equal = self.equal - before.equal + now.equal;
        self.differences.retain(|difference| !keys.contains(&difference.key));
        self.differences.extend(now.differences);
        self.differences.sort_unstable_by_key(|difference| difference.key);
        self.parked.retain(|key| !keys.contains(key));
        self.parked.extend(now.parked);
        for ((total, before), now) in self.totals.iter_mut().zip(before.totals).zip(now.totals) {
            *total = (*total - before + now).normalize();
        }
        self.added = now.added;
    }

    /// Names the differences and the parked rows, as `sha256:` and digits; `None` without any.
    pub(super) fn digest(&self) -> Option<String> {
        if self.differences.is_empty() && self.parked.is_empty() {
            return None;
        }
        let mut hash = Sha256::new();
        for difference in &self.differences {
            hash.update(format!("{}\t{}\n", difference.key, difference.change()));
        }
        for key in &self.parked {
            hash.update(format!("{key}\tparked\n"));
        }
        Some(format!("sha256:{:x}", hash.finalize()))
    }
}

impl Difference {
    /// By how much the second differs from the first. It stays the same when both get the same purchases.
    fn change(&self) -> String {
        let total = |value: &Option<Value>| value.as_ref().map(|value| value.total).unwrap_or_default();
        let by = (total(&self.values[1]) - total(&self.values[0])).normalize();
        let mut text = match &self.values {
            [Some(_), None] => format!("missing {by}"),
            [None, Some(_)] => format!("extra {by}"),
            [Some(_), Some(_)] | [None, None] => format!("different {by}"),
        };
        if let [Some(Value { name: Some(first), .. }), Some(Value { name: Some(second), .. })] = &self.values
            && first != second
        {
            // Writing to a String cannot fail.
            write!(text, " {first:?} {second:?}").unwrap_or_default();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cart::{LogEpoch, ParkedRow, Position};

    use super::*;
    use crate::generations::rows::Change;
    use crate::totals::DayKey;
    use crate::{product_id, vendor_id};

    const PARTITION: i32 = 3;

    fn key(product: &str) -> RowKey {
        let (vendor, product) = (vendor_id("V"), product_id(product));
        RowKey::Day(DayKey { vendor, product, year: 2026, month: 11, day: 3 })
    }

    /// Product, pieces, name, and the row's next offset.
    type Known<'a> = (&'a str, i64, &'a str, i64);

    /// A table that includes everything before `next`.
    fn table(next: i64, rows: &[Known<'_>]) -> Rows {
        let row = |&(product, total, name, next): &Known<'_>| {
            let value = Value { total: total.into(), name: Some(name.to_owned()) };
            (key(product), Row { value, next })
        };
        Rows {
            rows: rows.iter().map(row).collect(),
            next: BTreeMap::from([(PARTITION, next)]),
            parked: BTreeMap::new(),
        }
    }

    /// Product, offset, pieces.
    fn changes(sold: &[(&str, i64, i64)]) -> Changes {
        let mut changes = Changes::new();
        for (product, offset, pieces) in sold {
            let change = Change { offset: *offset, amount: (*pieces).into(), name: Some(String::from("mug")) };
            changes.entry(key(product)).or_default().push(change);
        }
        changes
    }

    fn compared(first: &Rows, second: &Rows, sold: &[(&str, i64, i64)]) -> Comparison {
        compare([first, second], &changes(sold), |_| PARTITION)
    }

    /// Product and both totals of each difference.
    fn totals(comparison: &Comparison) -> Vec<[Option<String>; 2]> {
        let total = |value: &Option<Value>| value.as_ref().map(|value| value.total.to_string());
        comparison.differences.iter().map(|found| found.values.each_ref().map(total)).collect()
    }

    #[test]
    fn a_row_that_is_behind_is_rolled_forward() {
        let (behind, ahead) = (table(6, &[("P", 5, "cup", 5)]), table(9, &[("P", 9, "mug", 8)]));
        let sold = [("P", 6, 1), ("P", 7, 3), ("P", 9, 50)];
        for (first, second) in [(&behind, &ahead), (&ahead, &behind)] {
            let found = compared(first, second, &sold);
            assert_eq!((found.equal, found.differences.len()), (1, 0), "{found:?}");
            assert_eq!(found.totals, [9.into(), 9.into()]);
        }
        // Of the sides only the one that is behind.
        let added = BTreeMap::from([(PARTITION, 2)]);
        assert_eq!(compared(&behind, &ahead, &sold).added, [added.clone(), BTreeMap::new()]);
        assert_eq!(compared(&ahead, &behind, &sold).added, [BTreeMap::new(), added]);
    }

    #[test]
    fn a_row_that_one_table_does_not_have_yet_is_no_difference() {
        let (behind, ahead) = (table(6, &[]), table(9, &[("P", 4, "mug", 8)]));
        assert_eq!(compared(&behind, &ahead, &[("P", 6, 1), ("P", 7, 3)]).differences, []);
        // Of its records one is from before, and the table that is behind has come past it.
        let found = compared(&behind, &ahead, &[("P", 7, 3)]);
        assert_eq!(totals(&found), [[Some("3".into()), Some("4".into())]]);
    }

    #[test]
    fn a_row_whose_record_both_tables_have_come_past_is_not_rolled_forward() {
        // The first has lost the record at offset 7: its row is of offset 4, and its group has come to 9.
        let (lost, complete) = (table(9, &[("P", 5, "mug", 5)]), table(9, &[("P", 8, "mug", 8)]));
        let found = compared(&lost, &complete, &[("P", 7, 3)]);
        assert_eq!(totals(&found), [[Some("5".into()), Some("8".into())]]);
        assert_eq!(found.differences[0].before, 9);
    }

    #[test]
    fn missing_and_extra_rows_and_other_names_are_differences() {
        let first = table(9, &[("P", 5, "mug", 5), ("Q", 1, "mug", 6), ("S", 2, "mug", 7)]);
        let second = table(9, &[("P", 5, "cup", 5), ("R", 4, "mug", 6), ("S", 2, "mug", 7)]);
        let found = compared(&first, &second, &[]);
        assert_eq!((found.equal, found.differences.len(), found.totals), (1, 3, [8.into(), 11.into()]));
        let mut changes: Vec<_> = found.differences.iter().map(Difference::change).collect();
        changes.sort_unstable();
        assert_eq!(changes, ["different 0 \"mug\" \"cup\"", "extra 4", "missing -1"]);
    }

    #[test]
    fn a_parked_row_is_named_and_not_compared() {
        let mut first = table(9, &[("P", 5, "mug", 5), ("Q", 1, "mug", 6)]);
        let second = table(9, &[("P", 9, "mug", 8), ("Q", 1, "mug", 6)]);
        let found = compared(&first, &second, &[]);
        assert_eq!((found.differences.len(), found.parked.len()), (1, 0));
        let parked = ParkedRow {
            partition: PARTITION,
            vendor_id: vendor_id("V").into(),
            row_key: cart::day_row_key(product_id("P"), 2026, 11, 3),
            first_position: Position::new(LogEpoch::FIRST, 7),
            next_position: Position::new(LogEpoch::FIRST, 7),
            reason: String::from("row-overflows: full"),
            since: chrono::DateTime::UNIX_EPOCH,
            retry_by: None,
            revision: 0,
        };
        first.parked.insert(key("P"), parked);
        let found = compared(&first, &second, &[]);
        assert_eq!((found.differences.len(), found.equal), (0, 1));
        assert_eq!((found.parked.clone(), found.totals), (BTreeSet::from([key("P")]), [1.into(), 1.into()]));
        assert!(found.digest().is_some(), "it is not known to be equal");
    }

    #[test]
    fn a_digest_names_keys_and_differences_and_not_totals_that_move() {
        let before = compared(&table(9, &[("P", 5, "mug", 5)]), &table(9, &[("P", 7, "mug", 5)]), &[]);
        let later = compared(&table(12, &[("P", 15, "mug", 11)]), &table(11, &[("P", 7, "mug", 5)]), &[("P", 11, 10)]);
        assert_eq!(totals(&later), [[Some("15".into()), Some("17".into())]]);
        let digests = [&before, &later].map(Comparison::digest);
        assert!(digests[0].as_ref().is_some_and(|digest| digest.len() == "sha256:".len() + 64), "{digests:?}");
        assert_eq!(digests[0], digests[1]);
        let other = compared(&table(9, &[("P", 5, "mug", 5)]), &table(9, &[("P", 8, "mug", 5)]), &[]);
        assert_ne!(other.digest(), digests[0]);
        let of_other_row = compared(&table(9, &[("Q", 5, "mug", 5)]), &table(9, &[("Q", 7, "mug", 5)]), &[]);
        assert_ne!(of_other_row.digest(), digests[0]);
        assert_eq!(Comparison::default().digest(), None);
    }
}
