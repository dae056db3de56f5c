//! What somebody wants of a cart.

use std::num::NonZeroI32;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{CartId, CommandId, ItemName, Price, ProductId, SequenceNumber, VendorId, wire};

/// A command as it stands on the `cart-commands` topic (`schemas/cart-commands-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartCommand {
    /// Names the command and its reply.
    pub command_id: CommandId,
    /// Whose cart.
    pub cart_id: CartId,
    /// The time that its events will have.
    #[serde(with = "wire::timestamp")]
    pub issued_at: DateTime<Utc>,
    /// What is wanted.
    pub command: Command,
    /// Refused unless the cart's version is this when the command's turn comes.
    #[serde(default)]
    pub expected_version: Option<SequenceNumber>,
    /// Whether it may come again under the same `command_id`, as a request with an idempotency key may. `Some(true)`: the
    /// cart remembers it and its outcome, also when it is rejected. `Some(false)`: its id is unique, and it is not remembered.
    /// `None`, as producers before version 0.2 write it: it is remembered if it is accepted, by its content alone.
    #[serde(default)]
    pub keyed: Option<bool>,
}

impl CartCommand {
    /// The first 8 bytes of a SHA-256 of the request: its kind, its commands in order, its condition. Equal for a true
    /// repeat; another request under the same key differs. Never changes with a schema: it is stored.
    #[must_use]
    pub fn digest(&self) -> i64 {
        let content = self.command.digest();
        match self.expected_version {
            Some(version) if self.keyed.is_some() => {
                let mut hash = Sha256::new();
                hash.update(b"if-version");
                hash.update(version.get().to_be_bytes());
                hash.update(content.to_be_bytes());
                first_bytes(hash)
            }
            Some(_) | None => content,
        }
    }
}

/// What can be wanted of a cart. New alternatives are only ever appended, here and in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Command {
    /// Put a product in that is not there yet.
    AddItem {
        /// What it is.
        product_id: ProductId,
        /// Who sells it.
        vendor_id: VendorId,
        /// What it is called.
        name: ItemName,
        /// What one piece costs.
        price: Price,
        /// How many pieces: as sent, so that the rules can refuse it.
        quantity: i32,
    },
    /// Take a product out.
    RemoveItem {
        /// Which one.
        product_id: ProductId,
    },
    /// Want more or fewer pieces of a product that is there.
    AdjustQuantity {
        /// Which one.
        product_id: ProductId,
        /// How many more, or fewer when negative.
        adjust_by: NonZeroI32,
    },
    /// Buy all that is in the cart.
    Checkout {},
    /// Several at once, an atomic batch: all in order, or none.
    Batch {
        /// At least one, and none a batch.
        commands: Vec<Command>,
    },
    /// Several in order, each on its own: one that is rejected leaves the others.
    IndependentBatch {
        /// At least one, and none a batch.
        commands: Vec<Command>,
    },
}

impl Command {
    /// The first 8 bytes of a SHA-256 of the content.
    #[must_use]
    pub fn digest(&self) -> i64 {
        let mut hash = Sha256::new();
        match self {
            Self::AddItem { product_id, vendor_id, name, price, quantity } => {
                hash.update(b"add");
                hash.update(product_id.as_uuid());
                hash.update(vendor_id.as_uuid());
                hash.update(price.get().normalize().serialize());
                hash.update(quantity.to_be_bytes());
                hash.update(name.as_str());
            }
            Self::RemoveItem { product_id } => {
                hash.update(b"remove");
                hash.update(product_id.as_uuid());
            }
            Self::AdjustQuantity { product_id, adjust_by } => {
                hash.update(b"adjust");
                hash.update(product_id.as_uuid());
                hash.update(adjust_by.get().to_be_bytes());
            }
            Self::Checkout {} => hash.update(b"checkout"),
            Self::Batch { commands } => update_all(&mut hash, b"batch", commands),
            Self::IndependentBatch { commands } => update_all(&mut hash, b"independent-batch", commands),
        }
        first_bytes(hash)
    }
}

fn update_all(hash: &mut Sha256, kind: &[u8], commands: &[Command]) {
    hash.update(kind);
    for command in commands {
        hash.update(command.digest().to_be_bytes());
    }
}

fn first_bytes(hash: Sha256) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    i64::from_be_bytes(first)
}
