//! The report of an audit: counts, and the findings by kind.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::cut::UpToCut;
use crate::{DiscardedCommand, ListedRow, SkippedRecord};

/// The kind of a finding. The names are those of the JSON report and of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A command was accepted, and its event is not on `cart-events`.
    EventLost,
    /// An event is on `cart-events` more than once.
    EventDoubled,
    /// An event that follows from no command.
    EventUnexpected,
    /// The right event with another content.
    EventDiffers,
    /// A cart's events are in another order than its commands.
    EventsReordered,
    /// A cart's sequence numbers are not 1, 2, 3, ...
    SequenceGap,
    /// A record in another partition than its key's, or under another key than its content's.
    Misplaced,
    /// A record that can't be decoded, on a topic that only our services write.
    Unreadable,
    /// In the journal, not on the topic.
    JournalOnly,
    /// On the topic, not in the journal.
    TopicOnly,
    /// The journal's bytes, position or command id are not those of the topic's event.
    JournalDiffers,
    /// More journal rows for a position or a command than follow from the command.
    JournalRowDoubled,
    /// A request that may be repeated is not in the journal.
    RequestLost,
    /// The journal has a request that follows from no command.
    RequestUnexpected,
    /// The outcome of a request in the journal differs from the rules.
    RequestDiffers,
    /// A record that can't be decided has no dead letter, and later records of its partition were decided.
    DeadLetterLost,
    /// More than one dead letter for a record, or one for a record that is not there.
    DeadLetterUnexpected,
    /// A dead letter's key or value is not the record's.
    DeadLetterDiffers,
    /// A command that could be decided is a dead letter.
    DeadLetterWrong,
    /// A client got 200, and the log has no such result.
    AckWithoutEvent,
    /// A client got another version, session or item than the log has.
    AckDiffers,
    /// A client got a rejection, and the command has events.
    RefusalHadEffect,
    /// A client got a rejection with another reason than the rules give.
    RefusalDiffers,
    /// A client got 503 or no connection on every attempt, and the command is in the log.
    NotTakenWasTaken,
    /// A command was executed more than once under one idempotency key.
    KeyTwice,
    /// A purchase of `cart-events` is not on `item-purchased`.
    PurchaseLost,
    /// A purchase is on `item-purchased` more than once.
    PurchaseDoubled,
    /// A purchase on `item-purchased` that `cart-events` does not have.
    PurchaseUnexpected,
    /// The right purchase with another content.
    PurchaseDiffers,
    /// A row of a read table lacks purchases that it should include.
    TotalStale,
    /// The total of a row of a read table is not the sum of its first purchases, however many.
    TotalWrong,
    /// A row of a read table is missing.
    RowMissing,
    /// A read table has a row without purchases.
    RowTooMany,
    /// The generation of a read table that its store names has no table, or PostgreSQL's view shows another one. Its rows are not compared
    /// then.
    GenerationWrong,
    /// A value that only grows has fallen.
    Fell,
    /// What the journal has of a cart up to the checkpoint is not what was audited. What came since is not compared then.
    SealBroken,
    /// The records of a topic up to the last checkpoint are not those that were audited.
    LogChanged,
    /// The record that an operator has skipped is another one now, or is not there.
    SkipDiffers,
    /// The command that an operator has discarded is another one now, is not there, or was decided.
    DiscardDiffers,
}

impl Kind {
    /// The kind's name in JSON and metrics.
    #[must_use]
    pub fn name(self) -> String {
        // Can't fail: a unit variant is a string in JSON.
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One difference between what is expected and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub kind: Kind,
    /// The topic, table or file, and the record, row or line.
    pub place: String,
    /// The expected value; `None` if nothing is expected.
    pub expected: Option<String>,
    /// The value that is there; `None` if nothing is.
    pub found: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing = "nothing".to_owned();
        let (expected, found) = (self.expected.as_ref().unwrap_or(&nothing), self.found.as_ref().unwrap_or(&nothing));
        write!(f, "{}: {}: expected {expected}, found {found}", self.kind.name(), self.place)
    }
}

/// Counts all findings by kind, and keeps the first ones.
#[derive(Debug, Clone)]
pub struct Findings {
    kept: Vec<Finding>,
    kept_max: usize,
    counts: BTreeMap<Kind, u64>,
}

/// How many findings are kept by default: enough to see a pattern, few enough to read.
pub const FINDINGS_KEPT: usize = 100;

impl Default for Findings {
    fn default() -> Self {
        Self::new(FINDINGS_KEPT)
    }
}

impl Findings {
    /// Keeps at most `kept_max`.
    #[must_use]
    pub fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), kept_max, counts: BTreeMap::new() }
    }

    /// Adds a finding. The values are formatted only if it is kept.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        place: impl fmt::Display,
        expected: Option<&dyn fmt::Display>,
        found: Option<&dyn fmt::Display>,
    ) {
        *self.counts.entry(kind).or_default() += 1;
        // The first of each kind is always kept.
        if self.kept.len() < self.kept_max || self.counts[&kind] == 1 {
            let text = |value: Option<&dyn fmt::Display>| value.map(ToString::to_string);
            let finding = Finding { kind, place: place.to_string(), expected: text(expected), found: text(found) };
            self.kept.push(finding);
        }
    }

    /// The first findings, and at least one of each kind.
    #[must_use]
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// The number of findings of each kind.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }
}

/// The numbers of records and rows that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Records on `cart-commands` that are commands.
    pub commands: u64,
    /// Commands that made events.
    pub accepted: u64,
    /// Commands that a rule rejected.
    pub refused: u64,
    /// Repeats of an earlier command.
    pub repeats: u64,
    /// Commands that wait because their carts are parked.
    pub parked: u64,
    /// Commands that operators have discarded: dead letters.
    pub discarded: u64,
    /// Records on `cart-commands` that can't be decided.
    pub dead_letters: u64,
    /// Carts with events.
    pub carts: u64,
    /// Records on `cart-events`.
    pub events: u64,
    pub journal_events: u64,
    /// Records on `item-purchased`.
    pub purchases: u64,
    /// Rows of the three read tables.
    pub rows: u64,
    /// Of them or beside them, rows that lack purchases because they are parked.
    pub parked_rows: u64,
}

/// The clients' answers, from the files of `replay --record`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientView {
    /// Commands that were sent.
    pub commands: u64,
    /// Commands answered with 200.
    pub acknowledged: u64,
    /// Commands rejected by a rule or a check.
    pub refused: u64,
    /// Commands without an answer in the end that were executed.
    pub unknown_happened: u64,
    /// Commands without an answer in the end that were not executed.
    pub unknown_not: u64,
    /// Commands that were sent more than once.
    pub retried: u64,
}

/// A checkpoint in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    pub sealed_at: DateTime<Utc>,
    /// Commands before it.
    pub commands: u64,
    /// The hash over the topics up to it.
    pub hash: String,
}

/// Where an audit began, and the checkpoint that it left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// `None`: everything was read.
    pub since: Option<Seal>,
    /// Why everything was read.
    pub note: Option<String>,
    /// The new checkpoint. `None` if there are findings, or parked carts or rows.
    pub sealed: Option<Seal>,
}

/// The result of an audit; its fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// With `--checkpoint`. After a checkpoint the counts are of what came since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The numbers of records and rows that were read.
    pub counts: Counts,
    /// The part of it that all consumers have reached.
    pub up_to_cut: UpToCut,
    /// The clients' answers.
    pub client: ClientView,
    /// Records that groups skip: what they would have changed is not expected.
    pub skipped: Vec<SkippedRecord>,
    /// Commands that operators have discarded; also those that still wait for that.
    pub discarded: Vec<DiscardedCommand>,
    /// Parked rows of the read tables: the purchases that wait are not expected in them.
    pub parked_rows: Vec<ListedRow>,
    /// The number of findings of each kind.
    pub findings_by_kind: BTreeMap<Kind, u64>,
    /// The first findings, and at least one of each kind.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(
        counts: Counts,
        up_to_cut: UpToCut,
        client: ClientView,
        (skipped, discarded, parked_rows): (Vec<SkippedRecord>, Vec<DiscardedCommand>, Vec<ListedRow>),
        findings: Findings,
    ) -> Self {
        let (findings_by_kind, findings) = (findings.counts, findings.kept);
        Self { span: None, counts, up_to_cut, client, skipped, discarded, parked_rows, findings_by_kind, findings }
    }

    /// The commands of this audit and of those whose checkpoint it went on from.
    #[must_use]
    pub fn commands_in_all(&self) -> u64 {
        let since = self.span.as_ref().and_then(|span| span.since.as_ref());
        // After the cut some commands are looked at twice; the checkpoint counts those before it.
        self.counts.commands + since.map_or(0, |since| since.commands)
    }

    /// Whether there are no findings.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_by_kind.is_empty()
    }

    /// The number of findings, including those that are not kept.
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

/// `1 finding`, `2 findings`.
pub(crate) fn findings_in_words(count: u64) -> String {
    format!("{count} finding{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.since, &self.note) {
            (Some(since), _) => write!(f, "read: what has come since {since}")?,
            (None, Some(note)) => write!(f, "read: everything ({note})")?,
            (None, None) => write!(f, "read: everything")?,
        }
        match &self.sealed {
            Some(sealed) => write!(f, "\nsealed: {sealed}"),
            None => write!(f, "\nsealed: nothing, since there are findings, or parked carts or rows"),
        }
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.sealed_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        write!(f, "the checkpoint of {at}, {} commands, {}", self.commands, self.hash)
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
        let answers = [
            ("commands sent by clients", client.commands),
            ("· acknowledged", client.acknowledged),
            ("· rejected", client.refused),
            ("· unanswered, executed", client.unknown_happened),
            ("· unanswered, not executed", client.unknown_not),
            ("· sent more than once", client.retried),
        ];
        let answers = if client.commands > 0 { &answers[..] } else { &[] };
        // Rare enough to stay away otherwise.
        let rare = [
            ("commands that wait, of parked carts", counts.parked),
            ("commands that were discarded", counts.discarded),
            ("parked rows of read tables", counts.parked_rows),
        ];
        let rare = rare.iter().filter(|(_, number)| *number > 0);
        for (what, number) in rows.iter().chain(rare).chain(answers) {
            table.add_row([(*what).to_owned(), number.to_string()]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let ends = (0..).zip(&due.cut.commands).map(|(partition, end): (i32, _)| format!("{partition}/{end}"));
        let ends = ends.collect::<Vec<_>>().join(" ");
        writeln!(f, "the cut: cart-commands up to {ends}; later records may still be in progress")?;
        if let Some(span) = &self.span {
            writeln!(f, "{span}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "skipped: {skipped}")?;
        }
        for discarded in &self.discarded {
            writeln!(f, "discarded: {discarded}")?;
        }
        for row in &self.parked_rows {
            writeln!(f, "parked: {row}")?;
        }
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
        write!(f, "{}", findings_in_words(self.findings_count()))
    }
}
