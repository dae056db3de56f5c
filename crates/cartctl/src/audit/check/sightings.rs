//! Compares what a watcher saw during the run with the end: values that only grow must not have fallen.

use std::collections::HashMap;
use std::fmt::Display;

use cart::contract::{READ_MODELS, ReadTable};

use super::tables::{day, month};
use crate::audit::evidence::Evidence;
use crate::audit::report::{Findings, Kind};
use crate::audit::watcher::Sightings;

/// Adds the falls that the watcher saw, and the values at the end that are lower than seen.
pub fn check(sightings: &Sightings, evidence: &Evidence, findings: &mut Findings) {
    for fall in sightings.falls() {
        findings.add(Kind::Fell, &fall.place, Some(&format!("at least {}", fall.before)), Some(&fall.after));
    }
    let tables = &evidence.tables;
    let last = sightings.last();
    for model in READ_MODELS.iter().filter(|model| tables.has(model.table)) {
        match model.table {
            ReadTable::BalanceByVendor => {
                let now = |key: &_| tables.cassandra_months.get(key).map(|row| row.total);
                lower(&last.cassandra_months, now, |key| month(model, key), findings);
            }
            ReadTable::VendorBilling => {
                let now = |key: &_| tables.postgres_months.get(key).copied();
                lower(&last.postgres_months, now, |key| month(model, key), findings);
            }
            ReadTable::ItemQuantityByDay => {
                let now = |key: &_| tables.cassandra_days.get(key).map(|row| row.total.0);
                lower(&last.cassandra_days, now, |key| day(model, key), findings);
            }
        }
    }
    let now = |cart_id: &_| evidence.journal.get(cart_id).and_then(|rows| rows.last()).map(|row| row.sequence_number);
    lower(&last.carts, now, |cart_id| format!("cart_journal, newest event of cart {cart_id}"), findings);
}

/// Adds each value that is lower now than it was seen, or that is gone.
fn lower<K, V: PartialOrd + Display>(
    seen: &HashMap<K, V>,
    now: impl Fn(&K) -> Option<V>,
    place: impl Fn(&K) -> String,
    findings: &mut Findings,
) {
    for (key, seen) in seen {
        let now = now(key);
        if now.as_ref().is_none_or(|now| now < seen) {
            let expected = format!("at least {seen}, as was seen during the run");
            findings.add(Kind::Fell, place(key), Some(&expected), now.as_ref().map(|now| now as &dyn Display));
        }
    }
}
