//! Replies to commands.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartEvent, CartId, CommandId, Event, Item, Position, Refusal, Rejection, SequenceNumber, SessionId, wire};

/// A record of the topic `cart-replies` (`schemas/cart-replies-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartReply {
    pub command_id: CommandId,
    pub cart_id: CartId,
    /// The position on `cart-commands` of the command that decided the outcome.
    pub position: Position,
    pub outcome: Outcome,
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Outcome {
    /// An item was added, removed or adjusted.
    ItemChanged {
        session_id: SessionId,
        /// The cart's sequence number after it.
        version: SequenceNumber,
        /// The item after the change; after a removal, the removed item.
        item: Item,
    },
    /// The cart was checked out.
    CheckedOut {
        /// The id of the session that ended.
        session_id: SessionId,
        /// The cart's sequence number after it.
        version: SequenceNumber,
        /// The purchased items.
        items: Vec<Item>,
        /// The time of the purchase.
        #[serde(with = "wire::timestamp")]
        purchased_at: DateTime<Utc>,
    },
    /// A rule rejected it.
    Rejected {
        /// The rule.
        rejection: Rejection,
        /// The rejected command's index in its batch, from 0.
        #[serde(default)]
        index: Option<i32>,
    },
    /// An atomic batch was executed.
    Batch {
        /// The outcome of each of its commands, in order.
        outcomes: Vec<Outcome>,
    },
    /// An independent batch was decided.
    IndependentBatch {
        /// The outcome of each of its commands, in order.
        outcomes: Vec<Outcome>,
    },
    /// It is in the log and not decided yet: its cart is parked (topic `cart-parked`).
    Parked {
        /// Why: a code.
        reason: String,
    },
}

impl From<Refusal> for Outcome {
    fn from(Refusal { rejection, index }: Refusal) -> Self {
        Self::Rejected { rejection, index }
    }
}

impl Outcome {
    /// The outcome of a request whose key was used for another one.
    #[must_use]
    pub const fn key_reused() -> Self {
        Self::Rejected { rejection: Rejection::IdempotencyKeyReused, index: None }
    }

    /// The outcome of the accepted command that made `events`, which is the same for events of a new decision and of the
    /// journal. `None` only without events.
    #[must_use]
    pub fn of(events: &[CartEvent]) -> Option<Self> {
        // A checkout makes all purchases of its session, any other command one event; more events are of a batch.
        let of_one_checkout = |one: &CartEvent, next: &CartEvent| {
            one.is_purchase() && next.is_purchase() && one.session_id == next.session_id
        };
        let mut outcomes: Vec<_> = events.chunk_by(of_one_checkout).filter_map(Self::of_one).collect();
        match outcomes.len() {
            0 | 1 => outcomes.pop(),
            _ => Some(Self::Batch { outcomes }),
        }
    }

    fn of_one(events: &[CartEvent]) -> Option<Self> {
        let last = events.last()?;
        let (session_id, version) = (last.session_id, last.sequence_number);
        Some(match &last.event {
            Event::ItemPurchased { .. } => Self::CheckedOut {
                session_id,
                version,
                items: events.iter().map(|event| event.event.item().clone()).collect(),
                purchased_at: last.occurred_at,
            },
            Event::ItemAdded { item }
            | Event::ItemRemoved { item }
            | Event::ItemQuantityIncreased { item, .. }
            | Event::ItemQuantityDecreased { item, .. } => {
                Self::ItemChanged { session_id, version, item: item.clone() }
            }
        })
    }
}
