//! The result as text and as JSON.

use std::collections::HashMap;
use std::io::{self, Write};

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use rust_decimal::Decimal;
use serde::Serialize;

use super::compare::{Difference, Differences, Rows};
use crate::totals::{DayKey, MonthKey, Sold, Totals};
use crate::{ListedRow, SkippedRecord};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// There are no differences.
    Equal,
    /// There are differences.
    Different,
    /// The expected totals are unknown, since some commands have no answer.
    Unknown,
}

/// Sums and numbers of rows; `None` where a table has no such rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// The sum of all balances, exactly.
    pub balance: Option<String>,
    /// The number of rows by vendor and month.
    pub month_rows: Option<usize>,
    /// The sum of all quantities.
    pub quantity: Option<i64>,
    /// The number of rows by vendor, product and day.
    pub day_rows: Option<usize>,
    /// The number of purchased lines.
    pub purchases: Option<u64>,
}

impl Sums {
    /// The sums of purchases.
    #[must_use]
    pub fn of(totals: &Totals) -> Self {
        Self { purchases: totals.purchases, ..Self::of_months(&totals.months).with_days(&totals.days) }
    }

    /// The sums of a table.
    pub(super) fn of_rows(rows: &Rows) -> Self {
        match rows {
            Rows::Months(months) => Self::of_months(months),
            Rows::Days(days) => Self::default().with_days(days),
        }
    }

    fn of_months(months: &HashMap<MonthKey, Decimal>) -> Self {
        let balance = months.values().sum::<Decimal>().normalize().to_string();
        Self { balance: Some(balance), month_rows: Some(months.len()), ..Self::default() }
    }

    fn with_days(self, days: &HashMap<DayKey, Sold>) -> Self {
        let quantity = days.values().map(|sold| sold.quantity).sum();
        Self { quantity: Some(quantity), day_rows: Some(days.len()), ..self }
    }

    /// Adds a difference for each sum that is not that of the topic.
    pub(super) fn check(&self, store: &str, topic: &Self, differences: &mut Differences) {
        if let (Some(expected), Some(found)) = (&topic.balance, &self.balance) {
            differences.check(store, "total balance, as on the topic", expected, found);
        }
        if let (Some(expected), Some(found)) = (topic.quantity, self.quantity) {
            differences.check(store, "total quantity, as on the topic", expected, found);
        }
    }
}

/// The sums of a read table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSums {
    /// The table's name.
    pub table: &'static str,
    #[serde(flatten)]
    pub sums: Sums,
}

/// Commands without an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unanswered {
    /// Their number.
    pub count: usize,
    /// The lines of the first ones, in the file of sent commands.
    pub first_lines: Vec<u64>,
}

impl Unanswered {
    pub(super) fn new(lines: &[u64], kept_max: usize) -> Self {
        Self { count: lines.len(), first_lines: lines.iter().copied().take(kept_max).collect() }
    }
}

/// The result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub verdict: Verdict,
    /// A description of the expected totals.
    pub compared_with: Vec<String>,
    /// The expected totals, if there are files.
    pub expected: Option<Sums>,
    /// The item-purchased topic.
    pub topic: Sums,
    /// The read tables.
    pub tables: Vec<TableSums>,
    /// The number of differences.
    pub difference_count: usize,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Commands without an answer.
    pub unanswered: Unanswered,
    /// Records that groups skip: what they would have changed is not expected.
    pub skipped: Vec<SkippedRecord>,
    /// Parked carts: what their commands buy is in no table yet.
    pub parked_carts: usize,
    /// Parked rows: they lack purchases, and are not compared.
    pub parked_rows: Vec<ListedRow>,
}

impl Report {
    pub(super) fn new(
        compared_with: Vec<String>,
        expected: Option<Sums>,
        topic: Sums,
        tables: Vec<TableSums>,
        differences: &Differences,
        unanswered: Unanswered,
    ) -> Self {
        let verdict = match (differences.count(), unanswered.count) {
            (0, 0) => Verdict::Equal,
            (0, _) => Verdict::Unknown,
            (_, _) => Verdict::Different,
        };
        Self {
            verdict,
            compared_with,
            expected,
            topic,
            tables,
            difference_count: differences.count(),
            differences: differences.kept().to_vec(),
            unanswered,
            skipped: Vec::new(),
            parked_carts: 0,
            parked_rows: Vec::new(),
        }
    }

    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Equal => 0,
            Verdict::Different => 1,
            Verdict::Unknown => 3,
        }
    }

    /// Writes it as text.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for difference in &self.differences {
            writeln!(out, "{difference}")?;
        }
        if let Some(more) = self.difference_count.checked_sub(self.differences.len()).filter(|more| *more > 0) {
            writeln!(out, "... and {more} more")?;
        }
        for skipped in &self.skipped {
            writeln!(out, "skipped: {skipped}")?;
        }
        writeln!(out, "{}", self.table())?;
        writeln!(out, "Compared with {}.", self.compared_with.join(" and "))?;
        if self.unanswered.count > 0 {
            let lines: Vec<_> = self.unanswered.first_lines.iter().map(ToString::to_string).collect();
            let dots = if self.unanswered.count > lines.len() { ", ..." } else { "" };
            writeln!(
                out,
                "UNKNOWN: {} commands were not answered (lines {}{dots} of the file). Each may have been executed or \
                 not, so the totals of the sent commands are unknown, and the stores were not compared with them.",
                self.unanswered.count,
                lines.join(", "),
            )?;
        }
        if self.parked_carts > 0 {
            writeln!(
                out,
                "PARKED: the commands of {} carts wait and are in no table yet, so the totals of all sent commands differ \
                 (`cartctl parked`).",
                self.parked_carts
            )?;
        }
        for row in &self.parked_rows {
            writeln!(out, "PARKED, and not compared: {row}")?;
        }
        match (self.verdict, self.difference_count) {
            (Verdict::Different, 1) => writeln!(out, "FAILED: 1 difference."),
            (Verdict::Different, count) => writeln!(out, "FAILED: {count} differences."),
            (Verdict::Equal | Verdict::Unknown, _) => {
                writeln!(out, "0 differences: every purchase and every row of the read tables is as expected.")
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let mut stores = vec![("topic item-purchased", &self.topic)];
        stores.extend(self.tables.iter().map(|TableSums { table, sums }| (*table, sums)));
        if let Some(expected) = &self.expected {
            stores.insert(0, ("expected", expected));
        }
        table.load_style(UTF8_BORDERS_ONLY).set_header([""].into_iter().chain(stores.iter().map(|(name, _)| *name)));
        let mut row = |what: &str, value: &dyn Fn(&Sums) -> Option<String>| {
            let values = stores.iter().map(|(_, sums)| value(sums).unwrap_or_else(|| String::from("-")));
            table.add_row([what.to_owned()].into_iter().chain(values));
        };
        row("total balance", &|sums| sums.balance.clone());
        row("total quantity", &|sums| sums.quantity.map(|quantity| quantity.to_string()));
        row("purchases", &|sums| sums.purchases.map(|purchases| purchases.to_string()));
        row("vendors' months", &|sums| sums.month_rows.map(|rows| rows.to_string()));
        row("products' days", &|sums| sums.day_rows.map(|rows| rows.to_string()));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(difference_count: usize, unanswered: &[u64]) -> Report {
        let mut differences = Differences::new(2);
        for row in 0..difference_count {
            differences.add("store", format!("row {row}"), Some(String::from("1")), Some(String::from("2")));
        }
        let sums = Sums::of(&Totals::default());
        let tables = vec![TableSums { table: "sold", sums: Sums::of_rows(&Rows::Days(HashMap::new())) }];
        let unanswered = Unanswered::new(unanswered, 2);
        Report::new(vec![String::from("the totals")], Some(sums.clone()), sums, tables, &differences, unanswered)
    }

    fn text(report: &Report) -> String {
        let mut text = Vec::new();
        report.write(&mut text).expect("memory takes it");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn the_last_lines_give_the_verdict() {
        let good = report(0, &[]);
        assert_eq!(good.exit_code(), 0);
        assert!(text(&good).contains("0 differences"), "{}", text(&good));
        assert!(text(&good).contains("total balance"));

        let bad = report(3, &[]);
        assert_eq!(bad.exit_code(), 1);
        assert!(
            text(&bad)
                .starts_with("store: row 0: expected 1, found 2\nstore: row 1: expected 1, found 2\n... and 1 more")
        );
        assert!(text(&bad).contains("FAILED: 3 differences."));

        let unknown = report(0, &[7, 8, 9]);
        assert_eq!(unknown.exit_code(), 3);
        assert!(text(&unknown).contains("UNKNOWN: 3 commands were not answered (lines 7, 8, ... of the file)"));
        assert_eq!(report(1, &[7]).exit_code(), 1);
    }
}
