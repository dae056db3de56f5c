//! What becomes of the rows of a table, and of their markers.

mod pieces;

use std::sync::Arc;

use cassandra::parked_rows::RetryRequest;
use kafka::{Codec, KafkaArgs, Registry};
use trace::Trace;
use uuid::Uuid;

use pieces::Pieces;

use super::*;
use crate::parking::{LogReader, PARKED_MAX, Passed, Read, RowId};
use crate::runner::Received;

/// A record: partition, offset, vendor, product, pieces.
type Sold = (i32, i64, u128, u128, i32);

fn purchase(vendor: u128, product: u128, pieces: i32) -> PurchasedItem {
    PurchasedItem {
        event_id: Uuid::nil().into(),
        cart_id: Uuid::nil().into(),
        session_id: Uuid::nil().into(),
        vendor_id: Uuid::from_u128(vendor).into(),
        product_id: Uuid::from_u128(product).into(),
        name: String::from("mug").try_into().unwrap(),
        price: "1".parse().unwrap(),
        quantity: pieces.try_into().unwrap(),
        purchased_at: chrono::DateTime::UNIX_EPOCH,
    }
}

fn batch(sold: &[Sold]) -> Batch<PurchasedItem> {
    let received = |&(partition, offset, vendor, product, pieces): &Sold| Received {
        partition,
        offset,
        event: purchase(vendor, product, pieces),
        trace: Trace::None,
    };
    Batch { records: sold.iter().map(received).collect(), next_offsets: Default::default() }
}

fn row_key(purchase: &PurchasedItem) -> String {
    Pieces::within(purchase).to_string()
}

/// An instance that owns partition 0. Its log is never read.
async fn totals(pieces: &Pieces) -> Totals<Pieces, Pieces> {
    let pieces = Pieces { base: Arc::default(), ..pieces.clone() };
    let kafka = KafkaArgs::plain("127.0.0.1:1", "");
    let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).unwrap();
    let topic = String::from(<PurchasedItem as cart::contract::Contract>::TOPIC);
    let codec = Codec::registered(&registry, &topic, <PurchasedItem as cart::contract::Contract>::SCHEMA, 1).unwrap();
    let reader = LogReader { kafka, topic, codec, runtime: Handle::current(), row_key };
    let lots = Lots::new("pieces", LogEpoch::FIRST, row_key);
    let parking = (lots, pieces.clone(), Retries::new(reader));
    let mut totals = Totals::new((pieces, 10), LogEpoch::FIRST, parking, Handle::current());
    totals.restore_parked(&[0]).await.unwrap();
    totals
}

/// The changed rows of a batch, as vendor, product, pieces.
fn fold(totals: &mut Totals<Pieces, Pieces>, sold: &[Sold]) -> Vec<(u128, u128, i64)> {
    let (changed, failed) = totals.fold(&batch(sold), &HashMap::new());
    assert_eq!(failed, BTreeMap::new());
    let mut changed: Vec<_> = changed
        .into_iter()
        .map(|(key, row)| (key.vendor_id.as_uuid().as_u128(), key.within.as_u128(), row.total))
        .collect();
    changed.sort_unstable();
    changed
}

/// As `apply`, without the offsets.
async fn apply(totals: &mut Totals<Pieces, Pieces>, sold: &[Sold]) -> Result<(), Error> {
    let batch = batch(sold);
    let Loaded { asked, unread } = totals.load(&batch).await?;
    let (changed, failed) = totals.fold(&batch, &unread);
    let read = asked - unread.len();
    totals.write(changed).await?;
    totals.set_aside(&batch, failed, read).await?;
    totals.lots.advance(sold.iter().map(|(partition, offset, ..)| (*partition, offset + 1)));
    Ok(())
}

/// Lets a row be tried again with these records of it, as the log has them.
async fn retry(totals: &mut Totals<Pieces, Pieces>, (vendor, product): (u128, u128), log: &[(i64, i32)]) {
    let id = RowId { vendor_id: Uuid::from_u128(vendor).into(), row_key: Uuid::from_u128(product).to_string() };
    let request =
        RetryRequest { vendor_id: id.vendor_id, row_key: id.row_key.clone(), by: "ops".into(), written_at: 1 };
    totals.markers.stored().requests.push(request);
    totals.lots.request(&id, "ops", 1);
    let (partition, id) = totals.lots.next_try(|_| false).expect("it is wanted");
    let until = totals.lots.next_offset(partition).unwrap_or_default();
    let job = totals.lots.begin(partition, id, until).expect("it is parked");
    let records = log.iter().filter(|(offset, _)| *offset >= job.from && *offset < job.until);
    let records =
        records.map(|(offset, pieces)| Passed { offset: *offset, purchase: purchase(vendor, product, *pieces) });
    let read = Read { records: records.collect(), read_to: job.until };
    let waited = totals.lots.waited(&job, read).expect("it is in progress");
    totals.try_again(waited).await.unwrap();
    assert_eq!(totals.markers.stored().requests, [], "the request is done with");
}

#[tokio::test]
async fn a_record_at_or_before_its_rows_position_is_skipped() {
    let mut totals = totals(&Pieces::default()).await;
    assert_eq!(fold(&mut totals, &[(0, 5, 1, 7, 2), (0, 6, 1, 7, 3)]), [(1, 7, 5)]);
    assert_eq!(fold(&mut totals, &[(0, 5, 1, 7, 2), (0, 6, 1, 7, 3)]), [], "the whole batch again");
    assert_eq!(fold(&mut totals, &[(0, 6, 1, 7, 3), (0, 7, 1, 7, 4)]), [(1, 7, 9)], "a part of it again");
}

#[tokio::test]
async fn vendors_of_different_partitions_have_rows_of_their_own() {
    let mut totals = totals(&Pieces::default()).await;
    // The second vendor's records have smaller offsets, in another partition.
    assert_eq!(fold(&mut totals, &[(0, 50, 1, 7, 2), (1, 3, 2, 7, 4)]), [(1, 7, 2), (2, 7, 4)]);
    assert_eq!(fold(&mut totals, &[(1, 4, 2, 7, 1)]), [(2, 7, 5)]);
}

#[tokio::test]
async fn a_row_that_overflows_is_parked_and_the_others_go_on() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    let sold = [(0, 1, 1, 7, 60), (0, 2, 2, 7, 5), (0, 3, 1, 7, 60), (0, 4, 1, 7, 1), (0, 5, 1, 8, 4)];
    apply(&mut totals, &sold).await.unwrap();
    assert_eq!((pieces.total(1, 7), pieces.total(2, 7), pieces.total(1, 8)), (Some(60), Some(5), Some(4)));
    let markers = pieces.stored().markers();
    let [(row, passed)] = &markers[..] else { panic!("one row is parked: {markers:?}") };
    assert_eq!((row.first_position.offset(), row.next_position.offset(), passed.offset()), (3, 3, 4));
    assert_eq!((row.reason_code(), row.row_key.as_str()), ("row-overflows", &*Uuid::from_u128(7).to_string()));
    // What comes now waits, also for the next owner of the partition.
    apply(&mut totals, &[(0, 6, 1, 7, 2), (0, 7, 2, 7, 5)]).await.unwrap();
    let mut next = self::totals(&pieces).await;
    apply(&mut next, &[(0, 8, 1, 7, 3), (0, 9, 2, 7, 5)]).await.unwrap();
    assert_eq!((pieces.total(1, 7), pieces.total(2, 7)), (Some(60), Some(15)));
    assert_eq!(pieces.stored().markers()[0].1.offset(), 8);
}

#[tokio::test]
async fn a_retry_adds_what_has_waited_and_ends_the_marker() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    apply(&mut totals, &[(0, 1, 1, 7, 60), (0, 2, 1, 7, 50), (0, 3, 1, 7, 4)]).await.unwrap();
    let log = [(1, 60), (2, 50), (3, 4)];
    retry(&mut totals, (1, 7), &log).await;
    assert_eq!(pieces.total(1, 7), Some(60), "it fails again");
    assert_eq!(pieces.stored().markers().len(), 1);
    // Somebody has made room.
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    retry(&mut totals, (1, 7), &log).await;
    assert_eq!(pieces.total(1, 7), Some(64));
    assert!(pieces.stored().markers().is_empty() && totals.lots.is_empty());
    apply(&mut totals, &[(0, 3, 1, 7, 4), (0, 4, 1, 7, 1)]).await.unwrap();
    assert_eq!(pieces.total(1, 7), Some(65), "it is live");
}

#[tokio::test]
async fn a_retry_that_fails_keeps_its_progress() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    apply(&mut totals, &[(0, 1, 1, 7, 60), (0, 2, 1, 7, 50), (0, 3, 1, 7, 4), (0, 4, 1, 7, 70)]).await.unwrap();
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    retry(&mut totals, (1, 7), &[(2, 50), (3, 4), (4, 70)]).await;
    assert_eq!(pieces.total(1, 7), Some(64));
    let (row, passed) = pieces.stored().markers().remove(0);
    assert_eq!((row.first_position.offset(), row.next_position.offset(), passed.offset()), (2, 4, 4));
}

#[tokio::test]
async fn a_retry_after_a_crash_adds_nothing_twice() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    apply(&mut totals, &[(0, 1, 1, 7, 60), (0, 2, 1, 7, 50)]).await.unwrap();
    let ends = pieces.stored().ends.clone();
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    retry(&mut totals, (1, 7), &[(2, 50)]).await;
    // The row was written, and the marker not ended.
    pieces.stored().ends = ends;
    let mut next = self::totals(&pieces).await;
    apply(&mut next, &[(0, 3, 1, 7, 5)]).await.unwrap();
    assert_eq!(pieces.total(1, 7), Some(60));
    retry(&mut next, (1, 7), &[(2, 50), (3, 5)]).await;
    assert_eq!((pieces.total(1, 7), pieces.stored().markers().len()), (Some(65), 0));
}

#[tokio::test]
async fn a_late_end_of_a_marker_does_not_end_one_that_holds_newer_records() {
    let pieces = Pieces::default();
    let mut paused = totals(&pieces).await;
    apply(&mut paused, &[(0, 1, 1, 7, 60), (0, 2, 1, 7, 50)]).await.unwrap();
    let mut owner = totals(&pieces).await;
    apply(&mut owner, &[(0, 3, 1, 7, 1)]).await.unwrap();
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    retry(&mut paused, (1, 7), &[(2, 50)]).await;
    assert_eq!(pieces.stored().markers().len(), 1, "the record at offset 3 waits");
    let mut next = totals(&pieces).await;
    next.lots.advance([(0, 4)]);
    retry(&mut next, (1, 7), &[(2, 50), (3, 1)]).await;
    assert_eq!((pieces.total(1, 7), pieces.stored().markers().len()), (Some(61), 0));
}

#[tokio::test]
async fn markers_and_tries_win_over_what_was_written_before_the_rows_were_replaced() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    apply(&mut totals, &[(0, 40, 1, 7, 60), (0, 50, 1, 7, 50)]).await.unwrap();
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    retry(&mut totals, (1, 7), &[(50, 50)]).await;
    // The marker was ended at offset 50. `cartctl switch --in-place` moves the offsets back.
    let copied = Position::new(LogEpoch::FIRST, 10);
    pieces.stored().base = 1;
    pieces.stored().rows.values_mut().for_each(|row| row.position = copied);
    pieces.stored().row_times.values_mut().for_each(|time| *time = copied.timestamp(1));
    apply(&mut self::totals(&pieces).await, &[(0, 20, 1, 7, 50)]).await.unwrap();
    assert_eq!(pieces.stored().markers().len(), 1, "a marker with an earlier offset stays");
    // This one tries it before it has loaded a batch.
    let mut last = self::totals(&pieces).await;
    last.lots.advance([(0, 21)]);
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    retry(&mut last, (1, 7), &[(20, 50)]).await;
    assert_eq!((pieces.total(1, 7), pieces.stored().markers().len()), (Some(60), 0));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_parked_beside_others_that_can() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    apply(&mut totals, &[(0, 1, 1, 7, 6), (0, 2, 2, 7, 5)]).await.unwrap();
    pieces.stored().damaged.insert(Uuid::from_u128(1).into());
    let mut totals = self::totals(&pieces).await;
    apply(&mut totals, &[(0, 3, 1, 7, 6), (0, 4, 2, 7, 5)]).await.unwrap();
    assert_eq!((pieces.total(1, 7), pieces.total(2, 7)), (Some(6), Some(10)));
    assert_eq!(pieces.stored().markers()[0].0.reason_code(), "row-unreadable");
    pieces.stored().damaged.clear();
    retry(&mut totals, (1, 7), &[(1, 6), (3, 6)]).await;
    assert_eq!((pieces.total(1, 7), pieces.stored().markers().len()), (Some(12), 0));
}

#[tokio::test]
async fn nothing_is_parked_when_no_row_can_be_read() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    pieces.stored().damaged.extend([1, 2].map(|vendor| VendorId::from(Uuid::from_u128(vendor))));
    let all = apply(&mut totals, &[(0, 1, 1, 7, 6), (0, 2, 2, 7, 5)]).await;
    assert!(matches!(all, Err(Error::NoRowKept { rows: 2, .. })), "{all:?}");
    pieces.stored().damaged.clear();
    pieces.stored().is_away = true;
    let away = apply(&mut totals, &[(0, 1, 1, 7, 6)]).await;
    assert!(matches!(away, Err(Error::Cassandra(_))), "{away:?}");
    assert!(pieces.stored().markers().is_empty());
}

#[tokio::test]
async fn one_row_that_cannot_be_read_is_parked_only_if_another_one_can() {
    let [first, second] = [1, 2].map(|vendor| VendorId::from(Uuid::from_u128(vendor)));
    let pieces = Pieces::default();
    apply(&mut totals(&pieces).await, &[(0, 1, 1, 7, 6), (0, 2, 2, 7, 5)]).await.unwrap();
    pieces.stored().damaged.insert(first);
    let mut totals = totals(&pieces).await;
    let alone = apply(&mut totals, &[(0, 3, 1, 7, 6)]).await;
    assert!(matches!(alone, Err(Error::NoRowKept { rows: 1, .. })), "no other row is known: {alone:?}");
    apply(&mut totals, &[(1, 1, 2, 7, 5)]).await.unwrap();
    pieces.stored().damaged.insert(second);
    // Rows in memory change, and show nothing of the store.
    let outage = apply(&mut totals, &[(0, 3, 1, 7, 6), (1, 9, 2, 7, 5)]).await;
    assert!(matches!(outage, Err(Error::NoRowKept { rows: 1, .. })), "the other one cannot be read: {outage:?}");
    assert!(pieces.stored().markers().is_empty());
    pieces.stored().damaged.remove(&second);
    apply(&mut totals, &[(0, 3, 1, 7, 6)]).await.unwrap();
    assert_eq!(pieces.stored().markers()[0].0.reason_code(), "row-unreadable");
}

#[tokio::test]
async fn a_marker_ends_only_with_all_records_that_it_holds() {
    let pieces = Pieces::default();
    let sold = [(0, 1, 1, 7, 60), (0, 2, 1, 7, 50), (0, 3, 1, 7, 1), (0, 4, 1, 7, 2)];
    apply(&mut totals(&pieces).await, &sold).await.unwrap();
    pieces.stored().rows.values_mut().for_each(|row| row.total = 10);
    // The offsets of the batch were not committed: this one has read nothing when it tries the row.
    let mut next = totals(&pieces).await;
    retry(&mut next, (1, 7), &[(1, 60), (2, 50), (3, 1), (4, 2)]).await;
    assert_eq!((pieces.total(1, 7), pieces.stored().markers().len()), (Some(63), 0));
    apply(&mut next, &sold).await.unwrap();
    assert_eq!((pieces.total(1, 7), pieces.stored().markers().len()), (Some(63), 0), "they come again");
    apply(&mut next, &[(0, 5, 1, 7, 90)]).await.unwrap();
    assert_eq!(pieces.stored().markers().len(), 1, "a marker behind the end of an earlier one stays");
    apply(&mut totals(&pieces).await, &[(0, 5, 1, 7, 90), (0, 6, 1, 7, 1)]).await.unwrap();
    assert_eq!((pieces.total(1, 7), pieces.stored().markers()[0].1.offset()), (Some(63), 6));
}

#[tokio::test]
async fn a_retry_that_fails_for_another_reason_says_so() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    apply(&mut totals, &[(0, 1, 1, 7, 60), (0, 2, 1, 7, 50)]).await.unwrap();
    // No record comes, so each write has the same timestamp.
    for (is_damaged, code) in [(true, "row-unreadable"), (false, "row-overflows"), (true, "row-unreadable")] {
        pieces.stored().damaged.clear();
        if is_damaged {
            pieces.stored().damaged.insert(Uuid::from_u128(1).into());
        }
        retry(&mut totals, (1, 7), &[(1, 60), (2, 50)]).await;
        let (row, _) = pieces.stored().markers().remove(0);
        assert_eq!((row.reason_code(), row.next_position.offset()), (code, 2));
    }
}

#[tokio::test]
async fn one_row_too_many_stops_the_partition() {
    let pieces = Pieces::default();
    let mut totals = totals(&pieces).await;
    // Each row has no room for its second record.
    let rows = u128::try_from(PARKED_MAX).unwrap() + 1;
    let sold: Vec<Sold> = (0..2 * rows).map(|n| (0, i64::try_from(n).unwrap(), n % rows, 7, 60)).collect();
    let stopped = apply(&mut totals, &sold).await.unwrap_err();
    assert_eq!(stopped.stops(), Some((0, i64::try_from(2 * rows - 1).unwrap())), "{stopped}");
    assert!(pieces.stored().markers().is_empty(), "the batch comes again, without its last record");
}
