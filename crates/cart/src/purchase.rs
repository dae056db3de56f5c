//! Purchases.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartEvent, CartId, Event, EventId, Item, SessionId, wire};

/// One line of a checkout: a record of the topic `item-purchased` (`schemas/item-purchased-value.avsc`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurchasedItem {
    /// The id of its `ItemPurchased` event.
    pub event_id: EventId,
    pub cart_id: CartId,
    pub session_id: SessionId,
    pub vendor_id: crate::VendorId,
    pub product_id: crate::ProductId,
    /// The product's name.
    pub name: crate::ItemName,
    /// The price of one piece.
    pub price: crate::Price,
    /// The number of pieces.
    pub quantity: crate::Quantity,
    /// The command's time.
    #[serde(with = "wire::timestamp")]
    pub purchased_at: DateTime<Utc>,
}

impl PurchasedItem {
    /// The purchase of an event; `None` if the event is not a purchase.
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
