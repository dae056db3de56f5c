//! Deciding a batch: what of it is to be journalled, answered and published, cart by cart. No I/O.

use std::collections::HashMap;

use cart::{Aggregate, CartCommand, CartEvent, CartId, Decision, Outcome, Position};
use journal::{Append, Codecs, Entry, SNAPSHOT_EVERY, Snapshot};

use crate::history::{History, LogRewritten};
use crate::intake::Received;
use crate::reply::{Answer, Owed};

/// What becomes of one cart's commands of a batch.
#[derive(Debug)]
pub(crate) struct CartWork {
    pub(crate) cart_id: CartId,
    pub(crate) partition: i32,
    /// All that is to be published, in order, each with its command's trace.
    pub(crate) entries: Vec<Entry>,
    pub(crate) trace_parents: Vec<Option<Box<[u8]>>>,
    /// How many of the entries are in the journal already.
    pub(crate) journalled: usize,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) owed: Vec<Owed>,
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
    let before = cart.sequence_number();
    let mut work = CartWork {
        cart_id: cart.cart_id(),
        partition: commands.first().map_or(0, |received| received.partition),
        entries: Vec::with_capacity(commands.len()),
        trace_parents: Vec::new(),
        journalled: 0,
        snapshot: None,
        owed: Vec::new(),
    };
    let mut checked_out = false;
    for received in commands {
        let Received { position, command, reply_to, is_old, trace_parent, .. } = received;
        let was_decided = position <= cart.position() && !fail_points::is_off("guard-redelivery");
        let answer = if was_decided {
            let entries = history.of(&command, position)?;
            work.journalled += entries.len();
            work.push(entries.iter().cloned(), trace_parent);
            if entries.is_empty() && is_old {
                Answer::Known(None)
            } else if entries.is_empty() {
                Answer::DecideAgain(Box::new(command.clone()))
            } else {
                Answer::Journalled(entries.to_vec())
            }
        } else {
            match cart.decide(&command, position) {
                Decision::Rejected(refusal) => {
                    metrics::counter!("processor_commands_rejected_total").increment(1);
                    Answer::Known(Some(refusal.into()))
                }
                Decision::Repeated(earlier) => Answer::Repeated(earlier),
                Decision::Accepted(events) => {
                    checked_out |= events.iter().any(CartEvent::is_purchase);
                    work.accept(cart, &events, trace_parent, codecs)?;
                    Answer::Known(Outcome::of(&events))
                }
            }
        };
        work.owe(&command, position, reply_to, answer);
    }
    let crossed = cart.sequence_number().get() / SNAPSHOT_EVERY != before.get() / SNAPSHOT_EVERY;
    if checked_out || crossed {
        work.snapshot = Some(Snapshot::new(cart, &codecs.snapshots)?);
    }
    Ok(work)
}

impl CartWork {
    /// What of it is to be journalled.
    pub(crate) fn append(&self) -> Append<'_> {
        let entries = &self.entries[self.journalled..];
        Append { cart_id: self.cart_id, entries, snapshot: self.snapshot.as_ref() }
    }

    fn push(&mut self, entries: impl IntoIterator<Item = Entry>, trace_parent: Option<Box<[u8]>>) {
        self.entries.extend(entries);
        self.trace_parents.resize(self.entries.len(), trace_parent);
    }

    fn accept(
        &mut self,
        cart: &mut Aggregate,
        events: &[CartEvent],
        trace_parent: Option<Box<[u8]>>,
        codecs: &Codecs,
    ) -> Result<(), journal::Error> {
        for event in events {
            self.entries.push(Entry::new(event, &codecs.events)?);
            cart.apply(event);
        }
        self.trace_parents.resize(self.entries.len(), trace_parent);
        Ok(())
    }

    fn owe(&mut self, command: &CartCommand, position: Position, reply_to: Option<i32>, answer: Answer) {
        if let Some(reply_to) = reply_to {
            self.owed.push(Owed { command_id: command.command_id, position, reply_to, answer });
        }
    }
}
