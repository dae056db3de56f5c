//! Outcomes of `crates/cart` in the words of the audit.

use cart::{Aggregate, CommandResult, Decided, Rejection, RequestOutcome};
use cartctl::audit::Kept;

/// The rule's name: the last part of the problem's type.
pub(crate) fn rejection_code(rejection: &Rejection) -> &'static str {
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

pub(crate) fn outcome_text(outcome: &RequestOutcome) -> String {
    match outcome {
        RequestOutcome::Rejected { rejection, index } => {
            let index = index.map(|index| format!(" at {index}")).unwrap_or_default();
            format!("rejected {}{index}", rejection_code(rejection))
        }
        RequestOutcome::Each(results) => {
            let results = results.iter().map(|result| match result {
                CommandResult::Made { events } => format!("made {events}"),
                CommandResult::Rejected { rejection } => format!("rejected {}", rejection_code(rejection)),
                CommandResult::Earlier { sequence_number } => format!("earlier {sequence_number}"),
            });
            format!("each {}", results.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What the journal keeps of a request beside its events. `cart` is the cart after it.
pub(crate) fn kept(decided: &Decided, cart: &Aggregate) -> Kept {
    Kept {
        command_id: decided.command_id.as_uuid(),
        keyed: decided.keyed,
        outcome: decided.outcome.as_ref().map(outcome_text),
        sequence_number: cart.sequence_number().get(),
        unchanged: decided.events.is_empty().then_some((decided.digest, decided.issued_at)),
    }
}
