//! What both tables of balances share: the month, and the exact sum.

use std::fmt;

use cart::{PurchasedItem, month_row_key};
use chrono::Datelike as _;
use rust_decimal::Decimal;

/// The fail point of a projector that counts the purchases of the named vendors twice.
pub(crate) const COUNTS_TWICE: &str = "counts-twice";

/// A month (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Month {
    pub(crate) year: i32,
    pub(crate) month: i32,
}

impl Month {
    /// The month that a purchase counts for.
    pub(crate) fn of(purchase: &PurchasedItem) -> Self {
        let at = purchase.purchased_at;
        Self { year: at.year(), month: at.month().cast_signed() }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&month_row_key(self.year, self.month))
    }
}

/// The sum, or `None` where a `Decimal` would have to round it.
pub(crate) fn add_exactly(total: Decimal, amount: Decimal) -> Option<Decimal> {
    let scale = total.scale().max(amount.scale());
    total.checked_add(amount).filter(|sum| sum.scale() == scale || sum.is_zero()).map(|sum| sum.normalize())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_exact_or_none() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        assert_eq!(add_exactly(decimal("0.1"), decimal("0.2")), Some(decimal("0.3")));
        assert_eq!(add_exactly(decimal("0.5"), decimal("0.5")), Some(decimal("1")));
        assert_eq!(add_exactly(decimal("79228162514264337593543950335"), decimal("1")), None);
        assert_eq!(add_exactly(decimal("7922816251426433759354395033.5"), decimal("0.0001")), None);
    }
}
