//! What is in the journal of a cart: a row a request, and snapshots.

use cart::{Aggregate, CartEvent, CommandId, Decided, Position, SequenceNumber};
use chrono::{DateTime, Utc};
use kafka::Codec;

use crate::Error;

/// A decided request as it is journalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The cart's sequence number after it.
    pub sequence_number: SequenceNumber,
    /// Where its command stands.
    pub position: Position,
    pub command_id: CommandId,
    /// Its [`cart::CartCommand::keyed`].
    pub keyed: Option<bool>,
    /// Its [`cart::RequestOutcome`] as JSON, where it has one.
    pub outcome: Option<String>,
    /// What it made.
    pub content: Content,
}

/// What a request made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Events, oldest first, framed for `cart-events`: a row of `cart_journal`.
    Events(Vec<Vec<u8>>),
    /// Nothing: a row of `cart_unchanged`, which says what its events would say.
    Unchanged {
        digest: i64,
        /// Its time.
        issued_at: DateTime<Utc>,
    },
}

/// An event as it is journalled, with what finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the cart.
    pub sequence_number: SequenceNumber,
    /// Where its command stands.
    pub position: Position,
    /// The event, framed for `cart-events`.
    pub bytes: Vec<u8>,
}

impl Row {
    /// The row of a request that was decided now, on a cart with this sequence number.
    ///
    /// # Errors
    /// When an event does not fit its schema.
    pub fn new(decided: &Decided, before: SequenceNumber, codec: &Codec<CartEvent>) -> Result<Self, Error> {
        let Decided { command_id, position, keyed, digest, issued_at, .. } = *decided;
        let outcome = decided.outcome.as_ref().map(serde_json::to_string).transpose();
        let outcome = outcome.map_err(|error| Error::new("writing a request's outcome", error))?;
        let content = if decided.events.is_empty() {
            Content::Unchanged { digest, issued_at }
        } else {
            let events = decided.events.iter().map(|event| codec.encode(event)).collect::<Result<_, _>>();
            Content::Events(events.map_err(|error| Error::new("encoding an event", error))?)
        };
        let sequence_number = decided.sequence_number().max(before);
        Ok(Self { sequence_number, position, command_id, keyed, outcome, content })
    }

    /// Its events as they are journalled, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Vec<u8>] {
        match &self.content {
            Content::Events(events) => events,
            Content::Unchanged { .. } => &[],
        }
    }

    /// Its events with what finds each, newest first.
    pub fn into_entries(self) -> impl Iterator<Item = Entry> {
        let Self { sequence_number, position, content, .. } = self;
        let events = match content {
            Content::Events(events) => events,
            Content::Unchanged { .. } => Vec::new(),
        };
        events.into_iter().rev().zip(0..).map(move |(bytes, age)| Entry {
            sequence_number: (sequence_number.get() - age).into(),
            position,
            bytes,
        })
    }

    /// The number of its first event.
    pub(crate) fn first_sequence_number(&self) -> SequenceNumber {
        let others = i64::try_from(self.events().len().saturating_sub(1)).unwrap_or(i64::MAX);
        (self.sequence_number.get() - others).into()
    }
}

/// A cart's state after some request, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) position: Position,
    pub(crate) bytes: Vec<u8>,
}

impl Snapshot {
    /// The snapshot of a cart as it is now.
    ///
    /// # Errors
    /// When the state does not fit its schema.
    pub fn new(cart: &Aggregate, codec: &Codec<Aggregate>) -> Result<Self, Error> {
        let bytes = codec.encode(cart).map_err(|error| Error::new("encoding a snapshot", error))?;
        Ok(Self { position: cart.position(), bytes })
    }
}
