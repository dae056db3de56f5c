//! Compares `item-purchased` with the purchases on `cart-events`, and adds them up step by step.

use std::collections::{HashMap, HashSet};

use cart::{CartEvent, EventId, PurchasedItem};
use chrono::Datelike as _;
use rust_decimal::Decimal;

use super::published::{ByCart, Shown};
use crate::audit::cut::Cut;
use crate::audit::evidence::{Evidence, Record};
use crate::audit::report::{Counts, Findings, Kind};
use crate::totals::{DayKey, MonthKey};

/// Each row's total after each of its purchases, in the order of the topic. All purchases of a row are of one vendor, so they
/// are in one partition.
#[derive(Debug, Default)]
pub(super) struct Sold<'a> {
    pub(super) months: HashMap<MonthKey, Vec<Step<Decimal>>>,
    pub(super) days: HashMap<DayKey, Vec<Step<(i64, &'a str)>>>,
}

/// A total, and the newest purchase in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<T> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) total: T,
}

pub(super) fn check<'a>(
    evidence: &'a Evidence,
    published: &ByCart<'_>,
    findings: &mut Findings,
    counts: &mut Counts,
) -> Sold<'a> {
    let mut bought: HashMap<EventId, (&Record<CartEvent>, &CartEvent)> = HashMap::new();
    for one in published.values().flatten().filter(|one| one.event.is_purchase()) {
        bought.entry(one.event.event_id).or_insert((one.record, one.event));
    }
    let mut seen = HashSet::new();
    let mut sold = Sold::default();
    for record in &evidence.purchases {
        counts.purchases += 1;
        let place = || format!("item-purchased {}/{}", record.partition, record.offset);
        let purchase = match &record.value {
            Ok(purchase) => purchase,
            Err(reason) => {
                findings.add(Kind::Unreadable, place(), Some(&"a purchase"), Some(reason));
                continue;
            }
        };
        sold.add(record, purchase);
        let shown = || format!("{} ({purchase:?})", purchase.event_id);
        let partition = kafka::partition_of(record.key.as_bytes(), evidence.purchase_partitions);
        if record.key != purchase.vendor_id.to_string() || partition != record.partition {
            let expected = format!("key {} in partition {partition}", purchase.vendor_id);
            findings.add(Kind::Misplaced, place(), Some(&expected), Some(&format!("key {}", record.key)));
        }
        match bought.get(&purchase.event_id) {
            None => findings.add(Kind::PurchaseUnexpected, place(), None, Some(&shown())),
            Some((_, event)) if !is_of(purchase, event) => {
                findings.add(Kind::PurchaseDiffers, place(), Some(&Shown(event)), Some(&shown()));
            }
            Some(_) => {}
        }
        if !seen.insert(purchase.event_id) {
            findings.add(Kind::PurchaseDoubled, place(), Some(&"it once"), Some(&shown()));
        }
    }
    for (record, event) in bought.values().filter(|(_, event)| !seen.contains(&event.event_id)) {
        if Cut::is_before(&evidence.cut.events, record.partition, record.offset) {
            let place = format!("item-purchased, for cart-events {}/{}", record.partition, record.offset);
            findings.add(Kind::PurchaseLost, place, Some(&Shown(event)), None);
        }
    }
    sold
}

fn is_of(purchase: &PurchasedItem, event: &CartEvent) -> bool {
    let item = event.event.item();
    event.is_purchase()
        && purchase.cart_id == event.cart_id
        && purchase.session_id == event.session_id
        && purchase.purchased_at == event.occurred_at
        && (purchase.product_id, purchase.vendor_id) == (item.product_id, item.vendor_id)
        && (&purchase.name, purchase.price, purchase.quantity) == (&item.name, item.price, item.quantity)
}

impl<'a> Sold<'a> {
    fn add(&mut self, record: &Record<PurchasedItem>, purchase: &'a PurchasedItem) {
        let at = purchase.purchased_at;
        let (vendor, product) = (purchase.vendor_id.as_uuid(), purchase.product_id.as_uuid());
        let (year, month, day) = (at.year(), at.month().cast_signed(), at.day().cast_signed());
        let (partition, offset) = (record.partition, record.offset);
        let pieces = i64::from(purchase.quantity.get());

        let steps = self.months.entry(MonthKey { vendor, year, month }).or_default();
        let before = steps.last().map(|step| step.total).unwrap_or_default();
        let total = before + purchase.price.get() * Decimal::from(pieces);
        steps.push(Step { partition, offset, total });

        let steps = self.days.entry(DayKey { vendor, product, year, month, day }).or_default();
        let before = steps.last().map_or(0, |step| step.total.0);
        steps.push(Step { partition, offset, total: (before + pieces, purchase.name.as_str()) });
    }
}
