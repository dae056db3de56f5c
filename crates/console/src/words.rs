//! Commands, outcomes and events as a visitor reads them.

use cart::{Command, Event, Item, Outcome, Rejection};
use rust_decimal::Decimal;

fn pieces(quantity: i32, name: &str, price: Decimal) -> String {
    format!("{quantity} × {name} at {}", money(price))
}

/// An amount, exactly, with at least two decimal places.
fn money(amount: Decimal) -> String {
    let mut shown = amount.normalize();
    if shown.scale() < 2 {
        shown.rescale(2);
    }
    shown.to_string()
}

fn item(of: &Item) -> String {
    pieces(of.quantity.get(), of.name.as_str(), of.price.get())
}

/// The kind of a command.
pub(crate) const fn kind(command: &Command) -> &'static str {
    match command {
        Command::AddItem { .. } => "add",
        Command::RemoveItem { .. } => "remove",
        Command::AdjustQuantity { .. } => "adjust",
        Command::Checkout {} => "checkout",
        Command::Batch { .. } | Command::IndependentBatch { .. } => "batch",
    }
}

/// What a command asks for.
pub(crate) fn command(wanted: &Command) -> String {
    match wanted {
        Command::AddItem { name, price, quantity, .. } => pieces(*quantity, name.as_str(), price.get()),
        Command::RemoveItem { product_id } => format!("product {}", short(&product_id.to_string())),
        Command::AdjustQuantity { product_id, adjust_by } => {
            format!("{adjust_by:+} × product {}", short(&product_id.to_string()))
        }
        Command::Checkout {} => "everything in the cart".to_owned(),
        Command::Batch { commands } => format!("{} commands, all or none", commands.len()),
        Command::IndependentBatch { commands } => format!("{} commands", commands.len()),
    }
}

/// The beginning of an id, enough to recognise it.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Whether an outcome is a rejection as a whole.
pub(crate) const fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected { .. })
}

/// What became of a command.
pub(crate) fn outcome(of: &Outcome) -> String {
    match of {
        Outcome::ItemChanged { item: now, .. } => item(now),
        Outcome::CheckedOut { items, .. } => {
            let total: Decimal = items.iter().map(Item::amount).sum();
            let lines = if items.len() == 1 { "line" } else { "lines" };
            format!("{} {lines} bought for {}", items.len(), money(total))
        }
        Outcome::Rejected { rejection: reason, index: None } => rejection(reason),
        Outcome::Rejected { rejection: reason, index: Some(index) } => {
            format!("{} (command {})", rejection(reason), index + 1)
        }
        Outcome::Batch { outcomes } => format!("{} commands", outcomes.len()),
        Outcome::IndependentBatch { outcomes } => {
            let refused = outcomes.iter().filter(|outcome| is_refused(outcome)).count();
            format!("{} of {} commands", outcomes.len() - refused, outcomes.len())
        }
        Outcome::Parked { reason } => format!("waits: the cart is parked ({reason})"),
    }
}

fn rejection(reason: &Rejection) -> String {
    match reason {
        Rejection::ItemAlreadyInCart => "the item is already in the cart".to_owned(),
        Rejection::ItemNotInCart => "the item is not in the cart".to_owned(),
        Rejection::NegativeQuantity { quantity } => format!("the quantity would be {quantity}"),
        Rejection::QuantityTooLarge { quantity, max } => format!("the quantity would be {quantity}, above {max}"),
        Rejection::EmptyCartCheckout => "the cart is empty".to_owned(),
        Rejection::CartFull { max } => format!("the cart has {max} lines, the most it may have"),
        Rejection::IdempotencyKeyReused => "its idempotency key was used for another request".to_owned(),
        Rejection::VersionMismatch { version } => format!("the cart is at version {version}"),
    }
}

/// The name of an event and what it is about.
pub(crate) fn event(of: &Event) -> (&'static str, String) {
    match of {
        Event::ItemAdded { item: now } => ("ItemAdded", item(now)),
        Event::ItemRemoved { item: was } => ("ItemRemoved", item(was)),
        Event::ItemQuantityIncreased { item: now, increased_by } => {
            ("ItemQuantityIncreased", format!("by {increased_by} to {}", item(now)))
        }
        Event::ItemQuantityDecreased { item: now, decreased_by } => {
            ("ItemQuantityDecreased", format!("by {decreased_by} to {}", item(now)))
        }
        Event::ItemPurchased { item: bought } => ("ItemPurchased", item(bought)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_an_amount_exactly() {
        for (amount, shown) in [("3.5", "3.50"), ("7", "7.00"), ("1.2300", "1.23"), ("0.0001", "0.0001")] {
            assert_eq!(money(amount.parse().expect("a number")), shown);
        }
    }

    #[test]
    fn says_what_became_of_a_batch() {
        let refused = Outcome::Rejected { rejection: Rejection::EmptyCartCheckout, index: Some(2) };
        assert_eq!(outcome(&refused), "the cart is empty (command 3)");
        let batch = Outcome::IndependentBatch { outcomes: vec![refused.clone(), refused] };
        assert_eq!(outcome(&batch), "0 of 2 commands");
    }
}
