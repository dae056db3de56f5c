//! Records that operators have skipped: what they would have changed is not expected, and a skip of another record is reported. An
//! audit goes on from a checkpoint with the same skips.

use std::collections::BTreeSet;

use cart::contract::Contract as _;
use cart::contract::group::{ITEM_PURCHASED_EVENTS, POPULAR_ITEMS};
use cart::contract::{READ_MODELS, ReadModel};
use cart::{CartEvent, PurchasedItem};
use cartctl::SkippedRecord;
use cartctl::audit::{Evidence, Findings, Kind, Record, Report, Row, check};
use cartctl::totals::{DayKey, MonthKey};
use chrono::{DateTime, Datelike as _};
use rust_decimal::Decimal;

use crate::run::correct;
use crate::since::{audit_since, ends, last_tenth, sealed};

fn skip(partition: i32, offset: i64, found: Option<&str>) -> SkippedRecord {
    SkippedRecord {
        group: POPULAR_ITEMS.to_owned(),
        topic: PurchasedItem::TOPIC.to_owned(),
        partition,
        offset,
        sha256: "ab".repeat(32),
        found: found.map(str::to_owned),
        is_readable: false,
        by: String::from("ops"),
        at: DateTime::UNIX_EPOCH,
        reason: String::from("a test"),
    }
}

fn garbage<T>(partition: i32, offset: i64) -> Record<T> {
    let value = Err(String::from("the value has 2 bytes"));
    Record { partition, offset, key: String::new(), bytes: Vec::new(), value }
}

fn audit(evidence: &Evidence) -> Report {
    check(evidence, Findings::default())
}

fn kinds(report: &Report) -> BTreeSet<Kind> {
    report.findings_by_kind.keys().copied().collect()
}

#[test]
fn garbage_that_is_skipped_is_no_finding() {
    let mut evidence = correct();
    evidence.purchases.push(garbage(0, 900_000));
    assert_eq!(kinds(&audit(&evidence)), BTreeSet::from([Kind::Unreadable]));
    evidence.skips = vec![skip(0, 900_000, Some(&"ab".repeat(32)))];
    let report = audit(&evidence);
    assert!(report.is_clean() && report.skipped == evidence.skips, "{report}");
    let line = "skipped: item-purchased 0/900000 by popular-items (ops, 1970-01-01T00:00:00Z, \"a test\")";
    assert!(report.to_string().contains(line), "{report}");
}

#[test]
fn a_skip_of_another_record_is_a_finding() {
    for found in [None, Some("cd")] {
        let mut evidence = correct();
        evidence.skips = vec![skip(0, 900_000, found)];
        let report = audit(&evidence);
        assert_eq!(kinds(&report), BTreeSet::from([Kind::SkipDiffers]), "{report}");
        assert!(report.skipped.is_empty(), "{report}");
    }
}

fn readable(partition: i32, offset: i64) -> SkippedRecord {
    SkippedRecord { is_readable: true, ..skip(partition, offset, Some(&"ab".repeat(32))) }
}

fn day_of(purchase: &PurchasedItem) -> DayKey {
    let (at, number) = (purchase.purchased_at, |of_calendar: u32| i32::try_from(of_calendar).expect("small"));
    DayKey {
        vendor: purchase.vendor_id.as_uuid(),
        product: purchase.product_id.as_uuid(),
        year: at.year(),
        month: number(at.month()),
        day: number(at.day()),
    }
}

/// A purchase that is not the last of its product and day, so that the row's newest purchase stays.
fn earlier_of_a_day(evidence: &Evidence) -> (i32, i64, DayKey, i64) {
    let purchases: Vec<_> =
        evidence.purchases.iter().map(|one| (one, one.value.as_ref().expect("a purchase"))).collect();
    let has_later = |place: usize, key: DayKey| purchases[place + 1..].iter().any(|(_, later)| day_of(later) == key);
    let found = purchases.iter().enumerate().find(|(place, (_, purchase))| has_later(*place, day_of(purchase)));
    let (_, (record, purchase)) = found.expect("two purchases of a day");
    (record.partition, record.offset, day_of(purchase), purchase.quantity.get().into())
}

#[test]
fn the_table_of_the_group_alone_lacks_a_purchase_that_it_skips() {
    let mut evidence = correct();
    let (partition, offset, day, pieces) = earlier_of_a_day(&evidence);
    evidence.skips = vec![readable(partition, offset)];
    let report = audit(&evidence);
    assert!(!report.is_clean(), "the table has what its group skips: {report}");
    evidence.tables.cassandra_days.get_mut(&day).expect("a row").total.0 -= pieces;
    let report = audit(&evidence);
    assert!(report.is_clean(), "{report}");
}

/// The skips of a record of `item-purchased` by all its groups.
fn by_all(partition: i32, offset: i64) -> Vec<SkippedRecord> {
    let of = |model: &ReadModel| {
        let group = model.group.to_owned();
        SkippedRecord { group, ..skip(partition, offset, Some(&"ab".repeat(32))) }
    };
    READ_MODELS.iter().map(of).collect()
}

/// The skip of a record of `cart-events`.
fn of_event(partition: i32, offset: i64) -> SkippedRecord {
    let (group, topic) = (ITEM_PURCHASED_EVENTS.to_owned(), CartEvent::TOPIC.to_owned());
    SkippedRecord { group, topic, ..skip(partition, offset, Some(&"ab".repeat(32))) }
}

/// Adds garbage behind both topics, each partition of which ends before these offsets.
fn with_garbage(mut evidence: Evidence) -> Evidence {
    evidence.purchases.push(garbage(0, 900_000));
    evidence.events.push(garbage(1, 900_001));
    evidence.skips = by_all(0, 900_000);
    evidence.skips.push(of_event(1, 900_001));
    evidence
}

#[test]
fn from_a_checkpoint_on_garbage_that_was_skipped_before_changes_no_total() {
    let (without, evidence) = (correct(), with_garbage(correct()));
    let (at_once, checkpoint) = (sealed(&without, &ends(&without), 0), sealed(&evidence, &ends(&evidence), 0));
    assert_eq!((&checkpoint.totals, &checkpoint.own_totals), (&at_once.totals, &at_once.own_totals));
    assert_ne!(checkpoint.skips, at_once.skips);
    for commands in [last_tenth(&evidence), ends(&evidence)] {
        let report = audit_since(&evidence, &sealed(&evidence, &commands, 5));
        assert!(report.is_clean() && report.skipped == evidence.skips, "{report}");
    }
    // The rows are still compared with the totals.
    let checkpoint = sealed(&evidence, &ends(&evidence), 0);
    let mut changed = evidence;
    changed.tables.cassandra_days.values_mut().next().expect("a row").total.0 += 1;
    assert_eq!(kinds(&audit_since(&changed, &checkpoint)), BTreeSet::from([Kind::TotalWrong]));
}

#[test]
fn from_a_checkpoint_on_garbage_that_comes_later_needs_its_skip() {
    let without = correct();
    let checkpoint = sealed(&without, &ends(&without), 0);
    let mut evidence = with_garbage(without);
    let report = audit_since(&evidence, &checkpoint);
    assert!(report.is_clean() && report.counts.purchases == 1 && report.counts.events == 1, "{report}");
    evidence.skips.clear();
    let report = audit_since(&evidence, &checkpoint);
    assert_eq!((kinds(&report), report.findings_count()), (BTreeSet::from([Kind::Unreadable]), 2), "{report}");
}

/// A table that lacks a purchase has totals of its own in the checkpoint.
#[test]
fn from_a_checkpoint_on_the_table_of_the_group_alone_lacks_a_purchase_that_it_skips() {
    let mut evidence = correct();
    let (partition, offset, day, pieces) = earlier_of_a_day(&evidence);
    evidence.tables.cassandra_days.get_mut(&day).expect("a row").total.0 -= pieces;
    evidence.skips = vec![readable(partition, offset)];
    let no_commands: Vec<i64> = ends(&evidence).iter().map(|_| 0).collect();
    for commands in [no_commands, last_tenth(&evidence), ends(&evidence)] {
        let checkpoint = sealed(&evidence, &commands, 5);
        assert!(checkpoint.own_totals.keys().eq([POPULAR_ITEMS]), "{:?}", checkpoint.own_totals.keys());
        let report = audit_since(&evidence, &checkpoint);
        assert!(report.is_clean(), "{report}");
    }
    let checkpoint = sealed(&evidence, &ends(&evidence), 0);
    assert_ne!(checkpoint.own_totals[POPULAR_ITEMS], checkpoint.totals);
    let mut applied = evidence.clone();
    applied.tables.cassandra_days.get_mut(&day).expect("a row").total.0 += pieces;
    let mut others_lack_it = evidence;
    let month = MonthKey { vendor: day.vendor, year: day.year, month: day.month };
    others_lack_it.tables.cassandra_months.get_mut(&month).expect("a row").total -= Decimal::ONE;
    for changed in [applied, others_lack_it] {
        assert_eq!(kinds(&audit_since(&changed, &checkpoint)), BTreeSet::from([Kind::TotalWrong]));
    }
}

/// Its row ends at an earlier purchase than those of the other tables, or is not there.
#[test]
fn from_a_checkpoint_on_a_row_without_its_newest_purchase_is_right() {
    let mut evidence = correct();
    let last = evidence.purchases.last().expect("a purchase");
    let (partition, offset) = (last.partition, last.offset);
    let day = day_of(last.value.as_ref().expect("a purchase"));
    let is_earlier = |record: &&Record<PurchasedItem>| {
        record.offset != offset && record.value.as_ref().is_ok_and(|purchase| day_of(purchase) == day)
    };
    let earlier: Vec<_> = evidence.purchases.iter().filter(is_earlier).collect();
    let rest = earlier.last().map(|newest| {
        let of_all =
            |record: &&Record<PurchasedItem>| i64::from(record.value.as_ref().expect("a purchase").quantity.get());
        let name = newest.value.as_ref().expect("a purchase").name.as_str().to_owned();
        Row { total: (earlier.iter().map(of_all).sum::<i64>(), name), offset: newest.offset }
    });
    match rest {
        Some(row) => evidence.tables.cassandra_days.insert(day, row),
        None => evidence.tables.cassandra_days.remove(&day),
    };
    evidence.skips = vec![readable(partition, offset)];
    let checkpoint = sealed(&evidence, &ends(&evidence), 0);
    let report = audit_since(&evidence, &checkpoint);
    assert!(report.is_clean(), "{report}");
}

/// No topic and no table has what follows from it, so all totals are the same.
#[test]
fn a_skip_of_an_event_that_can_be_read_is_sealed() {
    let mut evidence = correct();
    let (partition, offset, day, pieces) = earlier_of_a_day(&evidence);
    let is_it = |record: &Record<PurchasedItem>| (record.partition, record.offset) == (partition, offset);
    let place = evidence.purchases.iter().position(is_it).expect("the purchase");
    let purchase = evidence.purchases.remove(place).value.expect("a purchase");
    let event_id = purchase.event_id;
    let of_purchase = |record: &&Record<CartEvent>| record.value.as_ref().is_ok_and(|event| event.event_id == event_id);
    let event = evidence.events.iter().find(of_purchase).expect("its event");
    evidence.skips = vec![SkippedRecord { is_readable: true, ..of_event(event.partition, event.offset) }];
    let month = MonthKey { vendor: day.vendor, year: day.year, month: day.month };
    let tables = &mut evidence.tables;
    tables.cassandra_days.get_mut(&day).expect("a row").total.0 -= pieces;
    tables.cassandra_months.get_mut(&month).expect("a row").total -= purchase.amount();
    *tables.postgres_months.get_mut(&month).expect("a row") -= purchase.amount();
    let checkpoint = sealed(&evidence, &ends(&evidence), 0);
    let report = audit_since(&evidence, &checkpoint);
    assert!(report.is_clean(), "{report}");
}
