//! The parked rows of an instance's partitions: which records wait, and which row is tried next. No I/O, no clock.

use std::collections::{BTreeMap, HashMap};

use cart::{LogEpoch, ParkedRow, Position, PurchasedItem, RowFault, VendorId};

use crate::error::Error;
use crate::metrics::PARKED_ROWS;

/// Parked rows of a partition. One more stops the partition: so many are no matter of rows.
pub(crate) const PARKED_MAX: usize = 100;

/// Records of the row that is tried which are kept while its log is read, so that a row with steady traffic is caught up with. More are
/// read from the log.
const ARRIVED_MAX: usize = 10_000;

/// Names a row of a table as its marker does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RowId {
    pub(crate) vendor_id: VendorId,
    pub(crate) row_key: String,
}

impl RowId {
    pub(crate) fn of(row: &ParkedRow) -> Self {
        Self { vendor_id: row.vendor_id, row_key: row.row_key.clone() }
    }
}

/// A record that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) offset: i64,
    pub(crate) purchase: PurchasedItem,
}

/// The records of a parked row that are to be read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) partition: i32,
    pub(crate) id: RowId,
    pub(crate) from: i64,
    /// The offset behind the last one that the loop has passed.
    pub(crate) until: i64,
    /// Which request it is for.
    pub(crate) requested_at: i64,
}

/// What a try has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) records: Vec<Passed>,
    /// There are no others of the row before this offset.
    pub(crate) read_to: i64,
}

/// The records that a try has to add to a row, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waited {
    pub(crate) row: ParkedRow,
    /// The newest record of the row that the loop has passed over.
    pub(crate) passed: Position,
    pub(crate) records: Vec<Passed>,
    /// The row has no others before this position.
    pub(crate) next_position: Position,
    /// They are all that the loop has passed over.
    pub(crate) is_all: bool,
    /// The request that the try began with. It ends with the try; a later one does not.
    pub(crate) requested_at: i64,
}

/// The parked rows of a projector.
#[derive(Debug)]
pub(crate) struct Lots {
    /// The projector's group: the label of its metrics.
    group: String,
    epoch: LogEpoch,
    /// The key of the row that a purchase belongs to.
    row_key: fn(&PurchasedItem) -> String,
    partitions: HashMap<i32, Lot>,
    /// The row that is tried.
    in_progress: Option<(i32, RowId)>,
    /// The row whose records could not be read last: the others come first.
    abandoned: Option<(i32, RowId)>,
    /// Why partitions must not be applied that were restored.
    refused: Vec<(i32, Error)>,
}

/// Those of one partition.
#[derive(Debug, Default)]
struct Lot {
    rows: BTreeMap<RowId, Waiting>,
    /// The loop has applied or passed over everything before it, once that is known.
    next_offset: Option<i64>,
}

#[derive(Debug)]
struct Waiting {
    row: ParkedRow,
    passed: Position,
    /// The marker is to be written.
    has_changed: bool,
    /// When the newest known request was written, in microseconds.
    requested_at: i64,
    /// What the loop has passed over since the try in progress began.
    arrived: Vec<Passed>,
    /// More have arrived than are kept.
    is_cut: bool,
}

impl Waiting {
    fn new(row: ParkedRow, passed: Position, has_changed: bool) -> Self {
        Self { row, passed, has_changed, requested_at: 0, arrived: Vec::new(), is_cut: false }
    }

    fn change_reason(&mut self, reason: String) {
        (self.row.reason, self.has_changed) = (reason, true);
        self.row.revision = self.row.revision.saturating_add(1);
    }

    fn arrive(&mut self, offset: i64, purchase: &PurchasedItem) {
        // A batch may be folded more than once.
        if self.is_cut || self.arrived.last().is_some_and(|last| offset <= last.offset) {
            return;
        }
        if self.arrived.len() < ARRIVED_MAX {
            self.arrived.push(Passed { offset, purchase: purchase.clone() });
        } else {
            (self.arrived, self.is_cut) = (Vec::new(), true);
        }
    }
}

impl Lots {
    pub(crate) fn new(group: &str, epoch: LogEpoch, row_key: fn(&PurchasedItem) -> String) -> Self {
        let (group, partitions) = (group.to_owned(), HashMap::new());
        let lots = Self { group, epoch, row_key, partitions, in_progress: None, abandoned: None, refused: Vec::new() };
        lots.count();
        lots
    }

    /// A partition is assigned, or read again. Each marker comes with the newest record that was passed over because of it. With a marker
    /// of an earlier log the partition must not be applied ([`Lots::take_refused`]). Requests are read later.
    pub(crate) fn restore(&mut self, partition: i32, markers: Vec<(ParkedRow, Position)>) {
        self.revoke(&[partition]);
        let of_other_log = markers.iter().find(|(row, _)| row.next_position.epoch() != Some(self.epoch));
        if let Some((row, _)) = of_other_log {
            let offset = row.next_position.offset();
            self.refused.push((partition, Error::ParkedInOtherLog { partition, offset }));
            return;
        }
        let waiting = |(row, passed): (ParkedRow, Position)| {
            let row = ParkedRow { retry_by: None, ..row };
            (RowId::of(&row), Waiting::new(row, passed, false))
        };
        let rows = markers.into_iter().map(waiting).collect();
        self.partitions.insert(partition, Lot { rows, next_offset: None });
        self.count();
    }

    /// The partitions that were restored and must not be applied, and why. Each is returned once.
    pub(crate) fn take_refused(&mut self) -> Vec<(i32, Error)> {
        std::mem::take(&mut self.refused)
    }

    pub(crate) fn revoke(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        self.in_progress.take_if(|(partition, _)| partitions.contains(partition));
        self.count();
    }

    pub(crate) fn clear(&mut self) {
        self.partitions.clear();
        self.in_progress = None;
        self.refused.clear();
        self.count();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.values().all(|lot| lot.rows.is_empty())
    }

    fn count(&self) {
        let rows: usize = self.partitions.values().map(|lot| lot.rows.len()).sum();
        PARKED_ROWS.with(&[&self.group]).set(f64::from(u32::try_from(rows).unwrap_or(u32::MAX)));
    }

    fn id_of(&self, purchase: &PurchasedItem) -> RowId {
        RowId { vendor_id: purchase.vendor_id, row_key: (self.row_key)(purchase) }
    }

    /// Whether the row of a purchase is parked.
    pub(crate) fn holds(&self, partition: i32, purchase: &PurchasedItem) -> bool {
        let lot = self.partitions.get(&partition).filter(|lot| !lot.rows.is_empty());
        lot.is_some_and(|lot| lot.rows.contains_key(&self.id_of(purchase)))
    }

    /// Whether a record is passed over because its row is parked.
    pub(crate) fn pass(&mut self, partition: i32, offset: i64, purchase: &PurchasedItem) -> bool {
        if !self.holds(partition, purchase) {
            return false;
        }
        let (id, position) = (self.id_of(purchase), Position::new(self.epoch, offset));
        let is_tried = self.in_progress.as_ref().is_some_and(|tried| *tried == (partition, id.clone()));
        let Some(waiting) = self.waiting(partition, &id) else { return false };
        if position > waiting.passed {
            (waiting.passed, waiting.has_changed) = (position, true);
        }
        if is_tried {
            waiting.arrive(offset, purchase);
        }
        true
    }

    fn waiting(&mut self, partition: i32, id: &RowId) -> Option<&mut Waiting> {
        self.partitions.get_mut(&partition)?.rows.get_mut(id)
    }

    /// Markers that are to be written, each with the newest record that was passed over because of it.
    pub(crate) fn take_changed(&mut self) -> Vec<(ParkedRow, Position)> {
        let waiting = self.partitions.values_mut().flat_map(|lot| lot.rows.values_mut());
        let changed = waiting.filter_map(|waiting| {
            std::mem::take(&mut waiting.has_changed).then(|| (waiting.row.clone(), waiting.passed))
        });
        changed.collect()
    }

    /// The parked rows whose records were passed over since [`Lots::take_changed`], while nothing else has changed. With the positions
    /// that they have in the store.
    pub(crate) fn passed_over(&self) -> impl Iterator<Item = &ParkedRow> {
        let waiting = self.partitions.values().flat_map(|lot| lot.rows.values());
        waiting.filter(|waiting| waiting.has_changed).map(|waiting| &waiting.row)
    }

    /// Fails if these rows are too many for their partitions.
    pub(crate) fn make_room<'a>(&self, rows: impl IntoIterator<Item = &'a ParkedRow>) -> Result<(), Error> {
        let mut counts: HashMap<i32, usize> = HashMap::new();
        for row in rows {
            let partition = row.partition;
            let parked = self.partitions.get(&partition).map_or(0, |lot| lot.rows.len());
            let count = counts.entry(partition).or_insert(parked);
            *count += 1;
            if *count > PARKED_MAX {
                let (offset, reason) = (row.first_position.offset(), row.reason.clone());
                return Err(Error::TooManyParked { partition, parked: PARKED_MAX, offset, reason });
            }
        }
        Ok(())
    }

    /// A row has failed too often. `passed` is the newest record of it that was read.
    pub(crate) fn park(&mut self, row: ParkedRow, passed: Position) {
        tracing::error!(
            group = self.group,
            partition = row.partition,
            row = row.row_key,
            reason = row.reason,
            "a row is parked: its records wait, all other rows go on (`cartctl parked rows`)"
        );
        tracing::debug!(vendor_id = %row.vendor_id, "the vendor of the row that is parked");
        let lot = self.partitions.entry(row.partition).or_default();
        lot.rows.insert(RowId::of(&row), Waiting::new(row, passed, true));
        self.count();
    }

    /// The loop has applied or passed over everything before these offsets.
    pub(crate) fn advance(&mut self, next_offsets: impl IntoIterator<Item = (i32, i64)>) {
        for (partition, next_offset) in next_offsets {
            if let Some(lot) = self.partitions.get_mut(&partition) {
                lot.next_offset = Some(next_offset);
            }
        }
    }

    /// The offset up to which the loop has come in a partition, if it has read anything since it was assigned.
    pub(crate) fn next_offset(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.next_offset
    }

    /// An operator wants a row to be tried again. `at` tells one request from another.
    pub(crate) fn request(&mut self, id: &RowId, by: &str, at: i64) {
        for waiting in self.partitions.values_mut().filter_map(|lot| lot.rows.get_mut(id)) {
            (waiting.row.retry_by, waiting.requested_at) = (Some(by.to_owned()), at);
        }
    }

    /// The partition of a row to try now, if one is wanted and none is in progress. Nothing is tried in partitions that are held. The rows
    /// behind the one that was abandoned last come before it.
    pub(crate) fn next_try(&self, is_held: impl Fn(i32) -> bool) -> Option<(i32, RowId)> {
        if self.in_progress.is_some() {
            return None;
        }
        let running = self.partitions.iter().filter(|(partition, _)| !is_held(**partition));
        let rows = running.flat_map(|(partition, lot)| lot.rows.iter().map(move |(id, one)| (*partition, id, one)));
        let wanted = rows.filter(|(_, _, one)| one.row.retry_by.is_some());
        let abandoned = self.abandoned.as_ref().map(|(partition, id)| (*partition, id));
        let next = wanted.map(|(partition, id, _)| (partition, id)).min_by_key(|row| (abandoned >= Some(*row), *row));
        next.map(|(partition, id)| (partition, id.clone()))
    }

    /// Begins to try a row. `until` is the offset up to which the loop has come. After a crash records behind it may have been passed over
    /// before: they are read too, so that the marker does not end with an older record than it holds.
    pub(crate) fn begin(&mut self, partition: i32, id: RowId, until: i64) -> Option<Job> {
        let waiting = self.waiting(partition, &id)?;
        (waiting.arrived, waiting.is_cut) = (Vec::new(), false);
        let (from, until) = (waiting.row.next_position.offset(), until.max(waiting.passed.offset() + 1));
        let requested_at = waiting.requested_at;
        self.in_progress = Some((partition, id.clone()));
        Some(Job { partition, id, from, until, requested_at })
    }

    /// A try could not be made: it begins again, after those of other rows.
    pub(crate) fn abandon(&mut self, job: &Job) {
        let row = (job.partition, job.id.clone());
        self.in_progress.take_if(|in_progress| *in_progress == row);
        self.abandoned = Some(row);
    }

    /// The log of an abandoned try could not be read: the marker says why, and is to be written if it did not say so yet. Returns it then.
    pub(crate) fn note(&mut self, job: &Job, error: &str) -> Option<ParkedRow> {
        let waiting = self.waiting(job.partition, &job.id)?;
        let reason = waiting.row.reason_not_tried(error);
        if reason == waiting.row.reason {
            return None;
        }
        waiting.change_reason(reason);
        Some(waiting.row.clone())
    }

    /// What is to be added to the row of a job. `None` if the row is not this instance's any more, or was read again since.
    pub(crate) fn waited(&mut self, job: &Job, read: Read) -> Option<Waited> {
        self.in_progress.take_if(|(partition, id)| (*partition, &*id) == (job.partition, &job.id))?;
        let epoch = self.epoch;
        let waiting = self.waiting(job.partition, &job.id)?;
        let Read { mut records, read_to } = read;
        let arrived = std::mem::take(&mut waiting.arrived);
        let is_all = read_to >= job.until && !waiting.is_cut;
        if is_all {
            // Those before it that come again were read.
            records.extend(arrived.into_iter().filter(|record| record.offset >= read_to));
        }
        let (row, passed, requested_at) = (waiting.row.clone(), waiting.passed, job.requested_at);
        Some(Waited { row, passed, records, next_position: Position::new(epoch, read_to), is_all, requested_at })
    }

    /// The row includes everything before this position, and there is more. The marker is to be written.
    pub(crate) fn progressed(&mut self, row: &ParkedRow, next_position: Position) {
        if let Some(waiting) = self.waiting(row.partition, &RowId::of(row)) {
            waiting.row.next_position = next_position.max(waiting.row.next_position);
            waiting.has_changed = true;
        }
    }

    /// The row fails again, at the record at this position. The marker is to be written. A request that came later than the one of the try
    /// stays.
    pub(crate) fn failed(&mut self, row: &ParkedRow, position: Position, fault: &RowFault, requested_at: i64) {
        let reason = fault.reason();
        let (partition, row_key) = (row.partition, &row.row_key);
        tracing::warn!(group = self.group, partition, row = row_key, reason, "a parked row fails again");
        if let Some(waiting) = self.waiting(row.partition, &RowId::of(row)) {
            waiting.row.next_position = position.max(waiting.row.next_position);
            waiting.change_reason(reason);
            if waiting.requested_at <= requested_at {
                waiting.row.retry_by = None;
            }
        }
    }

    /// The row has all of its records.
    pub(crate) fn end(&mut self, row: &ParkedRow) {
        if let Some(lot) = self.partitions.get_mut(&row.partition) {
            lot.rows.remove(&RowId::of(row));
        }
        let (partition, row_key) = (row.partition, &row.row_key);
        tracing::info!(group = self.group, partition, row = row_key, "a row that was parked is live again");
        self.count();
    }
}
