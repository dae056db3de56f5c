//! The carts that an audit with a checkpoint looks at.

use std::collections::{BTreeSet, HashMap};

use cart::{CartEvent, PurchasedItem};
use uuid::Uuid;

use super::checkpoint::Checkpoint;
use super::evidence::{Content, LogRecord, Record};
use crate::journal::Newest;

/// The carts of which something has come since the checkpoint: a command, an event, a purchase, or a newest entry in the journal
/// that is not the sealed one. `newest` has all carts of the journal.
#[must_use]
pub fn touched(
    checkpoint: &Checkpoint,
    commands: &[LogRecord],
    events: &[Record<CartEvent>],
    purchases: &[Record<PurchasedItem>],
    newest: &HashMap<Uuid, Newest>,
) -> BTreeSet<Uuid> {
    let asked = commands.iter().filter_map(|record| match &record.content {
        Content::Command(command) => Some(command.cart_id.as_uuid()),
        Content::TooNew { cart_id } => Some(cart_id.as_uuid()),
        Content::Undecidable { .. } => None,
    });
    let changed = events.iter().filter_map(|record| Some(record.value.as_ref().ok()?.cart_id.as_uuid()));
    let bought = purchases.iter().filter_map(|record| Some(record.value.as_ref().ok()?.cart_id.as_uuid()));
    let sealed = |cart_id: &Uuid| checkpoint.carts.get(cart_id).map(|cart| cart.newest);
    let written = newest.iter().filter(|(cart_id, newest)| sealed(cart_id) != Some(**newest)).map(|(id, _)| *id);
    let lost = checkpoint.carts.keys().filter(|cart_id| !newest.contains_key(cart_id)).copied();
    asked.chain(changed).chain(bought).chain(written).chain(lost).collect()
}
