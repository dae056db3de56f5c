//! Deciding a batch: what of it is to be journalled, answered and published, cart by cart. No I/O.

use std::collections::HashMap;

use cart::{Aggregate, CartCommand, CartEvent, CartId, Decided, Decision, Outcome, Position};
use journal::{Append, Codecs, Row, SNAPSHOT_EVERY, Snapshot};
use kafka::Record;

use crate::history::{History, LogRewritten};
use crate::intake::Received;
use crate::reply::{Answer, Owed};

/// What becomes of one cart's commands of a batch.
#[derive(Debug)]
pub(crate) struct CartWork {
    pub(crate) cart_id: CartId,
    pub(crate) partition: i32,
    /// Its requests' rows, in order: their events are to be published, each with its command's trace.
    pub(crate) rows: Vec<Row>,
    pub(crate) trace_parents: Vec<Option<Box<[u8]>>>,
    /// How many of the rows are in the journal already.
    pub(crate) journalled: usize,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) owed: Vec<Owed>,
    pub(crate) letters: Vec<Record>,
}

/// The commands of a batch, by cart, each cart's in the order of the log.
pub(crate) fn by_cart(batch: Vec<Received>) -> Vec<(CartId, Vec<Received>)> {
    let mut places: HashMap<CartId, usize> = HashMap::with_capacity(batch.len());
    let mut carts: Vec<(CartId, Vec<Received>)> = Vec::with_capacity(batch.len());
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

/// Why a cart's commands can't be decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    LogRewritten(#[from] LogRewritten),
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// Decides a cart's commands, and leaves the cart as it is after them.
pub(crate) fn decide(
    cart: &mut Aggregate,
    commands: Vec<Received>,
    history: &History,
    codecs: &Codecs,
) -> Result<CartWork, Error> {
    let before = snapshots_due(cart);
    let mut work = CartWork {
        cart_id: cart.cart_id(),
        partition: commands.first().map_or(0, |received| received.partition),
        rows: Vec::with_capacity(commands.len()),
        trace_parents: Vec::with_capacity(commands.len()),
        journalled: 0,
        snapshot: None,
        owed: Vec::new(),
        letters: Vec::new(),
    };
    let mut checked_out = false;
    for received in commands {
        let Received { position, command, reply_to, is_old, trace_parent, letter, .. } = received;
        let was_decided = position <= cart.position() && !fail_points::is_off("guard-redelivery");
        let answer = if was_decided {
            match history.of(&command, position)? {
                Some(row) => {
                    work.journalled += 1;
                    work.push(row.clone(), trace_parent);
                    Answer::Journalled(Box::new((command.clone(), row.clone())))
                }
                None if is_old || letter.is_some() => {
                    work.letters.extend(letter);
                    Answer::Known(None)
                }
                None => Answer::DecideAgain(Box::new(command.clone())),
            }
        } else if let Some(letter) = letter {
            metrics::counter!("processor_dead_letters_total").increment(1);
            tracing::warn!(%position, command_id = %command.command_id, "dead letter");
            work.letters.push(letter);
            continue;
        } else {
            match cart.decide(&command, position) {
                Decision::KeyReused => Answer::Known(Some(Outcome::key_reused())),
                Decision::Repeated(earlier) => Answer::Repeated(earlier),
                Decision::Decided(decided) => {
                    checked_out |= decided.events.iter().any(CartEvent::is_purchase);
                    work.take(cart, decided, trace_parent, codecs)?
                }
            }
        };
        if matches!(answer, Answer::Known(Some(Outcome::Rejected { .. }))) {
            metrics::counter!("processor_commands_rejected_total").increment(1);
        }
        work.owe(&command, position, reply_to, answer);
    }
    if checked_out || snapshots_due(cart) != before {
        work.snapshot = Some(Snapshot::new(cart, &codecs.snapshots)?);
    }
    Ok(work)
}

/// How many snapshots a cart should have had by now, by its events and by its rejected requests.
fn snapshots_due(cart: &Aggregate) -> (i64, i64) {
    (cart.sequence_number().get() / SNAPSHOT_EVERY, cart.unchanged_count() / SNAPSHOT_EVERY)
}

impl CartWork {
    /// What of it is to be journalled.
    pub(crate) fn append(&self) -> Append<'_> {
        Append { cart_id: self.cart_id, rows: &self.rows[self.journalled..], snapshot: self.snapshot.as_ref() }
    }

    fn push(&mut self, row: Row, trace_parent: Option<Box<[u8]>>) {
        self.rows.push(row);
        self.trace_parents.push(trace_parent);
    }

    /// Carries out what was decided now.
    fn take(
        &mut self,
        cart: &mut Aggregate,
        decided: Decided,
        trace_parent: Option<Box<[u8]>>,
        codecs: &Codecs,
    ) -> Result<Answer, journal::Error> {
        if decided.is_journalled() {
            let row = Row::new(&decided, cart.sequence_number(), &codecs.events)?;
            cart.apply(&decided);
            self.push(row, trace_parent);
        }
        // What was done before version 0.2 is in the journal.
        if decided.earlier().next().is_some() {
            return Ok(Answer::Decided(Box::new(decided)));
        }
        Ok(Answer::Known(decided.outcome_with(|_| None)))
    }

    fn owe(&mut self, command: &CartCommand, position: Position, reply_to: Option<i32>, answer: Answer) {
        if let Some(reply_to) = reply_to {
            self.owed.push(Owed { command_id: command.command_id, position, reply_to, answer });
        }
    }
}
