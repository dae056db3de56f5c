//! Which rows of the read tables are parked, as it was a moment ago: for reads that promise nothing. One that waits with `Read-After`
//! asks the table itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cart::contract::ReadTable;
use cart::{Generation, ParkedRow, VendorId};
use scylla::client::session::Session;

/// How old an answer may be before the next read lets the table be asked again. Rows are parked for minutes at least.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The parked rows of each table and generation that was read lately. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ParkedRows {
    session: Arc<Session>,
    known: Arc<Mutex<HashMap<(ReadTable, Generation), Known>>>,
}

/// The newest answer.
#[derive(Debug, Clone)]
struct Known {
    asked_at: Instant,
    rows: Arc<Vec<ParkedRow>>,
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked_at) >= REFRESH_INTERVAL
    }

    /// The keys of a vendor's rows.
    fn keys(&self, vendor_id: VendorId) -> Vec<String> {
        let of_vendor = self.rows.iter().filter(|row| row.vendor_id == vendor_id);
        of_vendor.map(|row| row.row_key.clone()).collect()
    }
}

impl ParkedRows {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, known: Arc::default() }
    }

    /// The keys of a vendor's parked rows, as far as they are known. Lets the table be asked again if it is time; no read waits for that.
    pub(super) fn of(&self, table: ReadTable, generation: Generation, vendor_id: VendorId) -> Vec<String> {
        let now = Instant::now();
        let place = (table, generation);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(place).or_insert_with(|| {
            let long_ago = now.checked_sub(REFRESH_INTERVAL).unwrap_or(now);
            Known { asked_at: long_ago, rows: Arc::default() }
        });
        if known.is_due(now) {
            known.asked_at = now;
            tokio::spawn(self.clone().refresh(place));
        }
        known.keys(vendor_id)
    }

    async fn refresh(self, (table, generation): (ReadTable, Generation)) {
        let model = table.model();
        let (name, group) = (model.table_name(generation), model.group_name(generation));
        match cassandra::parked_rows::list(&self.session, &name, &group).await {
            Ok(rows) => {
                let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = all.get_mut(&(table, generation)) {
                    known.rows = Arc::new(rows);
                }
            }
            // The table that is read beside it says so too.
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(error, "the parked rows of a read table are not known");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cart::{LogEpoch, Position, RowFault, month_row_key};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_answer_is_asked_for_once_a_second_and_is_of_a_vendor() {
        let now = Instant::now();
        let vendor_id = VendorId::from(Uuid::from_u128(1));
        let row = ParkedRow {
            partition: 0,
            vendor_id,
            row_key: month_row_key(2026, 11),
            first_position: Position::new(LogEpoch::FIRST, 7),
            next_position: Position::new(LogEpoch::FIRST, 7),
            reason: RowFault::Overflows(String::from("full")).reason(),
            since: chrono::DateTime::UNIX_EPOCH,
            retry_by: None,
            revision: 0,
        };
        let known = Known { asked_at: now, rows: Arc::new(vec![row]) };
        assert!(!known.is_due(now) && known.is_due(now + REFRESH_INTERVAL));
        assert_eq!(known.keys(vendor_id), ["2026-11"]);
        assert_eq!(known.keys(Uuid::from_u128(2).into()), [""; 0]);
    }
}
