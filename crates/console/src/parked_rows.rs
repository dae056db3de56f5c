//! The parked rows of the read tables, for the page.

use cart::contract::Contract as _;
use cart::{ParkedRow, PurchasedItem, VendorId};
use serde::Serialize;

use crate::operations::LISTED;

/// The parked rows of a read model, each with the group of its generation; or why they are not known.
pub(crate) type Found = Result<Vec<(String, ParkedRow)>, String>;

/// A row that lacks records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// The group of its generation.
    group: String,
    vendor_id: VendorId,
    /// The row within the vendor: a month, or a day and a product.
    row: String,
    /// The first record that it lacks, as `topic/partition/offset`.
    record: String,
    /// Whether it waits for an operator, or is to be tried again.
    state: &'static str,
    since_ms: i64,
    reason: String,
    /// Who wants it to be tried again.
    retry_by: Option<String>,
}

impl Row {
    fn of(group: String, row: ParkedRow) -> Self {
        let record = format!("{}/{}/{}", PurchasedItem::TOPIC, row.partition, row.next_position.offset());
        let (state, since_ms) = (row.state(), row.since.timestamp_millis());
        let ParkedRow { vendor_id, row_key, reason, retry_by, .. } = row;
        Self { group, vendor_id, row: row_key, record, state, since_ms, reason, retry_by }
    }
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParkedRows {
    /// The oldest ones.
    rows: Vec<Row>,
    count: usize,
    /// Why those of a read model are not known now; `count` is without them.
    unknown: Vec<String>,
}

impl ParkedRows {
    /// Of all read models.
    pub(crate) fn new(found: impl IntoIterator<Item = Found>) -> Self {
        let (mut rows, mut unknown) = (Vec::new(), Vec::new());
        for found in found {
            match found {
                Ok(found) => rows.extend(found),
                Err(error) => unknown.push(error),
            }
        }
        let count = rows.len();
        // Those of one time stay in the order of tables and keys.
        rows.sort_by_key(|(_, row)| row.since);
        let rows = rows.into_iter().take(LISTED).map(|(group, row)| Row::of(group, row)).collect();
        Self { rows, count, unknown }
    }
}

#[cfg(test)]
mod tests {
    use cart::{LogEpoch, Position, RowFault, month_row_key};
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn row(since_ms: i64, retry_by: Option<&str>) -> (String, ParkedRow) {
        let row = ParkedRow {
            partition: 3,
            vendor_id: Uuid::nil().into(),
            row_key: month_row_key(2026, 11),
            first_position: Position::new(LogEpoch::FIRST, 70),
            next_position: Position::new(LogEpoch::FIRST, 77),
            reason: RowFault::Overflows(String::from("full")).reason(),
            since: DateTime::from_timestamp_millis(since_ms).expect("a time"),
            retry_by: retry_by.map(str::to_owned),
            revision: 0,
        };
        (String::from("vendor-billing-g2"), row)
    }

    #[test]
    fn the_oldest_rows_are_listed_and_all_are_counted() {
        let newer = (2..=12).map(|since_ms| row(since_ms, None)).collect();
        let found = [Ok(newer), Err(String::from("no answer")), Ok(vec![row(1, Some("olga"))])];
        let shown = serde_json::to_value(ParkedRows::new(found)).expect("JSON");
        assert_eq!((&shown["count"], &shown["unknown"]), (&json!(12), &json!(["no answer"])));
        assert_eq!(shown["rows"].as_array().map(Vec::len), Some(LISTED));
        let oldest = json!({
            "group": "vendor-billing-g2", "vendorId": Uuid::nil(), "row": "2026-11", "record": "item-purchased/3/77",
            "state": "retrying", "sinceMs": 1, "reason": "row-overflows: full", "retryBy": "olga",
        });
        assert_eq!(shown["rows"][0], oldest);
        assert_eq!((&shown["rows"][1]["state"], &shown["rows"][1]["sinceMs"]), (&json!("parked"), &json!(2)));
    }
}
