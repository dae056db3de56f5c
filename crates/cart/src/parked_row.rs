//! Parked rows: rows of a read table that lack records which they cannot take.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Position, VendorId};

/// The most of a reason that is kept, in characters.
const REASON_LEN_MAX: usize = 500;

/// What separates a reason from why the last try could not begin.
const NOT_TRIED: &str = "; not tried again yet: ";

/// Why a row is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowFault {
    /// A record does not fit: the total would exceed what the table holds.
    Overflows(String),
    /// The stored row cannot be read.
    Unreadable(String),
    /// The store rejects the row.
    Rejected(String),
}

impl RowFault {
    /// The reason of a marker: a code, and behind a colon the error.
    #[must_use]
    pub fn reason(&self) -> String {
        let (code, error) = match self {
            Self::Overflows(error) => ("row-overflows", error),
            Self::Unreadable(error) => ("row-unreadable", error),
            Self::Rejected(error) => ("row-rejected", error),
        };
        let error: String = error.chars().take(REASON_LEN_MAX).collect();
        format!("{code}: {error}")
    }
}

/// The marker of a row that could not be kept. The row has what it had before the first record that it could not take; the records
/// from `next_position` on wait in `item-purchased`. A record of any table's store, kept beside the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// The partition of `item-purchased`.
    pub partition: i32,
    pub vendor_id: VendorId,
    /// Names the row within its vendor: [`month_row_key`], [`day_row_key`].
    pub row_key: String,
    /// The first record that the row could not take.
    pub first_position: Position,
    /// The row includes all of its records before it.
    pub next_position: Position,
    /// A code, and behind a colon the error.
    pub reason: String,
    /// When it failed first.
    pub since: DateTime<Utc>,
    /// Who wants it to be tried again now.
    pub retry_by: Option<String>,
    /// How often the reason was changed. In Cassandra two writes of a marker may have one write timestamp: the later reason holds.
    pub revision: u32,
}

impl ParkedRow {
    /// The reason's code.
    #[must_use]
    pub fn reason_code(&self) -> &str {
        self.reason.split_once(':').map_or(&self.reason, |(code, _)| code)
    }

    /// The reason, with why the records that wait could not be read for a try. It keeps its code.
    #[must_use]
    pub fn reason_not_tried(&self, error: &str) -> String {
        let reason = self.reason.split_once(NOT_TRIED).map_or(self.reason.as_str(), |(reason, _)| reason);
        let error: String = error.chars().take(REASON_LEN_MAX).collect();
        format!("{reason}{NOT_TRIED}{error}")
    }

    /// The state as a word.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        if self.retry_by.is_some() { "retrying" } else { "parked" }
    }
}

/// The key of a row of a month (UTC).
#[must_use]
pub fn month_row_key(year: i32, month: i32) -> String {
    format!("{year}-{month:02}")
}

/// The key of a row of a product on a day (UTC).
#[must_use]
pub fn day_row_key(product_id: Uuid, year: i32, month: i32, day: i32) -> String {
    format!("{year}-{month:02}-{day:02} {product_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_code_and_a_bounded_error() {
        let reason = RowFault::Unreadable("ä".repeat(10_000)).reason();
        assert!(reason.starts_with("row-unreadable: ä") && reason.chars().count() < 600, "{}", reason.len());
    }

    #[test]
    fn a_try_that_cannot_begin_says_why_and_keeps_the_code() {
        let mut row = ParkedRow {
            partition: 0,
            vendor_id: Uuid::nil().into(),
            row_key: month_row_key(2026, 3),
            first_position: Position::NONE,
            next_position: Position::NONE,
            reason: RowFault::Unreadable(String::from("no balance")).reason(),
            since: DateTime::UNIX_EPOCH,
            retry_by: None,
            revision: 0,
        };
        for error in ["no broker", "the log begins at 7"] {
            row.reason = row.reason_not_tried(error);
            assert_eq!(row.reason, format!("row-unreadable: no balance; not tried again yet: {error}"));
            assert_eq!(row.reason_code(), "row-unreadable");
        }
    }

    #[test]
    fn a_row_is_named_by_its_time_and_product() {
        assert_eq!(month_row_key(2026, 3), "2026-03");
        assert_eq!(day_row_key(Uuid::nil(), 2026, 11, 3), format!("2026-11-03 {}", Uuid::nil()));
    }
}
