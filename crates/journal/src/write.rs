//! Appending.

use std::time::UNIX_EPOCH;

use cart::{CartId, Position};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scylla::errors::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::MaybeUnset;
use uuid::Uuid;

use crate::{Content, Error, Journal, Row, Snapshot, TABLE};

/// Requests to Cassandra in flight for one call: what it answers fastest (16 in flight 4,300 rows/s, 128: 7,900).
const CONCURRENCY: usize = 128;

/// What became of one cart's commands, and its state after that if it is time for a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// Whose journal.
    pub cart_id: CartId,
    /// What was decided, oldest first.
    pub rows: &'a [Row],
    /// Its state after that.
    pub snapshot: Option<&'a Snapshot>,
}

/// What a row takes beside its events and outcome, at most.
const ROW_LEN: usize = 80;

/// What of an append is one mutation.
struct Part<'a> {
    cart_id: CartId,
    rows: Vec<&'a Row>,
    snapshot: Option<&'a Snapshot>,
}

impl Part<'_> {
    fn len(&self) -> usize {
        let len = |row: &&Row| {
            let events: usize = row.events().iter().map(Vec::len).sum();
            ROW_LEN + events + row.outcome.as_ref().map_or(0, String::len)
        };
        let rows: usize = self.rows.iter().map(len).sum();
        rows + self.snapshot.map_or(0, |snapshot| snapshot.bytes.len())
    }
}

/// What is written first, and what when that is durable: of each cart its rows in `cart_unchanged`, then those with events and
/// the snapshot, each one mutation. So where an event is, all rejected requests before it are. A rejected request may be there
/// without the events before it: its row says which they are, and it is passed over until they are there.
fn rounds<'a>(appends: impl IntoIterator<Item = Append<'a>>) -> [Vec<Part<'a>>; 2] {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for Append { cart_id, rows, snapshot } in appends {
        let is_unchanged = |row: &&Row| matches!(row.content, Content::Unchanged { .. });
        let (unchanged, events): (Vec<_>, Vec<_>) = rows.iter().partition(is_unchanged);
        if !unchanged.is_empty() {
            first.push(Part { cart_id, rows: unchanged, snapshot: None });
        }
        if !events.is_empty() || snapshot.is_some() {
            second.push(Part { cart_id, rows: events, snapshot });
        }
    }
    [first, second]
}

/// What is not set leaves no tombstone, as a null would.
type Text<'a> = MaybeUnset<&'a str>;

/// Cart, sequence number, position, command, events, keyed, outcome, timestamp.
type RowValues<'a> = (Uuid, i64, i64, Uuid, &'a [Vec<u8>], MaybeUnset<bool>, Text<'a>, i64);

/// The values of one statement of a batch, in the order of its markers.
enum Values<'a> {
    Row(RowValues<'a>),
    Unchanged((Uuid, i64, i64, Uuid, i64, i64, Text<'a>, i64)),
    Snapshot((Uuid, &'a [u8], i64)),
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Row(values) => values.serialize(ctx, writer),
            Self::Unchanged(values) => values.serialize(ctx, writer),
            Self::Snapshot(values) => values.serialize(ctx, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Journal {
    /// Writes what became of some carts' commands: many carts in a request, and the requests at the same time.
    ///
    /// # Errors
    /// If Cassandra does not respond. Of each cart any first part may have been written, each request wholly or not at all.
    pub async fn append(&self, appends: impl IntoIterator<Item = Append<'_>>) -> Result<(), Error> {
        for round in rounds(appends).into_iter().filter(|round| !round.is_empty()) {
            let groups = cassandra::groups(&self.session, TABLE, round, |part| ((part.cart_id.as_uuid(),), part.len()));
            stream::iter(groups)
                .map(|group| self.write(group))
                .buffer_unordered(CONCURRENCY)
                .try_collect::<()>()
                .await?;
            fail_points::crash_point("journal-after-round");
        }
        Ok(())
    }

    /// One request.
    async fn write(&self, group: Vec<Part<'_>>) -> Result<(), Error> {
        let operation = || match group.as_slice() {
            [one] => format!("journalling {} requests of a cart", one.rows.len()),
            several => format!("journalling the requests of {} carts", several.len()),
        };
        let rows: Vec<_> = group.iter().flat_map(values).collect();
        let statement = |row: &Values<'_>| match row {
            Values::Row(_) => &self.statements.insert,
            Values::Unchanged(_) => &self.statements.insert_unchanged,
            Values::Snapshot(_) => &self.statements.insert_snapshot,
        };
        match rows.as_slice() {
            [] => return Ok(()),
            [row] => {
                let result = self.session.execute_unpaged(statement(row), row).await;
                return result.map(|_| ()).map_err(|error| Error::new(operation(), error));
            }
            _ => {}
        }
        // Cassandra applies what a batch has of one partition as one mutation, so it needs no batch log.
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        for row in &rows {
            batch.append_statement(statement(row).clone());
        }
        let result = self.session.batch(&batch, rows).await;
        result.map(|_| ()).map_err(|error| Error::new(operation(), error))
    }
}

fn values<'a>(part: &Part<'a>) -> impl Iterator<Item = Values<'a>> + use<'a> {
    let (cart_id, snapshot) = (part.cart_id.as_uuid(), part.snapshot);
    let row = move |row: &'a Row| {
        let (number, position) = (row.sequence_number.get(), row.position.get());
        let (command_id, at) = (row.command_id.as_uuid(), timestamp(row.position));
        let outcome = row.outcome.as_deref().map_or(MaybeUnset::Unset, MaybeUnset::Set);
        match &row.content {
            Content::Events(events) => {
                let keyed = row.keyed.map_or(MaybeUnset::Unset, MaybeUnset::Set);
                Values::Row((cart_id, number, position, command_id, events, keyed, outcome, at))
            }
            Content::Unchanged { digest, issued_at } => {
                let issued_at = issued_at.timestamp_micros();
                Values::Unchanged((cart_id, position, number, command_id, *digest, issued_at, outcome, at))
            }
        }
    };
    let snapshot = snapshot.map(|Snapshot { position, bytes }| (cart_id, bytes.as_slice(), timestamp(*position)));
    part.rows.clone().into_iter().map(row).chain(snapshot.map(Values::Snapshot))
}

/// The write timestamp: the position, so that what is written late is the same again or loses. Wall-clock time only in tests
/// that show what it is like without.
fn timestamp(position: Position) -> i64 {
    if fail_points::is_off("guard-journal-timestamps") {
        let now = fail_points::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    }
    position.get()
}

#[cfg(test)]
mod tests {
    use cart::Position;
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn row(position: i64, is_unchanged: bool) -> Row {
        let content = if is_unchanged {
            Content::Unchanged { digest: 0, issued_at: DateTime::UNIX_EPOCH }
        } else {
            Content::Events(vec![vec![0]])
        };
        let (sequence_number, position) = (position.into(), Position::from(position));
        Row { sequence_number, position, command_id: Uuid::nil().into(), keyed: None, outcome: None, content }
    }

    /// By round: of each part its rows' positions, and whether it has the snapshot.
    fn rounds_of(carts: &[(Vec<Row>, bool)]) -> [Vec<(Vec<i64>, bool)>; 2] {
        let snapshot = Snapshot { position: Position::NONE, bytes: Vec::new() };
        let appends = carts.iter().map(|(rows, has_snapshot)| Append {
            cart_id: Uuid::nil().into(),
            rows,
            snapshot: has_snapshot.then_some(&snapshot),
        });
        let part =
            |part: &Part<'_>| (part.rows.iter().map(|row| row.position.get()).collect(), part.snapshot.is_some());
        rounds(appends).map(|round| round.iter().map(part).collect())
    }

    #[test]
    fn rejected_requests_are_written_before_events_and_snapshots() {
        let one = (vec![row(1, false), row(2, false)], true);
        let mixed = (vec![row(1, false), row(2, true), row(3, true), row(4, false)], false);
        let rejected = (vec![row(5, true)], true);
        assert_eq!(
            rounds_of(&[one, mixed, rejected, (vec![], false)]),
            [
                vec![(vec![2, 3], false), (vec![5], false)],
                vec![(vec![1, 2], true), (vec![1, 4], false), (vec![], true)],
            ]
        );
    }
}
