//! A table in memory, with its markers. Write timestamps decide as they do in Cassandra.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI16, Ordering};
use std::sync::{Arc, Mutex};

use cart::ParkedRow;
use cassandra::parked_rows::{RetryRequest, parse_progress, progress};
use uuid::Uuid;

use super::super::*;
use crate::parking::RowId;

/// What is stored: rows and markers.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) rows: HashMap<Key<Uuid>, Row<i64>>,
    /// Vendors whose rows cannot be read.
    pub(super) damaged: HashSet<VendorId>,
    cells: HashMap<RowId, MarkerCells>,
    /// The times of the newest ends of markers.
    pub(super) ends: HashMap<RowId, i64>,
    pub(super) requests: Vec<RetryRequest>,
    pub(super) is_away: bool,
    pub(super) base: i16,
    pub(super) row_times: HashMap<Key<Uuid>, i64>,
}

/// A marker as Cassandra keeps it: each cell with its write time. Of two values of one time the greater one stays.
#[derive(Debug, Clone)]
struct MarkerCells {
    /// Has the key, and what never changes.
    row: ParkedRow,
    first: (i64, Position),
    passed: (i64, Position),
    progress: (i64, String),
}

impl MarkerCells {
    fn merge(&mut self, written: &Self) {
        self.first = self.first.max(written.first);
        self.passed = self.passed.max(written.passed);
        self.progress = self.progress.clone().max(written.progress.clone());
    }

    fn marker(&self) -> (ParkedRow, Position) {
        let (next_position, revision, reason) = parse_progress(&self.progress.1).unwrap();
        let row = ParkedRow { first_position: self.first.1, next_position, revision, reason, ..self.row.clone() };
        (row, self.passed.1)
    }
}

impl Stored {
    /// Of a write and an end at one time the end holds.
    pub(super) fn markers(&self) -> Vec<(ParkedRow, Position)> {
        let is_live =
            |(id, cells): &(&RowId, &MarkerCells)| self.ends.get(*id).is_none_or(|end| *end < cells.progress.0);
        self.cells.iter().filter(is_live).map(|(_, cells)| cells.marker()).collect()
    }
}

/// Pieces of a product, up to 100.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    pub(super) stored: Arc<Mutex<Stored>>,
    /// As this instance has read it.
    pub(super) base: Arc<AtomicI16>,
}

impl Pieces {
    pub(super) fn stored(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }

    pub(super) fn total(&self, vendor: u128, product: u128) -> Option<i64> {
        let key = Key { vendor_id: Uuid::from_u128(vendor).into(), within: Uuid::from_u128(product) };
        self.stored().rows.get(&key).map(|row| row.total)
    }
}

impl Table for Pieces {
    type Within = Uuid;
    type Common = ();
    type Total = i64;

    fn name(&self) -> &'static str {
        "pieces"
    }

    fn within(purchase: &PurchasedItem) -> Uuid {
        purchase.product_id.as_uuid()
    }

    fn add(total: Option<&i64>, purchase: &PurchasedItem) -> Option<i64> {
        Some(total.unwrap_or(&0) + i64::from(purchase.quantity.get())).filter(|sum| *sum <= 100)
    }

    fn common(_: &Key<Uuid>) {}

    async fn read(&self, keys: &[Key<Uuid>]) -> Result<Rows<Self>, cassandra::Error> {
        let stored = self.stored();
        if stored.is_away {
            return Err(cassandra::Error::new("reading pieces", "no node answers"));
        }
        if keys.iter().any(|key| stored.damaged.contains(&key.vendor_id)) {
            return Err(cassandra::Error::undecodable("reading pieces", "a row has no pieces"));
        }
        Ok(keys.iter().filter_map(|key| Some((key.clone(), stored.rows.get(key)?.clone()))).collect())
    }

    async fn renew(&self) -> Result<(), cassandra::Error> {
        self.base.store(self.stored().base, Ordering::Relaxed);
        Ok(())
    }

    fn write_base(&self) -> i16 {
        self.base.load(Ordering::Relaxed)
    }

    fn groups(&self, rows: Rows<Self>) -> Vec<Rows<Self>> {
        vec![rows]
    }

    async fn write(&self, rows: &Rows<Self>) -> Result<(), cassandra::Error> {
        let mut stored = self.stored();
        for (key, row) in rows {
            let time = row.timestamp_above(self.write_base());
            if stored.row_times.get(key).is_none_or(|newest| *newest <= time) {
                stored.row_times.insert(key.clone(), time);
                stored.rows.insert(key.clone(), row.clone());
            }
        }
        Ok(())
    }
}

/// With write timestamps as Cassandra has them.
impl Markers for Pieces {
    async fn read(&self, partition: i32) -> Result<Vec<(ParkedRow, Position)>, cassandra::Error> {
        Ok(self.stored().markers().into_iter().filter(|(row, _)| row.partition == partition).collect())
    }

    async fn write(&self, row: &ParkedRow, passed: Position, base: i16) -> Result<(), cassandra::Error> {
        let time = passed.timestamp(base);
        let (first, passed, progress) = ((time, row.first_position), (time, passed), (time, progress(row)));
        let written = MarkerCells { row: row.clone(), first, passed, progress };
        self.stored().cells.entry(RowId::of(row)).and_modify(|cells| cells.merge(&written)).or_insert(written);
        Ok(())
    }

    async fn remove(&self, row: &ParkedRow, position: Position, base: i16) -> Result<(), cassandra::Error> {
        let time = position.timestamp(base);
        self.stored().ends.entry(RowId::of(row)).and_modify(|end| *end = time.max(*end)).or_insert(time);
        Ok(())
    }

    async fn requests(&self) -> Result<Vec<RetryRequest>, cassandra::Error> {
        Ok(self.stored().requests.clone())
    }

    async fn end_request(&self, request: &RetryRequest) -> Result<(), cassandra::Error> {
        let is_of = |one: &RetryRequest| (one.vendor_id, &one.row_key) == (request.vendor_id, &request.row_key);
        self.stored().requests.retain(|one| !is_of(one) || one.written_at > request.written_at);
        Ok(())
    }
}
