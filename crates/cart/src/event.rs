//! Events.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartId, CommandId, EventId, Item, Position, SequenceNumber, SessionId, wire};

/// An event in the journal and on the topic `cart-events` (`schemas/cart-events-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartEvent {
    /// The event's id. It follows from the cart and the sequence number.
    pub event_id: EventId,
    pub cart_id: CartId,
    pub session_id: SessionId,
    /// Its number among the cart's events.
    pub sequence_number: SequenceNumber,
    /// Its command's position on `cart-commands`.
    pub position: Position,
    pub command_id: CommandId,
    /// Its command's [`crate::Command::digest`].
    pub command_digest: i64,
    /// Its command's time.
    #[serde(with = "wire::timestamp")]
    pub occurred_at: DateTime<Utc>,
    /// The content.
    pub event: Event,
}

impl CartEvent {
    /// Whether it is a line of a checkout.
    #[must_use]
    pub const fn is_purchase(&self) -> bool {
        matches!(self.event, Event::ItemPurchased { .. })
    }
}

/// The content of an event. Each has the whole item, so that readers do not need earlier events. New variants are only
/// appended, here and in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Event {
    /// A product was added.
    ItemAdded {
        /// The item after the event.
        item: Item,
    },
    /// A product was removed.
    ItemRemoved {
        /// The removed item.
        item: Item,
    },
    /// The quantity of a product was increased.
    ItemQuantityIncreased {
        /// The item after the event.
        item: Item,
        /// The difference.
        increased_by: i32,
    },
    /// The quantity of a product was decreased.
    ItemQuantityDecreased {
        /// The item after the event.
        item: Item,
        /// The difference.
        decreased_by: i32,
    },
    /// One line of a checkout; the checkout's last line ends the session.
    ItemPurchased {
        /// The purchased item.
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
