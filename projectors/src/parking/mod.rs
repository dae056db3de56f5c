//! Parked rows: rows of a read table that lack the records which they cannot take, while all other rows go on.
//!
//! ```text
//! row fails alone ─▶ tried again, alone ─ three failures ─▶ parked ─ `cartctl parked rows retry` ─▶ retrying
//!                      │                                      ▲                                      │  │
//!                      └─ it succeeds: nothing has happened   └──────────── it fails again ──────────┘  └▶ live
//! ```
//!
//! Nothing is copied: `item-purchased` is kept and ordered, so it is enough to remember the first record that is not in the row. These
//! hold whichever process ends at whatever point:
//!
//! - A marker is kept before the offsets are committed that are past a record which it holds: in Cassandra it is written before, in
//!   PostgreSQL it is in the transaction with the offsets.
//! - A record of a parked row is passed over by the loop, and added by a retry: from the marker's `next_position` on, in the order of the
//!   log.
//! - A marker ends when the row has every record that was passed over. In PostgreSQL that is one transaction, which changes the marker only
//!   if it still waits from the position that the try began with: a try moves no offset, so their guard alone lets one that comes late, or
//!   whose answer was lost, add its sums twice. For the same reason a batch that passes records over sees, behind that guard, that the marker
//!   still waits from there. In Cassandra the row is written first; a record that it includes is never added again.
//! - After any failure, and with each new partition, markers are read from the store again.
//! - A row is parked only if another one is kept at the same time: a batch's other rows, or one that is tried for that. So while a store
//!   does not serve any row, none is parked.
//!
//! `item-purchased-events` has no rows. What it cannot keep is a record that it cannot read, at which its partition stops.
//!
//! [`lots`] has what is pure, [`reading`] reads the log beside the loop.

mod lots;
mod reading;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::bail;
use cart::{LogEpoch, ParkedRow};

pub(crate) use lots::{Lots, RowId, Waited};
#[cfg(test)]
pub(crate) use lots::{PARKED_MAX, Passed, Read};
pub(crate) use reading::{LogReader, Retries};

/// Times that a row fails alone before it is parked. A server's short fault is over by then.
pub(crate) const TRIES: u32 = 3;

/// Between two of these. The other rows of the partitions wait for that, once a row that is parked.
pub(crate) const TRY_PAUSE: Duration = Duration::from_millis(500);

/// The fail point of a projector whose rows of the named vendors take no record any more.
pub(crate) const OVERFLOWS: &str = "row-overflows";

/// Refuses to start where a row is parked at a position of an earlier log that had other partitions: its vendor's records come from another
/// partition by now, so none that could be stopped is the right one. Others are stopped when they are assigned ([`Lots::restore`]).
pub(crate) fn ensure_same_partitions(rows: &[ParkedRow], epoch: LogEpoch, partitions: i32) -> anyhow::Result<()> {
    let has_moved = |row: &&ParkedRow| {
        let now = kafka::partition_of(row.vendor_id.to_string().as_bytes(), partitions);
        row.next_position.epoch() != Some(epoch) && now != row.partition
    };
    if let Some(ParkedRow { partition, row_key, .. }) = rows.iter().find(has_moved) {
        bail!(
            "row {row_key} of partition {partition} is parked at a position of an earlier log, which had other partitions. Build the read \
             model anew (`cartctl rebuild`)"
        );
    }
    Ok(())
}
