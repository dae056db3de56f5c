//! The report of a rehearsal.

use std::fmt;

use cart::{CartId, CommandId};
use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::compare::{Asked, Compared};
use crate::line::InWords as _;

/// How many differences the JSON report has, about 1 KB of memory each.
const KEPT_MAX: usize = 10_000;

/// How many differences are printed: enough to see a pattern.
const PRINTED_MAX: usize = 100;

/// The part of a request that differs. Parts are compared in this order, and the first that differs is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// The journal has a request where the log has no command.
    Existence,
    /// Accepted or rejected, and the reason.
    Outcome,
    /// The kinds of the events and their items.
    Events,
    /// Ids, numbers, digests and times.
    Ids,
    /// The same is written as other bytes.
    Bytes,
}

/// A command of which this program would make something else than what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Partition and offset on `cart-commands`.
    pub partition: i32,
    pub offset: i64,
    pub cart_id: Option<CartId>,
    pub command_id: Option<CommandId>,
    pub issued_at: Option<DateTime<Utc>>,
    /// The command in words.
    pub command: Option<String>,
    pub differs: Part,
    /// What is stored, in words.
    pub stored: String,
    /// What this program would make of it, in words.
    pub now: String,
}

impl Difference {
    pub(super) fn of(asked: &Asked, differs: Part, stored: String, now: String) -> Self {
        let command = asked.content.as_ref().ok();
        Self {
            partition: asked.partition,
            offset: asked.offset,
            cart_id: asked.cart_id,
            command_id: command.map(|command| command.command_id),
            issued_at: command.map(|command| command.issued_at),
            command: command.map(|command| command.line().what),
            differs,
            stored,
            now,
        }
    }
}

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

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.issued_at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        write!(f, "cart-commands {}/{}  {}", self.partition, self.offset, at.as_deref().unwrap_or("-"))?;
        if let Some(cart_id) = self.cart_id {
            write!(f, "  cart {cart_id}")?;
        }
        if let Some(command_id) = self.command_id {
            write!(f, "  command {command_id}")?;
        }
        let part = match self.differs {
            Part::Existence => "there is no command",
            Part::Outcome => "another outcome",
            Part::Events => "other events",
            Part::Ids => "other ids, numbers or times",
            Part::Bytes => "other bytes",
        };
        writeln!(f, "\n    {part}")?;
        if let Some(command) = &self.command {
            writeln!(f, "    command  {command}")?;
        }
        writeln!(f, "    stored   {}", self.stored)?;
        writeln!(f, "    now      {}", self.now)
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
            ("not decided yet", self.waiting.unsigned_abs()),
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
