//! Compares what a watcher saw during the run with the end: values that only grow must not have fallen.

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
    for (key, seen) in &last.cassandra_months {
        let now = tables.cassandra_months.get(key).map(|row| row.total);
        if now.is_none_or(|now| now < *seen) {
            fell(findings, month("Cassandra balance_by_vendor", key), seen, now);
        }
    }
    for (key, seen) in &last.postgres_months {
        let now = tables.postgres_months.get(key).copied();
        if now.is_none_or(|now| now < *seen) {
            fell(findings, month("PostgreSQL vendor_billing", key), seen, now);
        }
    }
    for (key, seen) in &last.cassandra_days {
        let now = tables.cassandra_days.get(key).map(|row| row.total.0);
        if now.is_none_or(|now| now < *seen) {
            fell(findings, day(key), seen, now);
        }
    }
    for (cart_id, seen) in &last.carts {
        let now = evidence.journal.get(cart_id).and_then(|rows| rows.last()).map(|row| row.sequence_number);
        if now.is_none_or(|now| now < *seen) {
            fell(findings, format!("cart_journal, newest event of cart {cart_id}"), seen, now);
        }
    }
}

fn fell<T: std::fmt::Display>(findings: &mut Findings, place: String, seen: &T, now: Option<T>) {
    let expected = format!("at least {seen}, as was seen during the run");
    findings.add(Kind::Fell, place, Some(&expected), now.as_ref().map(|now| now as &dyn std::fmt::Display));
}
