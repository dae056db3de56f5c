//! Decides commands again, and compares each with what the journal has of it. No I/O.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::anyhow;
use cart::{Aggregate, CartCommand, CartEvent, Decided, Decision, LogEpoch, Position, SequenceNumber};
use journal::Row;
use kafka::Codec;
use rust_decimal::Decimal;

use super::difference::{Asked, Compared, Difference, Part};
use crate::line::{InWords as _, outcome};

/// A journalled request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub row: Row,
    pub decided: Decided,
}

/// What this program makes of a command.
enum Now {
    Decided(Decided),
    /// A repeat, or another use of a key: it changes nothing.
    Unchanged(&'static str),
    DeadLetter(String),
    Panicked(String),
}

/// The rules that are rehearsed. A test has others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) decide: fn(&Aggregate, &CartCommand, Position) -> Decision,
    pub(super) apply: fn(&mut Aggregate, &Decided),
}

/// A cart as the journal has it before the next command, and the rows that follow.
#[derive(Debug)]
pub struct CartRehearsal<'a> {
    pub(super) rules: Rules,
    cart: Aggregate,
    epoch: LogEpoch,
    rows: BTreeMap<Position, Stored>,
    codec: &'a Codec<CartEvent>,
}

impl<'a> CartRehearsal<'a> {
    /// `rows` are the cart's journalled requests after `cart`; `codec` writes events as this program does.
    #[must_use]
    pub fn new(cart: Aggregate, epoch: LogEpoch, rows: Vec<Stored>, codec: &'a Codec<CartEvent>) -> Self {
        let rows = rows.into_iter().map(|stored| (stored.row.position, stored)).collect();
        Self { rules: Rules { decide, apply: Aggregate::apply }, cart, epoch, rows, codec }
    }

    /// Decides the next of the cart's commands, and compares. Then the cart is as the journal has it after the command.
    ///
    /// # Errors
    /// The rules panic when the command's row is applied: the cart's later commands cannot be decided.
    pub fn next(&mut self, asked: &Asked) -> anyhow::Result<Compared> {
        let position = Position::new(self.epoch, asked.offset);
        let stored = self.rows.remove(&position);
        let now = match &asked.content {
            Err(reason) => Now::DeadLetter(reason.clone()),
            Ok(command) => self.decide(command, position),
        };
        let compared = self.compare(asked, &now, stored.as_ref());
        if let Some(stored) = stored {
            guarded(|| (self.rules.apply)(&mut self.cart, &stored.decided)).map_err(|message| {
                let (cart_id, Asked { partition, offset, .. }) = (stored.decided.cart_id, asked);
                anyhow!(
                    "the rules panic when the journal's row of cart-commands {partition}/{offset} is applied to cart {cart_id}: {message}; \
                     correct them and rehearse again"
                )
            })?;
        }
        Ok(compared)
    }

    /// The cart, and the rows for which there was no command.
    pub fn finish(self, partition: i32) -> (Aggregate, Vec<Difference>) {
        let without_command = self.rows.into_values().map(|stored| Difference {
            partition,
            offset: stored.row.position.offset(),
            cart_id: Some(stored.decided.cart_id),
            command_id: Some(stored.row.command_id),
            issued_at: Some(stored.decided.issued_at),
            command: None,
            differs: Part::Existence,
            stored: in_words(&stored.decided),
            now: "nothing: the log has no command of the cart there".to_owned(),
        });
        (self.cart, without_command.collect())
    }

    fn decide(&self, command: &CartCommand, position: Position) -> Now {
        // A rule that panics is a difference like any other; the hook has printed where.
        match guarded(|| (self.rules.decide)(&self.cart, command, position)) {
            Ok(Decision::Decided(decided)) => Now::Decided(decided),
            Ok(Decision::Repeated(_)) => Now::Unchanged("nothing: a repeat of an earlier request"),
            Ok(Decision::KeyReused) => Now::Unchanged("nothing: its idempotency key is that of another request"),
            Err(message) => Now::Panicked(message),
        }
    }

    fn compare(&self, asked: &Asked, now: &Now, stored: Option<&Stored>) -> Compared {
        let (differs, (was, is)) = match (now, stored) {
            (Now::DeadLetter(_), None) if asked.is_letter => return Compared::DeadLetter,
            (Now::Decided(decided), None) if !decided.is_journalled() && !asked.is_letter => {
                return Compared::WithoutRow;
            }
            (Now::Unchanged(_), None) if !asked.is_letter => return Compared::WithoutRow,
            (Now::Decided(decided), Some(stored)) => match self.compare_rows(decided, stored) {
                Ok(compared) => return compared,
                Err((part, words)) => (part, words),
            },
            (now, stored) => (Part::Outcome, (was(stored, asked.is_letter), now.in_words())),
        };
        Compared::Different(Box::new(Difference::of(asked, differs, was, is)))
    }

    /// Compares a decision with its row. The error is the first part that differs, as stored and as it would be.
    fn compare_rows(&self, decided: &Decided, stored: &Stored) -> Result<Compared, (Part, (String, String))> {
        let both = || (in_words(&stored.decided), in_words(decided));
        let before = &stored.decided;
        if decided.outcome != before.outcome || decided.events.is_empty() != before.events.is_empty() {
            return Err((Part::Outcome, both()));
        }
        let is_same_event = |(now, before): (&CartEvent, &CartEvent)| now.event == before.event;
        if decided.events.len() != before.events.len() || !decided.events.iter().zip(&before.events).all(is_same_event)
        {
            return Err((Part::Events, both()));
        }
        let row = match Row::new(decided, self.cart.sequence_number(), self.codec) {
            Ok(row) => row,
            Err(error) => return Err((Part::Bytes, (in_words(before), format!("it cannot be encoded: {error}")))),
        };
        let (ids_before, ids_now) = different_ids(before, &stored.row, decided, &row);
        if !ids_now.is_empty() {
            return Err((Part::Ids, (ids_before, ids_now)));
        }
        if row == stored.row {
            return Ok(Compared::Equal);
        }
        different_bytes(&stored.row, &row).map_or(Ok(Compared::EqualContent), |words| Err((Part::Bytes, words)))
    }
}

/// Runs rules; a panic comes back as its message.
fn guarded<T>(rules: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(rules)).map_err(|panic| panic_text(&*panic))
}

/// The text of a panic; `panic!` makes one of these two types.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("a panic without a text"))
}

/// Decides a command. A test changes a rule here, to see that the commands are found whose results it changes.
fn decide(cart: &Aggregate, command: &CartCommand, position: Position) -> Decision {
    let mut decision = cart.decide(command, position);
    if fail_points::is_off("rule-four-decimals")
        && let Decision::Decided(decided) = &mut decision
    {
        for event in &mut decided.events {
            if let cart::Event::ItemAdded { item } = &mut event.event {
                let rounded = item.price.get().round_dp(2).max(Decimal::new(1, 2));
                item.price = rounded.try_into().unwrap_or(item.price);
            }
        }
    }
    decision
}

/// What is stored of a command, in words.
fn was(stored: Option<&Stored>, is_letter: bool) -> String {
    match stored {
        Some(stored) => in_words(&stored.decided),
        None if is_letter => "a dead letter".to_owned(),
        None => "nothing: it was rejected without an idempotency key, or was a repeat".to_owned(),
    }
}

impl Now {
    fn in_words(&self) -> String {
        match self {
            Self::Decided(decided) => in_words(decided),
            Self::Unchanged(words) => (*words).to_owned(),
            Self::DeadLetter(reason) => format!("a dead letter: {reason}"),
            Self::Panicked(message) => format!("the rule panics: {message}"),
        }
    }
}

/// The outcome and the events of a request on one line.
fn in_words(decided: &Decided) -> String {
    let of_outcome = decided
        .outcome_with(|_| None)
        .map_or_else(|| "commands of it were executed before version 0.2".to_owned(), |of| outcome(&of));
    let events = decided.events.iter().map(|event| format!("{} {}", event.sequence_number, event.line().what));
    std::iter::once(of_outcome).chain(events).collect::<Vec<_>>().join("; ")
}

/// The ids, numbers and times that differ, as stored and as they would be. Empty if none does.
fn different_ids(before: &Decided, row_before: &Row, now: &Decided, row_now: &Row) -> (String, String) {
    let of_request = |decided: &Decided, number: SequenceNumber| {
        vec![
            ("command".to_owned(), decided.command_id.to_string()),
            ("version".to_owned(), number.to_string()),
            ("keyed".to_owned(), format!("{:?}", decided.keyed)),
            ("digest".to_owned(), decided.digest.to_string()),
            ("time".to_owned(), decided.issued_at.to_string()),
        ]
    };
    let of_event = |event: &CartEvent| {
        [
            ("id", event.event_id.to_string()),
            ("cart", event.cart_id.to_string()),
            ("session", event.session_id.to_string()),
            ("number", event.sequence_number.to_string()),
            ("position", event.position.to_string()),
            ("command", event.command_id.to_string()),
            ("digest", event.command_digest.to_string()),
            ("time", event.occurred_at.to_string()),
        ]
    };
    let all = |decided: &Decided, row: &Row| {
        let mut ids = of_request(decided, row.sequence_number);
        for (number, event) in (1..).zip(&decided.events) {
            ids.extend(of_event(event).map(|(name, value)| (format!("event {number}'s {name}"), value)));
        }
        ids
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for ((name, before), (_, now)) in all(before, row_before).into_iter().zip(all(now, row_now)) {
        if before != now {
            left.push(format!("{name} {before}"));
            right.push(format!("{name} {now}"));
        }
    }
    (left.join(", "), right.join(", "))
}

/// The first bytes that differ where the same is written with the same schema. `None`: only the schema differs.
fn different_bytes(before: &Row, now: &Row) -> Option<(String, String)> {
    if before.outcome != now.outcome {
        let text = |row: &Row| format!("outcome {}", row.outcome.as_deref().unwrap_or("null"));
        return Some((text(before), text(now)));
    }
    let pairs = (1..).zip(before.events().iter().zip(now.events()));
    let (number, (before, now)) =
        pairs.into_iter().find(|(_, (before, now))| before != now && schema_id(before) == schema_id(now))?;
    let place = before.iter().zip(now).position(|(before, now)| before != now).unwrap_or(before.len().min(now.len()));
    let text = |bytes: &[u8]| {
        let byte = bytes.get(place).map_or_else(|| "there is none".to_owned(), |byte| format!("{byte:#04x}"));
        format!("event {number}: {} bytes, byte {place}: {byte}", bytes.len())
    };
    Some((text(before), text(now)))
}

/// The schema's id in framed bytes (`kafka::Codec`).
fn schema_id(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(1..5)
}
