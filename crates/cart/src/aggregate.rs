//! A cart with its history's bookkeeping: numbers its events, knows its newest command, remembers the recent ones.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    Cart, CartCommand, CartEvent, CartId, CommandId, Event, EventId, Position, Refusal, Rejection, SequenceNumber,
    SessionId, wire,
};

/// How many accepted commands a cart remembers: within these a repeat is recognised. They are in every snapshot,
/// about 30 bytes each.
pub const REMEMBERED_COMMANDS: usize = 100;

/// Up to so many lines, and remembered commands, a cart has room for what is in it and no more: most carts are small, many are
/// kept in memory, and the room to grow that a list begins with would be most of them.
pub(crate) const SMALL: usize = 8;

/// All that deciding a cart's next command needs. Its serde form is the snapshot (`schemas/cart-snapshot-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "CartSnapshot", rename_all = "camelCase")]
pub struct Aggregate {
    cart_id: CartId,
    sequence_number: SequenceNumber,
    position: Position,
    cart: Cart,
    remembered: VecDeque<RememberedCommand>,
}

/// An accepted command, and which events it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RememberedCommand {
    /// Which command.
    #[serde(with = "wire::compact_id")]
    pub command_id: CommandId,
    /// Its [`crate::Command::digest`].
    pub digest: i64,
    /// The number of its first event.
    pub first_sequence_number: SequenceNumber,
    /// How many events it made.
    pub event_count: i32,
}

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It makes these events (at least one).
    Accepted(Vec<CartEvent>),
    /// It was accepted before: its first outcome, which these events tell, is its outcome again.
    Repeated(RememberedCommand),
    /// It is refused and leaves no trace.
    Rejected(Refusal),
}

impl Aggregate {
    /// The cart to which nothing has happened yet.
    #[must_use]
    pub fn new(cart_id: CartId) -> Self {
        Self {
            cart_id,
            sequence_number: SequenceNumber::ZERO,
            position: Position::NONE,
            cart: Cart::default(),
            remembered: VecDeque::new(),
        }
    }

    /// Decides the command that stands at `position`.
    #[must_use]
    pub fn decide(&self, command: &CartCommand, position: Position) -> Decision {
        let command_digest = command.command.digest();
        // Newest first: a repeat mostly follows soon.
        let earlier = self.remembered.iter().rev().find(|earlier| earlier.command_id == command.command_id);
        match earlier {
            Some(earlier) if earlier.digest == command_digest => return Decision::Repeated(*earlier),
            Some(_) => return Decision::Rejected(Rejection::IdempotencyKeyReused.into()),
            None => {}
        }
        if command.expected_version.is_some_and(|version| version != self.sequence_number) {
            return Decision::Rejected(Rejection::VersionMismatch { version: self.sequence_number }.into());
        }
        let events = match self.cart.decide(&command.command) {
            Ok(events) => events,
            Err(refusal) => return Decision::Rejected(refusal),
        };
        let (mut session_number, mut session_id) = (self.cart.session_number(), self.session_id());
        let mut sequence_number = self.sequence_number;
        let mut bought = false;
        let number = |event| {
            sequence_number = sequence_number.next();
            let buys = matches!(event, Event::ItemPurchased { .. });
            if bought && !buys {
                // In a batch more may follow a checkout, which has left the cart empty: it belongs to the next session.
                session_number += 1;
                session_id = SessionId::of(self.cart_id, session_number);
            }
            bought = buys;
            CartEvent {
                event_id: EventId::of(self.cart_id, sequence_number),
                cart_id: self.cart_id,
                session_id,
                sequence_number,
                position,
                command_id: command.command_id,
                command_digest,
                occurred_at: command.issued_at,
                event,
            }
        };
        Decision::Accepted(events.into_iter().map(number).collect())
    }

    /// The cart after the next of its events.
    pub fn apply(&mut self, event: &CartEvent) {
        self.cart.evolve(&event.event);
        self.sequence_number = event.sequence_number;
        self.position = event.position;
        match self.remembered.back_mut() {
            Some(newest) if newest.command_id == event.command_id => newest.event_count += 1,
            Some(_) | None => {
                if self.remembered.len() == REMEMBERED_COMMANDS {
                    self.remembered.pop_front();
                }
                if self.remembered.len() < SMALL {
                    self.remembered.reserve_exact(1);
                }
                self.remembered.push_back(RememberedCommand {
                    command_id: event.command_id,
                    digest: event.command_digest,
                    first_sequence_number: event.sequence_number,
                    event_count: 1,
                });
            }
        }
    }

    /// Whose cart.
    #[must_use]
    pub const fn cart_id(&self) -> CartId {
        self.cart_id
    }

    /// The number of the newest event: the cart's version.
    #[must_use]
    pub const fn sequence_number(&self) -> SequenceNumber {
        self.sequence_number
    }

    /// The position of the newest accepted command. What is at or before it was decided before.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The session that the cart is in.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        SessionId::of(self.cart_id, self.cart.session_number())
    }

    /// What is in the cart.
    #[must_use]
    pub const fn cart(&self) -> &Cart {
        &self.cart
    }
}
