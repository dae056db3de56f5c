//! The commands that operators have given up (`cartctl parked discard`), read from the control topic with code of its own.

use std::collections::BTreeMap;
use std::fmt;

use cart::contract::Contract as _;
use cart::{CartCommand, CartId, CommandId, Control, ControlKey, ControlRecord, LogEpoch, Position};
use chrono::{DateTime, Utc};
use kafka::{Codec, KafkaArgs};
use serde::Serialize;

use crate::skips::{Wanted, codec, hashes, read_newest};

/// A command that becomes a dead letter when its parked cart comes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscardedCommand {
    /// On `cart-commands`.
    pub partition: i32,
    pub offset: i64,
    pub cart_id: CartId,
    pub command_id: CommandId,
    /// The hash of the record that the operator meant.
    pub sha256: String,
    /// The hash of the record that is there; `None` without a record.
    pub found: Option<String>,
    pub by: String,
    pub at: DateTime<Utc>,
    pub reason: String,
}

impl DiscardedCommand {
    /// Whether it is the record that the operator meant: only that one is discarded.
    pub(crate) fn holds(&self) -> bool {
        self.found.as_ref() == Some(&self.sha256)
    }

    /// Whether it is of this command of the record, too: as the cart-processor compares, see [`control::Discard::is_of`].
    pub(crate) fn is_of(&self, command: &CartCommand) -> bool {
        (self.cart_id, self.command_id) == (command.cart_id, command.command_id)
    }
}

impl fmt::Display for DiscardedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, offset, cart_id, command_id, by, at, reason, .. } = self;
        write!(
            f,
            "cart-commands {partition}/{offset}, command {command_id} of cart {cart_id} ({by}, {at:?}, {reason:?})"
        )
    }
}

/// Reads the discards of this log, and the hashes of the records that they are for.
pub(crate) async fn load(kafka: &KafkaArgs, epoch: LogEpoch) -> anyhow::Result<Vec<DiscardedCommand>> {
    load_with(kafka, epoch, codec(kafka).await?).await
}

/// As [`load`], those of a cart.
pub(crate) async fn load_of_cart(
    kafka: &KafkaArgs,
    epoch: LogEpoch,
    cart_id: CartId,
) -> anyhow::Result<Vec<DiscardedCommand>> {
    let codec = codec(kafka).await?;
    read_newest(kafka, codec, move |kafka, newest| discards(kafka, newest, epoch, |of| of == cart_id)).await
}

/// As [`load`], with this codec of the control topic's values.
pub(crate) async fn load_with(
    kafka: &KafkaArgs,
    epoch: LogEpoch,
    codec: Codec<ControlRecord>,
) -> anyhow::Result<Vec<DiscardedCommand>> {
    read_newest(kafka, codec, move |kafka, newest| discards(kafka, newest, epoch, |_| true)).await
}

fn discards(
    kafka: &KafkaArgs,
    newest: BTreeMap<ControlKey, ControlRecord>,
    epoch: LogEpoch,
    is_wanted: impl Fn(CartId) -> bool,
) -> anyhow::Result<Vec<DiscardedCommand>> {
    // The commands of an earlier log no longer exist.
    let is_here = |key: &ControlKey, record: &ControlRecord| match (key, &record.control) {
        (ControlKey::Discard { offset, .. }, Control::Discard { cart_id, position, .. }) => {
            *position == Position::new(epoch, *offset) && is_wanted(*cart_id)
        }
        _ => false,
    };
    let here: Vec<_> = newest.into_iter().filter(|(key, record)| is_here(key, record)).collect();
    let wanted: Wanted = here.iter().filter_map(|(key, _)| place(key)).collect();
    let mut found = hashes(kafka, CartCommand::TOPIC, &wanted)?;
    let mut discards = Vec::new();
    for (key, ControlRecord { by, at, reason, control }) in here {
        let ControlKey::Discard { partition, offset } = key else { continue };
        let Control::Discard { cart_id, command_id, sha256, .. } = control else { continue };
        let found = found.remove(&(partition, offset));
        discards.push(DiscardedCommand { partition, offset, cart_id, command_id, sha256, found, by, at, reason });
    }
    Ok(discards)
}

fn place(key: &ControlKey) -> Option<(i32, i64)> {
    if let ControlKey::Discard { partition, offset } = key { Some((*partition, *offset)) } else { None }
}
