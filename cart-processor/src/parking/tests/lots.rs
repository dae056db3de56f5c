//! Which cart is tried when, and when it is parked.

use super::*;
use crate::intake::TooNewCommand;

fn failed(cart: u128, offset: i64) -> PassedCart {
    let mut one = command(offset, 0, 9);
    one.command.cart_id = Uuid::from_u128(cart).into();
    PassedCart::of(one.command.cart_id, &[one])
}

#[test]
fn one_parked_cart_too_many_stops_the_partition() {
    let mut lots = Lots::new(LogEpoch::FIRST);
    lots.restore(PARTITION, &ParkedPartition::default(), 0, Instant::now());
    let cause = Cause::Unreadable(String::from("schema 9 is unknown"));
    let mut begin = |cart| {
        lots.begin(&failed(cart, 5), &cause, Instant::now(), DateTime::UNIX_EPOCH).map_err(|error| error.partition)
    };
    for cart in 0..1_000 {
        assert!(begin(cart).is_ok(), "{cart}");
    }
    assert_eq!(begin(1_000), Err(PARTITION));
}

#[test]
fn a_cart_goes_from_tries_to_parked_and_after_a_request_to_live() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut lots = Lots::new(LogEpoch::FIRST);
    lots.restore(PARTITION, &ParkedPartition::default(), 4, start);
    let unreadable = || Cause::Unreadable(String::from("schema 9 is unknown"));
    let Ok(Change::Marker(cart)) = lots.begin(&failed(1, 5), &unreadable(), start, DateTime::UNIX_EPOCH) else {
        panic!()
    };
    assert_eq!(
        (cart.state, cart.next_position.offset(), cart.reason_code()),
        (ParkingState::Trying, 5, "journal-unreadable")
    );
    lots.advance(PARTITION, 6);
    let fails = || Failed::Cart { cause: unreadable(), store_answers: true, next_offset: None };
    assert_eq!(lots.next_job(|_| false, at(4)), None, "not yet");
    for (seconds, failed, expected) in [(5, fails(), 0), (10, Failed::Away, 0), (15, fails(), 1)] {
        let job = lots.next_job(|_| false, at(seconds)).unwrap();
        assert_eq!((job.from, job.until), (5, 6));
        assert_eq!(lots.failed(&job, failed, at(seconds)).len(), expected, "after {seconds} s");
    }
    assert_eq!(lots.next_job(|_| false, at(1_000)), None, "it is parked");
    lots.request(PARTITION, failed(1, 5).cart_id, 10, at(1_000));
    let job = lots.next_job(|_| false, at(1_000)).unwrap();
    let changes = lots.failed(&job, fails(), at(1_000));
    let [Change::Marker(cart), Change::EndOfRequest] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(cart.state, ParkingState::Parked, "one more failure parks it again");
    lots.request(PARTITION, job.cart_id, 12, at(1_001));
    let job = lots.next_job(|_| false, at(1_001)).unwrap();
    let changes = lots.decided(&job, Decided { next_offset: 6, is_all: true }, at(1_001));
    assert_eq!(changes, [Change::End, Change::EndOfRequest]);
    assert!(lots.is_empty());
}

/// The cart was repaired between a try that fails and its end.
#[test]
fn a_request_during_a_try_begins_another_try() {
    let start = Instant::now();
    let mut lots = Lots::new(LogEpoch::FIRST);
    lots.restore(PARTITION, &ParkedPartition::default(), 4, start);
    let panics = || Cause::Panicked(String::from("overflow"));
    let fails = || Failed::Cart { cause: panics(), store_answers: true, next_offset: None };
    let cart_id = failed(1, 5).cart_id;
    lots.begin(&failed(1, 5), &panics(), start, DateTime::UNIX_EPOCH).unwrap();
    lots.advance(PARTITION, 6);
    let now = start + Duration::from_secs(1);
    let job = lots.next_job(|_| false, now).unwrap();
    let changes = lots.failed(&job, fails(), now);
    assert!(matches!(changes[..], [Change::Marker(_)]), "parked without a request: {changes:?}");
    lots.request(PARTITION, cart_id, 10, now);
    let job = lots.next_job(|_| false, now).unwrap();
    lots.request(PARTITION, cart_id, 11, now);
    let changes = lots.failed(&job, fails(), now);
    assert!(changes.is_empty(), "the second request is not answered: {changes:?}");
    let job = lots.next_job(|_| false, now).unwrap();
    let changes = lots.failed(&job, fails(), now);
    let [Change::Marker(cart), Change::EndOfRequest] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(cart.state, ParkingState::Parked);
    assert_eq!(lots.next_job(|_| false, now), None, "both requests are answered");
}

#[test]
fn a_cart_is_parked_at_its_command_that_is_too_new_and_a_later_one_is_not_lost() {
    let start = Instant::now();
    let mut lots = Lots::new(LogEpoch::FIRST);
    lots.restore(PARTITION, &ParkedPartition::default(), 4, start);
    let mut known = command(5, 0, 9);
    known.command.cart_id = Uuid::from_u128(1).into();
    let cart_id = known.command.cart_id;
    let too_new = |offset| {
        let position = Position::new(LogEpoch::FIRST, offset);
        TooNewCommand { partition: PARTITION, position, cart_id, reason: String::from("branch 6 is unknown") }
    };
    let cause = || Cause::TooNew(too_new(6).reason);
    assert!(!lots.pass_too_new(&too_new(6)).unwrap(), "its cart is live");
    let mut passed = PassedCart::of_too_new(&too_new(6));
    passed.add(&[known]);
    assert_eq!(passed.replies.len(), 1, "one client can be answered");
    lots.begin(&passed, &cause(), start, DateTime::UNIX_EPOCH).unwrap();
    lots.advance(PARTITION, 7);
    let job = lots.next_job(|_| false, start + Duration::from_secs(1)).unwrap();
    assert_eq!((job.from, job.until), (5, 7), "the command before it is decided first");
    assert!(lots.pass_too_new(&too_new(8)).unwrap(), "its cart is parked");
    let arrived = lots.arrived(&job, 6).map(|(arrived, is_all)| (arrived.len(), is_all));
    assert_eq!(arrived, Some((0, false)));
    let failed = Failed::Cart { cause: cause(), store_answers: false, next_offset: Some(6) };
    let changes = lots.failed(&job, failed, start + Duration::from_secs(1));
    let [Change::Marker(cart)] = changes.as_slice() else { panic!("{changes:?}") };
    let (state, code) = (cart.state, cart.reason_code());
    assert_eq!((state, cart.next_position.offset(), code), (ParkingState::Parked, 6, "command-too-new"));
}

#[test]
fn an_unreadable_cart_among_others_that_fail_is_not_parked() {
    let start = Instant::now();
    let mut lots = Lots::new(LogEpoch::FIRST);
    lots.restore(PARTITION, &ParkedPartition::default(), 4, start);
    let cause = Cause::Unreadable(String::from("schema 9 is unknown"));
    for cart in [1, 2] {
        lots.begin(&failed(cart, 5), &cause, start, DateTime::UNIX_EPOCH).unwrap();
    }
    let mut parked = 0;
    let mut fail = |lots: &mut Lots, seconds| {
        let now = start + Duration::from_secs(seconds);
        let job = lots.next_job(|_| false, now).unwrap();
        let failed = Failed::Cart { cause: cause.clone(), store_answers: true, next_offset: None };
        parked += lots.failed(&job, failed, now).len();
        parked
    };
    for seconds in 1..40 {
        assert_eq!(fail(&mut lots, 5 * seconds), 0, "both fail, and no other cart is read");
    }
    for seconds in 40..44 {
        lots.succeeded(1, 1);
        fail(&mut lots, 5 * seconds);
    }
    assert!(lots.next_job(|_| false, start + Duration::from_secs(1_000)).is_none(), "both are parked");
}
