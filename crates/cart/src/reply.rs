//! The answer to a command.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartEvent, CartId, CommandId, Event, Item, Position, Refusal, Rejection, SequenceNumber, SessionId, wire};

/// A reply as it stands on the `cart-replies` topic (`schemas/cart-replies-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartReply {
    /// Which command is answered.
    pub command_id: CommandId,
    /// Whose cart.
    pub cart_id: CartId,
    /// Where the deciding command stands on `cart-commands`.
    pub position: Position,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Outcome {
    /// An item was added, removed or adjusted.
    ItemChanged {
        /// In which session.
        session_id: SessionId,
        /// The cart's sequence number after it.
        version: SequenceNumber,
        /// The item after the change; what was removed, for a removal.
        item: Item,
    },
    /// The cart was bought.
    CheckedOut {
        /// The session that was bought.
        session_id: SessionId,
        /// The cart's sequence number after it.
        version: SequenceNumber,
        /// What was bought.
        items: Vec<Item>,
        /// When.
        #[serde(with = "wire::timestamp")]
        purchased_at: DateTime<Utc>,
    },
    /// A rule refused it.
    Rejected {
        /// Which rule.
        rejection: Rejection,
        /// The refused command's place in its batch, from 0.
        #[serde(default)]
        index: Option<i32>,
    },
    /// An atomic batch was carried out.
    Batch {
        /// What became of each of its commands, in order.
        outcomes: Vec<Outcome>,
    },
    /// An independent batch was decided.
    IndependentBatch {
        /// What became of each of its commands, in order.
        outcomes: Vec<Outcome>,
    },
}

impl From<Refusal> for Outcome {
    fn from(Refusal { rejection, index }: Refusal) -> Self {
        Self::Rejected { rejection, index }
    }
}

impl Outcome {
    /// The outcome of a request whose key stands for another one.
    #[must_use]
    pub const fn key_reused() -> Self {
        Self::Rejected { rejection: Rejection::IdempotencyKeyReused, index: None }
    }

    /// The outcome of the accepted command that made `events`: a fresh decision and one that is read back from
    /// the journal tell the same. `None` only without events.
    #[must_use]
    pub fn of(events: &[CartEvent]) -> Option<Self> {
        // A checkout made all purchases of its session, any other command one event; more than that was a batch.
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
