//! Compares `item-purchased` with the purchases on `cart-events`, and adds them up step by step.

use std::collections::{HashMap, HashSet};

use cart::contract::{Contract as _, group};
use cart::{CartEvent, EventId, PurchasedItem};
use chrono::Datelike as _;
use rust_decimal::Decimal;

use super::published::{ByCart, Published, Shown};
use crate::SkippedRecord;
use crate::audit::checkpoint::{SealedTotals, mark};
use crate::audit::cut::Cut;
use crate::audit::evidence::{Evidence, Record};
use crate::audit::report::{Counts, Findings, Kind};
use crate::skips::is_skipped;
use crate::totals::{DayKey, MonthKey};

/// Each row's total after each of its purchases, in the order of the topic. All purchases of a row are of one vendor, so they
/// are in one partition.
#[derive(Debug, Default)]
pub(in crate::audit) struct Sold<'a> {
    pub(in crate::audit) months: HashMap<MonthKey, Vec<Step<Decimal>>>,
    pub(in crate::audit) days: HashMap<DayKey, Vec<Step<(i64, &'a str)>>>,
}

/// A total, and the newest purchase in it.
#[derive(Debug, Clone, Copy)]
pub(in crate::audit) struct Step<T> {
    pub(in crate::audit) partition: i32,
    pub(in crate::audit) offset: i64,
    pub(in crate::audit) total: T,
}

pub(super) fn check<'a>(
    evidence: &'a Evidence,
    published: &ByCart<'_>,
    findings: &mut Findings,
    counts: &mut Counts,
) -> Sold<'a> {
    let mut bought: HashMap<EventId, (&Record<CartEvent>, &CartEvent)> = HashMap::new();
    // An event before the checkpoint that is here again was bought then.
    let is_new = |one: &&Published<'_>| !evidence.is_sealed(one.record.partition, one.event.position);
    for one in published.values().flatten().filter(|one| one.event.is_purchase()).filter(is_new) {
        bought.entry(one.event.event_id).or_insert((one.record, one.event));
    }
    let mut seen = HashSet::new();
    let sold = sold(evidence);
    for record in &evidence.purchases {
        counts.purchases += 1;
        let place = || format!("item-purchased {}/{}", record.partition, record.offset);
        let purchase = match &record.value {
            Ok(purchase) => purchase,
            Err(_) if is_skipped(&evidence.skips, PurchasedItem::TOPIC, record.partition, record.offset) => continue,
            Err(reason) => {
                findings.add(Kind::Unreadable, place(), Some(&"a purchase"), Some(reason));
                continue;
            }
        };
        let shown = || format!("{} ({purchase:?})", purchase.event_id);
        let partition = kafka::partition_of(record.key.as_bytes(), evidence.purchase_partitions);
        if record.key != purchase.vendor_id.to_string() || partition != record.partition {
            let expected = format!("key {} in partition {partition}", purchase.vendor_id);
            findings.add(Kind::Misplaced, place(), Some(&expected), Some(&format!("key {}", record.key)));
        }
        match bought.get(&purchase.event_id) {
            None if evidence.sealed_event(purchase.cart_id, purchase.event_id).is_some_and(CartEvent::is_purchase) => {
                findings.add(Kind::PurchaseDoubled, place(), Some(&"it before the checkpoint"), Some(&shown()));
            }
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
        let Record { partition, offset, .. } = record;
        let is_of =
            |skip: &SkippedRecord| skip.is_of(group::ITEM_PURCHASED_EVENTS, CartEvent::TOPIC, *partition, *offset);
        if evidence.skips.iter().any(is_of) {
            continue;
        }
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

/// Adds up all purchases; those before the checkpoint are in its totals.
pub(in crate::audit) fn sold(evidence: &Evidence) -> Sold<'_> {
    let sealed = evidence.checkpoint.as_ref().map(|checkpoint| &checkpoint.totals);
    Sold::add_up(evidence, sealed, |_| true)
}

impl<'a> Sold<'a> {
    /// What a group has that skips purchases which can be read; `None` if it skips none.
    pub(in crate::audit) fn of_group(evidence: &'a Evidence, group: &str) -> Option<Self> {
        let skips = evidence.skips.iter().filter(|skip| skip.group == group && skip.leaves_out_purchase());
        let left_out: HashSet<(i32, i64)> = skips.map(|skip| (skip.partition, skip.offset)).collect();
        if left_out.is_empty() {
            return None;
        }
        // An audit goes on from a checkpoint with the same skips only, so the checkpoint has totals of this group.
        let sealed = evidence.checkpoint.as_ref().and_then(|checkpoint| checkpoint.own_totals.get(group));
        Some(Self::add_up(evidence, sealed, |record| !left_out.contains(&(record.partition, record.offset))))
    }

    /// Goes on from sealed totals with the wanted purchases after the checkpoint.
    fn add_up(
        evidence: &'a Evidence,
        sealed: Option<&'a SealedTotals>,
        is_wanted: impl Fn(&Record<PurchasedItem>) -> bool,
    ) -> Self {
        let mut sold = Self::default();
        if let Some(SealedTotals { months, days }) = sealed {
            for (key, sealed) in months {
                let (partition, offset) = (sealed.partition, sealed.offset);
                sold.months.insert(*key, vec![Step { partition, offset, total: sealed.total }]);
            }
            for (key, sealed) in days {
                let (partition, offset) = (sealed.partition, sealed.offset);
                let total = (sealed.total.0, sealed.total.1.as_str());
                sold.days.insert(*key, vec![Step { partition, offset, total }]);
            }
        }
        let marks = evidence.checkpoint.as_ref().map(|checkpoint| checkpoint.marks.purchases.as_slice());
        let is_new = |record: &Record<PurchasedItem>| {
            let mark = marks.and_then(|marks| mark(marks, record.partition));
            mark.is_none_or(|mark| record.offset >= mark.next)
        };
        for record in evidence.purchases.iter().filter(|record| is_new(record) && is_wanted(record)) {
            if let Ok(purchase) = &record.value {
                sold.add(record, purchase);
            }
        }
        sold
    }

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
