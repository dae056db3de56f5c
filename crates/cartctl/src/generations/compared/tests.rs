use cart::contract::READ_MODELS;
use cart::{LogEpoch, ParkedRow, Position, month_row_key};
use proptest::prelude::*;

use super::*;
use crate::generations::rows::{Change, Value};
use crate::totals::MonthKey;
use crate::vendor_id;

/// All records of the test are in it.
const PARTITION: i32 = 0;
const PARTITIONS: i32 = 1;

fn key(row: u8) -> RowKey {
    RowKey::Month(MonthKey { vendor: vendor_id("V"), year: 2026, month: i32::from(row) })
}

fn marker(row: u8) -> ParkedRow {
    ParkedRow {
        partition: PARTITION,
        vendor_id: vendor_id("V").into(),
        row_key: month_row_key(2026, row.into()),
        first_position: Position::new(LogEpoch::FIRST, 0),
        next_position: Position::new(LogEpoch::FIRST, 0),
        reason: String::from("row-overflows: full"),
        since: chrono::DateTime::UNIX_EPOCH,
        retry_by: None,
        revision: 0,
    }
}

/// What a projector has applied to its table, of a log that has the row of each record. Each record is of one piece.
#[derive(Debug, Clone)]
struct Side {
    /// The offset that its group has committed.
    next: usize,
    /// Records behind that which it has applied, and not committed.
    ahead: usize,
    /// Records that it has lost, and those that it has counted twice.
    lost: BTreeSet<usize>,
    doubled: BTreeSet<usize>,
    /// Rows that take no record from this one on.
    full: BTreeMap<u8, usize>,
    has_positions: bool,
}

fn offset(index: usize) -> i64 {
    i64::try_from(index).expect("a short log")
}

impl Side {
    fn end(&self, log: &[u8]) -> usize {
        // The rows of PostgreSQL and their offset change in one transaction.
        if self.has_positions { (self.next + self.ahead).min(log.len()) } else { self.next }
    }

    fn is_passed_over(&self, row: u8, index: usize) -> bool {
        self.full.get(&row).is_some_and(|first| index >= *first)
    }

    /// The rows that are parked.
    fn parked(&self, log: &[u8]) -> BTreeSet<u8> {
        let records = log.iter().copied().enumerate().take(self.end(log));
        records.filter(|(index, row)| self.is_passed_over(*row, *index)).map(|(_, row)| row).collect()
    }

    /// Adds to the parked rows what has waited.
    fn try_again(&mut self, log: &[u8]) {
        let parked = self.parked(log);
        self.full.retain(|row, _| !parked.contains(row));
    }

    fn rows(&self, log: &[u8]) -> Rows {
        let mut rows = HashMap::<RowKey, Row>::new();
        for (index, row) in log.iter().enumerate().take(self.end(log)) {
            if self.lost.contains(&index) || self.is_passed_over(*row, index) {
                continue;
            }
            let times: i64 = if self.doubled.contains(&index) { 2 } else { 1 };
            let row = rows.entry(key(*row)).or_insert_with(|| Row { value: Value::default(), next: 0 });
            row.value.total += rust_decimal::Decimal::from(times);
            row.next = if self.has_positions { offset(index) + 1 } else { 0 };
        }
        let parked = self.parked(log).into_iter().map(|row| (key(row), marker(row))).collect();
        Rows { rows, next: BTreeMap::from([(PARTITION, offset(self.next))]), parked }
    }
}

/// The changes of rows in these ranges.
fn changes_in(log: &[u8], ranges: &BTreeMap<i32, Range>) -> Changes {
    let Range { from, to } = ranges[&PARTITION];
    let mut changes = Changes::new();
    for (index, row) in log.iter().enumerate().filter(|(index, _)| (from..to).contains(&offset(*index))) {
        changes.entry(key(*row)).or_default().push(Change { offset: offset(index), amount: 1.into(), name: None });
    }
    changes
}

fn whole(log: &[u8], sides: &[Side; 2]) -> Compared {
    let generations = [1, 2].map(|number| Generation::new(number).expect("a generation"));
    let tables = sides.each_ref().map(|side| side.rows(log));
    let ranges = ranges(tables.each_ref(), PARTITIONS);
    let changes = changes_in(log, &ranges);
    Compared::of(READ_MODELS[0], generations, PARTITIONS, tables, ranges, changes, 0)
}

/// As [`Compared::follow`], or [`Compared::follow_to_end`], of what the sides have by now.
fn follow(compared: &mut Compared, log: &[u8], sides: &[Side; 2], is_to_end: bool) {
    let tables = sides.each_ref().map(|side| side.rows(log));
    let next = tables.each_ref().map(|table| table.next.clone());
    assert_eq!(compared.went_back(&next), None);
    let ends = if is_to_end { BTreeMap::from([(PARTITION, offset(log.len()))]) } else { BTreeMap::new() };
    let ranges = compared.since(&next, &ends);
    let parked = tables.each_ref().map(|table| table.parked.clone());
    let keys: BTreeSet<RowKey> = changes_in(log, &ranges).into_keys().chain(compared.were_or_are(&parked)).collect();
    let of_keys = |table: &Rows| table.rows.clone().into_iter().filter(|(key, _)| keys.contains(key)).collect();
    let rows = tables.each_ref().map(of_keys);
    let ahead = compared.ahead(&ranges, &rows);
    let ranges = BTreeMap::from([(PARTITION, Range { from: ranges[&PARTITION].from, to: ahead[&PARTITION].to })]);
    let changes = changes_in(log, &ranges);
    compared.update(Update { keys, next, parked, rows, ranges, changes });
}

/// What is found, without the offsets up to which: that of a row that was not read again is an earlier one.
fn found(compared: &Compared) -> impl PartialEq + std::fmt::Debug + use<> {
    let Comparison { equal, differences, totals, added, parked } = &compared.comparison;
    let differences: Vec<_> = differences.iter().map(|found| (found.key, found.values.clone())).collect();
    (*equal, differences, *totals, added.clone(), parked.clone(), compared.diff().digest)
}

const LOG_LEN: usize = 24;

prop_compose! {
    fn side(has_positions: bool)(
        next in 0..=LOG_LEN,
        ahead in 0..3_usize,
        lost in prop::collection::btree_set(0..LOG_LEN, 0..3),
        doubled in prop::collection::btree_set(0..LOG_LEN, 0..3),
        full in prop::collection::btree_map(1..6_u8, 0..LOG_LEN, 0..3),
    ) -> Side {
        Side { next, ahead, lost, doubled, full, has_positions }
    }
}

fn sides() -> impl Strategy<Value = [Side; 2]> {
    any::<bool>().prop_flat_map(|has_positions| [side(has_positions), side(has_positions)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn following_finds_what_reading_all_rows_finds(
        log in prop::collection::vec(1..6_u8, LOG_LEN),
        mut sides in sides(),
        steps in prop::collection::vec(
            (prop::array::uniform2((0..6_usize, 0..3_usize, any::<bool>())), any::<bool>()),
            1..4,
        ),
    ) {
        let mut compared = whole(&log, &sides);
        let last = steps.len() - 1;
        for (index, (step, is_to_end)) in steps.into_iter().enumerate() {
            let is_to_end = is_to_end || index == last;
            for (side, (records, ahead, is_tried)) in sides.iter_mut().zip(step) {
                if is_tried {
                    side.try_again(&log);
                }
                let end = side.end(&log);
                side.next = (side.next + records).min(log.len());
                // What was applied stays applied.
                side.ahead = ahead.max(end.saturating_sub(side.next));
            }
            follow(&mut compared, &log, &sides, is_to_end);
            if is_to_end {
                prop_assert_eq!(found(&compared), found(&whole(&log, &sides)));
            }
        }
    }
}

#[test]
fn only_rows_with_records_since_are_read_again() {
    let log = vec![1, 1, 2, 3, 2];
    let none = BTreeSet::new();
    let side = |next| Side {
        next,
        ahead: 0,
        lost: none.clone(),
        doubled: none.clone(),
        full: BTreeMap::new(),
        has_positions: true,
    };
    let mut compared = whole(&log, &[side(4), side(3)]);
    let next = [BTreeMap::from([(PARTITION, 5)]), BTreeMap::from([(PARTITION, 5)])];
    let since = compared.since(&next, &BTreeMap::new());
    assert_eq!(since, BTreeMap::from([(PARTITION, Range { from: 3, to: 5 })]));
    assert_eq!(changes_in(&log, &since).into_keys().collect::<BTreeSet<_>>(), BTreeSet::from([key(2), key(3)]));
    follow(&mut compared, &log, &[side(5), side(5)], true);
    assert_eq!((compared.comparison.equal, compared.diff().digest.as_str()), (3, "none"));
}

/// A row that a dead member wrote at offset 4 without committing it, while both groups stand at 2.
#[test]
fn a_row_that_is_ahead_of_both_groups_is_found_at_the_end_of_the_log() {
    let log = vec![1, 1, 2, 3, 4];
    let none = BTreeSet::new();
    let side = |ahead| Side {
        next: 2,
        ahead,
        lost: none.clone(),
        doubled: none.clone(),
        full: BTreeMap::new(),
        has_positions: true,
    };
    let mut compared = whole(&log, &[side(0), side(0)]);
    let sides = [side(3), side(0)];
    follow(&mut compared, &log, &sides, false);
    assert_eq!(compared.comparison.added, [BTreeMap::new(), BTreeMap::new()], "it is not looked for");
    follow(&mut compared, &log, &sides, true);
    assert_eq!(compared.comparison.added, [BTreeMap::new(), BTreeMap::from([(PARTITION, 3)])]);
    assert_eq!(compared.comparison.equal, 4);
}

#[test]
fn a_parked_row_that_was_tried_meanwhile_is_compared() {
    let log = vec![1, 2, 1];
    let none = BTreeSet::new();
    let side = |full: &[(u8, usize)]| Side {
        next: 3,
        ahead: 0,
        lost: none.clone(),
        doubled: none.clone(),
        full: full.iter().copied().collect(),
        has_positions: true,
    };
    let mut compared = whole(&log, &[side(&[]), side(&[(1, 2)])]);
    let diff = compared.diff();
    assert_eq!((diff.rows_equal, diff.rows_parked, diff.parked.len(), diff.exit_code()), (1, 1, 1, 1));
    assert!(diff.digest.starts_with("sha256:") && diff.parked[0].projector.ends_with("-g2"), "{diff}");
    // Nothing has come since.
    follow(&mut compared, &log, &[side(&[]), side(&[])], false);
    let diff = compared.diff();
    assert_eq!((diff.rows_equal, diff.rows_parked, diff.digest.as_str()), (2, 0, "none"));
}

#[test]
fn a_table_that_was_emptied_meanwhile_is_not_followed() {
    let log = vec![1, 1];
    let none = BTreeSet::new();
    let side = |next| Side {
        next,
        ahead: 0,
        lost: none.clone(),
        doubled: none.clone(),
        full: BTreeMap::new(),
        has_positions: true,
    };
    let compared = whole(&log, &[side(2), side(2)]);
    let next = [BTreeMap::from([(PARTITION, 2)]), BTreeMap::from([(PARTITION, 0)])];
    assert_eq!(compared.went_back(&next).map(|(partition, generation)| (partition, generation.get())), Some((0, 2)));
}

#[test]
fn the_log_is_read_from_where_the_first_table_ends_to_the_furthest_row() {
    let key = key(11);
    let row = |next| HashMap::from([(key, Row { value: Value::default(), next })]);
    let rows = |rows, next: [i64; 2]| Rows { rows, next: (0..).zip(next).collect(), parked: BTreeMap::new() };
    let (first, second) = (rows(row(12), [10, 7]), rows(row(9), [11, 7]));
    let found = ranges([&first, &second], 2);
    let of_key = partition_of(&key, 2);
    let other = 1 - of_key;
    let (from, to) = (if of_key == 0 { 10 } else { 7 }, 12);
    assert_eq!(found[&of_key], Range { from, to });
    let expected = if other == 0 { Range { from: 10, to: 11 } } else { Range { from: 7, to: 7 } };
    assert_eq!(found[&other], expected);
}
