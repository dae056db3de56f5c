//! The purchases: lines of checkouts, each a function of its number.

use cart::{CartEvent, CartId, Event, EventId, Item, LogEpoch, Position, PurchasedItem, SessionId};
use cartctl::{cart_id, product_id, vendor_id};
use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

/// Enough that each of the partitions gets some.
const VENDORS: u64 = 24;
const CARTS: u64 = 40;
const PRODUCTS: u64 = 7;
const NAMES: u64 = 3;

/// The number and the distance of the times: five days around the end of a year, evenly distributed over the lines, so that
/// rows are changed repeatedly.
const TIMES: i64 = 1_000;
const INTERVAL_S: i64 = 400;

/// Each line has one more event that is not a purchase.
const EVENTS_A_LINE: u64 = 2;

/// One line of a checkout, as plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) vendor: Uuid,
    pub(crate) product: Uuid,
    pub(crate) name: String,
    /// The price in ten-thousandths.
    pub(crate) price: i64,
    pub(crate) quantity: i32,
    pub(crate) at: DateTime<Utc>,
}

impl Line {
    /// Line `number` of the shop: prices with four decimal places, products with changing names, vendors with many and few
    /// sales.
    pub(crate) fn of(number: u64) -> Self {
        let small = i32::try_from(number % 1_000_000).unwrap_or_default();
        Self {
            number,
            vendor: vendor_id(&format!("V{}", number % VENDORS)),
            product: product_id(&format!("P{}", number / VENDORS % PRODUCTS)),
            name: format!("PRODUCT, {}", number / 5 % NAMES),
            price: i64::from(small) * 7_919 % 1_000_000 + 1,
            quantity: 1 + small % 17,
            at: start() + TimeDelta::seconds(i64::from(small) * 389 % TIMES * INTERVAL_S),
        }
    }

    fn cart(&self) -> CartId {
        cart_id(&format!("M{}", self.number % CARTS)).into()
    }

    /// The number of its purchase among its cart's events.
    fn sequence_number(&self) -> u64 {
        (self.number / CARTS + 1) * EVENTS_A_LINE
    }

    fn event_id_of(&self, sequence_number: u64) -> EventId {
        EventId::of(self.cart(), sequence_number.cast_signed().into())
    }

    fn session(&self) -> SessionId {
        SessionId::of(self.cart(), (self.number / CARTS).cast_signed())
    }

    pub(crate) fn event_id(&self) -> EventId {
        self.event_id_of(self.sequence_number())
    }

    fn item(&self) -> anyhow::Result<Item> {
        Ok(Item {
            product_id: self.product.into(),
            vendor_id: self.vendor.into(),
            name: self.name.clone().try_into()?,
            price: Decimal::new(self.price, 4).try_into()?,
            quantity: self.quantity.try_into()?,
        })
    }

    /// Its record of `item-purchased`.
    pub(crate) fn purchase(&self) -> anyhow::Result<PurchasedItem> {
        let Item { product_id, vendor_id, name, price, quantity } = self.item()?;
        Ok(PurchasedItem {
            event_id: self.event_id(),
            cart_id: self.cart(),
            session_id: self.session(),
            vendor_id,
            product_id,
            name,
            price,
            quantity,
            purchased_at: self.at,
        })
    }

    /// Its records of `cart-events`: another event of the item, of each kind in turn, then its purchase.
    pub(crate) fn events(&self) -> anyhow::Result<[CartEvent; 2]> {
        let item = self.item()?;
        let before = match self.number % 4 {
            0 => Event::ItemAdded { item: item.clone() },
            1 => Event::ItemQuantityIncreased { item: item.clone(), increased_by: 1 },
            2 => Event::ItemQuantityDecreased { item: item.clone(), decreased_by: 1 },
            _ => Event::ItemRemoved { item: item.clone() },
        };
        let purchase = self.sequence_number();
        Ok([self.event(purchase - 1, before), self.event(purchase, Event::ItemPurchased { item })])
    }

    fn event(&self, sequence_number: u64, event: Event) -> CartEvent {
        CartEvent {
            event_id: self.event_id_of(sequence_number),
            cart_id: self.cart(),
            session_id: self.session(),
            sequence_number: sequence_number.cast_signed().into(),
            position: Position::new(LogEpoch::FIRST, self.number.cast_signed()),
            command_id: Uuid::from_u128(self.number.into()).into(),
            command_digest: 0,
            occurred_at: self.at,
            event,
        }
    }
}

fn start() -> DateTime<Utc> {
    // 28 December 2025, 20:00 UTC.
    DateTime::from_timestamp(1_766_952_000, 0).unwrap_or_default()
}
