//! A cart with its position in the log: numbers its events, and remembers its recent requests.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Cart, CartCommand, CartEvent, CartId, Command, CommandId, CommandResult, Decided, Event, EventId, Position,
    Refusal, Rejection, RequestOutcome, SequenceNumber, SessionId, wire,
};

/// How many of its newest requests a cart always remembers.
pub const REMEMBERED_MIN: usize = 100;

/// How many requests a cart remembers at most: they are in memory and in every snapshot, about 50 bytes each.
pub const REMEMBERED_MAX: usize = 1_000;

/// Requests above [`REMEMBERED_MIN`] are remembered for this long after they were issued, by the cart's own time: the
/// greatest `issued_at` that is journalled.
pub const REMEMBERED_FOR: TimeDelta = TimeDelta::hours(24);

/// Up to this many lines and requests a cart has no spare capacity: most carts are small and many are kept in memory, and
/// the spare capacity of a growing list would be most of their size.
const SMALL: usize = 8;

/// Everything that is needed to decide a cart's next command. Its serde form is the snapshot
/// (`schemas/cart-snapshot-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "CartSnapshot", rename_all = "camelCase")]
pub struct Aggregate {
    cart_id: CartId,
    sequence_number: SequenceNumber,
    position: Position,
    cart: Cart,
    /// `None` only in a snapshot of a version before 0.2.
    #[serde(default)]
    requests: Option<VecDeque<RememberedRequest>>,
    #[serde(default, skip_serializing)]
    remembered: FormerMemory,
    #[serde(with = "wire::timestamp", default)]
    newest_issued_at: DateTime<Utc>,
    #[serde(default)]
    unchanged_count: i64,
}

/// The field of snapshots of versions before 0.2 that had the requests. It is read, since apache-avro can't skip a list of
/// records, and dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<FormerRequest>")]
struct FormerMemory;

#[derive(Deserialize)]
#[serde(rename = "RememberedCommand")]
struct FormerRequest {
    #[serde(with = "wire::compact_id", rename = "commandId")]
    _command_id: CommandId,
    #[serde(rename = "digest")]
    _digest: i64,
    #[serde(rename = "firstSequenceNumber")]
    _first_sequence_number: i64,
    #[serde(rename = "eventCount")]
    _event_count: i32,
}

impl From<Vec<FormerRequest>> for FormerMemory {
    fn from(_: Vec<FormerRequest>) -> Self {
        Self
    }
}

/// A request that may be repeated, and where its outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RememberedRequest {
    #[serde(with = "wire::compact_id")]
    pub command_id: CommandId,
    /// Its [`CartCommand::digest`].
    pub digest: i64,
    /// Its position on `cart-commands`.
    pub position: Position,
    /// Its time.
    #[serde(with = "wire::timestamp")]
    pub issued_at: DateTime<Utc>,
    /// The number of its last event; [`SequenceNumber::ZERO`] if it made none.
    pub sequence_number: SequenceNumber,
}

/// The decision on a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It was decided now. [`Decided::is_journalled`] says whether the result is journalled.
    Decided(Decided),
    /// It was decided before: its outcome is that of the earlier request, and nothing changes.
    Repeated(RememberedRequest),
    /// Its id is that of another request. Nothing changes, and this is not remembered.
    KeyReused,
}

impl Aggregate {
    /// A cart without events.
    #[must_use]
    pub fn new(cart_id: CartId) -> Self {
        Self {
            cart_id,
            sequence_number: SequenceNumber::ZERO,
            position: Position::NONE,
            cart: Cart::default(),
            requests: Some(VecDeque::new()),
            remembered: FormerMemory,
            newest_issued_at: DateTime::UNIX_EPOCH,
            unchanged_count: 0,
        }
    }

    /// Decides the command at `position`.
    #[must_use]
    pub fn decide(&self, command: &CartCommand, position: Position) -> Decision {
        let digest = command.digest();
        match self.earlier(command) {
            Some(earlier) if earlier.digest == digest => return Decision::Repeated(*earlier),
            Some(_) => return Decision::KeyReused,
            None => {}
        }
        let mut decided = Decided {
            cart_id: self.cart_id,
            command_id: command.command_id,
            position,
            keyed: command.keyed,
            digest,
            issued_at: command.issued_at,
            outcome: None,
            events: Vec::new(),
        };
        let events = if command.expected_version.is_some_and(|version| version != self.sequence_number) {
            Err(Rejection::VersionMismatch { version: self.sequence_number }.into())
        } else if let Command::IndependentBatch { commands } = &command.command {
            let (events, results) = self.decide_each(commands, command.command_id);
            decided.outcome = Some(RequestOutcome::Each(results));
            Ok(events)
        } else {
            self.cart.decide(&command.command)
        };
        match events {
            Ok(events) => decided.events = self.numbered(events, &decided),
            Err(Refusal { rejection, index }) => decided.outcome = Some(RequestOutcome::Rejected { rejection, index }),
        }
        Decision::Decided(decided)
    }

    /// The remembered request with the command's id.
    fn earlier(&self, command: &CartCommand) -> Option<&RememberedRequest> {
        let looked_at = match command.keyed {
            Some(true) => REMEMBERED_MAX,
            Some(false) => 0,
            // As in versions before 0.2, whose commands are still in logs.
            None => REMEMBERED_MIN,
        };
        // Newest first: a repeat usually follows soon.
        self.requests().rev().take(looked_at).find(|earlier| earlier.command_id == command.command_id)
    }

    /// Decides the commands of an independent batch, each after the ones before it.
    fn decide_each(&self, commands: &[Command], command_id: CommandId) -> (Vec<Event>, Vec<CommandResult>) {
        let (mut cart, mut events) = (self.cart.clone(), Vec::new());
        let mut decide_one = |(index, command): (usize, &Command)| {
            // Before version 0.2 each was a separate command with this id.
            let earlier = command_id.in_batch(index);
            if let Some(earlier) = self.requests().rev().find(|request| request.command_id == earlier) {
                if earlier.digest != command.digest() {
                    return CommandResult::Rejected { rejection: Rejection::IdempotencyKeyReused };
                }
                return CommandResult::Earlier { sequence_number: earlier.sequence_number };
            }
            match cart.decide(command) {
                Ok(made) => {
                    made.iter().for_each(|event| cart.evolve(event));
                    let count = i32::try_from(made.len()).unwrap_or(i32::MAX);
                    events.extend(made);
                    CommandResult::Made { events: count }
                }
                Err(Refusal { rejection, .. }) => CommandResult::Rejected { rejection },
            }
        };
        let results = commands.iter().enumerate().map(&mut decide_one).collect();
        (events, results)
    }

    /// Numbers the events of a request, after the cart's newest event.
    fn numbered(&self, events: Vec<Event>, request: &Decided) -> Vec<CartEvent> {
        let (mut session_number, mut session_id) = (self.cart.session_number(), self.session_id());
        let mut sequence_number = self.sequence_number;
        let mut bought = false;
        let number = |event| {
            sequence_number = sequence_number.next();
            let buys = matches!(event, Event::ItemPurchased { .. });
            if bought && !buys {
                // In a batch a checkout, which leaves the cart empty, may be followed by events of the next session.
                session_number += 1;
                session_id = SessionId::of(self.cart_id, session_number);
            }
            bought = buys;
            CartEvent {
                event_id: EventId::of(self.cart_id, sequence_number),
                cart_id: self.cart_id,
                session_id,
                sequence_number,
                position: request.position,
                command_id: request.command_id,
                command_digest: request.digest,
                occurred_at: request.issued_at,
                event,
            }
        };
        events.into_iter().map(number).collect()
    }

    /// Applies the next of the cart's journalled requests.
    pub fn apply(&mut self, decided: &Decided) {
        for event in &decided.events {
            self.cart.evolve(&event.event);
            self.sequence_number = event.sequence_number;
        }
        if self.cart.items().len() <= SMALL {
            self.cart.shrink();
        }
        self.position = decided.position;
        self.newest_issued_at = self.newest_issued_at.max(decided.issued_at);
        self.unchanged_count += i64::from(decided.events.is_empty());
        if decided.keyed != Some(false) {
            self.remember(decided);
        }
    }

    fn remember(&mut self, decided: &Decided) {
        let requests = self.requests.get_or_insert_default();
        if requests.len() < SMALL {
            requests.reserve_exact(1);
        }
        requests.push_back(RememberedRequest {
            command_id: decided.command_id,
            digest: decided.digest,
            position: decided.position,
            issued_at: decided.issued_at,
            sequence_number: decided.sequence_number(),
        });
        let oldest_kept = self.newest_issued_at.checked_sub_signed(REMEMBERED_FOR).unwrap_or(DateTime::<Utc>::MIN_UTC);
        while requests.len() > REMEMBERED_MIN
            && requests.front().is_some_and(|oldest| requests.len() > REMEMBERED_MAX || oldest.issued_at < oldest_kept)
        {
            requests.pop_front();
        }
    }

    #[must_use]
    pub const fn cart_id(&self) -> CartId {
        self.cart_id
    }

    /// The number of the newest event: the cart's version.
    #[must_use]
    pub const fn sequence_number(&self) -> SequenceNumber {
        self.sequence_number
    }

    /// The position of the newest journalled request. Commands at or before it are decided.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The number of journalled requests without events.
    #[must_use]
    pub const fn unchanged_count(&self) -> i64 {
        self.unchanged_count
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

    /// The requests that are remembered, oldest first.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &RememberedRequest> {
        self.requests.iter().flatten()
    }

    /// Whether this is a snapshot of a version before 0.2, without the requests: the journal has them.
    #[must_use]
    pub const fn lacks_requests(&self) -> bool {
        self.requests.is_none()
    }

    /// Its approximate size in memory, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let items = self.cart.items();
        let names: usize = items.iter().map(|item| item.name.as_str().len()).sum();
        let requests = self.requests.as_ref().map_or(0, VecDeque::capacity);
        size_of::<Self>() + size_of_val(items) + names + requests * size_of::<RememberedRequest>()
    }
}
