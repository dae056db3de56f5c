//! Parked carts: carts whose commands wait in the log.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartId, Position, wire};

/// A record of the topic `cart-parked` (`schemas/cart-parked-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartParked {
    pub cart_id: CartId,
    /// The content.
    pub entry: ParkedEntry,
}

/// The content of a record. New variants are only appended, here and in the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum ParkedEntry {
    /// The cart's commands wait. Written by the cart-processor only, in the transaction that commits the offsets behind them;
    /// the key is the cart id. A record without a value ends it.
    Parked {
        /// The first command that was not decided when it failed.
        first_position: Position,
        /// All commands of the cart before it are decided.
        next_position: Position,
        state: ParkingState,
        /// Why the cart failed: a code, and behind a colon the error.
        reason: String,
        /// When it failed first.
        #[serde(with = "wire::timestamp")]
        since: DateTime<Utc>,
    },
    /// An operator asks for another try. The key is [`retry_key`].
    RetryRequested {
        /// Who asks.
        by: String,
        #[serde(with = "wire::timestamp")]
        requested_at: DateTime<Utc>,
    },
}

/// What happens to a cart whose commands wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParkingState {
    /// It has failed, and is tried again by itself.
    Trying,
    /// It has failed too often. It waits for an operator.
    Parked,
    /// An operator has asked for another try, which is in progress.
    Retrying,
}

impl ParkingState {
    /// The state as a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Parked => "parked",
            Self::Retrying => "retrying",
        }
    }
}

/// A cart whose commands wait: the content of [`ParkedEntry::Parked`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedCart {
    pub first_position: Position,
    pub next_position: Position,
    pub state: ParkingState,
    pub reason: String,
    pub since: DateTime<Utc>,
}

impl ParkedCart {
    /// The record's value.
    #[must_use]
    pub fn record(&self, cart_id: CartId) -> CartParked {
        let Self { first_position, next_position, state, ref reason, since } = *self;
        let entry = ParkedEntry::Parked { first_position, next_position, state, reason: reason.clone(), since };
        CartParked { cart_id, entry }
    }

    /// Whether the command at this position waits.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        position >= self.next_position
    }

    /// The reason's code, which is part of the API.
    #[must_use]
    pub fn reason_code(&self) -> &str {
        self.reason.split_once(':').map_or(&self.reason, |(code, _)| code)
    }
}

/// The key of a request to try a parked cart again. It is no state: without the marker of a parked cart it means nothing.
#[must_use]
pub fn retry_key(cart_id: CartId) -> String {
    format!("{RETRY}{cart_id}")
}

/// Whether a key is that of a request.
#[must_use]
pub fn is_retry_key(key: &[u8]) -> bool {
    key.starts_with(RETRY.as_bytes())
}

const RETRY: &str = "retry/";
