//! The JSON of the HTTP contract, and the outcomes of commands.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{CartId, ProductId, VendorId};

/// One line of a cart. Prices are exact decimals, strings in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The product; a cart has at most one line of it.
    pub product_id: ProductId,
    pub vendor_id: VendorId,
    /// The product's name as the member saw it.
    pub name: String,
    /// Price of one piece.
    pub price: Decimal,
    /// The number of pieces; the service rejects a number below one.
    pub quantity: i64,
}

/// The answer to an accepted add, remove or adjust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemChange {
    /// The command's id, the same for every retry with the same idempotency key.
    pub command_id: Uuid,
    pub cart_id: CartId,
    /// The shopping session, which ends with its checkout.
    pub session_id: Uuid,
    /// The cart's sequence number after the change.
    pub version: i64,
    /// The item after the change; after a remove, the removed item.
    pub item: Item,
}

/// The answer to an accepted checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purchase {
    /// The command's id, the same for every retry with the same idempotency key.
    pub command_id: Uuid,
    pub cart_id: CartId,
    /// The session that was bought.
    pub session_id: Uuid,
    /// The cart's sequence number after the checkout.
    pub version: i64,
    /// The purchased items.
    pub items: Vec<Item>,
    /// Sum of price times quantity.
    pub total: Decimal,
    /// The time of the purchase.
    pub purchased_at: DateTime<Utc>,
}

/// A cart as it is now; an unused cart is empty, at version 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cart {
    pub cart_id: CartId,
    /// The open session, if there is one.
    pub session_id: Option<Uuid>,
    /// The cart's sequence number.
    pub version: i64,
    /// Its lines.
    pub items: Vec<Item>,
    /// Sum of price times quantity.
    pub total: Decimal,
}

/// An event of a cart, as far as it is shown; the others are in its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartEvent {
    /// `ItemAdded`, for example.
    #[serde(rename = "type")]
    pub kind: String,
    pub sequence_number: i64,
    /// The time of the command.
    pub occurred_at: DateTime<Utc>,
    /// The item after the event; the removed item after a removal.
    pub item: Item,
    pub increased_by: Option<i64>,
    pub decreased_by: Option<i64>,
}

/// Problem details (RFC 9457): why a request was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The problem type, `urn:cart:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The problem type as text.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    #[serde(default)]
    pub detail: String,
    /// The command's id; only a rejection by the cart has one.
    #[serde(rename = "commandId", skip_serializing_if = "Option::is_none")]
    pub command_id: Option<Uuid>,
}

impl Problem {
    const PREFIX: &str = "urn:cart:problem:";

    /// The last part of the type: `item-already-in-cart`.
    #[must_use]
    pub fn code(&self) -> &str {
        self.kind.strip_prefix(Self::PREFIX).unwrap_or(&self.kind)
    }
}

/// The service's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The command was executed.
    Accepted(T),
    /// The command was rejected by the cart's rules or because of invalid input. Nothing has changed.
    Rejected(Problem),
    /// The command is in the log, without an outcome yet. A retry with the same key returns the outcome.
    Pending {
        command_id: Uuid,
        /// Why its cart is parked, if it is: an operator has to repair it first.
        parked: Option<String>,
    },
    /// The command was not executed and will not be.
    Unavailable {
        /// The service's reason; empty if it gave none.
        detail: String,
        /// The pause before a retry that the service asks for.
        retry_after: Option<Duration>,
    },
}

impl<T> Outcome<T> {
    /// Converts the content of [`Outcome::Accepted`].
    #[must_use]
    pub fn map<U>(self, accepted: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Accepted(body) => Outcome::Accepted(accepted(body)),
            Self::Rejected(problem) => Outcome::Rejected(problem),
            Self::Pending { command_id, parked } => Outcome::Pending { command_id, parked },
            Self::Unavailable { detail, retry_after } => Outcome::Unavailable { detail, retry_after },
        }
    }
}

/// The body of a 202.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingBody {
    pub(crate) command_id: Uuid,
    /// Only of a parked cart.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// The body of a PATCH.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdjustBody {
    pub(crate) adjust_by: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_string_that_keeps_its_decimal_places() {
        let item = Item {
            product_id: ProductId::of_product("85123A"),
            vendor_id: VendorId::of_vendor("851"),
            name: "HOLDER".to_owned(),
            price: Decimal::new(2550, 3),
            quantity: 6,
        };
        let json = serde_json::to_string(&item).expect("an item is JSON");
        assert_eq!(
            json,
            r#"{"productId":"8c126bcf-f775-5898-bc4f-457befa0c02d","vendorId":"05f2dc43-27f3-542f-bdcb-58c02d91639c","name":"HOLDER","price":"2.550","quantity":6}"#
        );
        assert_eq!(serde_json::from_str::<Item>(&json).expect("it reads what it writes"), item);
    }

    #[test]
    fn reads_a_problem_without_a_command_id() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"urn:cart:problem:item-not-in-cart","title":"t","status":404,"detail":"d","instance":"x"}"#,
        )
        .expect("a problem without a command id");
        assert_eq!((problem.code(), problem.command_id), ("item-not-in-cart", None));
    }
}
