//! Ways of commands, put together from records in any order.

use cart::{Aggregate, Command, Decision, LogEpoch, Outcome, Position};
use uuid::Uuid;

use super::*;

fn hop(offset: i64, at_ms: i64) -> Hop {
    Hop { partition: 0, offset, at_ms }
}

/// A cart that is filled and bought: its two commands with their events.
fn bought() -> Vec<(CartCommand, Vec<CartEvent>)> {
    let mut cart = Aggregate::new(Uuid::from_u128(9).into());
    let add = Command::AddItem {
        product_id: Uuid::from_u128(1).into(),
        vendor_id: Uuid::from_u128(2).into(),
        name: "red mug".to_owned().try_into().expect("a name"),
        price: "3.50".parse().expect("a price"),
        quantity: 2,
    };
    let decide = |(offset, command)| {
        let command = CartCommand {
            command_id: Uuid::from_u128(100 + u128::try_from(offset).expect("small")).into(),
            cart_id: cart.cart_id(),
            issued_at: "2026-01-31T12:00:00Z".parse().expect("a time"),
            command,
            expected_version: None,
            keyed: None,
        };
        let decision = cart.decide(&command, Position::new(LogEpoch::FIRST, offset));
        let Decision::Decided(decided) = decision else { panic!("{command:?}") };
        cart.apply(&decided);
        (command, decided.events)
    };
    (0_i64..).zip([add, Command::Checkout {}]).map(decide).collect()
}

#[test]
fn a_way_is_put_together_in_any_order() {
    let bought = bought();
    let (checkout, events) = &bought[1];
    let purchase = PurchasedItem::of(events[0].clone()).expect("a purchase");
    let mut journeys = Journeys::default();
    journeys.set_partitions(1);
    journeys.watch(checkout.cart_id);
    assert_eq!(journeys.purchase(purchase, hop(70, 1_030)), None);
    assert_eq!(journeys.event(&events[0], hop(40, 1_020)), None);
    let reply = CartReply {
        command_id: checkout.command_id,
        cart_id: checkout.cart_id,
        position: Position::new(LogEpoch::FIRST, 1),
        outcome: Outcome::of(events).expect("events"),
    };
    assert_eq!(journeys.reply(&reply, 1_010), Ok(None));
    assert!(journeys.newest().is_empty(), "the command itself is not known yet");
    journeys.command(checkout, hop(1, 1_000), Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()));
    assert_eq!(journeys.reply(&reply, 1_500), Err(()), "a repeated reply");
    let found = journeys.found();
    assert_eq!((found.len(), found[0].place, found[0].hop), (1, (0, 1), hop(70, 1_030)));
    journeys.included((0, 1), 0, 1, Included { at_ms: 1_040, value: Some("7".to_owned()) });

    let way = serde_json::to_value(journeys.of(checkout.command_id)).expect("JSON");
    assert_eq!(way["asked"]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(way["became"]["what"], "1 line bought for 7.00");
    assert_eq!(way["events"][0]["purchase"]["hop"]["offset"], 70);
    assert_eq!(way["events"][0]["purchase"]["tables"][1]["value"], "7");
    let newest = serde_json::to_value(journeys.newest()).expect("JSON");
    assert_eq!((&newest[0]["tookMs"], &newest[0]["isRefused"]), (&10.into(), &false.into()));
}

#[test]
fn replies_with_one_offset_in_two_partitions_are_those_of_two_commands() {
    let partitions = 3;
    let partition = |cart_id: CartId| partition_of(cart_id.to_string().as_bytes(), partitions);
    let first = CartId::from(Uuid::new_v4());
    let second = std::iter::repeat_with(|| CartId::from(Uuid::new_v4()))
        .find(|cart_id| partition(*cart_id) != partition(first))
        .expect("a cart of another partition");
    let mut journeys = Journeys::default();
    journeys.set_partitions(partitions);
    for cart_id in [first, second] {
        let reply = CartReply {
            command_id: CommandId::from(Uuid::new_v4()),
            cart_id,
            position: Position::new(LogEpoch::FIRST, 1),
            outcome: Outcome::of(&bought()[1].1).expect("events"),
        };
        assert_eq!(journeys.reply(&reply, 1_010), Ok(None));
    }
}

#[test]
fn an_offset_shows_that_a_table_includes_a_purchase() {
    let bought = bought();
    let (checkout, events) = &bought[1];
    let mut journeys = Journeys::default();
    journeys.set_partitions(1);
    journeys.command(checkout, hop(1, 1_000), None);
    assert_eq!(journeys.event(&events[0], hop(40, 1_020)), Some(1_000));
    let purchase = PurchasedItem::of(events[0].clone()).expect("a purchase");
    assert_eq!(journeys.purchase(purchase, hop(70, 1_030)), Some(1_020));
    journeys.committed(2, &BTreeMap::from([(0, 70)]), 2_000);
    journeys.committed(2, &BTreeMap::from([(0, 71)]), 3_000);
    journeys.committed(2, &BTreeMap::from([(0, 99)]), 4_000);
    let way = serde_json::to_value(journeys.at((0, 1))).expect("JSON");
    assert_eq!(way["events"][0]["purchase"]["tables"][2]["atMs"], 3_000);
    assert!(way["events"][0]["purchase"]["tables"][0].is_null());

    // A row that is read later adds its value; the time stays.
    for (at_ms, value) in [(5_000, "7"), (6_000, "8")] {
        journeys.included((0, 1), 0, 2, Included { at_ms, value: Some(value.to_owned()) });
    }
    journeys.committed(2, &BTreeMap::from([(0, 100)]), 7_000);
    let way = serde_json::to_value(journeys.at((0, 1))).expect("JSON");
    let table = &way["events"][0]["purchase"]["tables"][2];
    assert_eq!((&table["atMs"], &table["value"]), (&3_000.into(), &"7".into()));
}

#[test]
fn an_offset_also_shows_a_visitors_purchase_whose_rows_are_not_read() {
    let bought = bought();
    let (checkout, events) = &bought[1];
    let mut journeys = Journeys::default();
    journeys.set_partitions(1);
    journeys.watch(checkout.cart_id);
    journeys.command(checkout, hop(1, 1_000), None);
    journeys.event(&events[0], hop(40, 1_020));
    journeys.purchase(PurchasedItem::of(events[0].clone()).expect("a purchase"), hop(70, 1_030));
    assert_eq!(journeys.found().len(), 1);
    journeys.committed(2, &BTreeMap::from([(0, 71)]), 3_000);
    let way = serde_json::to_value(journeys.at((0, 1))).expect("JSON");
    assert_eq!(way["events"][0]["purchase"]["tables"][2]["atMs"], 3_000);
}

#[test]
fn memory_is_bounded() {
    let bought = bought();
    let (checkout, events) = &bought[1];
    let mut journeys = Journeys::default();
    for offset in 0..i64::try_from(3 * KEPT_MAX).expect("small") {
        journeys.command(checkout, hop(offset, offset), None);
        let event = CartEvent { position: Position::new(LogEpoch::FIRST, offset), ..events[0].clone() };
        for _ in 0..2 * EVENTS_MAX {
            journeys.event(&event, hop(offset, offset));
        }
        journeys.purchase(
            PurchasedItem { event_id: Uuid::new_v4().into(), ..PurchasedItem::of(event).expect("one") },
            hop(offset, offset),
        );
    }
    assert_eq!((journeys.journeys.len(), journeys.order.len(), journeys.early.len()), (KEPT_MAX, KEPT_MAX, KEPT_MAX));
    let longest = journeys.journeys.values().map(|journey| journey.events.len()).max();
    assert_eq!(longest, Some(EVENTS_MAX));
    assert!(journeys.purchased.len() <= 1, "all events have one id here");
}
