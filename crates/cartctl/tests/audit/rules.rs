//! The audit's model against the rules of `crates/cart`: the only place where the two meet.

use cart::{Aggregate, CartCommand, CartId, Command, Decision, LogEpoch, Position, Rejection};
use cartctl::audit::{Cart, Verdict};
use proptest::prelude::*;
use rust_decimal::Decimal;
use uuid::Uuid;

fn product(number: impl Into<u128>) -> cart::ProductId {
    Uuid::from_u128(number.into()).into()
}

/// Another line for the cart.
fn add(number: u128) -> Command {
    Command::AddItem {
        product_id: product(number),
        vendor_id: Uuid::nil().into(),
        name: String::from("a").try_into().expect("a name"),
        price: Decimal::ONE.try_into().expect("a price"),
        quantity: 1,
    }
}

fn one() -> impl Strategy<Value = Command> {
    let quantity = prop_oneof![8 => -1..8_i32, 1 => 999_990..=1_000_001_i32, 1 => any::<i32>()];
    let add = (0..6_u8, 0..3_u8, quantity, 0..100_000_i64, "[a-c]{1,2}").prop_map(
        |(number, vendor, quantity, price, name)| Command::AddItem {
            product_id: product(number),
            vendor_id: Uuid::from_u128(vendor.into()).into(),
            name: name.try_into().expect("a name"),
            price: Decimal::new(price, 4).try_into().expect("a price"),
            quantity,
        },
    );
    let by = prop_oneof![8 => -4..9_i32, 1 => any::<i32>()];
    let adjust = (0..6_u8, by).prop_filter_map("zero", |(number, by)| {
        Some(Command::AdjustQuantity { product_id: product(number), adjust_by: by.try_into().ok()? })
    });
    prop_oneof![
        5 => add,
        1 => (0..6_u8).prop_map(|number| Command::RemoveItem { product_id: product(number) }),
        3 => adjust,
        1 => Just(Command::Checkout {}),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![6 => one(), 1 => prop::collection::vec(one(), 1..6).prop_map(|commands| Command::Batch { commands })]
}

fn slug(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::ItemAlreadyInCart => "item-already-in-cart",
        Rejection::ItemNotInCart => "item-not-in-cart",
        Rejection::NegativeQuantity { .. } => "negative-quantity",
        Rejection::QuantityTooLarge { .. } => "quantity-too-large",
        Rejection::EmptyCartCheckout => "empty-cart-checkout",
        Rejection::CartFull { .. } => "cart-full",
        Rejection::IdempotencyKeyReused => "idempotency-key-reused",
        Rejection::VersionMismatch { .. } => "version-mismatch",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Few ids, so that keys are repeated and reused, also when they are long forgotten. Some carts are nearly full at first.
    #[test]
    fn two_independent_readings_of_the_rules_agree(
        commands in prop::collection::vec((any_command(), 0..180_u8, prop::option::weighted(0.1, 0..40_i64)), 1..400),
        nearly_full in prop::bool::weighted(0.05),
    ) {
        let cart_id = CartId::from(Uuid::from_u128(1));
        let (mut aggregate, mut model) = (Aggregate::new(cart_id), Cart::default());
        let lines = (1_000..if nearly_full { 1_998 } else { 1_000 }).map(|number| (add(number), number, None));
        let commands = commands.into_iter().map(|(command, id, version)| (command, u128::from(id), version));
        for (offset, (command, id, expected_version)) in (0..).zip(lines.chain(commands)) {
            let command = CartCommand {
                command_id: Uuid::from_u128(id).into(),
                cart_id,
                issued_at: chrono::DateTime::from_timestamp(offset, 0).unwrap_or_default(),
                command,
                expected_version: expected_version.map(Into::into),
            };
            let decision = aggregate.decide(&command, Position::new(LogEpoch::FIRST, offset));
            let verdict = model.take(&command, LogEpoch::FIRST, offset);
            let expected = match decision {
                Decision::Accepted(events) => {
                    events.iter().for_each(|event| aggregate.apply(event));
                    Verdict::Accepted(events)
                }
                Decision::Repeated(earlier) => Verdict::Repeat(earlier.first_sequence_number.get()),
                Decision::Rejected(refusal) => Verdict::Refused(slug(&refusal.rejection)),
            };
            prop_assert_eq!(verdict, expected);
            prop_assert_eq!(model.sequence_number(), aggregate.sequence_number().get());
        }
    }
}
