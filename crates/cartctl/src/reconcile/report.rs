//! The result as text and as JSON.

use std::io::{self, Write};

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::compare::{Difference, Differences};
use crate::totals::Totals;

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

/// The sums of a store, as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// The sum of all balances, exactly.
    pub balance: String,
    /// The number of rows by vendor and month.
    pub month_rows: usize,
    /// The sum of all quantities.
    pub quantity: Option<i64>,
    /// The number of rows by vendor, product and day.
    pub day_rows: Option<usize>,
    /// The number of purchased lines.
    pub purchases: Option<u64>,
}

impl Sums {
    /// The sums of these rows.
    #[must_use]
    pub fn of(totals: &Totals) -> Self {
        Self {
            balance: totals.balance().to_string(),
            month_rows: totals.months.len(),
            quantity: Some(totals.quantity()),
            day_rows: Some(totals.days.len()),
            purchases: totals.purchases,
        }
    }

    /// The sums of a store that has no rows by day.
    pub(super) fn without_days(self) -> Self {
        Self { quantity: None, day_rows: None, ..self }
    }
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
    pub cassandra: Sums,
    /// PostgreSQL.
    pub postgres: Sums,
    /// The number of differences.
    pub difference_count: usize,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Commands without an answer.
    pub unanswered: Unanswered,
}

impl Report {
    pub(super) fn new(
        compared_with: Vec<String>,
        expected: Option<Sums>,
        [topic, cassandra, postgres]: [Sums; 3],
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
            cassandra,
            postgres,
            difference_count: differences.count(),
            differences: differences.kept().to_vec(),
            unanswered,
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
        match (self.verdict, self.difference_count) {
            (Verdict::Different, 1) => writeln!(out, "FAILED: 1 difference."),
            (Verdict::Different, count) => writeln!(out, "FAILED: {count} differences."),
            (Verdict::Equal | Verdict::Unknown, _) => {
                writeln!(out, "0 differences: every purchase and every row of the three tables is as expected.")
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let mut stores = vec![("topic item-purchased", &self.topic)];
        stores.extend([("Cassandra", &self.cassandra), ("PostgreSQL", &self.postgres)]);
        if let Some(expected) = &self.expected {
            stores.insert(0, ("expected", expected));
        }
        table.load_style(UTF8_BORDERS_ONLY).set_header([""].into_iter().chain(stores.iter().map(|(name, _)| *name)));
        let mut row = |what: &str, value: &dyn Fn(&Sums) -> Option<String>| {
            let values = stores.iter().map(|(_, sums)| value(sums).unwrap_or_else(|| String::from("-")));
            table.add_row([what.to_owned()].into_iter().chain(values));
        };
        row("total balance", &|sums| Some(sums.balance.clone()));
        row("total quantity", &|sums| sums.quantity.map(|quantity| quantity.to_string()));
        row("purchases", &|sums| sums.purchases.map(|purchases| purchases.to_string()));
        row("vendors' months", &|sums| Some(sums.month_rows.to_string()));
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
        let stores = [sums.clone(), sums.clone(), sums.clone().without_days()];
        let unanswered = Unanswered::new(unanswered, 2);
        Report::new(vec![String::from("the totals")], Some(sums), stores, &differences, unanswered)
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
