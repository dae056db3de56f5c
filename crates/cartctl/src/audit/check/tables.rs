//! Compares the read tables, row by row, with the sums of the purchases.
//!
//! The newest purchase in each row is known: from the row's position in Cassandra, and from the offset in the same transaction
//! in PostgreSQL. So the expected total is exact, also while the projectors work. A parked row has the purchases before its first one that
//! waits.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use cart::contract::{READ_MODELS, ReadModel, ReadTable};
use cart::{ParkedRow, day_row_key, month_row_key};

use super::purchases::{Sold, Step};
use crate::audit::cut::Cut;
use crate::audit::evidence::Evidence;
use crate::audit::report::{Counts, Findings, Kind};
use crate::totals::{DayKey, MonthKey};

pub(super) fn check(evidence: &Evidence, sold: &Sold<'_>, findings: &mut Findings, counts: &mut Counts) {
    let tables = &evidence.tables;
    for wrong in &tables.wrong_generations {
        let place = format!("{}, the active generation", wrong.table.model());
        findings.add(Kind::GenerationWrong, place, Some(&wrong.expected), Some(&wrong.found));
    }
    counts.parked_rows = tables.parked.len() as u64;
    let mut checker = Checker { evidence, findings };
    for model in READ_MODELS.iter().filter(|model| tables.has(model.table)) {
        let own = Sold::of_group(evidence, model.group);
        let sold = own.as_ref().unwrap_or(sold);
        counts.rows += match model.table {
            ReadTable::BalanceByVendor => {
                for (key, steps) in &sold.months {
                    let row = tables.cassandra_months.get(key).map(|row| (row.total.normalize(), row.offset));
                    let parked = parked_month(evidence, model.table, key);
                    checker.row(|| month(model, key), row, (steps.as_slice(), parked), |total| total.normalize());
                }
                checker.too_many(&tables.cassandra_months, &sold.months, |key| month(model, key), |row| row.total)
            }
            ReadTable::VendorBilling => {
                for (key, steps) in &sold.months {
                    let next = steps.first().and_then(|step| tables.postgres_next.get(&step.partition));
                    let parked = parked_month(evidence, model.table, key);
                    let next = next.copied().unwrap_or_default();
                    let newest = parked.map_or(next, |row| next.min(row.next_position.offset())) - 1;
                    let row = tables.postgres_months.get(key).map(|total| (total.normalize(), newest));
                    checker.row(|| month(model, key), row, (steps.as_slice(), parked), |total| total.normalize());
                }
                checker.too_many(&tables.postgres_months, &sold.months, |key| month(model, key), |total| *total)
            }
            ReadTable::ItemQuantityByDay => {
                for (key, steps) in &sold.days {
                    let row = tables.cassandra_days.get(key);
                    let row = row.map(|row| (Pieces(row.total.0, row.total.1.clone()), row.offset));
                    let DayKey { vendor, product, year, month, day: of_month } = *key;
                    let row_key = || day_row_key(product, year, month, of_month);
                    let parked = tables.parked(model.table, vendor, row_key);
                    let shown = |(pieces, name): &(i64, &str)| Pieces(*pieces, (*name).to_owned());
                    checker.row(|| day(model, key), row, (steps.as_slice(), parked), shown);
                }
                checker.too_many(&tables.cassandra_days, &sold.days, |key| day(model, key), |row| row.total.0)
            }
        };
    }
}

fn parked_month<'a>(evidence: &'a Evidence, table: ReadTable, key: &MonthKey) -> Option<&'a ParkedRow> {
    let MonthKey { vendor, year, month } = *key;
    evidence.tables.parked(table, vendor, || month_row_key(year, month))
}

pub(super) fn month(model: &ReadModel, MonthKey { vendor, year, month }: &MonthKey) -> String {
    format!("{model}, vendor {vendor}, {year}-{month:02}")
}

pub(super) fn day(model: &ReadModel, DayKey { vendor, product, year, month, day }: &DayKey) -> String {
    format!("{model}, vendor {vendor}, product {product}, {year}-{month:02}-{day:02}")
}

/// Why a row is parked that cannot be read (`cart::RowFault`).
const UNREADABLE: &str = "row-unreadable";

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
    /// Adds the rows without a purchase to the findings. Returns the number of all rows.
    fn too_many<K: Eq + Hash, R, S, T: Display>(
        &mut self,
        rows: &HashMap<K, R>,
        sold: &HashMap<K, Vec<Step<S>>>,
        place: impl Fn(&K) -> String,
        total: impl Fn(&R) -> T,
    ) -> u64 {
        for (key, row) in rows.iter().filter(|(key, _)| !sold.contains_key(key)) {
            self.findings.add(Kind::RowTooMany, place(key), None, Some(&total(row)));
        }
        rows.len() as u64
    }

    /// `row` has the total, and the offset of the newest purchase that it may include. Of a parked row the purchases before the first
    /// one that waits must be included; one that cannot be read is not compared.
    fn row<S, T: Display + PartialEq>(
        &mut self,
        place: impl Fn() -> String,
        row: Option<(T, i64)>,
        (steps, parked): (&[Step<S>], Option<&ParkedRow>),
        shown: impl Fn(&S) -> T,
    ) {
        if row.is_none() && parked.is_some_and(|row| row.reason_code() == UNREADABLE) {
            return;
        }
        let waits = |offset| parked.is_some_and(|row| offset >= row.next_position.offset());
        let must_be = |step: &&Step<S>| {
            Cut::is_before(&self.evidence.cut.purchases, step.partition, step.offset) && !waits(step.offset)
        };
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
