//! Rehearsals of a cart whose journal was written by other rules, ids or schemas.

use cart::contract::Contract;
use cart::{Aggregate, CartCommand, CartEvent, CartId, Command, Decided, Decision, LogEpoch, Position, Rejection};
use cart::{RequestOutcome, SessionId};
use chrono::DateTime;
use journal::{Content, Row};
use kafka::{Codec, KafkaArgs, Registry};
use uuid::Uuid;

use super::{Asked, CartRehearsal, Compared, Difference, Part, Report, Stored, loaded};

/// The schema is compiled in, so no registry is asked.
fn codec(id: u32) -> Codec<CartEvent> {
    let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).expect("a client");
    Codec::registered(&registry, CartEvent::TOPIC, CartEvent::SCHEMA, id).expect("a schema")
}

fn cart_id() -> CartId {
    Uuid::from_u128(1).into()
}

fn add(product: u128, price: &str) -> Command {
    Command::AddItem {
        product_id: Uuid::from_u128(product).into(),
        vendor_id: Uuid::nil().into(),
        name: "mug".to_owned().try_into().expect("a name"),
        price: price.parse().expect("a price"),
        quantity: 2,
    }
}

fn adjust(product: u128) -> Command {
    Command::AdjustQuantity {
        product_id: Uuid::from_u128(product).into(),
        adjust_by: 1.try_into().expect("it is not 0"),
    }
}

/// A command at an offset; its id is made of the offset.
fn asked(offset: i64, command: Command) -> Asked {
    let command = CartCommand {
        command_id: Uuid::from_u128(offset.unsigned_abs().into()).into(),
        cart_id: cart_id(),
        issued_at: DateTime::UNIX_EPOCH,
        command,
        expected_version: None,
        keyed: Some(true),
    };
    Asked { partition: 3, offset, cart_id: Some(cart_id()), content: Ok(command), is_letter: false }
}

fn without_key(mut asked: Asked) -> Asked {
    if let Ok(command) = &mut asked.content {
        command.keyed = Some(false);
    }
    asked
}

/// The journal of these commands, as rules wrote it that `change` what today's decide.
fn journalled(asked: &[Asked], codec: &Codec<CartEvent>, change: impl Fn(&Aggregate, &mut Decided)) -> Vec<Stored> {
    let mut cart = Aggregate::new(cart_id());
    let mut stored = Vec::new();
    for one in asked {
        let Ok(command) = &one.content else { continue };
        let position = Position::new(LogEpoch::FIRST, one.offset);
        let Decision::Decided(mut decided) = cart.decide(command, position) else { continue };
        change(&cart, &mut decided);
        if decided.is_journalled() {
            let row = Row::new(&decided, cart.sequence_number(), codec).expect("it fits the schema");
            cart.apply(&decided);
            stored.push(Stored { row, decided });
        }
    }
    stored
}

fn rehearse(asked: &[Asked], stored: Vec<Stored>, codec: &Codec<CartEvent>) -> Report {
    let mut report = Report::default();
    let mut rehearsal = CartRehearsal::new(Aggregate::new(cart_id()), LogEpoch::FIRST, stored, codec);
    for one in asked {
        report.add(rehearsal.next(one).expect("the rules apply it"));
    }
    let (_, without_command) = rehearsal.finish(3);
    without_command.into_iter().for_each(|difference| report.add_difference(difference));
    report
}

/// The offsets of the differences, with the part.
fn different(report: &Report) -> Vec<(i64, Part)> {
    report.differences.iter().map(|difference| (difference.offset, difference.differs)).collect()
}

fn unchanged(_: &Aggregate, _: &mut Decided) {}

/// Adds with prices of two and of more decimals, changes of both items, a rejection, a repeat and a checkout.
fn shopping() -> Vec<Asked> {
    let mut repeat = asked(17, add(1, "2.50"));
    if let Ok(command) = &mut repeat.content {
        command.command_id = Uuid::from_u128(10).into();
    }
    vec![
        asked(10, add(1, "2.50")),
        asked(11, add(2, "0.125")),
        asked(13, adjust(1)),
        asked(14, adjust(2)),
        asked(15, add(2, "0.125")),
        without_key(asked(16, add(2, "0.125"))),
        repeat,
        asked(18, Command::Checkout {}),
        asked(19, add(2, "0.129")),
    ]
}

#[test]
fn the_same_rules_make_no_difference() {
    let (asked, codec) = (shopping(), codec(1));
    let report = rehearse(&asked, journalled(&asked, &codec, unchanged), &codec);
    assert_eq!(different(&report), []);
    assert_eq!((report.equal, report.without_row, report.records(), report.exit_code()), (7, 2, 9, 0));
}

#[test]
fn a_price_that_was_rounded_is_found_with_the_commands_that_set_it() {
    let (asked, codec) = (shopping(), codec(1));
    let stored = journalled(&asked, &codec, |_, decided| {
        for event in &mut decided.events {
            if let cart::Event::ItemAdded { item } = &mut event.event {
                item.price = item.price.get().round_dp(2).try_into().expect("a price");
            }
        }
    });
    let report = rehearse(&asked, stored, &codec);
    // Not the changes of that item and its purchase: they follow from what is journalled.
    assert_eq!(different(&report), [(11, Part::Events), (19, Part::Events)]);
    let Difference { stored, now, command, .. } = &report.differences[0];
    assert!(stored.contains("2 × \"mug\" at 0.12 = 0.24") && now.contains("2 × \"mug\" at 0.125 = 0.25"), "{report}");
    assert_eq!(command.as_deref(), Some("AddItem 2 × \"mug\" at 0.125 = 0.25"));
    let printed = report.to_string();
    assert!(printed.contains("cart-commands 3/11") && printed.ends_with("2 differences"), "{printed}");
}

#[test]
fn another_limit_of_lines_is_found_with_the_commands_that_it_rejected() {
    let codec = codec(1);
    let mut asked: Vec<Asked> = (1..=4_u8).map(|product| asked(i64::from(product), add(product.into(), "1"))).collect();
    asked.push(self::asked(5, Command::Checkout {}));
    asked.push(without_key(self::asked(6, add(1, "1"))));
    let limit = |cart: &Aggregate, decided: &mut Decided| {
        let is_add = matches!(decided.events.first().map(|event| &event.event), Some(cart::Event::ItemAdded { .. }));
        if is_add && cart.cart().items().len() >= 3 {
            decided.events.clear();
            decided.outcome = Some(RequestOutcome::Rejected { rejection: Rejection::CartFull { max: 3 }, index: None });
        }
    };
    let report = rehearse(&asked, journalled(&asked, &codec, limit), &codec);
    assert_eq!(different(&report), [(4, Part::Outcome)]);
    assert!(report.differences[0].stored.contains("CartFull { max: 3 }"), "{report}");
    // Without a key the older rejection has no row: that the command is accepted now is found all the same.
    asked[3] = without_key(asked[3].clone());
    let report = rehearse(&asked, journalled(&asked, &codec, limit), &codec);
    assert_eq!(different(&report), [(4, Part::Outcome)]);
    assert!(report.differences[0].stored.starts_with("nothing"), "{report}");
}

#[test]
fn other_ids_times_and_bytes_are_found() {
    let (asked, codec) = (shopping(), codec(1));
    let part = |change: &dyn Fn(&mut Stored)| {
        let mut stored = journalled(&asked, &codec, unchanged);
        change(&mut stored[2]);
        let report = rehearse(&asked, stored, &codec);
        let [difference] = report.differences.as_slice() else { panic!("{report}") };
        assert_eq!(difference.offset, 13);
        (difference.differs, difference.stored.clone())
    };
    let session = |stored: &mut Stored| {
        stored.decided.events[0].session_id = SessionId::from(Uuid::nil());
        stored.row.content = Content::Events(vec![codec.encode(&stored.decided.events[0]).expect("it fits")]);
    };
    assert_eq!(part(&session), (Part::Ids, format!("event 1's session {}", Uuid::nil())));
    let version = |stored: &mut Stored| stored.row.sequence_number = 9.into();
    assert_eq!(part(&version), (Part::Ids, "version 9".to_owned()));
    let byte = |stored: &mut Stored| {
        if let Content::Events(events) = &mut stored.row.content {
            events[0][40] ^= 1;
        }
    };
    let (differs, stored) = part(&byte);
    assert!(differs == Part::Bytes && stored.contains("byte 40"), "{stored}");
}

#[test]
fn what_another_schema_wrote_is_compared_by_its_content() {
    let (asked, earlier, now) = (shopping(), codec(1), codec(2));
    let report = rehearse(&asked, journalled(&asked, &earlier, unchanged), &now);
    assert_eq!(different(&report), []);
    // The rejection has no event, so it has the same bytes.
    assert_eq!((report.equal, report.equal_content), (1, 6));
}

#[test]
fn dead_letters_and_missing_or_unexpected_rows_are_found() {
    let codec = codec(1);
    let letter = |mut asked: Asked| {
        asked.is_letter = true;
        asked
    };
    let garbage = |offset| Asked { content: Err("garbage".to_owned()), ..asked(offset, Command::Checkout {}) };
    let mut shopping = shopping();
    let stored = journalled(&shopping, &codec, unchanged);
    shopping.push(letter(garbage(20)));
    assert_eq!(different(&rehearse(&shopping, stored.clone(), &codec)), []);
    shopping.push(garbage(21));
    shopping.push(letter(asked(22, add(5, "1"))));
    shopping.push(asked(23, add(6, "1")));
    // The last row has no command.
    shopping.remove(8);
    let report = rehearse(&shopping, stored, &codec);
    let expected = [(21, Part::Outcome), (22, Part::Outcome), (23, Part::Outcome), (19, Part::Existence)];
    assert_eq!(different(&report), expected, "{report}");
    assert_eq!((report.dead_letters, report.different, report.exit_code()), (1, 4, 1));
}

#[test]
fn a_rule_that_panics_for_a_command_is_a_difference() {
    let (asked, codec) = (shopping(), codec(1));
    let stored = journalled(&asked, &codec, unchanged);
    let mut rehearsal = CartRehearsal::new(Aggregate::new(cart_id()), LogEpoch::FIRST, stored, &codec);
    rehearsal.rules.decide = |cart, command, position| {
        assert!(position.offset() != 13, "a rule for offset {}", position.offset());
        cart.decide(command, position)
    };
    let mut report = Report::default();
    asked.iter().for_each(|one| report.add(rehearsal.next(one).expect("the rules apply it")));
    assert_eq!(different(&report), [(13, Part::Outcome)], "the cart is not as the journal has it");
    assert_eq!(report.differences[0].now, "the rule panics: a rule for offset 13");
}

#[test]
fn a_rule_that_panics_when_a_row_is_applied_is_named_with_cart_and_offset() {
    let (asked, codec) = (shopping(), codec(1));
    let stored = journalled(&asked, &codec, unchanged);
    let mut rehearsal = CartRehearsal::new(Aggregate::new(cart_id()), LogEpoch::FIRST, stored, &codec);
    rehearsal.rules.apply = |_, _| panic!("no such line");
    let error = rehearsal.next(&asked[0]).expect_err("it panics").to_string();
    let place = format!("cart-commands 3/10 is applied to cart {}: no such line", cart_id());
    assert!(error.contains(&place), "{error}");
}

#[tokio::test]
async fn a_rule_that_panics_when_a_cart_is_loaded_is_named_with_cart_and_offset() {
    let first = asked(10, add(1, "1"));
    let cart = loaded(&first, async { Ok(Aggregate::new(cart_id())) }).await.expect("a cart");
    assert_eq!(cart, Aggregate::new(cart_id()));
    let panics = async { [Ok(cart)].into_iter().nth(1).expect("no such line") };
    let error = loaded(&first, panics).await.expect_err("it panics").to_string();
    let place = format!("cart {} is loaded as it was before cart-commands 3/10: no such line", cart_id());
    assert!(error.contains(&place), "{error}");
}

#[test]
fn a_long_report_is_cut() {
    let difference = |offset| {
        let asked = asked(offset, Command::Checkout {});
        Compared::Different(Box::new(Difference::of(&asked, Part::Outcome, "this".to_owned(), "that".to_owned())))
    };
    let mut report = Report::default();
    (0..10_500).for_each(|offset| report.add(difference(offset)));
    let printed = report.to_string();
    assert_eq!((report.different, report.differences.len()), (10_500, 10_000));
    assert_eq!(printed.matches("another outcome").count(), 100);
    assert!(printed.contains("... and 10400 more differences") && printed.ends_with("10500 differences"));
}
