//! What was sold in the last minute, in the last 15 minutes and today: the top items and vendors.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use cart::{ProductId, PurchasedItem, VendorId};
use rust_decimal::Decimal;
use serde::Serialize;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests;

/// A window moves in steps of this length.
const STEP_MS: i64 = 10_000;

/// The windows' lengths, in steps.
const MINUTE: usize = 6;
const QUARTER: usize = 15 * MINUTE;

/// How many products or vendors are counted in a window. Beyond it the half that sold least is dropped.
const KEPT_MAX: usize = 100_000;

/// The same for one step. All steps of a window together stay near what is kept for the window.
const STEP_KEPT_MAX: usize = 2_000;

/// The length of a list.
const TOP: usize = 10;

/// What a product or a vendor has sold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sold {
    pieces: i64,
    turnover: Decimal,
}

/// Sums by key, bounded.
#[derive(Debug)]
struct Sums<K> {
    sums: HashMap<K, Sold>,
    kept_max: usize,
    /// Whether something was dropped, so that the sums may be too low.
    is_estimate: bool,
}

impl<K: Eq + Hash + Copy> Sums<K> {
    fn new(kept_max: usize) -> Self {
        Self { sums: HashMap::new(), kept_max, is_estimate: false }
    }

    /// Adds to a sum. Returns the sums that were dropped for it.
    fn add(&mut self, key: K, sold: &Sold) -> Vec<(K, Sold)> {
        let mut dropped = Vec::new();
        if self.sums.len() >= self.kept_max && !self.sums.contains_key(&key) {
            let mut pieces: Vec<i64> = self.sums.values().map(|sold| sold.pieces).collect();
            let middle = pieces.len() / 2;
            let (_, median, _) = pieces.select_nth_unstable(middle);
            let median = *median;
            // All may have sold the same.
            let mut spare = self.kept_max / 2;
            let is_dropped = |_: &K, sold: &mut Sold| {
                let is_kept = sold.pieces > median || spare > 0;
                spare -= usize::from(is_kept).min(spare);
                !is_kept
            };
            dropped.extend(self.sums.extract_if(is_dropped));
            self.is_estimate = true;
        }
        let sum = self.sums.entry(key).or_default();
        sum.pieces += sold.pieces;
        sum.turnover += sold.turnover;
        dropped
    }

    fn subtract(&mut self, key: K, sold: &Sold) {
        let Some(sum) = self.sums.get_mut(&key) else { return };
        sum.pieces -= sold.pieces;
        sum.turnover -= sold.turnover;
        if sum.pieces <= 0 {
            self.sums.remove(&key);
        }
    }

    fn top(&self, by: impl Fn(&Sold) -> Decimal) -> Vec<(K, &Sold)>
    where
        K: Ord,
    {
        let mut all: Vec<_> = self.sums.iter().map(|(key, sold)| (*key, sold)).collect();
        let order = |a: &(K, &Sold), b: &(K, &Sold)| by(b.1).cmp(&by(a.1)).then(a.0.cmp(&b.0));
        if all.len() > TOP {
            all.select_nth_unstable_by(TOP, order);
            all.truncate(TOP);
        }
        all.sort_unstable_by(order);
        all
    }
}

/// Sums of products and of vendors that were dropped.
type Dropped = (Vec<(ProductId, Sold)>, Vec<(VendorId, Sold)>);

/// Both sums of one span of time.
#[derive(Debug)]
struct Span {
    items: Sums<ProductId>,
    vendors: Sums<VendorId>,
    purchases: u64,
}

impl Span {
    fn new(kept_max: usize) -> Self {
        Self { items: Sums::new(kept_max), vendors: Sums::new(kept_max), purchases: 0 }
    }

    /// Adds a purchase. Returns the sums that were dropped for it.
    fn add(&mut self, product: ProductId, vendor: VendorId, sold: &Sold) -> Dropped {
        self.purchases += 1;
        (self.items.add(product, sold), self.vendors.add(vendor, sold))
    }

    fn is_estimate(&self) -> bool {
        self.items.is_estimate || self.vendors.is_estimate
    }

    fn subtract(&mut self, older: &Self) {
        older.items.sums.iter().for_each(|(key, sold)| self.items.subtract(*key, sold));
        older.vendors.sums.iter().for_each(|(key, sold)| self.vendors.subtract(*key, sold));
        self.purchases = self.purchases.saturating_sub(older.purchases);
    }
}

/// A span that moves with the time.
#[derive(Debug)]
struct Window {
    steps_max: usize,
    steps: VecDeque<(i64, Span)>,
    total: Span,
}

impl Window {
    fn new(steps_max: usize) -> Self {
        Self { steps_max, steps: VecDeque::new(), total: Span::new(KEPT_MAX) }
    }

    fn first_step(&self, now_ms: i64) -> i64 {
        now_ms.div_euclid(STEP_MS) + 1 - i64::try_from(self.steps_max).unwrap_or(i64::MAX)
    }

    fn expire(&mut self, now_ms: i64) {
        let first = self.first_step(now_ms);
        while self.steps.front().is_some_and(|(step, _)| *step < first) {
            if let Some((_, span)) = self.steps.pop_front() {
                self.total.subtract(&span);
            }
        }
        if self.steps.is_empty() {
            self.total = Span::new(KEPT_MAX);
        }
    }

    fn add(&mut self, at_ms: i64, now_ms: i64, product: ProductId, vendor: VendorId, sold: &Sold) {
        let step = at_ms.div_euclid(STEP_MS);
        if step < self.first_step(now_ms) {
            return;
        }
        // Records of several partitions are only roughly in order.
        let index = self.steps.partition_point(|(other, _)| *other < step);
        if self.steps.get(index).is_none_or(|(other, _)| *other != step) {
            self.steps.insert(index, (step, Span::new(STEP_KEPT_MAX)));
        }
        let (items, vendors) = self.steps[index].1.add(product, vendor, sold);
        self.total.add(product, vendor, sold);
        // What a step does not have any more could not be subtracted when it expires.
        items.iter().for_each(|(key, sold)| self.total.items.subtract(*key, sold));
        vendors.iter().for_each(|(key, sold)| self.total.vendors.subtract(*key, sold));
    }

    fn is_estimate(&self) -> bool {
        self.total.is_estimate() || self.steps.iter().any(|(_, span)| span.is_estimate())
    }
}

/// All windows, and the products' names.
#[derive(Debug)]
pub(crate) struct Sales {
    minute: Window,
    quarter: Window,
    today: Span,
    /// The day of `today`, in days since 1970 (UTC).
    day: i64,
    names: HashMap<ProductId, (String, VendorId)>,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) id: String,
    /// The product's name; for a vendor that of its product that sold most.
    pub(crate) name: Option<String>,
    pub(crate) pieces: i64,
    pub(crate) turnover: Decimal,
}

/// The lists of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Top {
    pub(crate) name: &'static str,
    pub(crate) purchases: u64,
    pub(crate) items: Vec<Line>,
    pub(crate) vendors: Vec<Line>,
    /// Whether there are so many products that some were dropped: then the sums may be too low.
    pub(crate) is_estimate: bool,
}

const DAY_MS: i64 = 86_400_000;

impl Default for Sales {
    fn default() -> Self {
        Self {
            minute: Window::new(MINUTE),
            quarter: Window::new(QUARTER),
            today: Span::new(KEPT_MAX),
            day: 0,
            names: HashMap::new(),
        }
    }
}

impl Sales {
    /// Counts a purchase that was published at a time (milliseconds since 1970).
    pub(crate) fn add(&mut self, purchase: &PurchasedItem, at_ms: i64, now_ms: i64) {
        self.expire(now_ms);
        if at_ms.div_euclid(DAY_MS) < self.day {
            return;
        }
        let (product, vendor) = (purchase.product_id, purchase.vendor_id);
        let sold = Sold { pieces: purchase.quantity.get().into(), turnover: purchase.amount() };
        if self.names.len() >= 2 * KEPT_MAX {
            let kept = &self.today.items.sums;
            self.names.retain(|product, _| kept.contains_key(product));
        }
        if self.names.get(&product).is_none_or(|(name, _)| name != purchase.name.as_str()) {
            self.names.insert(product, (purchase.name.as_str().to_owned(), vendor));
        }
        self.today.add(product, vendor, &sold);
        for window in [&mut self.minute, &mut self.quarter] {
            window.add(at_ms, now_ms, product, vendor, &sold);
        }
    }

    fn expire(&mut self, now_ms: i64) {
        let day = now_ms.div_euclid(DAY_MS);
        if day > self.day {
            (self.day, self.today) = (day, Span::new(KEPT_MAX));
        }
        self.minute.expire(now_ms);
        self.quarter.expire(now_ms);
    }

    /// The vendors with the highest turnover today.
    pub(crate) fn top_vendors(&self) -> Vec<VendorId> {
        self.today.vendors.top(|sold| sold.turnover).into_iter().map(|(vendor, _)| vendor).collect()
    }

    /// The lists: items by pieces, vendors by turnover.
    pub(crate) fn top(&mut self, now_ms: i64) -> [Top; 3] {
        self.expire(now_ms);
        let (minute, quarter) = (&self.minute, &self.quarter);
        [
            self.lists("1 min", &minute.total, minute.is_estimate()),
            self.lists("15 min", &quarter.total, quarter.is_estimate()),
            self.lists("today", &self.today, self.today.is_estimate()),
        ]
    }

    fn lists(&self, name: &'static str, span: &Span, is_estimate: bool) -> Top {
        let line = |id: String, name: Option<String>, sold: &Sold| Line {
            id,
            name,
            pieces: sold.pieces,
            turnover: sold.turnover.normalize(),
        };
        let items = span.items.top(|sold| Decimal::from(sold.pieces)).into_iter();
        let items = items.map(|(product, sold)| {
            line(product.to_string(), self.names.get(&product).map(|(name, _)| name.clone()), sold)
        });
        let vendors = span.vendors.top(|sold| sold.turnover);
        let best = self.best_sellers(span, &vendors.iter().map(|(vendor, _)| *vendor).collect::<Vec<_>>());
        let vendors = vendors
            .into_iter()
            .map(|(vendor, sold)| line(vendor.to_string(), best.get(&vendor).map(|(_, name)| name.clone()), sold));
        Top { name, purchases: span.purchases, items: items.collect(), vendors: vendors.collect(), is_estimate }
    }

    /// The product of each vendor that sold most.
    fn best_sellers(&self, span: &Span, vendors: &[VendorId]) -> HashMap<VendorId, (i64, String)> {
        let mut best: HashMap<VendorId, (i64, String)> = HashMap::new();
        for (product, sold) in &span.items.sums {
            let Some((name, vendor)) = self.names.get(product) else { continue };
            if !vendors.contains(vendor) {
                continue;
            }
            let is_better = best.get(vendor).is_none_or(|(pieces, other)| (sold.pieces, other) > (*pieces, name));
            if is_better {
                best.insert(*vendor, (sold.pieces, name.clone()));
            }
        }
        best
    }
}
