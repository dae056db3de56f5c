//! What lies in a cart: an item with its name, price and quantity, each valid by construction.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{ProductId, VendorId, wire};

/// Why a name, a price or a quantity is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItem {
    /// Empty, or only white space.
    #[error("the name is empty")]
    NameEmpty,
    /// Longer than [`ItemName::CHARS_MAX`].
    #[error("the name has {chars} characters, at most {} are allowed", ItemName::CHARS_MAX)]
    NameTooLong {
        /// How many characters it has.
        chars: usize,
    },
    /// No plain decimal number.
    #[error("'{text}' is no decimal number such as 12.50")]
    PriceNotDecimal {
        /// What was given, shortened.
        text: String,
    },
    /// Below 0.
    #[error("the price is negative")]
    PriceNegative,
    /// More than [`Price::SCALE_MAX`] decimal places: refused, never rounded.
    #[error("the price has more than {} decimal places", Price::SCALE_MAX)]
    PriceTooPrecise,
    /// Above [`Price::MAX`].
    #[error("the price is above {}", Price::MAX)]
    PriceTooLarge,
    /// Not from 1 to [`Quantity::MAX`].
    #[error("the quantity {quantity} is not from 1 to {}", Quantity::MAX)]
    Quantity {
        /// What was given.
        quantity: i64,
    },
}

/// A product in a cart, by one vendor, at the price that it had when it was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What it is.
    pub product_id: ProductId,
    /// Who sells it.
    pub vendor_id: VendorId,
    /// What it is called.
    pub name: ItemName,
    /// What one piece costs.
    pub price: Price,
    /// How many pieces.
    pub quantity: Quantity,
}

impl Item {
    /// Price times quantity, exactly.
    #[must_use]
    pub fn amount(&self) -> Decimal {
        // At most 10^9 * 10^6 at four places: 19 digits of the 28 that a Decimal has.
        (self.price.get() * Decimal::from(self.quantity.get())).normalize()
    }
}

/// An item's name: 1 to 200 characters, not all of them white space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemName(Box<str>);

impl ItemName {
    /// The most characters (Unicode scalar values). With [`crate::Cart::LINES_MAX`] it bounds a cart in memory and on disk.
    pub const CHARS_MAX: usize = 200;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ItemName {
    type Error = InvalidItem;

    fn try_from(name: String) -> Result<Self, InvalidItem> {
        // Bytes bound characters from above: most names need no count.
        let chars = if name.len() > Self::CHARS_MAX { name.chars().count() } else { 0 };
        if chars > Self::CHARS_MAX {
            return Err(InvalidItem::NameTooLong { chars });
        }
        if name.trim().is_empty() {
            return Err(InvalidItem::NameEmpty);
        }
        Ok(Self(name.into_boxed_str()))
    }
}

impl From<ItemName> for String {
    fn from(name: ItemName) -> Self {
        name.0.into()
    }
}

/// What one piece costs: exact, from 0 up, at most four decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(Decimal);

impl Price {
    /// The most decimal places, and the scale on the wire.
    pub const SCALE_MAX: u32 = 4;
    /// The highest price, 13 digits on the wire: 10^18 purchases of it still add up exactly in a 28 digit sum.
    pub const MAX: Decimal = Decimal::from_parts(1_316_134_911, 2_328, 0, false, Self::SCALE_MAX);

    /// The price as a decimal number, without trailing zeros.
    #[must_use]
    pub const fn get(self) -> Decimal {
        self.0
    }
}

impl TryFrom<Decimal> for Price {
    type Error = InvalidItem;

    fn try_from(price: Decimal) -> Result<Self, InvalidItem> {
        let price = price.normalize();
        if price.is_sign_negative() && !price.is_zero() {
            return Err(InvalidItem::PriceNegative);
        }
        if price.scale() > Self::SCALE_MAX {
            return Err(InvalidItem::PriceTooPrecise);
        }
        if price > Self::MAX {
            return Err(InvalidItem::PriceTooLarge);
        }
        Ok(Self(price))
    }
}

impl FromStr for Price {
    type Err = InvalidItem;

    /// Reads plain digits with at most one point, exactly; an exponent is allowed as JSON numbers may have one.
    fn from_str(text: &str) -> Result<Self, InvalidItem> {
        let not_decimal = || InvalidItem::PriceNotDecimal { text: text.chars().take(40).collect() };
        let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
        // The parser passes underscores over.
        if mantissa.contains('_') {
            return Err(not_decimal());
        }
        // `from_str_exact` refuses what it would have to round; more than 28 digits are beyond any price.
        let decimal = match Decimal::from_str_exact(mantissa) {
            // This would round a mantissa that is too long, which this one is not.
            Ok(_) if mantissa.len() < text.len() => Decimal::from_scientific(text).map_err(|_| not_decimal())?,
            Ok(decimal) => decimal,
            Err(rust_decimal::Error::Underflow) => return Err(InvalidItem::PriceTooPrecise),
            // Digits alone are wrong only by being too many.
            Err(_) if !mantissa.is_empty() && mantissa.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(InvalidItem::PriceTooLarge);
            }
            Err(_) => return Err(not_decimal()),
        };
        Self::try_from(decimal)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Price {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wire::decimal::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        wire::decimal::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// How many pieces of an item: 1 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Quantity(i32);

impl Quantity {
    /// The most pieces of one item in one cart.
    pub const MAX: i32 = 1_000_000;

    /// The quantity as a number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i64> for Quantity {
    type Error = InvalidItem;

    fn try_from(quantity: i64) -> Result<Self, InvalidItem> {
        i32::try_from(quantity)
            .ok()
            .filter(|pieces| (1..=Self::MAX).contains(pieces))
            .map(Self)
            .ok_or(InvalidItem::Quantity { quantity })
    }
}

impl TryFrom<i32> for Quantity {
    type Error = InvalidItem;

    fn try_from(quantity: i32) -> Result<Self, InvalidItem> {
        Self::try_from(i64::from(quantity))
    }
}

impl From<Quantity> for i32 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}
