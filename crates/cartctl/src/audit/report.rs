//! What the audit found: numbers, and every finding counted by kind.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::cut::UpToCut;

/// What is wrong. The names are those of the JSON report and of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A command was accepted, and its event is not on `cart-events`.
    EventLost,
    /// An event is on `cart-events` more than once.
    EventDoubled,
    /// An event that no command gives.
    EventUnexpected,
    /// The right event with another content.
    EventDiffers,
    /// A cart's events are in another order than its commands.
    EventsReordered,
    /// A cart's sequence numbers are not 1, 2, 3, ...
    SequenceGap,
    /// A record in another partition than its key's, or under another key than its content's.
    Misplaced,
    /// A record on a topic of ours that nobody can read.
    Unreadable,
    /// In the journal, not on the topic.
    JournalOnly,
    /// On the topic, not in the journal.
    TopicOnly,
    /// The journal's bytes, position or command id are not those of the topic's event.
    JournalDiffers,
    /// More journal rows for a position or a command than the command makes.
    JournalRowDoubled,
    /// A request that may come again is not in the journal.
    RequestLost,
    /// The journal has a request that no command gives.
    RequestUnexpected,
    /// The journal has another outcome of a request than the rules give.
    RequestDiffers,
    /// A record that nobody can decide has no dead letter, and its partition went on.
    DeadLetterLost,
    /// More than one dead letter for a record, or one for a record that is not there.
    DeadLetterUnexpected,
    /// A dead letter's key or value is not the record's.
    DeadLetterDiffers,
    /// A command that could be decided is a dead letter.
    DeadLetterWrong,
    /// A client was told 200, and the log has no such result.
    AckWithoutEvent,
    /// A client was told another version, session or item than the log has.
    AckDiffers,
    /// A client was told that its command was refused, and the command has events.
    RefusalHadEffect,
    /// A client was told another reason than the rules give.
    RefusalDiffers,
    /// A client was told that its command is not executed and will not be, and it was.
    NotTakenWasTaken,
    /// A command was carried out more than once under one idempotency key.
    KeyTwice,
    /// A purchase of `cart-events` is not on `item-purchased`.
    PurchaseLost,
    /// A purchase is on `item-purchased` more than once.
    PurchaseDoubled,
    /// A purchase on `item-purchased` that `cart-events` does not have.
    PurchaseUnexpected,
    /// The right purchase with another content.
    PurchaseDiffers,
    /// A row of a read table that lacks purchases which it should include by now.
    TotalStale,
    /// A row of a read table with a total that no part of the purchases gives.
    TotalWrong,
    /// A row of a read table that is not there.
    RowMissing,
    /// A row of a read table that should not be there.
    RowTooMany,
    /// Something that only grows was seen to fall.
    Fell,
}

impl Kind {
    /// The kind's name in JSON and metrics.
    #[must_use]
    pub fn name(self) -> String {
        // A unit variant of an enum is a string in JSON; there is no way for it to fail.
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// Where: a topic, a table, a file, and what in it.
    pub place: String,
    /// What must be there; none when nothing must be.
    pub expected: Option<String>,
    /// What is there; none when nothing is.
    pub found: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing = "nothing".to_owned();
        let (expected, found) = (self.expected.as_ref().unwrap_or(&nothing), self.found.as_ref().unwrap_or(&nothing));
        write!(f, "{}: {}: expected {expected}, found {found}", self.kind.name(), self.place)
    }
}

/// All findings are counted by kind, the first ones are kept.
#[derive(Debug, Clone)]
pub struct Findings {
    kept: Vec<Finding>,
    kept_max: usize,
    counts: BTreeMap<Kind, u64>,
}

/// How many findings are kept unless more are asked for: enough to see a pattern, few enough to be read.
pub const FINDINGS_KEPT: usize = 100;

impl Default for Findings {
    fn default() -> Self {
        Self::new(FINDINGS_KEPT)
    }
}

impl Findings {
    /// None yet. Keeps at most `kept_max`.
    #[must_use]
    pub fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), kept_max, counts: BTreeMap::new() }
    }

    /// One more. What was expected and what is there are only put into words when it is kept.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        place: impl fmt::Display,
        expected: Option<&dyn fmt::Display>,
        found: Option<&dyn fmt::Display>,
    ) {
        *self.counts.entry(kind).or_default() += 1;
        // The first of each kind is kept whatever came before it.
        if self.kept.len() < self.kept_max || self.counts[&kind] == 1 {
            let text = |value: Option<&dyn fmt::Display>| value.map(ToString::to_string);
            let finding = Finding { kind, place: place.to_string(), expected: text(expected), found: text(found) };
            self.kept.push(finding);
        }
    }

    /// The first ones, and at least one of each kind.
    #[must_use]
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// How many there are of each kind.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Records on `cart-commands` that are commands.
    pub commands: u64,
    /// Of them: made events.
    pub accepted: u64,
    /// Of them: refused by a rule.
    pub refused: u64,
    /// Of them: repeats of an accepted one.
    pub repeats: u64,
    /// Records on `cart-commands` that nobody can decide.
    pub dead_letters: u64,
    /// Carts with events.
    pub carts: u64,
    /// Records on `cart-events`.
    pub events: u64,
    /// Events in the journal.
    pub journal_events: u64,
    /// Records on `item-purchased`.
    pub purchases: u64,
    /// Rows of the three read tables.
    pub rows: u64,
}

/// What clients were told, of the files of records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientView {
    /// Commands that were sent.
    pub commands: u64,
    /// Told 200.
    pub acknowledged: u64,
    /// Told that a rule or a check refuses it.
    pub refused: u64,
    /// Not answered in the end: it happened.
    pub unknown_happened: u64,
    /// Not answered in the end: it did not happen.
    pub unknown_not: u64,
    /// Commands that were sent more than once.
    pub retried: u64,
}

/// The result of an audit; its fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was read.
    pub counts: Counts,
    /// Of that: what everything downstream must have.
    pub up_to_cut: UpToCut,
    /// What clients were told.
    pub client: ClientView,
    /// How many findings there are of each kind.
    pub findings_by_kind: BTreeMap<Kind, u64>,
    /// The first findings, and at least one of each kind.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(counts: Counts, up_to_cut: UpToCut, client: ClientView, findings: Findings) -> Self {
        Self { counts, up_to_cut, client, findings_by_kind: findings.counts, findings: findings.kept }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_by_kind.is_empty()
    }

    /// How many findings there are, kept or not.
    #[must_use]
    pub fn findings_count(&self) -> u64 {
        self.findings_by_kind.values().sum()
    }

    /// Whether there is a finding of this kind.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.findings_by_kind.contains_key(&kind)
    }

    /// 0 without findings, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_clean())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let (counts, due, client) = (&self.counts, &self.up_to_cut, &self.client);
        let rows = [
            ("commands in the log", counts.commands),
            ("· accepted", counts.accepted),
            ("· rejected", counts.refused),
            ("· repeats", counts.repeats),
            ("· up to the cut", due.commands),
            ("dead letters", counts.dead_letters),
            ("carts", counts.carts),
            ("events on the topic", counts.events),
            ("· up to the cut", due.events),
            ("events in the journal", counts.journal_events),
            ("· up to the cut", due.journal_events),
            ("purchases on the topic", counts.purchases),
            ("· up to the cut", due.purchases),
            ("rows of read tables", counts.rows),
        ];
        let told = [
            ("commands sent by clients", client.commands),
            ("· acknowledged", client.acknowledged),
            ("· rejected", client.refused),
            ("· unanswered, executed", client.unknown_happened),
            ("· unanswered, not executed", client.unknown_not),
            ("· sent more than once", client.retried),
        ];
        let told = if client.commands > 0 { &told[..] } else { &[] };
        for (what, number) in rows.iter().chain(told) {
            table.add_row([(*what).to_owned(), number.to_string()]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let ends = (0..).zip(&due.cut.commands).map(|(partition, end): (i32, _)| format!("{partition}/{end}"));
        let ends = ends.collect::<Vec<_>>().join(" ");
        writeln!(f, "the cut: cart-commands up to {ends}; later records may still be in progress")?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let kept = self.findings.len() as u64;
        if self.findings_count() > kept {
            writeln!(f, "... and {} more", self.findings_count() - kept)?;
        }
        for (kind, count) in &self.findings_by_kind {
            writeln!(f, "{count} × {}", kind.name())?;
        }
        write!(f, "{} findings", self.findings_count())
    }
}
