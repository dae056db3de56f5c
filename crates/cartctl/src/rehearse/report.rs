//! The report of a rehearsal.

use std::fmt;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::difference::{Compared, Difference};

/// How many differences the JSON report has, about 1 KB of memory each.
const KEPT_MAX: usize = 10_000;

/// How many differences are printed: enough to see a pattern.
const PRINTED_MAX: usize = 100;

/// The result of a rehearsal; its fields are those of `--json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The first offset of each partition that was read, and the first that was not.
    pub ranges: Vec<(i64, i64)>,
    /// Commands whose rows are the same, byte for byte.
    pub equal: u64,
    /// Commands whose rows say the same, written with another version of the schema.
    pub equal_content: u64,
    /// Commands without a row that would have none again: rejected without an idempotency key, or repeats. Their outcomes are not
    /// stored, so they are not compared.
    pub without_row: u64,
    /// Records that are dead letters, and would be.
    pub dead_letters: u64,
    /// Commands that wait because their carts are parked.
    pub parked: u64,
    /// Records behind the offsets that the cart-processors have committed.
    pub waiting: i64,
    /// The number of differences.
    pub different: u64,
    /// The first 10,000 of them.
    pub differences: Vec<Difference>,
}

impl Report {
    pub(super) fn add(&mut self, compared: Compared) {
        match compared {
            Compared::Equal => self.equal += 1,
            Compared::EqualContent => self.equal_content += 1,
            Compared::WithoutRow => self.without_row += 1,
            Compared::DeadLetter => self.dead_letters += 1,
            Compared::Different(difference) => self.add_difference(*difference),
        }
    }

    pub(super) fn add_difference(&mut self, difference: Difference) {
        self.different += 1;
        if self.differences.len() < KEPT_MAX {
            self.differences.push(difference);
        }
    }

    /// The number of records that were read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.equal + self.equal_content + self.without_row + self.dead_letters + self.different
    }

    /// 0 without differences, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.different > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in self.differences.iter().take(PRINTED_MAX) {
            writeln!(f, "{difference}")?;
        }
        let printed = self.differences.len().min(PRINTED_MAX) as u64;
        if self.different > printed {
            writeln!(f, "... and {} more differences\n", self.different - printed)?;
        }
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        for (what, number) in [
            ("records decided again", self.records()),
            ("· the same bytes", self.equal),
            ("· the same, with another schema", self.equal_content),
            ("· without a row, then and now", self.without_row),
            ("· dead letters, then and now", self.dead_letters),
            ("· different", self.different),
            ("not decided yet", self.waiting.unsigned_abs() + self.parked),
            ("· of parked carts", self.parked),
        ] {
            table.add_row([what.to_owned(), number.to_string()]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let ranges =
            (0..).zip(&self.ranges).map(|(partition, (from, to)): (i32, _)| format!("{partition}/{from}-{to}"));
        writeln!(f, "read: cart-commands {}", ranges.collect::<Vec<_>>().join(" "))?;
        match self.different {
            0 => write!(f, "no differences"),
            1 => write!(f, "1 difference"),
            number => write!(f, "{number} differences"),
        }
    }
}
