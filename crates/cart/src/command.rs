//! Commands.

use std::num::NonZeroI32;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{CartId, CommandId, ItemName, Price, ProductId, SequenceNumber, VendorId, wire};

/// A record of the topic `cart-commands` (`schemas/cart-commands-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartCommand {
    /// The id of the command and its reply.
    pub command_id: CommandId,
    pub cart_id: CartId,
    /// The time of its events.
    #[serde(with = "wire::timestamp")]
    pub issued_at: DateTime<Utc>,
    /// The content.
    pub command: Command,
    /// If set, the command is rejected unless the cart is at this version when it is decided.
    #[serde(default)]
    pub expected_version: Option<SequenceNumber>,
    /// Whether it may be repeated with the same `command_id`, like a request with an idempotency key. `Some(true)`: the cart
    /// remembers it and its outcome, also if it is rejected. `Some(false)`: its id is unique, and it is not remembered.
    /// `None`, from producers before version 0.2: it is remembered if it is accepted, by its content alone.
    #[serde(default)]
    pub keyed: Option<bool>,
}

impl CartCommand {
    /// The first 8 bytes of a SHA-256 of the request: its kind, its commands in order, its condition. Equal for a repeat, and
    /// different for another request with the same key. It is stored, so it must not change with a schema.
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

/// The content of a command. New variants are only appended, here and in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Command {
    /// Add a product that is not in the cart.
    AddItem {
        product_id: ProductId,
        vendor_id: VendorId,
        /// The product's name.
        name: ItemName,
        /// The price of one piece.
        price: Price,
        /// The number of pieces as sent, so that the rules can reject it.
        quantity: i32,
    },
    /// Remove a product.
    RemoveItem { product_id: ProductId },
    /// Change the quantity of a product in the cart.
    AdjustQuantity {
        product_id: ProductId,
        /// The change; negative for fewer pieces.
        adjust_by: NonZeroI32,
    },
    /// Buy everything in the cart.
    Checkout {},
    /// An atomic batch: all commands in order, or none.
    Batch {
        /// At least one command, and no batch.
        commands: Vec<Command>,
    },
    /// An independent batch: the commands in order, whether others are rejected or not.
    IndependentBatch {
        /// At least one command, and no batch.
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
