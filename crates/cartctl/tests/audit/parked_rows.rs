//! Parked rows of the read tables: what they lack is not expected, and what they have is.

use std::collections::BTreeSet;

use cart::contract::ReadTable;
use cart::{LogEpoch, ParkedRow, Position, PurchasedItem, RowFault, month_row_key};
use cartctl::audit::{Evidence, Findings, Kind, Report, check};
use cartctl::totals::MonthKey;
use chrono::{DateTime, Datelike as _};
use rust_decimal::Decimal;

use crate::run::correct;

fn audit(evidence: &Evidence) -> Report {
    check(evidence, Findings::default())
}

fn kinds(report: &Report) -> BTreeSet<Kind> {
    report.findings_by_kind.keys().copied().collect()
}

fn month(purchase: &PurchasedItem) -> MonthKey {
    let (at, vendor) = (purchase.purchased_at, purchase.vendor_id.as_uuid());
    MonthKey { vendor, year: at.year(), month: at.month().cast_signed() }
}

/// The last two purchases of a row: the key, the offsets, and the amount of the last one.
fn last_two(evidence: &Evidence) -> (i32, MonthKey, [i64; 2], Decimal) {
    let purchases: Vec<_> =
        evidence.purchases.iter().map(|one| (one, one.value.as_ref().expect("a purchase"))).collect();
    let (last, purchase) = purchases.last().expect("a purchase");
    let key = month(purchase);
    let earlier = purchases.iter().rev().skip(1).find(|(_, one)| month(one) == key).expect("two purchases of a month");
    (last.partition, key, [earlier.0.offset, last.offset], purchase.amount())
}

fn marker(partition: i32, key: &MonthKey, offset: i64, fault: &RowFault) -> ParkedRow {
    let position = Position::new(LogEpoch::FIRST, offset);
    ParkedRow {
        partition,
        vendor_id: key.vendor.into(),
        row_key: month_row_key(key.year, key.month),
        first_position: position,
        next_position: position,
        reason: fault.reason(),
        since: DateTime::UNIX_EPOCH,
        retry_by: None,
        revision: 0,
    }
}

/// Both tables of balances lack the last purchase of a row.
fn without_the_last() -> (Evidence, i32, MonthKey, i64) {
    let mut evidence = correct();
    let (partition, key, [earlier, last], amount) = last_two(&evidence);
    let row = evidence.tables.cassandra_months.get_mut(&key).expect("a row");
    (row.total, row.offset) = (row.total - amount, earlier);
    *evidence.tables.postgres_months.get_mut(&key).expect("a row") -= amount;
    (evidence, partition, key, last)
}

#[test]
fn what_a_parked_row_lacks_is_no_finding() {
    let (mut evidence, partition, key, last) = without_the_last();
    assert_eq!(kinds(&audit(&evidence)), BTreeSet::from([Kind::TotalStale]));
    let full = RowFault::Overflows(String::from("full"));
    for table in [ReadTable::BalanceByVendor, ReadTable::VendorBilling] {
        evidence.tables.parked.push((table, marker(partition, &key, last, &full)));
    }
    let report = audit(&evidence);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.parked_rows, report.parked_rows.len()), (2, 2));
    let line = format!("parked: vendor-billing-jdbc: vendor {} {}", key.vendor, month_row_key(key.year, key.month));
    assert!(report.to_string().contains(&line), "{report}");
}

#[test]
fn what_a_parked_row_has_must_be_right() {
    let (mut evidence, partition, key, last) = without_the_last();
    let full = RowFault::Overflows(String::from("full"));
    for table in [ReadTable::BalanceByVendor, ReadTable::VendorBilling] {
        evidence.tables.parked.push((table, marker(partition, &key, last, &full)));
    }
    *evidence.tables.postgres_months.get_mut(&key).expect("a row") += Decimal::ONE_THOUSAND * Decimal::ONE_THOUSAND;
    let report = audit(&evidence);
    assert_eq!((kinds(&report), report.findings_count()), (BTreeSet::from([Kind::TotalWrong]), 1), "{report}");
}

#[test]
fn a_row_that_cannot_be_read_is_not_compared() {
    let mut evidence = correct();
    let (partition, key, [_, last], _) = last_two(&evidence);
    evidence.tables.cassandra_months.remove(&key);
    assert_eq!(kinds(&audit(&evidence)), BTreeSet::from([Kind::RowMissing]));
    let unreadable = RowFault::Unreadable(String::from("no balance"));
    evidence.tables.parked.push((ReadTable::BalanceByVendor, marker(partition, &key, last, &unreadable)));
    let report = audit(&evidence);
    assert!(report.is_clean(), "{report}");
}
