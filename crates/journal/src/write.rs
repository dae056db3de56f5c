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
    /// What happened, oldest first.
    pub entries: &'a [Entry],
    /// Its state after that.
    pub snapshot: Option<&'a Snapshot>,
}

/// A row beside the bytes of its event.
const ROW_LEN: usize = 80;

impl Append<'_> {
    fn len(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| ROW_LEN + entry.bytes.len()).sum();
        entries + self.snapshot.map_or(0, |snapshot| snapshot.bytes.len())
    }
}

/// The values of one statement of a batch, in the order of its markers.
enum Values<'a> {
    Event((Uuid, i64, i64, Uuid, &'a [u8], i64)),
    Snapshot((Uuid, &'a [u8], i64)),
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Event(values) => values.serialize(ctx, writer),
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
            [row @ Values::Event(_)] => {
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
                Values::Event(_) => self.statements.insert.clone(),
                Values::Snapshot(_) => self.statements.insert_snapshot.clone(),
            });
        }
        let result = self.session.batch(&batch, rows).await;
        result.map(|_| ()).map_err(|error| Error::new(operation(), error))
    }
}

fn values<'a>(append: &Append<'a>) -> impl Iterator<Item = Values<'a>> + use<'a> {
    let Append { cart_id, entries, snapshot } = *append;
    let events = entries.iter().map(move |entry| event_values(cart_id, entry));
    let snapshot =
        snapshot.map(|Snapshot { position, bytes }| (cart_id.as_uuid(), bytes.as_slice(), timestamp(*position)));
    events.chain(snapshot.map(Values::Snapshot))
}

fn event_values(cart_id: CartId, entry: &Entry) -> Values<'_> {
    let position = entry.position.get();
    let command_id = entry.command_id.as_uuid();
    let timestamp = timestamp(entry.position);
    Values::Event((cart_id.as_uuid(), entry.sequence_number.get(), position, command_id, &entry.bytes, timestamp))
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
