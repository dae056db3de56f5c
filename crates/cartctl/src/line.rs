//! A record as text: its time, cart, version, content and amount.

use cart::{CartCommand, CartEvent, CartId, CartReply, Command, Event, Item, Outcome, PurchasedItem, SequenceNumber};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

/// The text of a record's value.
#[derive(Debug)]
pub(crate) struct Line {
    /// The time in the value, which may differ from the record's. A reply has none.
    pub(crate) at: Option<DateTime<Utc>>,
    pub(crate) cart_id: CartId,
    /// The cart's version after it. A command has none yet.
    pub(crate) version: Option<SequenceNumber>,
    pub(crate) what: String,
}

/// The values of the topics.
pub(crate) trait InWords {
    fn line(&self) -> Line;
}

impl InWords for CartCommand {
    fn line(&self) -> Line {
        let condition = self.expected_version.map(|version| format!(" if the version is {version}"));
        let what = format!("{}{}", command(&self.command), condition.unwrap_or_default());
        Line { at: Some(self.issued_at), cart_id: self.cart_id, version: None, what }
    }
}

impl InWords for CartEvent {
    fn line(&self) -> Line {
        let what = match &self.event {
            Event::ItemAdded { item } => format!("ItemAdded {}", item_of(item)),
            Event::ItemRemoved { item } => format!("ItemRemoved {}", item_of(item)),
            Event::ItemQuantityIncreased { item, increased_by } => {
                format!("ItemQuantityIncreased by {increased_by} to {}", item_of(item))
            }
            Event::ItemQuantityDecreased { item, decreased_by } => {
                format!("ItemQuantityDecreased by {decreased_by} to {}", item_of(item))
            }
            Event::ItemPurchased { item } => format!("ItemPurchased {}", item_of(item)),
        };
        Line { at: Some(self.occurred_at), cart_id: self.cart_id, version: Some(self.sequence_number), what }
    }
}

impl InWords for CartReply {
    fn line(&self) -> Line {
        Line { at: None, cart_id: self.cart_id, version: version(&self.outcome), what: outcome(&self.outcome) }
    }
}

impl InWords for PurchasedItem {
    fn line(&self) -> Line {
        let what = format!("ItemPurchased {} of vendor {}", purchased(self), self.vendor_id);
        Line { at: Some(self.purchased_at), cart_id: self.cart_id, version: None, what }
    }
}

fn command(wanted: &Command) -> String {
    let all = |commands: &[Command]| commands.iter().map(command).collect::<Vec<_>>().join("; ");
    match wanted {
        Command::AddItem { name, price, quantity, .. } => {
            let amount = (price.get() * Decimal::from(*quantity)).normalize();
            format!("AddItem {}", item(*quantity, name.as_str(), price.get(), amount))
        }
        Command::RemoveItem { product_id } => format!("RemoveItem {product_id}"),
        Command::AdjustQuantity { product_id, adjust_by } => format!("AdjustQuantity {product_id} by {adjust_by}"),
        Command::Checkout {} => "Checkout".to_owned(),
        Command::Batch { commands } => format!("Batch ({})", all(commands)),
        Command::IndependentBatch { commands } => format!("IndependentBatch ({})", all(commands)),
    }
}

/// An outcome in words.
pub(crate) fn outcome(of: &Outcome) -> String {
    let all = |outcomes: &[Outcome]| outcomes.iter().map(outcome).collect::<Vec<_>>().join("; ");
    match of {
        Outcome::ItemChanged { item, .. } => format!("ItemChanged {}", item_of(item)),
        Outcome::CheckedOut { items, .. } => {
            let total: Decimal = items.iter().map(Item::amount).sum();
            format!("CheckedOut {} lines = {}", items.len(), total.normalize())
        }
        Outcome::Rejected { rejection, index: None } => format!("Rejected {rejection:?}"),
        Outcome::Rejected { rejection, index: Some(index) } => format!("Rejected {rejection:?} (command {index})"),
        Outcome::Batch { outcomes } => format!("Batch ({})", all(outcomes)),
        Outcome::IndependentBatch { outcomes } => format!("IndependentBatch ({})", all(outcomes)),
        Outcome::Parked { reason } => format!("Parked {reason}"),
    }
}

/// The newest version in an outcome.
fn version(of: &Outcome) -> Option<SequenceNumber> {
    match of {
        Outcome::ItemChanged { version, .. } | Outcome::CheckedOut { version, .. } => Some(*version),
        Outcome::Rejected { .. } | Outcome::Parked { .. } => None,
        Outcome::Batch { outcomes } | Outcome::IndependentBatch { outcomes } => {
            outcomes.iter().filter_map(version).max()
        }
    }
}

fn item_of(of: &Item) -> String {
    item(of.quantity.get(), of.name.as_str(), of.price.get(), of.amount())
}

/// The item of a purchase.
pub(crate) fn purchased(of: &PurchasedItem) -> String {
    item(of.quantity.get(), of.name.as_str(), of.price.get(), of.amount())
}

/// Quotes the name, and escapes what would break the line.
fn item(quantity: i32, name: &str, price: Decimal, amount: Decimal) -> String {
    format!("{quantity} × {name:?} at {price} = {amount}")
}

#[cfg(test)]
mod tests {
    use cart::{Aggregate, Decision, LogEpoch, Position};
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn add(name: &str) -> Command {
        let (name, price) = (name.to_owned().try_into().expect("a name"), "3.50".parse().expect("a price"));
        Command::AddItem { product_id: id(1).into(), vendor_id: id(2).into(), name, price, quantity: 2 }
    }

    fn asked(command: Command) -> CartCommand {
        let issued_at = "2026-01-31T12:00:00.5Z".parse().expect("a time");
        let (command_id, cart_id) = (id(7).into(), id(9).into());
        CartCommand { command_id, cart_id, issued_at, command, expected_version: None, keyed: None }
    }

    fn adjust(by: i32) -> Command {
        Command::AdjustQuantity { product_id: id(1).into(), adjust_by: by.try_into().expect("not 0") }
    }

    #[test]
    fn prints_a_command() {
        let product = id(1);
        let batch = vec![add("mug"), Command::Checkout {}];
        for (wanted, what) in [
            (add("red mug"), "AddItem 2 × \"red mug\" at 3.5 = 7".to_owned()),
            (Command::RemoveItem { product_id: product.into() }, format!("RemoveItem {product}")),
            (adjust(-1), format!("AdjustQuantity {product} by -1")),
            (Command::Checkout {}, "Checkout".to_owned()),
            (Command::Batch { commands: batch }, "Batch (AddItem 2 × \"mug\" at 3.5 = 7; Checkout)".to_owned()),
            (Command::IndependentBatch { commands: vec![] }, "IndependentBatch ()".to_owned()),
            // A name of a version that did not yet reject such names.
            (add("red\nmug"), "AddItem 2 × \"red\\nmug\" at 3.5 = 7".to_owned()),
        ] {
            let line = asked(wanted).line();
            assert_eq!((line.what, line.version), (what, None));
        }
        let conditional = CartCommand { expected_version: Some(4.into()), ..asked(Command::Checkout {}) };
        assert_eq!(conditional.line().what, "Checkout if the version is 4");
    }

    #[test]
    fn prints_an_event_and_its_purchase() {
        let mut cart = Aggregate::new(id(9).into());
        let commands = [add("mug"), adjust(3), adjust(-1), Command::Checkout {}];
        let mut lines = Vec::new();
        let mut purchase = None;
        for (offset, command) in (0..).zip(commands) {
            let CartCommand { command_id, .. } = asked(Command::Checkout {});
            let command_id = cart::CommandId::from(Uuid::from_u128(command_id.as_uuid().as_u128() + offset));
            let command = CartCommand { command_id, ..asked(command) };
            let position = Position::new(LogEpoch::FIRST, i64::try_from(offset).expect("small"));
            let Decision::Decided(decided) = cart.decide(&command, position) else { panic!("{command:?}") };
            cart.apply(&decided);
            for event in &decided.events {
                let line = event.line();
                lines.push(format!("{} {}", line.version.expect("an event has one"), line.what));
                purchase = PurchasedItem::of(event.clone()).or(purchase);
            }
        }
        assert_eq!(
            lines,
            [
                "1 ItemAdded 2 × \"mug\" at 3.5 = 7",
                "2 ItemQuantityIncreased by 3 to 5 × \"mug\" at 3.5 = 17.5",
                "3 ItemQuantityDecreased by 1 to 4 × \"mug\" at 3.5 = 14",
                "4 ItemPurchased 4 × \"mug\" at 3.5 = 14",
            ]
        );
        let bought = purchase.expect("something was bought").line();
        assert_eq!(bought.what, format!("ItemPurchased 4 × \"mug\" at 3.5 = 14 of vendor {}", id(2)));
    }

    #[test]
    fn prints_a_reply() {
        let rejected = |index| Outcome::Rejected { rejection: cart::Rejection::EmptyCartCheckout, index };
        let purchased_at = DateTime::UNIX_EPOCH;
        let empty = Outcome::CheckedOut { session_id: id(3).into(), version: 8.into(), items: vec![], purchased_at };
        for (outcome, version, what) in [
            (rejected(None), None, "Rejected EmptyCartCheckout"),
            (rejected(Some(3)), None, "Rejected EmptyCartCheckout (command 3)"),
            (empty.clone(), Some(8), "CheckedOut 0 lines = 0"),
            (
                Outcome::IndependentBatch { outcomes: vec![empty, rejected(None)] },
                Some(8),
                "IndependentBatch (CheckedOut 0 lines = 0; Rejected EmptyCartCheckout)",
            ),
        ] {
            let (command_id, cart_id) = (id(7).into(), id(9).into());
            let line = CartReply { command_id, cart_id, position: Position::NONE, outcome }.line();
            assert_eq!((line.version.map(SequenceNumber::get), line.what.as_str()), (version, what));
        }
    }
}
