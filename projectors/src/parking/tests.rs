use cart::{LogEpoch, ParkedRow, Position, PurchasedItem, RowFault};
use uuid::Uuid;

use super::ensure_same_partitions;
use super::lots::{Job, Lots, PARKED_MAX, Passed, Read, RowId};
use crate::error::Error;

pub(super) fn purchase(vendor: u128, pieces: i32) -> PurchasedItem {
    PurchasedItem {
        event_id: Uuid::nil().into(),
        cart_id: Uuid::nil().into(),
        session_id: Uuid::nil().into(),
        vendor_id: Uuid::from_u128(vendor).into(),
        product_id: Uuid::nil().into(),
        name: String::from("mug").try_into().expect("a name"),
        price: "1".parse().expect("a price"),
        quantity: pieces.try_into().expect("a quantity"),
        purchased_at: chrono::DateTime::UNIX_EPOCH,
    }
}

fn at(offset: i64) -> Position {
    Position::new(LogEpoch::FIRST, offset)
}

fn marker(partition: i32, vendor: u128, offset: i64) -> ParkedRow {
    ParkedRow {
        partition,
        vendor_id: Uuid::from_u128(vendor).into(),
        row_key: String::from("1970-01"),
        first_position: at(offset),
        next_position: at(offset),
        reason: RowFault::Overflows(String::from("full")).reason(),
        since: chrono::DateTime::UNIX_EPOCH,
        retry_by: None,
        revision: 0,
    }
}

/// Vendor 1 is parked at offset 5, and the loop has come to 10.
fn lots() -> Lots {
    let mut lots = Lots::new("test", LogEpoch::FIRST, |_| String::from("1970-01"));
    lots.restore(0, vec![(marker(0, 1, 5), at(8))]);
    lots.advance([(0, 10)]);
    lots
}

fn begin(lots: &mut Lots) -> Job {
    lots.request(&RowId::of(&marker(0, 1, 5)), "ops", 1);
    let (partition, id) = lots.next_try(|_| false).expect("it is wanted");
    let until = lots.next_offset(partition).expect("it has read");
    lots.begin(partition, id, until).expect("it is parked")
}

fn read(offsets: &[i64], read_to: i64) -> Read {
    let records = offsets.iter().map(|offset| Passed { offset: *offset, purchase: purchase(1, 1) }).collect();
    Read { records, read_to }
}

fn offsets(waited: &super::Waited) -> Vec<i64> {
    waited.records.iter().map(|record| record.offset).collect()
}

#[test]
fn records_of_parked_rows_are_passed_over_and_remembered() {
    let mut lots = lots();
    assert!(!lots.pass(0, 10, &purchase(2, 1)) && !lots.pass(1, 10, &purchase(1, 1)), "others");
    assert!(lots.pass(0, 7, &purchase(1, 1)) && lots.take_changed().is_empty(), "once more");
    assert_eq!(lots.passed_over().count(), 0, "it was passed over before");
    assert!(lots.pass(0, 11, &purchase(1, 1)));
    // It waits from where its marker says, whatever is passed over.
    assert_eq!(lots.passed_over().collect::<Vec<_>>(), [&marker(0, 1, 5)]);
    let changed = lots.take_changed();
    assert_eq!(changed, [(marker(0, 1, 5), at(11))]);
    assert_eq!(lots.take_changed(), [], "they are written once");
    assert_eq!(lots.passed_over().count(), 0);
}

#[test]
fn a_try_gets_what_arrives_while_its_log_is_read() {
    let mut lots = lots();
    let job = begin(&mut lots);
    assert_eq!((job.from, job.until), (5, 10));
    assert_eq!(lots.next_try(|_| false), None, "one at a time");
    // A batch that is folded twice.
    assert!(
        lots.pass(0, 12, &purchase(1, 1)) && lots.pass(0, 12, &purchase(1, 1)) && lots.pass(0, 14, &purchase(1, 1))
    );
    let waited = lots.waited(&job, read(&[5, 8], 10)).expect("it is in progress");
    assert_eq!((offsets(&waited), waited.is_all, waited.passed), (vec![5, 8, 12, 14], true, at(14)));
}

#[test]
fn a_part_of_the_log_is_not_all_and_the_next_try_goes_on_behind_it() {
    let mut lots = lots();
    let job = begin(&mut lots);
    assert!(lots.pass(0, 12, &purchase(1, 1)));
    let waited = lots.waited(&job, read(&[5], 7)).expect("it is in progress");
    assert_eq!((offsets(&waited), waited.is_all), (vec![5], false));
    lots.progressed(&waited.row, waited.next_position);
    assert_eq!(lots.take_changed()[0].0.next_position, at(7));
    lots.advance([(0, 13)]);
    let job = begin(&mut lots);
    assert_eq!((job.from, job.until), (7, 13));
}

#[test]
fn a_try_ends_when_its_partition_is_read_again() {
    let mut lots = lots();
    let job = begin(&mut lots);
    lots.restore(0, vec![(marker(0, 1, 5), at(8))]);
    assert_eq!(lots.waited(&job, read(&[5], 10)), None);
    assert_eq!(lots.next_try(|_| false), None, "the request is read again");
    let job = begin_without_offset(&mut lots);
    lots.revoke(&[0]);
    assert_eq!(lots.waited(&job, read(&[5], 10)), None);
    assert!(lots.is_empty());
}

fn begin_without_offset(lots: &mut Lots) -> Job {
    let id = RowId::of(&marker(0, 1, 5));
    lots.request(&id, "ops", 1);
    assert_eq!(lots.next_offset(0), None, "nothing was read since");
    lots.begin(0, id, 10).expect("it is parked")
}

#[test]
fn nothing_is_tried_in_a_partition_that_is_held() {
    let mut lots = lots();
    lots.request(&RowId::of(&marker(0, 1, 5)), "ops", 1);
    assert_eq!(lots.next_try(|partition| partition == 0), None);
    assert!(lots.next_try(|partition| partition == 1).is_some());
}

#[test]
fn a_failure_keeps_the_progress_and_ends_the_request() {
    let mut lots = lots();
    let job = begin(&mut lots);
    let waited = lots.waited(&job, read(&[5, 8], 10)).expect("it is in progress");
    lots.failed(&waited.row, at(8), &RowFault::Unreadable(String::from("no balance")), waited.requested_at);
    let changed = lots.take_changed();
    let [(row, passed)] = &changed[..] else { panic!("{changed:?}") };
    assert_eq!((row.first_position, row.next_position, *passed), (at(5), at(8), at(8)));
    assert_eq!((row.reason.as_str(), row.state()), ("row-unreadable: no balance", "parked"));
    assert_eq!(lots.next_try(|_| false), None);
}

#[test]
fn the_parked_rows_of_a_partition_are_bounded() {
    let lots = lots();
    let more: Vec<_> = (2..=PARKED_MAX as u128).map(|vendor| marker(0, vendor, 20)).collect();
    lots.make_room(&more).expect("as many as there may be");
    let too_many = lots.make_room(more.iter().chain([&marker(0, 1_000, 30)]));
    assert!(matches!(too_many, Err(Error::TooManyParked { partition: 0, offset: 30, .. })), "{too_many:?}");
    lots.make_room(more.iter().chain([&marker(1, 1_000, 30)])).expect("each partition has its own");
}

#[test]
fn a_marker_of_another_log_is_refused() {
    let mut lots = Lots::new("test", LogEpoch::new(2).expect("an epoch"), |_| String::new());
    lots.restore(0, vec![(marker(0, 1, 5), at(8))]);
    let refused = lots.take_refused();
    assert!(matches!(refused[..], [(0, Error::ParkedInOtherLog { partition: 0, offset: 5 })]), "{refused:?}");
    lots.restore(1, Vec::new());
    assert!(lots.take_refused().is_empty() && lots.is_empty());
}

#[test]
fn nothing_starts_with_a_marker_of_a_log_that_had_other_partitions() {
    let epoch = LogEpoch::new(2).expect("an epoch");
    let row = marker(0, 1, 5);
    let rows = std::slice::from_ref(&row);
    let count = |is_same: bool| (2..100).find(|count| (vendor_partition(&row, *count) == 0) == is_same);
    let (same, other) = (count(true).expect("a number"), count(false).expect("a number"));
    ensure_same_partitions(rows, epoch, same).expect("its partition is stopped when it is assigned");
    ensure_same_partitions(rows, epoch, other).expect_err("the vendor is in another partition by now");
    ensure_same_partitions(rows, LogEpoch::FIRST, other).expect("it is of this log");
}

fn vendor_partition(row: &ParkedRow, partitions: i32) -> i32 {
    kafka::partition_of(row.vendor_id.to_string().as_bytes(), partitions)
}

#[test]
fn a_try_reads_what_was_passed_over_before_a_crash() {
    let mut lots = Lots::new("test", LogEpoch::FIRST, |_| String::from("1970-01"));
    lots.restore(0, vec![(marker(0, 1, 5), at(14))]);
    lots.advance([(0, 10)]);
    let job = begin(&mut lots);
    assert_eq!((job.from, job.until), (5, 15));
    // They come again while the log is read.
    for offset in [12, 14, 16] {
        assert!(lots.pass(0, offset, &purchase(1, 1)));
    }
    let waited = lots.waited(&job, read(&[5, 12, 14], 15)).expect("it is in progress");
    assert_eq!((offsets(&waited), waited.is_all, waited.passed), (vec![5, 12, 14, 16], true, at(16)));
}

#[test]
fn a_row_whose_log_cannot_be_read_lets_the_others_be_tried() {
    let mut lots = lots();
    lots.restore(1, vec![(marker(1, 2, 5), at(5)), (marker(1, 3, 5), at(5))]);
    let ids = [(0, 1), (1, 2), (1, 3)].map(|(partition, vendor)| (partition, RowId::of(&marker(partition, vendor, 5))));
    ids.iter().for_each(|(_, id)| lots.request(id, "ops", 1));
    for (partition, id) in ids.iter().chain(&ids[..1]) {
        assert_eq!(lots.next_try(|_| false), Some((*partition, id.clone())));
        let job = lots.begin(*partition, id.clone(), 10).expect("it is parked");
        lots.abandon(&job);
        let noted = lots.note(&job, "no broker");
        assert_eq!(noted.is_some(), !lots.take_changed().is_empty(), "it is written once");
    }
    let job = lots.begin(0, ids[0].1.clone(), 10).expect("it is parked");
    assert_eq!(lots.note(&job, "no broker"), None, "the marker says so");
    let noted = lots.note(&job, "the log begins at 7").expect("another error");
    assert_eq!((noted.revision, noted.state()), (2, "retrying"));
    assert!(noted.reason.starts_with("row-overflows: full; ") && noted.reason.ends_with("begins at 7"), "{noted:?}");
}

#[test]
fn a_later_request_is_not_ended_by_the_try_of_an_earlier_one() {
    let mut lots = lots();
    let job = begin(&mut lots);
    lots.request(&job.id, "more ops", 2);
    let waited = lots.waited(&job, read(&[5, 8], 10)).expect("it is in progress");
    assert_eq!(waited.requested_at, 1);
    lots.failed(&waited.row, at(8), &RowFault::Overflows(String::from("full")), waited.requested_at);
    assert!(lots.next_try(|_| false).is_some(), "it is tried once more");
}
