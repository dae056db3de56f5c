//! A plain model of a cart, written from the rules in docs/api.md: which events a cart's commands make, in log order.
//!
//! It shares the wire types with the services, and nothing else: ids and digests are computed here once more.

use std::collections::VecDeque;

use cart::{CartCommand, CartEvent, Command, Event, Item, LogEpoch, Position, Quantity};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// An idempotency key is recognised within so many accepted commands of the cart.
const REMEMBERED: usize = 100;

/// The most lines of a cart.
const LINES_MAX: usize = 1_000;

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It makes these events.
    Accepted(Vec<CartEvent>),
    /// It was accepted before, and made the event with this number first.
    Repeat(i64),
    /// It is refused, by the rule with this name (the last part of the problem's type).
    Refused(&'static str),
}

/// One cart.
#[derive(Debug, Default)]
pub struct Cart {
    sequence_number: i64,
    session: i64,
    lines: Vec<Item>,
    remembered: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    command_id: Uuid,
    digest: i64,
    first: i64,
}

impl Cart {
    /// The number of the newest event.
    #[must_use]
    pub fn sequence_number(&self) -> i64 {
        self.sequence_number
    }

    /// Takes an event as it is, whatever made it.
    pub fn follow(&mut self, event: &CartEvent) {
        let item = event.event.item();
        let place = self.lines.iter().position(|line| line.product_id == item.product_id);
        match (&event.event, place) {
            (Event::ItemAdded { .. }, _) => self.lines.push(item.clone()),
            (Event::ItemQuantityIncreased { .. } | Event::ItemQuantityDecreased { .. }, Some(place)) => {
                self.lines[place].quantity = item.quantity;
            }
            (Event::ItemRemoved { .. }, Some(place)) => drop(self.lines.remove(place)),
            (Event::ItemPurchased { .. }, Some(place)) => {
                drop(self.lines.remove(place));
                // The last line of a checkout leaves the cart empty.
                self.session += i64::from(self.lines.is_empty());
            }
            (
                Event::ItemQuantityIncreased { .. }
                | Event::ItemQuantityDecreased { .. }
                | Event::ItemRemoved { .. }
                | Event::ItemPurchased { .. },
                None,
            ) => {}
        }
        self.sequence_number = event.sequence_number.get();
        let command_id = event.command_id.as_uuid();
        if self.remembered.back().is_none_or(|newest| newest.command_id != command_id) {
            self.remember(Remembered { command_id, digest: event.command_digest, first: self.sequence_number });
        }
    }

    fn remember(&mut self, command: Remembered) {
        self.remembered.push_back(command);
        if self.remembered.len() > REMEMBERED {
            self.remembered.pop_front();
        }
    }

    /// Carries out the command that stands at `offset`, if it is accepted.
    pub fn take(&mut self, command: &CartCommand, epoch: LogEpoch, offset: i64) -> Verdict {
        let (id, digest) = (command.command_id.as_uuid(), digest(&command.command));
        if let Some(earlier) = self.remembered.iter().find(|earlier| earlier.command_id == id) {
            let same = earlier.digest == digest;
            return if same { Verdict::Repeat(earlier.first) } else { Verdict::Refused("idempotency-key-reused") };
        }
        if command.expected_version.is_some_and(|version| version.get() != self.sequence_number) {
            return Verdict::Refused("version-mismatch");
        }
        let (mut lines, mut session) = (self.lines.clone(), self.session);
        let made = match carry_out(&command.command, &mut lines, &mut session) {
            Ok(made) => made,
            Err(rule) => return Verdict::Refused(rule),
        };
        let cart = command.cart_id.as_uuid();
        let event = |(sequence_number, (session, event)): (i64, (i64, Event))| CartEvent {
            event_id: named(cart, "event", sequence_number).into(),
            cart_id: command.cart_id,
            session_id: named(cart, "session", session).into(),
            sequence_number: sequence_number.into(),
            position: Position::new(epoch, offset),
            command_id: command.command_id,
            command_digest: digest,
            occurred_at: command.issued_at,
            event,
        };
        let first = self.sequence_number + 1;
        let events: Vec<CartEvent> = (first..).zip(made).map(event).collect();
        self.sequence_number += i64::try_from(events.len()).unwrap_or(i64::MAX);
        (self.lines, self.session) = (lines, session);
        self.remember(Remembered { command_id: id, digest, first });
        Verdict::Accepted(events)
    }
}

/// The events with their sessions, or the rule that is broken; then `lines` and `session` are good for nothing.
fn carry_out(command: &Command, lines: &mut Vec<Item>, session: &mut i64) -> Result<Vec<(i64, Event)>, &'static str> {
    let place = |lines: &[Item], product| lines.iter().position(|line| line.product_id == product);
    let now = *session;
    Ok(match command {
        Command::AddItem { product_id, vendor_id, name, price, quantity } => {
            let quantity = pieces((*quantity).into())?;
            if place(lines, *product_id).is_some() {
                return Err("item-already-in-cart");
            }
            if lines.len() >= LINES_MAX {
                return Err("cart-full");
            }
            let (name, price) = (name.clone(), *price);
            let item = Item { product_id: *product_id, vendor_id: *vendor_id, name, price, quantity };
            lines.push(item.clone());
            vec![(now, Event::ItemAdded { item })]
        }
        Command::RemoveItem { product_id } => {
            let item = lines.remove(place(lines, *product_id).ok_or("item-not-in-cart")?);
            vec![(now, Event::ItemRemoved { item })]
        }
        Command::AdjustQuantity { product_id, adjust_by } => {
            let place = place(lines, *product_id).ok_or("item-not-in-cart")?;
            let line = &mut lines[place];
            let by = adjust_by.get();
            line.quantity = pieces(i64::from(line.quantity.get()) + i64::from(by))?;
            let item = line.clone();
            let event = if by < 0 {
                Event::ItemQuantityDecreased { item, decreased_by: -by }
            } else {
                Event::ItemQuantityIncreased { item, increased_by: by }
            };
            vec![(now, event)]
        }
        Command::Checkout {} => {
            if lines.is_empty() {
                return Err("empty-cart-checkout");
            }
            *session += 1;
            lines.drain(..).map(|item| (now, Event::ItemPurchased { item })).collect()
        }
        Command::Batch { commands } => {
            let mut made = Vec::new();
            for command in commands {
                made.extend(carry_out(command, lines, session)?);
            }
            made
        }
    })
}

fn pieces(quantity: i64) -> Result<Quantity, &'static str> {
    const MAX: i64 = 1_000_000;
    match quantity {
        ..1 => Err("negative-quantity"),
        1..=MAX => Quantity::try_from(quantity).map_err(|_| "quantity-too-large"),
        _ => Err("quantity-too-large"),
    }
}

/// The ids of events and sessions: UUID version 5 of the cart's id and this name.
fn named(cart: Uuid, kind: &str, number: i64) -> Uuid {
    Uuid::new_v5(&cart, format!("{kind}:{number}").as_bytes())
}

/// What tells two contents under one key apart: the first 8 bytes of a SHA-256, big-endian.
fn digest(command: &Command) -> i64 {
    let bytes = match command {
        Command::AddItem { product_id, vendor_id, name, price, quantity } => [
            b"add".as_slice(),
            product_id.as_uuid().as_bytes(),
            vendor_id.as_uuid().as_bytes(),
            &price.get().normalize().serialize(),
            &quantity.to_be_bytes(),
            name.as_str().as_bytes(),
        ]
        .concat(),
        Command::RemoveItem { product_id } => [b"remove".as_slice(), product_id.as_uuid().as_bytes()].concat(),
        Command::AdjustQuantity { product_id, adjust_by } => {
            [b"adjust".as_slice(), product_id.as_uuid().as_bytes(), &adjust_by.get().to_be_bytes()].concat()
        }
        Command::Checkout {} => b"checkout".to_vec(),
        Command::Batch { commands } => {
            let inner = commands.iter().flat_map(|command| digest(command).to_be_bytes());
            b"batch".iter().copied().chain(inner).collect()
        }
    };
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(bytes)[..8]);
    i64::from_be_bytes(first)
}
