//! What happened to a cart.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartId, CommandId, EventId, Item, Position, SequenceNumber, SessionId, wire};

/// An event as it stands in the journal and on the `cart-events` topic (`schemas/cart-events-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartEvent {
    /// Names the event: the same however often it is computed.
    pub event_id: EventId,
    /// Whose cart.
    pub cart_id: CartId,
    /// In which session.
    pub session_id: SessionId,
    /// Its number among the cart's events.
    pub sequence_number: SequenceNumber,
    /// Where its command stands on `cart-commands`.
    pub position: Position,
    /// Which command caused it.
    pub command_id: CommandId,
    /// That command's [`crate::Command::digest`].
    pub command_digest: i64,
    /// When, by the command's time.
    #[serde(with = "wire::timestamp")]
    pub occurred_at: DateTime<Utc>,
    /// What happened.
    pub event: Event,
}

impl CartEvent {
    /// Whether it is a line of a checkout.
    #[must_use]
    pub const fn is_purchase(&self) -> bool {
        matches!(self.event, Event::ItemPurchased { .. })
    }
}

/// What can happen to a cart. Each names the whole item, so that no reader needs the cart's past.
/// New alternatives are only ever appended, here and in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Event {
    /// A product was put in.
    ItemAdded {
        /// As it is now.
        item: Item,
    },
    /// A product was taken out.
    ItemRemoved {
        /// As it was.
        item: Item,
    },
    /// More pieces of a product.
    ItemQuantityIncreased {
        /// As it is now.
        item: Item,
        /// How many more.
        increased_by: i32,
    },
    /// Fewer pieces of a product.
    ItemQuantityDecreased {
        /// As it is now.
        item: Item,
        /// How many fewer.
        decreased_by: i32,
    },
    /// One line of a checkout; the checkout's last line ends the session.
    ItemPurchased {
        /// As it was bought.
        item: Item,
    },
}

impl Event {
    /// The item that the event is about.
    #[must_use]
    pub const fn item(&self) -> &Item {
        match self {
            Self::ItemAdded { item }
            | Self::ItemRemoved { item }
            | Self::ItemQuantityIncreased { item, .. }
            | Self::ItemQuantityDecreased { item, .. }
            | Self::ItemPurchased { item } => item,
        }
    }
}
