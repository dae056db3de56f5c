//! A purchase, as the world sees it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartEvent, CartId, Event, EventId, Item, SessionId, wire};

/// One line of one checkout, as it stands on the `item-purchased` topic (`schemas/item-purchased-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurchasedItem {
    /// The id of its `ItemPurchased` event.
    pub event_id: EventId,
    /// Whose cart.
    pub cart_id: CartId,
    /// In which session.
    pub session_id: SessionId,
    /// Who sold it.
    pub vendor_id: crate::VendorId,
    /// What was bought.
    pub product_id: crate::ProductId,
    /// What it is called.
    pub name: crate::ItemName,
    /// What one piece cost.
    pub price: crate::Price,
    /// How many pieces.
    pub quantity: crate::Quantity,
    /// When, by the command's time.
    #[serde(with = "wire::timestamp")]
    pub purchased_at: DateTime<Utc>,
}

impl PurchasedItem {
    /// The purchase that an event tells, if it tells one.
    #[must_use]
    pub fn of(event: CartEvent) -> Option<Self> {
        let Event::ItemPurchased { item } = event.event else { return None };
        let Item { product_id, vendor_id, name, price, quantity } = item;
        Some(Self {
            event_id: event.event_id,
            cart_id: event.cart_id,
            session_id: event.session_id,
            vendor_id,
            product_id,
            name,
            price,
            quantity,
            purchased_at: event.occurred_at,
        })
    }

    /// Price times quantity, exactly.
    #[must_use]
    pub fn amount(&self) -> rust_decimal::Decimal {
        (self.price.get() * rust_decimal::Decimal::from(self.quantity.get())).normalize()
    }
}
