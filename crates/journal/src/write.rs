//! Appending.

use std::time::UNIX_EPOCH;

use cart::{CartId, Position};
use scylla::errors::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};
use uuid::Uuid;

use crate::{Entry, Error, Journal, Snapshot, TABLE};

/// What happened to one cart, and its state after that if it is time for a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// Whose journal.
    pub cart_id: CartId,
    /// What happened, oldest first; of each command all of it.
    pub entries: &'a [Entry],
    /// Its state after that.
    pub snapshot: Option<&'a Snapshot>,
}

/// What an event takes beside its bytes, at most: a row.
const ROW_LEN: usize = 80;

impl Append<'_> {
    fn len(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| ROW_LEN + entry.bytes.len()).sum();
        entries + self.snapshot.map_or(0, |snapshot| snapshot.bytes.len())
    }
}

/// The values of one statement of a batch, in the order of its markers.
enum Values<'a> {
    Command((Uuid, i64, i64, Uuid, Vec<&'a [u8]>, i64)),
    Snapshot((Uuid, &'a [u8], i64)),
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Command(values) => values.serialize(ctx, writer),
            Self::Snapshot(values) => values.serialize(ctx, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Journal {
    /// Puts appends to different carts together into what [`Journal::append`] writes in one request.
    pub fn groups<T>(&self, works: impl IntoIterator<Item = T>, append: impl Fn(&T) -> Append<'_>) -> Vec<Vec<T>> {
        cassandra::groups(&self.session, TABLE, works, |work| {
            let append = append(work);
            ((append.cart_id.as_uuid(),), append.len())
        })
    }

    /// Writes what happened to some carts: for each of them all or nothing. One request, however many they are.
    ///
    /// # Errors
    /// When Cassandra is away; any of it may have been written.
    pub async fn append(&self, appends: &[Append<'_>]) -> Result<(), Error> {
        let operation = || match appends {
            [one] => format!("journalling {} events of cart {}", one.entries.len(), one.cart_id),
            several => format!("journalling the events of {} carts", several.len()),
        };
        let rows: Vec<_> = appends.iter().flat_map(values).collect();
        match rows.as_slice() {
            [] => return Ok(()),
            [row @ Values::Command(_)] => {
                let result = self.session.execute_unpaged(&self.statements.insert, row).await;
                return result.map(|_| ()).map_err(|error| Error::new(operation(), error));
            }
            _ => {}
        }
        // Cassandra applies what a batch has of one partition as one mutation, so it needs no batch log.
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        for row in &rows {
            batch.append_statement(match row {
                Values::Command(_) => self.statements.insert.clone(),
                Values::Snapshot(_) => self.statements.insert_snapshot.clone(),
            });
        }
        let result = self.session.batch(&batch, rows).await;
        result.map(|_| ()).map_err(|error| Error::new(operation(), error))
    }
}

fn values<'a>(append: &Append<'a>) -> impl Iterator<Item = Values<'a>> + use<'a> {
    let Append { cart_id, entries, snapshot } = *append;
    let commands = entries.chunk_by(|one, next| one.position == next.position);
    let commands = commands.filter_map(move |entries| Some(command_values(cart_id, entries, entries.last()?)));
    let snapshot =
        snapshot.map(|Snapshot { position, bytes }| (cart_id.as_uuid(), bytes.as_slice(), timestamp(*position)));
    commands.chain(snapshot.map(Values::Snapshot))
}

fn command_values<'a>(cart_id: CartId, entries: &'a [Entry], last: &Entry) -> Values<'a> {
    let Entry { sequence_number, position, command_id, .. } = last;
    let events = entries.iter().map(|entry| entry.bytes.as_slice()).collect();
    let (cart_id, command_id) = (cart_id.as_uuid(), command_id.as_uuid());
    Values::Command((cart_id, sequence_number.get(), position.get(), command_id, events, timestamp(*position)))
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
