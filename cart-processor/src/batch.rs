//! Decides a batch, cart by cart: which rows to journal, which replies to send, which events to publish. No I/O.

use std::collections::HashMap;

use cart::{Aggregate, CartCommand, CartEvent, CartId, Decided, Decision, Outcome, Position};
use journal::{Append, Codecs, Row, SNAPSHOT_EVERY, Snapshot};
use kafka::Record;
use trace::names::{OUTCOME, REDELIVERED, outcome};
use trace::{Span, Trace};

use crate::intake::ConsumedCommand;
use crate::metrics::{COMMANDS_REJECTED, DEAD_LETTERS};
use crate::redelivery::{LogRewritten, RedeliveredRows};
use crate::reply::{PendingReply, ReplySource};

/// The results of one cart's commands in a batch.
#[derive(Debug)]
pub(crate) struct CartBatch {
    pub(crate) cart_id: CartId,
    pub(crate) partition: i32,
    /// Its requests' rows, in order: their events are to be published, each with its command's trace.
    pub(crate) rows: Vec<Row>,
    pub(crate) traces: Vec<Trace>,
    /// The spans of its commands, as far as they are recorded.
    pub(crate) spans: Vec<Span>,
    /// How many of the rows are in the journal already.
    pub(crate) journalled: usize,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) replies: Vec<PendingReply>,
    pub(crate) letters: Vec<Record>,
}

/// The commands of a batch, by cart, each cart's in the order of the log.
pub(crate) fn by_cart(batch: Vec<ConsumedCommand>) -> Vec<(CartId, Vec<ConsumedCommand>)> {
    let mut places: HashMap<CartId, usize> = HashMap::with_capacity(batch.len());
    let mut carts: Vec<(CartId, Vec<ConsumedCommand>)> = Vec::with_capacity(batch.len());
    for received in batch {
        let cart_id = received.command.cart_id;
        let place = *places.entry(cart_id).or_insert_with(|| {
            carts.push((cart_id, Vec::new()));
            carts.len() - 1
        });
        carts[place].1.push(received);
    }
    carts
}

/// Why a cart's commands cannot be decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    LogRewritten(#[from] LogRewritten),
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// Decides a cart's commands in order, and applies them to the cart.
pub(crate) fn decide_batch(
    cart: &mut Aggregate,
    commands: Vec<ConsumedCommand>,
    history: &RedeliveredRows,
    codecs: &Codecs,
) -> Result<CartBatch, Error> {
    assert!(!fail_points::names("decide-panics", &cart.cart_id()), "a test lets the rules panic");
    let before = snapshots_due(cart);
    let mut batch = CartBatch {
        cart_id: cart.cart_id(),
        partition: commands.first().map_or(0, |received| received.partition),
        rows: Vec::with_capacity(commands.len()),
        traces: Vec::with_capacity(commands.len()),
        spans: Vec::new(),
        journalled: 0,
        snapshot: None,
        replies: Vec::new(),
        letters: Vec::new(),
    };
    let mut checked_out = false;
    for received in commands {
        let ConsumedCommand { position, command, reply_to, is_old, trace, letter, .. } = received;
        let span = trace.span().cloned();
        let was_decided = position <= cart.position() && !fail_points::is_off("guard-redelivery");
        let source = if was_decided {
            match history.of(&command, position)? {
                Some(row) => {
                    batch.journalled += 1;
                    batch.push(row.clone(), trace);
                    ReplySource::Journalled(Box::new((command.clone(), row.clone())))
                }
                None if is_old || letter.is_some() => {
                    if let Some(letter) = letter {
                        batch.bury(letter, &command, position, &trace);
                    }
                    ReplySource::None
                }
                None => ReplySource::DecideAgain(Box::new(command.clone())),
            }
        } else if let Some(letter) = letter {
            batch.bury(letter, &command, position, &trace);
            batch.record(span, was_decided, outcome::DEAD_LETTER);
            continue;
        } else {
            let panics = fail_points::names("decide-panics-at", &command.command_id);
            assert!(!panics, "a test lets the rules panic");
            match cart.decide(&command, position) {
                Decision::KeyReused => ReplySource::Known(Some(Outcome::key_reused())),
                Decision::Repeated(earlier) => ReplySource::Repeated(earlier),
                Decision::Decided(decided) => {
                    checked_out |= decided.events.iter().any(CartEvent::is_purchase);
                    batch.apply(cart, decided, trace, codecs)?
                }
            }
        };
        if matches!(source, ReplySource::Known(Some(Outcome::Rejected { .. }))) {
            COMMANDS_REJECTED.with(&[]).increment(1);
        }
        batch.record(span.clone(), was_decided, outcome_of(&source));
        batch.reply_later(&command, position, reply_to, source, span);
    }
    if checked_out || snapshots_due(cart) != before {
        batch.snapshot = Some(Snapshot::new(cart, &codecs.snapshots)?);
    }
    Ok(batch)
}

/// How many snapshots a cart should have had by now, by its events and by its rejected requests.
fn snapshots_due(cart: &Aggregate) -> (i64, i64) {
    (cart.sequence_number().get() / SNAPSHOT_EVERY, cart.unchanged_count() / SNAPSHOT_EVERY)
}

impl CartBatch {
    /// The rows and the snapshot to write.
    pub(crate) fn rows_to_append(&self) -> Append<'_> {
        Append { cart_id: self.cart_id, rows: &self.rows[self.journalled..], snapshot: self.snapshot.as_ref() }
    }

    /// Adds what follows of the same cart.
    pub(crate) fn add(&mut self, mut next: Self) {
        // Redelivered commands come first, so that what is journalled stays in front.
        self.journalled += next.journalled;
        self.rows.append(&mut next.rows);
        self.traces.append(&mut next.traces);
        self.spans.append(&mut next.spans);
        self.replies.append(&mut next.replies);
        self.letters.append(&mut next.letters);
        self.snapshot = next.snapshot.or(self.snapshot.take());
    }

    fn push(&mut self, row: Row, trace: Trace) {
        self.rows.push(row);
        self.traces.push(trace);
    }

    /// Adds a dead letter, counts it and logs it.
    fn bury(&mut self, letter: Record, command: &CartCommand, position: Position, trace: &Trace) {
        DEAD_LETTERS.with(&[]).increment(1);
        let (partition, trace_id) = (self.partition, trace.headers().trace_id());
        tracing::warn!(partition, %position, trace_id, command_id = %command.command_id, "dead letter");
        self.letters.push(letter);
    }

    /// Keeps a command's span, with what became of the command, until that is journalled and answered.
    fn record(&mut self, span: Option<Span>, was_decided: bool, outcome: &'static str) {
        let Some(span) = span else { return };
        span.set(REDELIVERED, was_decided);
        span.set(OUTCOME, outcome);
        self.spans.push(span);
    }

    /// Applies a new decision.
    fn apply(
        &mut self,
        cart: &mut Aggregate,
        decided: Decided,
        trace: Trace,
        codecs: &Codecs,
    ) -> Result<ReplySource, journal::Error> {
        if decided.is_journalled() {
            let row = Row::new(&decided, cart.sequence_number(), &codecs.events)?;
            cart.apply(&decided);
            self.push(row, trace);
        }
        // What was done before version 0.2 is in the journal.
        if decided.earlier().next().is_some() {
            return Ok(ReplySource::Decided(Box::new(decided)));
        }
        Ok(ReplySource::Known(decided.outcome_with(|_| None)))
    }

    fn reply_later(
        &mut self,
        command: &CartCommand,
        position: Position,
        reply_to: Option<i32>,
        source: ReplySource,
        span: Option<Span>,
    ) {
        if let Some(reply_to) = reply_to {
            self.replies.push(PendingReply { command_id: command.command_id, position, reply_to, source, span });
        }
    }
}

/// What a trace shows of a command.
fn outcome_of(source: &ReplySource) -> &'static str {
    match source {
        ReplySource::Known(Some(Outcome::Rejected { .. })) => outcome::REJECTED,
        ReplySource::Known(_) | ReplySource::Decided(_) => outcome::ACCEPTED,
        ReplySource::Journalled(known) if known.1.events().is_empty() => outcome::REJECTED,
        ReplySource::Journalled(_) => outcome::ACCEPTED,
        ReplySource::Repeated(_) => outcome::REPEATED,
        ReplySource::None | ReplySource::DecideAgain(_) => outcome::UNCHANGED,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cart::contract::Contract;
    use cart::{Command, LogEpoch};
    use chrono::DateTime;
    use journal::Content;
    use kafka::{Codec, KafkaArgs, Registry};
    use uuid::Uuid;

    use super::*;

    fn cart_id(number: u128) -> CartId {
        Uuid::from_u128(number).into()
    }

    fn new_cart() -> Aggregate {
        Aggregate::new(cart_id(1))
    }

    /// The schemas are compiled in, so no registry is asked.
    fn codecs() -> Codecs {
        let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).unwrap();
        Codecs {
            events: Codec::registered(&registry, CartEvent::TOPIC, CartEvent::SCHEMA, 1).unwrap(),
            snapshots: Codec::registered(&registry, Aggregate::TOPIC, Aggregate::SCHEMA, 2).unwrap(),
        }
    }

    fn add(product: u128) -> Command {
        Command::AddItem {
            product_id: Uuid::from_u128(product).into(),
            vendor_id: Uuid::nil().into(),
            name: String::from("mug").try_into().unwrap(),
            price: "2.5".parse().unwrap(),
            quantity: 1,
        }
    }

    /// A command at an offset; its id is made of the offset.
    fn consumed(offset: i64, command: Command) -> ConsumedCommand {
        ConsumedCommand {
            partition: 3,
            position: Position::new(LogEpoch::FIRST, offset),
            command: CartCommand {
                command_id: Uuid::from_u128(offset.unsigned_abs().into()).into(),
                cart_id: cart_id(1),
                issued_at: DateTime::UNIX_EPOCH,
                command,
                expected_version: None,
                keyed: Some(true),
            },
            reply_to: Some(7),
            is_old: false,
            trace: Trace::None,
            letter: None,
        }
    }

    fn decide(cart: &mut Aggregate, commands: Vec<ConsumedCommand>, rows: Vec<Row>) -> CartBatch {
        decide_batch(cart, commands, &RedeliveredRows::new(rows), &codecs()).unwrap()
    }

    fn events(batch: &CartBatch) -> Vec<usize> {
        batch.rows.iter().map(|row| row.events().len()).collect()
    }

    #[test]
    fn commands_are_grouped_by_cart_in_the_order_of_the_log() {
        let of_cart = |number: u128, offset| {
            let mut consumed = consumed(offset, Command::Checkout {});
            consumed.command.cart_id = cart_id(number);
            consumed
        };
        let carts = by_cart(vec![of_cart(2, 10), of_cart(1, 11), of_cart(2, 12)]);
        let offsets =
            |commands: &[ConsumedCommand]| commands.iter().map(|one| one.position.offset()).collect::<Vec<_>>();
        let carts: Vec<_> = carts.iter().map(|(cart, commands)| (*cart, offsets(commands))).collect();
        assert_eq!(carts, [(cart_id(2), vec![10, 12]), (cart_id(1), vec![11])]);
    }

    #[test]
    fn each_command_sees_the_ones_before_it_and_gets_its_reply() {
        let mut cart = new_cart();
        let batch = decide(&mut cart, vec![consumed(10, add(1)), consumed(11, add(1)), consumed(12, add(2))], vec![]);
        assert_eq!(events(&batch), [1, 0, 1], "the second add is rejected, and its row has no event");
        assert!(matches!(batch.rows[1].content, Content::Unchanged { .. }));
        let rejected =
            |reply: &PendingReply| matches!(reply.source, ReplySource::Known(Some(Outcome::Rejected { .. })));
        assert_eq!(batch.replies.iter().map(rejected).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!((batch.journalled, batch.rows_to_append().rows.len(), batch.snapshot), (0, 3, None));
        assert_eq!((cart.sequence_number(), cart.position().offset()), (2.into(), 12));
    }

    #[test]
    fn a_checkout_writes_a_snapshot() {
        let batch = decide(
            &mut new_cart(),
            vec![consumed(10, add(1)), consumed(11, add(2)), consumed(12, Command::Checkout {})],
            vec![],
        );
        assert_eq!((events(&batch), batch.snapshot.is_some()), (vec![1, 1, 2], true), "a purchase for each line");
    }

    #[test]
    fn a_redelivered_command_publishes_its_journalled_bytes_and_changes_nothing() {
        let mut cart = new_cart();
        let first = decide(&mut cart, vec![consumed(10, add(1)), consumed(11, add(2))], vec![]);
        let before = cart.clone();
        let again = decide(
            &mut cart,
            vec![consumed(10, add(1)), consumed(11, add(2)), consumed(12, add(3))],
            first.rows.clone(),
        );
        assert_eq!(again.rows[..2], first.rows[..]);
        assert_eq!((again.journalled, again.rows_to_append().rows.len()), (2, 1), "only the new command is written");
        assert!(matches!(again.replies[0].source, ReplySource::Journalled(_)));
        assert_eq!((before.sequence_number(), cart.sequence_number()), (2.into(), 3.into()));
    }

    #[test]
    fn a_redelivered_command_without_a_row_publishes_nothing() {
        let mut cart = new_cart();
        decide(&mut cart, vec![consumed(12, add(1))], vec![]);
        let old = ConsumedCommand { is_old: true, ..consumed(11, add(9)) };
        let batch = decide(&mut cart, vec![consumed(10, add(9)), old], vec![]);
        assert!(batch.rows.is_empty());
        assert!(matches!(batch.replies[0].source, ReplySource::DecideAgain(_)), "its client may still wait");
        assert!(matches!(batch.replies[1].source, ReplySource::None), "its client waits no longer");
    }

    #[test]
    fn a_repeat_of_a_keyed_request_gets_the_first_outcome() {
        let mut cart = new_cart();
        decide(&mut cart, vec![consumed(10, add(1))], vec![]);
        let mut repeat = consumed(20, add(1));
        repeat.command.command_id = Uuid::from_u128(10).into();
        let mut other = consumed(21, add(2));
        other.command.command_id = Uuid::from_u128(10).into();
        let batch = decide(&mut cart, vec![repeat, other], vec![]);
        assert!(batch.rows.is_empty());
        assert!(matches!(&batch.replies[0].source, ReplySource::Repeated(first) if first.position.offset() == 10));
        assert!(matches!(batch.replies[1].source, ReplySource::Known(Some(_))), "the key is used for another request");
        assert_eq!(cart.sequence_number(), 1.into());
    }

    #[test]
    fn a_trace_shows_what_became_of_a_command() {
        let mut cart = new_cart();
        let shown = |batch: &CartBatch| batch.replies.iter().map(|reply| outcome_of(&reply.source)).collect::<Vec<_>>();
        let first = decide(&mut cart, vec![consumed(10, add(1)), consumed(11, add(1))], vec![]);
        assert_eq!(shown(&first), ["accepted", "rejected"]);
        let mut repeat = consumed(12, add(1));
        repeat.command.command_id = Uuid::from_u128(10).into();
        let redelivered = vec![consumed(9, add(1)), consumed(10, add(1)), consumed(11, add(1)), repeat];
        let again = decide(&mut cart, redelivered, first.rows);
        assert_eq!(shown(&again), ["unchanged", "accepted", "rejected", "repeated"]);
    }

    #[test]
    fn an_undecidable_command_is_a_dead_letter_without_a_reply() {
        let letter = Record { partition: None, key: None, value: None, headers: None };
        let undecidable = ConsumedCommand { letter: Some(letter), ..consumed(10, add(1)) };
        let batch = decide(&mut new_cart(), vec![undecidable, consumed(11, add(2))], vec![]);
        assert_eq!((batch.letters.len(), batch.rows.len(), batch.replies.len()), (1, 1, 1));
    }

    #[test]
    fn a_journalled_position_with_another_command_stops_the_partition() {
        let mut cart = new_cart();
        let first = decide(&mut cart, vec![consumed(10, add(1))], vec![]);
        let mut other = consumed(10, add(2));
        other.command.command_id = Uuid::from_u128(99).into();
        let result = decide_batch(&mut cart, vec![other], &RedeliveredRows::new(first.rows), &codecs());
        assert!(matches!(result, Err(Error::LogRewritten(_))));
    }
}
