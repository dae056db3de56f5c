//! Compares the read tables, row by row, with the sums of the purchases.
//!
//! The newest purchase in each row is known: from the row's position in Cassandra, and from the offset in the same transaction
//! in PostgreSQL. So the expected total is exact, also while the projectors work.

use std::fmt::Display;

use super::purchases::{Sold, Step};
use crate::audit::cut::Cut;
use crate::audit::evidence::Evidence;
use crate::audit::report::{Counts, Findings, Kind};
use crate::totals::{DayKey, MonthKey};

pub(super) fn check(evidence: &Evidence, sold: &Sold<'_>, findings: &mut Findings, counts: &mut Counts) {
    let tables = &evidence.tables;
    let mut checker = Checker { evidence, findings };
    for (key, steps) in &sold.months {
        let place = |table: &str| month(table, key);
        let row = tables.cassandra_months.get(key).map(|row| (row.total.normalize(), row.offset));
        checker.row(|| place("Cassandra balance_by_vendor"), row, steps, |total| total.normalize());
        let next =
            steps.first().and_then(|step| tables.postgres_next.get(&step.partition)).copied().unwrap_or_default();
        let row = tables.postgres_months.get(key).map(|total| (total.normalize(), next - 1));
        checker.row(|| place("PostgreSQL vendor_billing"), row, steps, |total| total.normalize());
    }
    for (key, steps) in &sold.days {
        let row = tables.cassandra_days.get(key);
        let row = row.map(|row| (Pieces(row.total.0, row.total.1.clone()), row.offset));
        checker.row(|| day(key), row, steps, |(pieces, name)| Pieces(*pieces, (*name).to_owned()));
    }
    for (key, row) in tables.cassandra_months.iter().filter(|(key, _)| !sold.months.contains_key(key)) {
        findings.add(Kind::RowTooMany, month("Cassandra balance_by_vendor", key), None, Some(&row.total));
    }
    for (key, total) in tables.postgres_months.iter().filter(|(key, _)| !sold.months.contains_key(key)) {
        findings.add(Kind::RowTooMany, month("PostgreSQL vendor_billing", key), None, Some(total));
    }
    for (key, row) in tables.cassandra_days.iter().filter(|(key, _)| !sold.days.contains_key(key)) {
        findings.add(Kind::RowTooMany, day(key), None, Some(&row.total.0));
    }
    let rows = tables.cassandra_months.len() + tables.cassandra_days.len() + tables.postgres_months.len();
    counts.rows = rows as u64;
}

pub(super) fn month(table: &str, MonthKey { vendor, year, month }: &MonthKey) -> String {
    format!("{table}, vendor {vendor}, {year}-{month:02}")
}

pub(super) fn day(DayKey { vendor, product, year, month, day }: &DayKey) -> String {
    format!("Cassandra item_quantity_by_day, vendor {vendor}, product {product}, {year}-{month:02}-{day:02}")
}

/// A quantity, and the product's name.
#[derive(Debug, PartialEq, Eq)]
struct Pieces(i64, String);

impl Display for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} '{}'", self.0, self.1)
    }
}

struct Checker<'a> {
    evidence: &'a Evidence,
    findings: &'a mut Findings,
}

impl Checker<'_> {
    /// `row` has the total, and the offset of the newest purchase that it may include.
    fn row<S, T: Display + PartialEq>(
        &mut self,
        place: impl Fn() -> String,
        row: Option<(T, i64)>,
        steps: &[Step<S>],
        shown: impl Fn(&S) -> T,
    ) {
        let must_be = |step: &&Step<S>| Cut::is_before(&self.evidence.cut.purchases, step.partition, step.offset);
        let due = steps.iter().rev().find(must_be);
        let Some((found, offset)) = row else {
            if let Some(due) = due {
                self.findings.add(Kind::RowMissing, place(), Some(&shown(&due.total)), None);
            }
            return;
        };
        let included = steps.iter().rev().find(|step| step.offset <= offset);
        let newest = included.or(due);
        let is_right = included.is_some_and(|step| shown(&step.total) == found);
        let lags = due.is_some_and(|due| included.is_none_or(|included| included.offset < due.offset));
        if is_right && !lags {
            return;
        }
        // A total that was right earlier is stale: the row was not updated, or was set back.
        let was_right = steps.iter().any(|step| shown(&step.total) == found);
        let kind = if was_right { Kind::TotalStale } else { Kind::TotalWrong };
        let expected = if lags { due.map(|due| shown(&due.total)) } else { newest.map(|step| shown(&step.total)) };
        let found = format!("{found} (up to offset {offset})");
        self.findings.add(kind, place(), expected.as_ref().map(|total| total as &dyn Display), Some(&found));
    }
}
