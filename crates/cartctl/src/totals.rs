//! The purchases added up as in the read tables: by vendor and month, and by product and day.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Datelike as _, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

/// The key of a row of a vendor's bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonthKey {
    /// The vendor's id.
    pub vendor: Uuid,
    /// The year (UTC).
    pub year: i32,
    /// The month, 1 to 12.
    pub month: i32,
}

/// The key of a row of the popular items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DayKey {
    /// The vendor's id.
    pub vendor: Uuid,
    /// The product's id.
    pub product: Uuid,
    /// The year (UTC).
    pub year: i32,
    /// The month, 1 to 12.
    pub month: i32,
    /// The day, 1 to 31.
    pub day: i32,
}

/// The quantity of a product that was bought on a day, and the product's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sold {
    pub quantity: i64,
    /// The names. A table has one of them, and any is right.
    pub names: BTreeSet<String>,
}

/// One line of a checkout.
#[derive(Debug, Clone, Copy)]
pub struct Purchase<'a> {
    /// The vendor's id.
    pub vendor: Uuid,
    /// The product's id.
    pub product: Uuid,
    /// The product's name.
    pub name: &'a str,
    /// The price of one piece.
    pub price: Decimal,
    pub quantity: i64,
    /// The time of the purchase.
    pub at: DateTime<Utc>,
}

/// Rows by key; empty where a store has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// The balance of each vendor in each month.
    pub months: HashMap<MonthKey, Decimal>,
    /// The pieces of each product on each day.
    pub days: HashMap<DayKey, Sold>,
    /// The number of purchased lines, if known.
    pub purchases: Option<u64>,
}

impl Totals {
    /// Adds a purchase.
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

    /// The totals without those of some purchases. A row from which nothing is left is dropped.
    #[must_use]
    pub fn without(&self, less: &Self) -> Self {
        let mut rest = self.clone();
        for (key, balance) in &less.months {
            rest.months.entry(*key).and_modify(|total| *total -= *balance);
        }
        for (key, sold) in &less.days {
            rest.days.entry(*key).and_modify(|total| total.quantity -= sold.quantity);
        }
        rest.months.retain(|key, total| !less.months.contains_key(key) || !total.is_zero());
        rest.days.retain(|key, total| !less.days.contains_key(key) || total.quantity != 0);
        rest.purchases = self.purchases.map(|count| count.saturating_sub(less.purchases.unwrap_or_default()));
        rest
    }

    /// The sum of all balances, exactly.
    #[must_use]
    pub fn balance(&self) -> Decimal {
        self.months.values().sum::<Decimal>().normalize()
    }

    /// The sum of all quantities.
    #[must_use]
    pub fn quantity(&self) -> i64 {
        self.days.values().map(|sold| sold.quantity).sum()
    }
}

/// Months and days are small.
fn number(of_calendar: u32) -> i32 {
    i32::try_from(of_calendar).unwrap_or_default()
}

/// The labels of ids, where they are known.
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

    /// Adds the labels of `other`.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_by_utc_day_and_month() {
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
