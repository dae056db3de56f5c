//! Compares the audit's model with the rules of `crates/cart`. No other code uses both.

use cart::{Aggregate, CartCommand, CartId, Command, Decision, LogEpoch, Position, RequestOutcome};
use cartctl::audit::{Cart, Verdict};
use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::outcomes::{kept, outcome_text, rejection_code};

fn product(number: u8) -> cart::ProductId {
    Uuid::from_u128(number.into()).into()
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
    let several = || prop::collection::vec(one(), 1..6);
    prop_oneof![
        6 => one(),
        1 => several().prop_map(|commands| Command::Batch { commands }),
        1 => several().prop_map(|commands| Command::IndependentBatch { commands }),
    ]
}

/// Both implementations of the rules.
struct Both {
    aggregate: Aggregate,
    model: Cart,
    offset: i64,
}

impl Both {
    fn new() -> Self {
        Self { aggregate: Aggregate::new(cart_id()), model: Cart::default(), offset: 0 }
    }

    /// Applies the next command of the log to both, and compares the results.
    fn take(&mut self, command: &CartCommand) -> Result<(), TestCaseError> {
        self.offset += 1;
        let decision = self.aggregate.decide(command, Position::new(LogEpoch::FIRST, self.offset));
        let verdict = self.model.take(command, LogEpoch::FIRST, self.offset);
        match (decision, verdict) {
            (Decision::Decided(decided), Verdict::Decided(found)) => {
                if decided.is_journalled() {
                    self.aggregate.apply(&decided);
                }
                prop_assert_eq!(&found.outcome, &decided.outcome.as_ref().map(outcome_text));
                prop_assert_eq!(found.kept, decided.is_journalled().then(|| kept(&decided, &self.aggregate)));
                let rule = match &decided.outcome {
                    Some(RequestOutcome::Rejected { rejection, .. }) => Some(rejection_code(rejection)),
                    Some(RequestOutcome::Each(_)) | None => None,
                };
                prop_assert_eq!(found.rule, rule);
                prop_assert_eq!(found.events, decided.events);
            }
            (Decision::Repeated(earlier), Verdict::Repeat(position)) => prop_assert_eq!(earlier.position, position),
            (Decision::KeyReused, Verdict::KeyReused) => {}
            (decision, verdict) => prop_assert!(false, "{:?}: {:?}", decision, verdict),
        }
        prop_assert_eq!(self.model.sequence_number(), self.aggregate.sequence_number().get());
        Ok(())
    }
}

fn cart_id() -> CartId {
    CartId::from(Uuid::from_u128(1))
}

#[test]
fn both_reject_a_line_in_a_full_cart() -> Result<(), TestCaseError> {
    let mut both = Both::new();
    for number in 0..=1_000_u128 {
        let id = Uuid::from_u128(number);
        let command = Command::AddItem {
            product_id: id.into(),
            vendor_id: id.into(),
            name: String::from("mug").try_into().expect("a name"),
            price: Decimal::ONE.try_into().expect("a price"),
            quantity: 1,
        };
        let issued_at = DateTime::UNIX_EPOCH;
        both.take(&CartCommand {
            command_id: id.into(),
            cart_id: cart_id(),
            issued_at,
            command,
            expected_version: None,
            keyed: Some(true),
        })?;
    }
    prop_assert_eq!(both.aggregate.cart().items().len(), 1_000);
    Ok(())
}

fn any_keyed() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![5 => Just(Some(true)), 1 => Just(Some(false)), 2 => Just(None)]
}

/// An id. Some are ids of commands in another one's batch.
fn any_id() -> impl Strategy<Value = cart::CommandId> {
    let id = |id: u128| cart::CommandId::from(Uuid::from_u128(id));
    prop_oneof![9 => (0..180_u128).prop_map(id), 1 => (0..180_u128, 0..6_usize).prop_map(move |(n, index)| id(n).in_batch(index))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// There are few ids, so that keys are repeated and reused, also after they were forgotten: 15 minutes pass with each
    /// command.
    #[test]
    fn two_independent_readings_of_the_rules_agree(
        commands in prop::collection::vec(
            (any_command(), any_id(), prop::option::weighted(0.1, 0..40_i64), any_keyed(), 0..90_i64),
            1..400,
        )
    ) {
        let mut both = Both::new();
        for (number, (command, command_id, expected_version, keyed, early)) in (0_i64..).zip(commands) {
            both.take(&CartCommand {
                command_id,
                cart_id: cart_id(),
                issued_at: DateTime::UNIX_EPOCH + TimeDelta::minutes(number * 15 - early),
                command,
                expected_version: expected_version.map(Into::into),
                keyed,
            })?;
        }
    }
}
