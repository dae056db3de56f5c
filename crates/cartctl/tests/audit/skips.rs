//! Records that operators have skipped: what they would have changed is not expected, and a skip of another record is reported.

use std::collections::BTreeSet;

use cart::PurchasedItem;
use cart::contract::Contract as _;
use cart::contract::group::POPULAR_ITEMS;
use cartctl::SkippedRecord;
use cartctl::audit::{Evidence, Findings, Kind, Record, Report, check};
use cartctl::totals::DayKey;
use chrono::{DateTime, Datelike as _};

use crate::run::correct;

fn skip(partition: i32, offset: i64, found: Option<&str>) -> SkippedRecord {
    SkippedRecord {
        group: POPULAR_ITEMS.to_owned(),
        topic: PurchasedItem::TOPIC.to_owned(),
        partition,
        offset,
        sha256: "ab".repeat(32),
        found: found.map(str::to_owned),
        by: String::from("ops"),
        at: DateTime::UNIX_EPOCH,
        reason: String::from("a test"),
    }
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
    let garbage = || Record {
        partition: 0,
        offset: 900_000,
        key: String::new(),
        bytes: Vec::new(),
        value: Err(String::from("the value has 2 bytes")),
    };
    evidence.purchases.push(garbage());
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

/// A purchase that is not the last of its product and day, so that the row's newest purchase stays.
fn earlier_of_a_day(evidence: &Evidence) -> (i32, i64, DayKey, i64) {
    let day = |purchase: &PurchasedItem| {
        let (at, number) = (purchase.purchased_at, |of_calendar: u32| i32::try_from(of_calendar).expect("small"));
        DayKey {
            vendor: purchase.vendor_id.as_uuid(),
            product: purchase.product_id.as_uuid(),
            year: at.year(),
            month: number(at.month()),
            day: number(at.day()),
        }
    };
    let purchases: Vec<_> =
        evidence.purchases.iter().map(|one| (one, one.value.as_ref().expect("a purchase"))).collect();
    let has_later = |place: usize, key: DayKey| purchases[place + 1..].iter().any(|(_, later)| day(later) == key);
    let found = purchases.iter().enumerate().find(|(place, (_, purchase))| has_later(*place, day(purchase)));
    let (_, (record, purchase)) = found.expect("two purchases of a day");
    (record.partition, record.offset, day(purchase), purchase.quantity.get().into())
}

#[test]
fn the_table_of_the_group_alone_lacks_a_purchase_that_it_skips() {
    let mut evidence = correct();
    let (partition, offset, day, pieces) = earlier_of_a_day(&evidence);
    evidence.skips = vec![skip(partition, offset, Some(&"ab".repeat(32)))];
    let report = audit(&evidence);
    assert!(!report.is_clean(), "the table has what its group skips: {report}");
    evidence.tables.cassandra_days.get_mut(&day).expect("a row").total.0 -= pieces;
    let report = audit(&evidence);
    assert!(report.is_clean(), "{report}");
}
