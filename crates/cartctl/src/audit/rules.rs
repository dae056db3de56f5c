//! A plain model of a cart, written from the rules in docs/api.md: the events that follow from a cart's commands, in log order.
//!
//! It shares only the wire types with the services; it has its own code for ids and digests.

use std::collections::VecDeque;

use cart::{CartCommand, CartEvent, Command, Event, Item, LogEpoch, Position, Quantity};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A cart has at most this many lines.
const LINES_MAX: usize = 1_000;

/// How many of the newest requests are always remembered.
const REMEMBERED_MIN: usize = 100;

/// How many requests are remembered at most.
const REMEMBERED_MAX: usize = 1_000;

/// How long older requests are remembered, measured back from the newest time in the cart.
const REMEMBERED_FOR: TimeDelta = TimeDelta::hours(24);

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is decided now.
    Decided(Decided),
    /// It was decided before, at this position.
    Repeat(Position),
    /// Its key stands for another request.
    KeyReused,
}

/// A request that is decided now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub events: Vec<CartEvent>,
    /// The outcome that does not follow from the events, as text: `rejected RULE`, `rejected RULE at INDEX`, or the results
    /// of an independent batch. `None`: all of it is executed.
    pub outcome: Option<String>,
    /// The rule that rejects all of it (the last part of the problem's type).
    pub rule: Option<&'static str>,
    /// The expected entry in the journal, if there is one.
    pub kept: Option<Kept>,
}

/// The journal's entry of a request, without its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub command_id: Uuid,
    /// Whether it may be repeated; `None` for a command of a version before 0.2.
    pub keyed: Option<bool>,
    /// As in [`Decided::outcome`].
    pub outcome: Option<String>,
    /// The cart's sequence number after it.
    pub sequence_number: i64,
    /// The digest and time of a request without events.
    pub unchanged: Option<(i64, DateTime<Utc>)>,
}

#[derive(Debug, Default)]
pub struct Cart {
    sequence_number: i64,
    session: i64,
    lines: Vec<Item>,
    newest: DateTime<Utc>,
    remembered: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    command_id: Uuid,
    digest: i64,
    position: Position,
    issued_at: DateTime<Utc>,
    sequence_number: i64,
}

impl Cart {
    /// The number of the newest event.
    #[must_use]
    pub fn sequence_number(&self) -> i64 {
        self.sequence_number
    }

    /// Applies the events of a request without checking them.
    pub fn follow(&mut self, events: &[CartEvent], keyed: Option<bool>) {
        events.iter().for_each(|event| self.evolve(event));
        if let Some(last) = events.last() {
            let remembered = Remembered {
                command_id: last.command_id.as_uuid(),
                digest: last.command_digest,
                position: last.position,
                issued_at: last.occurred_at,
                sequence_number: self.sequence_number,
            };
            self.remember(remembered, keyed);
        }
    }

    /// Applies the journal's entry of a request without events.
    pub fn follow_unchanged(&mut self, kept: &Kept, position: Position) {
        if let Some((digest, issued_at)) = kept.unchanged {
            let command_id = kept.command_id;
            self.remember(Remembered { command_id, digest, position, issued_at, sequence_number: 0 }, Some(true));
        }
    }

    fn evolve(&mut self, event: &CartEvent) {
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
    }

    fn remember(&mut self, request: Remembered, keyed: Option<bool>) {
        self.newest = self.newest.max(request.issued_at);
        if keyed == Some(false) {
            return;
        }
        self.remembered.push_back(request);
        let is_old = |one: &Remembered| self.newest.signed_duration_since(one.issued_at) > REMEMBERED_FOR;
        while self.remembered.len() > REMEMBERED_MAX
            || (self.remembered.len() > REMEMBERED_MIN && self.remembered.front().is_some_and(is_old))
        {
            self.remembered.pop_front();
        }
    }

    /// Decides the command at `offset`, and applies its events.
    pub fn take(&mut self, command: &CartCommand, epoch: LogEpoch, offset: i64) -> Verdict {
        let position = Position::new(epoch, offset);
        let (command_id, digest) = (command.command_id.as_uuid(), digest(command));
        // For a command of a version before 0.2, which does not say whether it has a key, the limit of that version holds.
        let memory = match command.keyed {
            Some(true) => 0,
            Some(false) => self.remembered.len(),
            None => self.remembered.len().saturating_sub(REMEMBERED_MIN),
        };
        if let Some(earlier) =
            self.remembered.iter().skip(memory).rev().find(|earlier| earlier.command_id == command_id)
        {
            return if earlier.digest == digest { Verdict::Repeat(earlier.position) } else { Verdict::KeyReused };
        }
        let (mut lines, mut session) = (self.lines.clone(), self.session);
        let (mut rule, mut outcome) = (None, None);
        let made = if command.expected_version.is_some_and(|version| version.get() != self.sequence_number) {
            Err(("version-mismatch", None))
        } else if let Command::IndependentBatch { commands } = &command.command {
            let (made, results) = self.carry_out_each(command_id, commands, &mut lines, &mut session);
            outcome = Some(format!("each {}", results.join(", ")));
            Ok(made)
        } else {
            carry_out(&command.command, &mut lines, &mut session)
        };
        let made = made.unwrap_or_else(|(broken, index)| {
            rule = Some(broken);
            outcome = Some(index.map_or(format!("rejected {broken}"), |index| format!("rejected {broken} at {index}")));
            Vec::new()
        });
        if rule.is_none() {
            (self.lines, self.session) = (lines, session);
        }
        let cart = command.cart_id.as_uuid();
        let event = |(sequence_number, (session, event)): (i64, (i64, Event))| CartEvent {
            event_id: named(cart, "event", sequence_number).into(),
            cart_id: command.cart_id,
            session_id: named(cart, "session", session).into(),
            sequence_number: sequence_number.into(),
            position,
            command_id: command.command_id,
            command_digest: digest,
            occurred_at: command.issued_at,
            event,
        };
        let events: Vec<CartEvent> = (self.sequence_number + 1..).zip(made).map(event).collect();
        self.sequence_number += i64::try_from(events.len()).unwrap_or(i64::MAX);
        let is_kept = !events.is_empty() || command.keyed == Some(true);
        let kept = is_kept.then(|| Kept {
            command_id,
            keyed: command.keyed,
            outcome: outcome.clone(),
            sequence_number: self.sequence_number,
            unchanged: events.is_empty().then_some((digest, command.issued_at)),
        });
        if is_kept {
            let (issued_at, sequence_number) =
                (command.issued_at, if events.is_empty() { 0 } else { self.sequence_number });
            self.remember(Remembered { command_id, digest, position, issued_at, sequence_number }, command.keyed);
        }
        Verdict::Decided(Decided { events, outcome, rule, kept })
    }

    /// Decides each command of an independent batch: returns the events, and each result as text.
    fn carry_out_each(
        &self,
        command_id: Uuid,
        commands: &[Command],
        lines: &mut Vec<Item>,
        session: &mut i64,
    ) -> (Vec<(i64, Event)>, Vec<String>) {
        let (mut made, mut results) = (Vec::new(), Vec::new());
        for (index, command) in commands.iter().enumerate() {
            // Before version 0.2 it was a command of its own.
            let part = Uuid::new_v5(&command_id, format!("batch:{index}").as_bytes());
            if let Some(earlier) = self.remembered.iter().rev().find(|earlier| earlier.command_id == part) {
                results.push(if earlier.digest == content_digest(command) {
                    format!("earlier {}", earlier.sequence_number)
                } else {
                    "rejected idempotency-key-reused".to_owned()
                });
                continue;
            }
            let (mut lines_after, mut session_after) = (lines.clone(), *session);
            match carry_out(command, &mut lines_after, &mut session_after) {
                Ok(events) => {
                    results.push(format!("made {}", events.len()));
                    made.extend(events);
                    (*lines, *session) = (lines_after, session_after);
                }
                Err((rule, _)) => results.push(format!("rejected {rule}")),
            }
        }
        (made, results)
    }
}

/// A broken rule (the last part of the problem's type), and the index of the command in an atomic batch.
type Broken = (&'static str, Option<usize>);

/// Returns the events with their sessions, or the broken rule; after that `lines` and `session` are invalid.
fn carry_out(command: &Command, lines: &mut Vec<Item>, session: &mut i64) -> Result<Vec<(i64, Event)>, Broken> {
    let place = |lines: &[Item], product| lines.iter().position(|line| line.product_id == product);
    let now = *session;
    Ok(match command {
        Command::AddItem { product_id, vendor_id, name, price, quantity } => {
            let quantity = pieces((*quantity).into())?;
            if place(lines, *product_id).is_some() {
                return Err(("item-already-in-cart", None));
            }
            if lines.len() >= LINES_MAX {
                return Err(("cart-full", None));
            }
            let (name, price) = (name.clone(), *price);
            let item = Item { product_id: *product_id, vendor_id: *vendor_id, name, price, quantity };
            lines.push(item.clone());
            vec![(now, Event::ItemAdded { item })]
        }
        Command::RemoveItem { product_id } => {
            let item = lines.remove(place(lines, *product_id).ok_or(("item-not-in-cart", None))?);
            vec![(now, Event::ItemRemoved { item })]
        }
        Command::AdjustQuantity { product_id, adjust_by } => {
            let place = place(lines, *product_id).ok_or(("item-not-in-cart", None))?;
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
                return Err(("empty-cart-checkout", None));
            }
            *session += 1;
            lines.drain(..).map(|item| (now, Event::ItemPurchased { item })).collect()
        }
        Command::Batch { commands } | Command::IndependentBatch { commands } => {
            let mut made = Vec::new();
            for (index, command) in commands.iter().enumerate() {
                made.extend(carry_out(command, lines, session).map_err(|(rule, _)| (rule, Some(index)))?);
            }
            made
        }
    })
}

fn pieces(quantity: i64) -> Result<Quantity, Broken> {
    const MAX: i64 = 1_000_000;
    match quantity {
        ..1 => Err(("negative-quantity", None)),
        1..=MAX => Quantity::try_from(quantity).map_err(|_| ("quantity-too-large", None)),
        _ => Err(("quantity-too-large", None)),
    }
}

/// The ids of events and sessions: UUID version 5 of the cart's id and this name.
fn named(cart: Uuid, kind: &str, number: i64) -> Uuid {
    Uuid::new_v5(&cart, format!("{kind}:{number}").as_bytes())
}

/// Distinguishes two requests under one key: the first 8 bytes of a SHA-256, big-endian. Before version 0.2 it did not include
/// the condition.
fn digest(command: &CartCommand) -> i64 {
    let content = content_digest(&command.command);
    match (command.keyed, command.expected_version) {
        (Some(_), Some(version)) => {
            first_bytes(&[b"if-version".as_slice(), &version.get().to_be_bytes(), &content.to_be_bytes()].concat())
        }
        _ => content,
    }
}

fn content_digest(command: &Command) -> i64 {
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
        Command::Batch { commands } => all_bytes(b"batch", commands),
        Command::IndependentBatch { commands } => all_bytes(b"independent-batch", commands),
    };
    first_bytes(&bytes)
}

fn all_bytes(kind: &[u8], commands: &[Command]) -> Vec<u8> {
    let inner = commands.iter().flat_map(|command| content_digest(command).to_be_bytes());
    kind.iter().copied().chain(inner).collect()
}

fn first_bytes(bytes: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(bytes)[..8]);
    i64::from_be_bytes(first)
}
