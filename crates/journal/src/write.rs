//! Appending.

use std::time::UNIX_EPOCH;

use cart::{Aggregate, CartId, Position};
use scylla::errors::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};
use uuid::Uuid;

use crate::{Entry, Error, Journal};

/// The values of one statement of a batch, in the order of its markers.
enum Values<'a> {
    Event((Uuid, i64, i64, Uuid, &'a [u8], i64)),
    Snapshot((Uuid, Vec<u8>, i64)),
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
    /// Writes what happened to one cart, and its state after that if it is time for a snapshot: all or nothing.
    ///
    /// # Errors
    /// When Cassandra is away; the write may have happened.
    pub async fn append(&self, cart_id: CartId, entries: &[Entry], snapshot: Option<&Aggregate>) -> Result<(), Error> {
        let operation = || format!("journalling {} events of cart {cart_id}", entries.len());
        let mut rows: Vec<_> = entries.iter().map(|entry| event_values(cart_id, entry)).collect();
        if let Some(state) = snapshot {
            let bytes = self.snapshots.encode(state).map_err(|error| Error::new(operation(), error))?;
            rows.push(Values::Snapshot((cart_id.as_uuid(), bytes, timestamp(state.position()))));
        }
        if let [row @ Values::Event(_)] = rows.as_slice() {
            let result = self.session.execute_unpaged(&self.statements.insert, row).await;
            return result.map(|_| ()).map_err(|error| Error::new(operation(), error));
        }
        // One partition: Cassandra applies such a batch as one mutation, so it needs no batch log.
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
