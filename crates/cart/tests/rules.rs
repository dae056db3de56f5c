//! The rules, a line each: given these commands, when this one comes, then that.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cart::{
    Aggregate, Cart, CartCommand, CartEvent, Command, CommandId, Decision, Event, LogEpoch, Outcome, Position, Refusal,
    Rejection, SessionId,
};
use proptest::prelude::*;
use uuid::Uuid;

fn id<T: From<Uuid>>(n: u16) -> T {
    Uuid::from_u128(u128::from(n)).into()
}

fn add(product: u16, quantity: i32) -> Command {
    Command::AddItem {
        product_id: id(product),
        vendor_id: id(200),
        name: String::from("red mug").try_into().unwrap(),
        price: "3.50".parse().unwrap(),
        quantity,
    }
}

fn remove(product: u16) -> Command {
    Command::RemoveItem { product_id: id(product) }
}

fn adjust(product: u16, by: i32) -> Command {
    Command::AdjustQuantity { product_id: id(product), adjust_by: by.try_into().unwrap() }
}

const CHECKOUT: Command = Command::Checkout {};

/// What happens, as text: the event's name, the product and the quantity.
fn told(events: &[Event]) -> String {
    let one = |event: &Event| {
        let name = format!("{event:?}").split(' ').next().unwrap().to_owned();
        format!("{name} {}x{}", event.item().quantity.get(), event.item().product_id.as_uuid().as_u128())
    };
    events.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn check(given: &[Command], when: Command, then: Result<&str, Rejection>) {
    check_batch(given, when, then.map_err(Refusal::from));
}

fn check_batch(given: &[Command], when: Command, then: Result<&str, Refusal>) {
    let mut cart = Cart::default();
    for command in given {
        for event in cart.decide(command).unwrap() {
            cart.evolve(&event);
        }
    }
    assert_eq!(cart.decide(&when).map(|events| told(&events)), then.map(str::to_owned), "{given:?} {when:?}");
}

#[test]
fn an_item_is_added_once() {
    check(&[], add(1, 2), Ok("ItemAdded 2x1"));
    check(&[add(1, 2)], add(1, 5), Err(Rejection::ItemAlreadyInCart));
    check(&[add(1, 2), remove(1)], add(1, 5), Ok("ItemAdded 5x1"));
    check(&[add(1, 2), CHECKOUT], add(1, 5), Ok("ItemAdded 5x1"));
}

#[test]
fn only_what_is_there_is_removed_or_adjusted() {
    check(&[add(1, 2)], remove(1), Ok("ItemRemoved 2x1"));
    check(&[add(1, 2)], remove(2), Err(Rejection::ItemNotInCart));
    check(&[add(1, 2)], adjust(1, 3), Ok("ItemQuantityIncreased 5x1"));
    check(&[add(1, 2)], adjust(1, -1), Ok("ItemQuantityDecreased 1x1"));
    check(&[], adjust(1, 1), Err(Rejection::ItemNotInCart));
    check(&[add(1, 2), CHECKOUT], remove(1), Err(Rejection::ItemNotInCart));
}

#[test]
fn a_quantity_stays_within_its_range() {
    check(&[], add(1, 0), Err(Rejection::NegativeQuantity { quantity: 0 }));
    check(&[], add(1, -3), Err(Rejection::NegativeQuantity { quantity: -3 }));
    check(&[], add(1, 1_000_001), Err(Rejection::QuantityTooLarge { quantity: 1_000_001, max: 1_000_000 }));
    check(&[add(1, 2)], adjust(1, -2), Err(Rejection::NegativeQuantity { quantity: 0 }));
    check(&[add(1, 2)], adjust(1, i32::MIN), Err(Rejection::NegativeQuantity { quantity: 2 + i64::from(i32::MIN) }));
    check(
        &[add(1, 2)],
        adjust(1, i32::MAX),
        Err(Rejection::QuantityTooLarge { quantity: 2_147_483_649, max: 1_000_000 }),
    );
}

#[test]
fn a_checkout_buys_every_line_of_a_cart_that_has_one() {
    check(&[], CHECKOUT, Err(Rejection::EmptyCartCheckout));
    check(&[add(1, 2), add(2, 1)], CHECKOUT, Ok("ItemPurchased 2x1, ItemPurchased 1x2"));
    check(&[add(1, 2), CHECKOUT], CHECKOUT, Err(Rejection::EmptyCartCheckout));
}

#[test]
fn a_cart_has_at_most_so_many_lines() {
    let full = lines(Cart::LINES_MAX);
    let max = 1_000;
    check(&full[1..], add(9_999, 1), Ok("ItemAdded 1x9999"));
    check(&full, add(9_999, 1), Err(Rejection::CartFull { max }));
    // What is there already is refused as that, also when the cart is full.
    check(&full, add(2_000, 1), Err(Rejection::ItemAlreadyInCart));
    check(&[&full[..], &[remove(2_000)]].concat(), add(1, 1), Ok("ItemAdded 1x1"));
    // All or none, also in the middle of a batch.
    let index = Some(2);
    let two_and_one = batch(&[add(1, 1), add(2, 1), add(3, 1)]);
    check_batch(&full[2..], two_and_one, Err(Refusal { rejection: Rejection::CartFull { max }, index }));
}

/// Adds so many products, with the numbers from 2,000 on.
fn lines(count: usize) -> Vec<Command> {
    (2_000..).take(count).map(|product| add(product, 1)).collect()
}

fn batch(commands: &[Command]) -> Command {
    Command::Batch { commands: commands.to_vec() }
}

#[test]
fn a_batch_is_decided_in_order_and_all_or_none() {
    let all = "ItemAdded 2x1, ItemQuantityIncreased 5x1, ItemPurchased 5x1, ItemAdded 1x1";
    check_batch(&[], batch(&[add(1, 2), adjust(1, 3), CHECKOUT, add(1, 1)]), Ok(all));
    let refused = |rejection, index| Err(Refusal { rejection, index: Some(index) });
    check_batch(&[add(1, 2)], batch(&[add(2, 1), add(1, 2)]), refused(Rejection::ItemAlreadyInCart, 1));
    check_batch(&[], batch(&[add(1, 1), CHECKOUT, CHECKOUT]), refused(Rejection::EmptyCartCheckout, 2));
}

#[test]
fn the_reply_to_a_batch_tells_the_outcome_of_each_command_in_its_session() {
    let mut cart = Aggregate::new(id(9));
    let both = batch(&[add(1, 2), add(2, 1), CHECKOUT, add(1, 1)]);
    let Decision::Accepted(events) = cart.decide(&command(1, both.clone()), position(0)) else { panic!() };
    for event in &events {
        assert_eq!(event.session_id, cart.session_id(), "{event:?}");
        cart.apply(event);
    }
    let Some(Outcome::Batch { outcomes }) = Outcome::of(&events) else { panic!() };
    let versions = outcomes.iter().map(|outcome| match outcome {
        Outcome::ItemChanged { version, .. } => (version.get(), 1),
        Outcome::CheckedOut { version, items, .. } => (version.get(), items.len()),
        Outcome::Rejected { .. } | Outcome::Batch { .. } => panic!("{outcome:?}"),
    });
    assert_eq!(versions.collect::<Vec<_>>(), [(1, 1), (2, 1), (4, 2), (5, 1)]);
    assert!(matches!(cart.decide(&command(1, both), position(9)), Decision::Repeated(_)));
}

#[test]
fn a_condition_on_the_version_holds_where_the_command_stands_in_the_log() {
    let mut cart = Aggregate::new(id(9));
    let conditional =
        |number, version: i64, one| CartCommand { expected_version: Some(version.into()), ..command(number, one) };
    let first = conditional(1, 0, add(1, 2));
    let Decision::Accepted(events) = cart.decide(&first, position(0)) else { panic!() };
    apply(&mut cart, &events);
    let late = cart.decide(&conditional(2, 0, add(2, 1)), position(1));
    assert_eq!(late, Decision::Rejected(Rejection::VersionMismatch { version: 1.into() }.into()));
    assert!(matches!(cart.decide(&conditional(3, 1, add(2, 1)), position(2)), Decision::Accepted(_)));
    // A repeat gets its first outcome, although the cart has moved on by that very command.
    assert!(matches!(cart.decide(&first, position(3)), Decision::Repeated(_)));
}

fn command(number: u16, command: Command) -> CartCommand {
    let command_id = CommandId::from(Uuid::from_u128(u128::from(number)));
    CartCommand { command_id, cart_id: id(9), issued_at: Default::default(), command, expected_version: None }
}

fn position(offset: usize) -> Position {
    Position::new(LogEpoch::FIRST, i64::try_from(offset).unwrap())
}

fn apply(cart: &mut Aggregate, events: &[CartEvent]) {
    for event in events {
        cart.apply(event);
    }
}

#[test]
fn a_repeat_within_the_window_gets_its_first_outcome_and_another_command_under_its_key_is_refused() {
    let mut cart = Aggregate::new(id(9));
    let first = command(1, add(1, 2));
    let Decision::Accepted(events) = cart.decide(&first, position(0)) else { panic!() };
    apply(&mut cart, &events);
    for n in 0..99 {
        let by = if n % 2 == 0 { 1 } else { -1 };
        let Decision::Accepted(events) = cart.decide(&command(100 + n, adjust(1, by)), position(1)) else { panic!() };
        apply(&mut cart, &events);
    }
    let Decision::Repeated(earlier) = cart.decide(&first, position(200)) else { panic!() };
    assert_eq!((earlier.first_sequence_number.get(), earlier.event_count), (1, 1));
    let other = cart.decide(&command(1, add(2, 2)), position(201));
    assert_eq!(other, Decision::Rejected(Rejection::IdempotencyKeyReused.into()));
}

#[test]
fn the_reply_to_a_checkout_names_the_session_that_was_bought() {
    let mut cart = Aggregate::new(id(9));
    let Decision::Accepted(events) = cart.decide(&command(1, add(1, 2)), position(0)) else { panic!() };
    apply(&mut cart, &events);
    let bought = cart.session_id();
    let Decision::Accepted(events) = cart.decide(&command(2, CHECKOUT), position(1)) else { panic!() };
    apply(&mut cart, &events);
    let Some(Outcome::CheckedOut { session_id, .. }) = Outcome::of(&events) else { panic!() };
    assert_eq!(session_id, bought);
    assert_eq!(cart.session_id(), SessionId::of(id(9), 1));
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        9 => any_single(),
        1 => prop::collection::vec(any_single(), 1..6).prop_map(|commands| batch(&commands)),
    ]
}

fn any_single() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (0_u16..5, -1_i32..4).prop_map(|(product, quantity)| add(product, quantity)),
        2 => (0_u16..5, prop_oneof![-3_i32..0, 1_i32..4]).prop_map(|(product, by)| adjust(product, by)),
        1 => (0_u16..5).prop_map(remove),
        1 => Just(CHECKOUT),
    ]
}

proptest! {
    /// Whatever comes: numbers have no gap, no quantity leaves its range, no cart its size, and a cart that is made
    /// again from its events, from any snapshot on, is the same cart. Some carts are nearly full at first.
    #[test]
    fn a_cart_is_what_its_events_make_of_it(
        commands in prop::collection::vec((any_command(), 0_u16..40), 1..120),
        nearly_full in prop::bool::weighted(0.05),
    ) {
        let mut cart = Aggregate::new(id(9));
        let mut events: Vec<CartEvent> = Vec::new();
        let first = if nearly_full { lines(Cart::LINES_MAX - 2) } else { Vec::new() };
        for (number, one) in (1_000..).zip(first) {
            let Decision::Accepted(new) = cart.decide(&command(number, one), position(0)) else { panic!() };
            apply(&mut cart, &new);
            events.extend(new);
        }
        let mut snapshots = vec![cart.clone()];
        for (offset, (one, number)) in commands.into_iter().enumerate() {
            let command = command(number, one);
            let decision = cart.decide(&command, position(offset));
            prop_assert_eq!(&decision, &cart.decide(&command, position(offset)));
            let Decision::Accepted(new) = decision else { continue };
            for event in &new {
                prop_assert_eq!(event.session_id, cart.session_id());
                cart.apply(event);
            }
            events.extend(new);
            snapshots.push(cart.clone());
            prop_assert!(cart.cart().items().len() <= Cart::LINES_MAX);
            prop_assert!(cart.cart().items().iter().all(|item| item.quantity.get() >= 1));
        }
        for (expected, event) in (1..).zip(&events) {
            prop_assert_eq!(event.sequence_number.get(), expected);
        }
        for mut snapshot in snapshots {
            let known = snapshot.sequence_number();
            let rest: Vec<_> = events.iter().filter(|event| event.sequence_number > known).cloned().collect();
            apply(&mut snapshot, &rest);
            prop_assert_eq!(&snapshot, &cart);
        }
    }
}
