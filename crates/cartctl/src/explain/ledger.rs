//! The records of one row of a read table, added up, beside what the tables have.

use std::fmt;

use cart::CartId;
use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::Serialize;

use super::args::Finding;

/// How many records are named that could be the cause of a difference.
const SUSPECTS_MAX: usize = 5;

/// A row, record by record.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ledger {
    /// The row in words.
    pub(super) what: String,
    /// The topic's full name, and the partition that has all records of the vendor.
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) entries: Vec<Entry>,
    pub(super) stored: Vec<Comparison>,
}

/// A record, and the total with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) purchased_at: DateTime<Utc>,
    pub(super) cart_id: CartId,
    /// The id of the trace of its checkout, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
    /// The purchase in words.
    pub(super) what: String,
    pub(super) change: Decimal,
    pub(super) total: Decimal,
}

/// A row as a table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) table: String,
    /// `None` where there is no row.
    pub(super) total: Option<Decimal>,
    /// The row includes the records before this offset.
    pub(super) next_offset: i64,
    /// Whether it may include records of an earlier log, which are not in this one.
    pub(super) has_earlier_logs: bool,
    /// Where the row is parked: the first record that waits, and why.
    pub(super) parked: Option<(i64, String)>,
}

/// A table's figure beside the log's.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    pub(super) table: String,
    pub(super) total: Option<Decimal>,
    /// The log's total of the records that the table includes.
    pub(super) expected: Decimal,
    /// Records of the row that the table does not include yet.
    pub(super) waiting: usize,
    /// Why the row is parked; `None` if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parked: Option<String>,
    pub(super) verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Verdict {
    Equal,
    /// The total is that of the records up to this one. Those after it are missing.
    StoppedAfter {
        offset: i64,
    },
    Different {
        difference: Decimal,
        /// Records whose change is the difference: one of them may be missing, or be counted twice.
        suspects: Vec<i64>,
    },
    /// The total may include records of an earlier log.
    EarlierLogs,
}

impl Ledger {
    pub(super) fn new(what: String, topic: String, partition: i32) -> Self {
        Self { what, topic, partition, entries: Vec::new(), stored: Vec::new() }
    }

    fn total(&self) -> Decimal {
        self.entries.last().map_or(Decimal::ZERO, |entry| entry.total)
    }

    /// Adds the next record; `total` is set here.
    pub(super) fn push(&mut self, entry: Entry) {
        let total = (self.total() + entry.change).normalize();
        self.entries.push(Entry { total, ..entry });
    }

    /// Compares a table's row with the records that it includes.
    pub(super) fn compare(&mut self, stored: Stored) {
        let (parked_at, parked) = stored.parked.unzip();
        let next_offset = parked_at.map_or(stored.next_offset, |offset| offset.min(stored.next_offset));
        let (included, waiting): (Vec<&Entry>, Vec<&Entry>) =
            self.entries.iter().partition(|entry| entry.offset < next_offset);
        let expected = included.last().map_or(Decimal::ZERO, |entry| entry.total);
        let total = stored.total.unwrap_or_default();
        let difference = (total - expected).normalize();
        let verdict = if stored.has_earlier_logs {
            Verdict::EarlierLogs
        } else if total == expected && stored.total.is_some() != included.is_empty() {
            Verdict::Equal
        } else if let Some(entry) = included.iter().find(|entry| entry.total == total) {
            Verdict::StoppedAfter { offset: entry.offset }
        } else {
            let is_suspect = |entry: &&&Entry| entry.change == difference.abs();
            let suspects = included.iter().filter(is_suspect).map(|entry| entry.offset).take(SUSPECTS_MAX);
            Verdict::Different { difference, suspects: suspects.collect() }
        };
        let waiting = waiting.len();
        self.stored.push(Comparison { table: stored.table, total: stored.total, expected, waiting, parked, verdict });
    }

    pub(super) fn finding(&self) -> Finding {
        let of = |comparison: &Comparison| match comparison.verdict {
            Verdict::Equal => Finding::Follows,
            Verdict::StoppedAfter { .. } | Verdict::Different { .. } => Finding::Differs,
            Verdict::EarlierLogs => Finding::Unknown,
        };
        self.stored.iter().map(of).max().unwrap_or(Finding::Follows)
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, topic, partition, entries, stored } = self;
        writeln!(f, "{what}")?;
        writeln!(f, "{} records of partition {partition} of {topic}", entries.len())?;
        let width = |text: fn(&Entry) -> String| entries.iter().map(|entry| text(entry).len()).max().unwrap_or(0);
        let offset = width(|entry| entry.offset.to_string());
        let (change, total) = (width(|entry| entry.change.to_string()), width(|entry| entry.total.to_string()));
        for entry in entries {
            let at = entry.purchased_at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let trace = entry.trace_id.as_ref().map(|id| format!("  trace {id}")).unwrap_or_default();
            writeln!(
                f,
                "{:>offset$}  {at}  cart {}  {:>change$}  {:>total$}  {}{trace}",
                entry.offset, entry.cart_id, entry.change, entry.total, entry.what
            )?;
        }
        stored.iter().try_for_each(|comparison| writeln!(f, "{comparison}"))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, total, expected, waiting, parked, verdict } = self;
        match total {
            Some(total) => write!(f, "{table}: {}, ", total.normalize())?,
            None => write!(f, "{table}: no row, ")?,
        }
        match verdict {
            Verdict::Equal => write!(f, "equal to the log")?,
            Verdict::StoppedAfter { offset } => {
                write!(f, "WRONG: the log has {expected}; the records after offset {offset} are missing")?;
            }
            Verdict::Different { difference, suspects } => {
                write!(f, "WRONG: the log has {expected}, a difference of {difference}")?;
                if !suspects.is_empty() {
                    let suspects: Vec<_> = suspects.iter().map(ToString::to_string).collect();
                    let how = if difference.is_sign_negative() { "missing" } else { "counted twice" };
                    write!(f, "; as if one of these was {how}: offset {}", suspects.join(", "))?;
                }
            }
            Verdict::EarlierLogs => write!(
                f,
                "unknown: the log has {expected}, but the table may include purchases of an earlier log, which is gone"
            )?,
        }
        match (waiting, parked) {
            (0, None) => Ok(()),
            (waiting, None) => write!(f, " ({waiting} newer records are not included yet)"),
            (waiting, Some(reason)) => write!(f, " (parked, {waiting} records wait: {reason})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Records of 5, 2 and 3 at offsets 4, 6 and 9.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new("a balance".to_owned(), "item-purchased".to_owned(), 2);
        for (offset, change) in [(4, 5), (6, 2), (9, 3)] {
            ledger.push(Entry {
                offset,
                purchased_at: DateTime::UNIX_EPOCH,
                cart_id: Uuid::nil().into(),
                trace_id: None,
                what: "mugs".to_owned(),
                change: change.into(),
                total: Decimal::ZERO,
            });
        }
        ledger
    }

    fn verdict(total: Option<i64>, next_offset: i64) -> Verdict {
        let mut ledger = ledger();
        let total = total.map(Decimal::from);
        ledger.compare(Stored {
            table: String::from("table"),
            total,
            next_offset,
            has_earlier_logs: false,
            parked: None,
        });
        ledger.stored.remove(0).verdict
    }

    #[test]
    fn a_figure_follows_from_the_records_that_it_includes() {
        for (total, next_offset) in [(None, 0), (None, 4), (Some(5), 5), (Some(5), 6), (Some(7), 9), (Some(10), 10)] {
            assert_eq!(verdict(total, next_offset), Verdict::Equal, "{total:?} before {next_offset}");
        }
    }

    #[test]
    fn a_wrong_figure_is_explained() {
        assert_eq!(verdict(Some(5), 10), Verdict::StoppedAfter { offset: 4 });
        let different = |difference: i64, suspects: &[i64]| Verdict::Different {
            difference: difference.into(),
            suspects: suspects.to_vec(),
        };
        assert_eq!(verdict(Some(12), 10), different(2, &[6]), "one was counted twice");
        assert_eq!(verdict(Some(8), 10), different(-2, &[6]), "one in the middle is missing");
        assert_eq!(verdict(Some(11), 10), different(1, &[]));
        assert_eq!(verdict(None, 10), different(-10, &[]), "the row is missing");
        assert_eq!(verdict(Some(0), 0), different(0, &[]), "a row without a record");
    }

    #[test]
    fn prints_each_record_and_each_table() {
        let mut ledger = ledger();
        for (total, next_offset, has_earlier_logs) in [(Some(7), 9, false), (Some(12), 10, false), (None, 10, true)] {
            let total = total.map(Decimal::from);
            ledger.compare(Stored { table: String::from("table"), total, next_offset, has_earlier_logs, parked: None });
        }
        let parked = Some((6, String::from("row-overflows: full")));
        let stored =
            Stored { total: Some(5.into()), next_offset: 10, has_earlier_logs: false, parked, table: "table".into() };
        ledger.compare(stored);
        let nil = Uuid::nil();
        let expected = [
            "a balance".to_owned(),
            "3 records of partition 2 of item-purchased".to_owned(),
            format!("4  1970-01-01T00:00:00Z  cart {nil}  5   5  mugs"),
            format!("6  1970-01-01T00:00:00Z  cart {nil}  2   7  mugs"),
            format!("9  1970-01-01T00:00:00Z  cart {nil}  3  10  mugs"),
            "table: 7, equal to the log (1 newer records are not included yet)".to_owned(),
            "table: 12, WRONG: the log has 10, a difference of 2; as if one of these was counted twice: offset 6"
                .to_owned(),
            "table: no row, unknown: the log has 10, but the table may include purchases of an earlier log, which is gone"
                .to_owned(),
            "table: 5, equal to the log (parked, 2 records wait: row-overflows: full)".to_owned(),
        ];
        assert_eq!(ledger.to_string().lines().collect::<Vec<_>>(), expected);
        assert_eq!(ledger.finding(), Finding::Unknown);
    }
}
