//! What was bought, added up in the two ways that the read tables have: by vendor and month, by product and day.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Datelike as _, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

/// A row of a vendor's bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonthKey {
    /// Who sold.
    pub vendor: Uuid,
    /// The year (UTC).
    pub year: i32,
    /// The month, 1 to 12.
    pub month: i32,
}

/// A row of the popular items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DayKey {
    /// Who sold.
    pub vendor: Uuid,
    /// What.
    pub product: Uuid,
    /// The year (UTC).
    pub year: i32,
    /// The month, 1 to 12.
    pub month: i32,
    /// The day, 1 to 31.
    pub day: i32,
}

/// How many pieces of a product were bought on a day, and under which names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sold {
    /// Pieces.
    pub quantity: i64,
    /// A table has room for one of them: any is right.
    pub names: BTreeSet<String>,
}

/// One line of a checkout.
#[derive(Debug, Clone, Copy)]
pub struct Purchase<'a> {
    /// Who sold it.
    pub vendor: Uuid,
    /// What was bought.
    pub product: Uuid,
    /// Under which name.
    pub name: &'a str,
    /// What one piece cost.
    pub price: Decimal,
    /// How many pieces.
    pub quantity: i64,
    /// When.
    pub at: DateTime<Utc>,
}

/// Rows by key; what a store does not have is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// The balance of each vendor in each month.
    pub months: HashMap<MonthKey, Decimal>,
    /// The pieces of each product on each day.
    pub days: HashMap<DayKey, Sold>,
    /// How many lines were bought, where that is known.
    pub purchases: Option<u64>,
}

impl Totals {
    /// Adds a purchase to all of them.
    pub fn add(&mut self, purchase: &Purchase<'_>) {
        let Purchase { vendor, product, name, price, quantity, at } = *purchase;
        let (year, month, day) = (at.year(), number(at.month()), number(at.day()));
        *self.months.entry(MonthKey { vendor, year, month }).or_default() += price * Decimal::from(quantity);
        let sold = self.days.entry(DayKey { vendor, product, year, month, day }).or_default();
        sold.quantity += quantity;
        if !sold.names.contains(name) {
            sold.names.insert(name.to_owned());
        }
        *self.purchases.get_or_insert_default() += 1;
    }

    /// All balances together, exactly.
    #[must_use]
    pub fn balance(&self) -> Decimal {
        self.months.values().sum::<Decimal>().normalize()
    }

    /// All pieces together.
    #[must_use]
    pub fn quantity(&self) -> i64 {
        self.days.values().map(|sold| sold.quantity).sum()
    }
}

/// Months and days are small.
fn number(of_calendar: u32) -> i32 {
    i32::try_from(of_calendar).unwrap_or_default()
}

/// What an id stands for, where that is known: people read labels.
#[derive(Debug, Clone, Default)]
pub struct Labels(HashMap<Uuid, String>);

impl Labels {
    /// Remembers an id's label.
    pub fn insert(&mut self, id: Uuid, label: &str) {
        self.0.entry(id).or_insert_with(|| label.to_owned());
    }

    /// The id with its label, if it has one.
    #[must_use]
    pub fn text(&self, id: Uuid) -> String {
        self.0.get(&id).map_or_else(|| id.to_string(), |label| format!("{label} ({id})"))
    }

    /// Takes over what others know.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purchases_add_up_by_utc_day_and_month() {
        let mut totals = Totals::default();
        let (vendor, product) = (crate::vendor_id("V"), crate::product_id("P"));
        let purchases = [
            ("A", "0.001", 3, "2026-01-31T23:59:59.9Z"),
            ("B", "2.5", 2, "2026-01-31T00:00:00Z"),
            ("A", "1", 1, "2026-02-01T00:30:00+01:00"),
        ];
        for (name, price, quantity, at) in purchases {
            let at = DateTime::parse_from_rfc3339(at).expect("a time").to_utc();
            let price = price.parse().expect("a price");
            totals.add(&Purchase { vendor, product, name, price, quantity, at });
        }
        let key = DayKey { vendor, product, year: 2026, month: 1, day: 31 };
        assert_eq!(totals.days[&key].quantity, 6);
        assert_eq!(totals.days[&key].names, BTreeSet::from(["A".to_owned(), "B".to_owned()]));
        assert_eq!((totals.days.len(), totals.months.len(), totals.purchases), (1, 1, Some(3)));
        assert_eq!(totals.balance().to_string(), "6.003");
    }
}
