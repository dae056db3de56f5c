//! An item of a cart with its name, price and quantity, each valid by construction.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::characters::is_invisible;
use crate::number::Number;
use crate::{ProductId, VendorId};

/// Why a name, a price or a quantity is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItem {
    /// The name is empty, or only white space.
    #[error("the name is empty")]
    NameEmpty,
    /// The name is longer than [`ItemName::CHARS_MAX`].
    #[error("the name has {chars} characters, at most {} are allowed", ItemName::CHARS_MAX)]
    NameTooLong {
        /// The number of its characters.
        chars: usize,
    },
    /// The name has a control character, such as NUL, which PostgreSQL cannot store.
    #[error("the name has the control character U+{:04X}", u32::from(*character))]
    NameControl {
        /// The first one.
        character: char,
    },
    /// The name has only invisible characters.
    #[error("the name has only invisible characters")]
    NameInvisible,
    /// The price is not a decimal number.
    #[error("'{text}' is not a decimal number such as 12.50")]
    PriceNotDecimal {
        /// The text, shortened.
        text: String,
    },
    /// The price is below 0.
    #[error("the price is negative")]
    PriceNegative,
    /// The price has more than [`Price::SCALE_MAX`] decimal places. It is rejected, never rounded.
    #[error("the price has more than {} decimal places", Price::SCALE_MAX)]
    PriceTooPrecise,
    /// The price is above [`Price::MAX`].
    #[error("the price is above {}", Price::MAX)]
    PriceTooLarge,
    /// The quantity is not from 1 to [`Quantity::MAX`].
    #[error("the quantity {quantity} is not from 1 to {}", Quantity::MAX)]
    Quantity { quantity: i64 },
}

/// A product in a cart, by one vendor, at the price that it had when it was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub product_id: ProductId,
    pub vendor_id: VendorId,
    /// The product's name.
    pub name: ItemName,
    /// The price of one piece.
    pub price: Price,
    /// The number of pieces.
    pub quantity: Quantity,
}

impl Item {
    /// Price times quantity, exactly.
    #[must_use]
    pub fn amount(&self) -> Decimal {
        // At most 10^9 * 10^6 with four decimal places: 19 of the 28 digits of a Decimal.
        (self.price.get() * Decimal::from(self.quantity.get())).normalize()
    }
}

/// An item's name: 1 to 200 characters, not all of them white space.
///
/// A new name, from [`ItemName::new`], has no control character and at least one visible character. A decoded name may not: it
/// may have been accepted before these checks existed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemName(Box<str>);

impl ItemName {
    /// The maximum number of characters (Unicode scalar values). With [`crate::Cart::LINES_MAX`] it bounds a cart in memory
    /// and on disk.
    pub const CHARS_MAX: usize = 200;

    /// A name for a new command.
    ///
    /// # Errors
    /// The name is empty, too long, has a control character, or has only invisible characters.
    pub fn new(name: String) -> Result<Self, InvalidItem> {
        let name = Self::try_from(name)?;
        name.check()?;
        Ok(name)
    }

    /// Whether a command may have the name.
    pub(crate) fn check(&self) -> Result<(), InvalidItem> {
        // Unicode never changes which characters are control characters: its general category Cc is stable.
        if let Some(character) = self.0.chars().find(|character| character.is_control()) {
            return Err(InvalidItem::NameControl { character });
        }
        if self.0.chars().all(is_invisible) {
            return Err(InvalidItem::NameInvisible);
        }
        Ok(())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The checks of a decoded name.
impl TryFrom<String> for ItemName {
    type Error = InvalidItem;

    fn try_from(name: String) -> Result<Self, InvalidItem> {
        // The number of bytes is an upper bound, so most names need not be counted.
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

/// The price of one piece: exact, not negative, with at most four decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(Decimal);

impl Price {
    /// The maximum number of decimal places, and the scale in Avro.
    pub const SCALE_MAX: u32 = 4;
    /// The highest price, with 13 digits. 10^18 purchases of it add up exactly in a sum of 28 digits.
    pub const MAX: Decimal = Decimal::from_parts(1_316_134_911, 2_328, 0, false, Self::SCALE_MAX);

    /// The digits of [`Price::MAX`].
    const DIGITS_MAX: usize = 13;

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

    /// Reads an optional minus, digits, optionally a point and digits, and optionally an exponent, as JSON numbers may have
    /// one. Exact, never rounded.
    ///
    /// The only parser for prices: HTTP bodies, command lines and CSV files use it.
    fn from_str(text: &str) -> Result<Self, InvalidItem> {
        let not_decimal = || InvalidItem::PriceNotDecimal { text: text.chars().take(40).collect() };
        let Number { is_negative, digits, power } = Number::read(text).ok_or_else(not_decimal)?;
        if digits.is_empty() {
            return Ok(Self(Decimal::ZERO));
        }
        if is_negative {
            return Err(InvalidItem::PriceNegative);
        }
        // How many zeros to append to the digits for a number of the maximum scale.
        let Ok(zeros) = usize::try_from(power.saturating_add(i64::from(Self::SCALE_MAX))) else {
            return Err(InvalidItem::PriceTooPrecise);
        };
        if digits.len().saturating_add(zeros) > Self::DIGITS_MAX {
            return Err(InvalidItem::PriceTooLarge);
        }
        let scaled: i64 = format!("{digits}{}", "0".repeat(zeros)).parse().map_err(|_| not_decimal())?;
        Self::try_from(Decimal::new(scaled, Self::SCALE_MAX))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of pieces of an item: 1 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Quantity(i32);

impl Quantity {
    /// The maximum number of pieces of one item in one cart.
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_a_price_exactly() {
        for (text, price) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0"),
            ("0e999999999999999999999", "0"),
            ("12.50", "12.5"),
            ("0007.50", "7.5"),
            ("1e2", "100"),
            ("1.5E+3", "1500"),
            ("25e-4", "0.0025"),
            ("0.0001", "0.0001"),
            ("1.230000", "1.23"),
            ("900719925.4741", "900719925.4741"),
            ("999999999.9999", "999999999.9999"),
            ("9999999999999e-4", "999999999.9999"),
        ] {
            assert_eq!(text.parse::<Price>().unwrap().to_string(), price, "{text}");
        }
    }

    #[test]
    fn rejects_other_texts_with_their_reasons() {
        for text in [
            "",
            "-",
            "+1",
            "+0.5",
            "1.",
            ".5",
            "-.5",
            "1.e2",
            "1_000",
            "1_",
            "_1",
            "1_0.5_0",
            "0.5_0",
            "1e1_0",
            "1e_1",
            "1e",
            "1e+",
            "1e1.0",
            "e5",
            "--1",
            "1-",
            "1,5",
            "1.5.0",
            " 1",
            "1 ",
            "1 0",
            "\t1",
            "1\n",
            "0x10",
            "1f",
            "NaN",
            "inf",
            "Infinity",
            "£1",
            "१",
            "１",
            "1\u{200b}",
            "1\0",
            "null",
            "[1]",
        ] {
            let error = InvalidItem::PriceNotDecimal { text: text.to_owned() };
            assert_eq!(text.parse::<Price>(), Err(error), "{text:?}");
        }
        for text in
            ["0.00001", "1.23456", "1e-5", "1e-99999999999999999999", "0.99999999999999999999999999999999999999e0"]
        {
            assert_eq!(text.parse::<Price>(), Err(InvalidItem::PriceTooPrecise), "{text}");
        }
        for text in ["-1", "-0.01", "-1e400", "-0.00000001"] {
            assert_eq!(text.parse::<Price>(), Err(InvalidItem::PriceNegative), "{text}");
        }
        for text in [
            "1000000000",
            "1e9",
            "999999999.99990e1",
            "10000000000000e-4",
            "1e400",
            "1e99999999999999999999",
            &"9".repeat(60),
        ] {
            assert_eq!(text.parse::<Price>(), Err(InvalidItem::PriceTooLarge), "{text}");
        }
    }

    proptest! {
        /// Against whole numbers that are large enough: the value times 10^12.
        #[test]
        fn parses_any_number_exactly(
            is_negative: bool,
            whole in "[0-9]{1,10}",
            fraction in prop::option::of("[0-9]{1,6}"),
            exponent in prop::option::of(-6_i32..=6),
        ) {
            let sign = if is_negative { "-" } else { "" };
            let point = fraction.as_ref().map(|digits| format!(".{digits}")).unwrap_or_default();
            let power = exponent.map(|power| format!("e{power}")).unwrap_or_default();
            let text = format!("{sign}{whole}{point}{power}");

            let fraction = fraction.unwrap_or_default();
            let digits: u128 = format!("{whole}{fraction}").parse().unwrap();
            let places = u32::try_from(12 + exponent.unwrap_or(0) - i32::try_from(fraction.len()).unwrap()).unwrap();
            let scaled = digits * 10_u128.pow(places);
            let expected = if is_negative && scaled > 0 {
                Err(InvalidItem::PriceNegative)
            } else if !scaled.is_multiple_of(10_u128.pow(8)) {
                Err(InvalidItem::PriceTooPrecise)
            } else if scaled / 10_u128.pow(8) > 9_999_999_999_999 {
                Err(InvalidItem::PriceTooLarge)
            } else {
                Ok(i128::try_from(scaled / 10_u128.pow(8)).unwrap())
            };
            let read = text.parse::<Price>().map(|price| {
                let mut decimal = price.get();
                decimal.rescale(4);
                decimal.mantissa()
            });
            prop_assert_eq!(read, expected, "{}", text);
        }

        /// The grammar is that of JSON, with leading zeros.
        #[test]
        fn accepts_exactly_the_json_numbers(text in "[-+0-9.eE_ ]{0,12}") {
            let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
            let zeros = digits.bytes().zip(digits.bytes().skip(1)).take_while(|(digit, next)| *digit == b'0' && next.is_ascii_digit());
            let json = format!("{sign}{}", &digits[zeros.count()..]);
            let is_number = !text.contains(' ') && serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok();
            let is_decimal = !matches!(text.parse::<Price>(), Err(InvalidItem::PriceNotDecimal { .. }));
            prop_assert_eq!(is_decimal, is_number, "{}", text);
        }
    }
}
