//! What is in the journal of a cart: a row a command, and snapshots.

use cart::{Aggregate, CartEvent, CommandId, Position, SequenceNumber};
use kafka::Codec;

use crate::Error;

/// An event as it is journalled, with what finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the cart.
    pub sequence_number: SequenceNumber,
    /// Where its command stands.
    pub position: Position,
    /// Its command.
    pub command_id: CommandId,
    /// The event, framed for `cart-events`.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// The entry of a new event.
    ///
    /// # Errors
    /// When the event does not fit its schema.
    pub fn new(event: &CartEvent, codec: &Codec<CartEvent>) -> Result<Self, Error> {
        Ok(Self {
            sequence_number: event.sequence_number,
            position: event.position,
            command_id: event.command_id,
            bytes: codec.encode(event).map_err(|error| Error::new("encoding an event", error))?,
        })
    }
}

/// A cart's state after some event, as it is kept.
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
