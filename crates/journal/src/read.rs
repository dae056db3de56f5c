//! Loading a cart, and reading its history.

use std::collections::HashMap;

use cart::{Aggregate, CartEvent, CartId, Position, RememberedCommand, SequenceNumber};
use futures::{Stream, TryStreamExt as _, try_join};
use kafka::{Codec, DecodeError};
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::{Entry, Error, Journal};

/// Carts that are loaded in one round trip: their newest rows and snapshots are some hundred kilobytes then.
pub const LOAD_LEN_MAX: usize = 24;

/// The number of the last event, the command's position and id, its events.
type Row = (i64, i64, Uuid, Vec<Vec<u8>>);

/// What a row holds, newest first.
fn entries_of((last, position, command_id, events): Row) -> impl Iterator<Item = Entry> {
    events.into_iter().rev().zip(0..).map(move |(bytes, age)| Entry {
        sequence_number: (last - age).into(),
        position: position.into(),
        command_id: command_id.into(),
        bytes,
    })
}

impl Journal {
    /// A cart as it is now. One round trip, whatever its age: the snapshot and the newest rows are asked for together.
    ///
    /// # Errors
    /// When Cassandra is away, or holds what can't be read.
    pub async fn load(&self, cart_id: CartId) -> Result<Aggregate, Error> {
        // Not one query: a static column would come once a row.
        let (snapshot, newest) = try_join!(self.snapshot(cart_id), self.newest(cart_id))?;
        self.assemble(cart_id, snapshot, newest).await
    }

    /// Carts as they are now, in no order: at most [`LOAD_LEN_MAX`] at a time. One round trip for all that are new, another for
    /// the snapshots of those that are not.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn load_all(&self, cart_ids: &[CartId]) -> Result<Vec<Aggregate>, Error> {
        if let [cart_id] = cart_ids {
            return Ok(vec![self.load(*cart_id).await?]);
        }
        let mut newest = self.newest_of(cart_ids).await?;
        // Most carts that are not in memory are new. One that has no rows has no snapshot: they are written together.
        let old: Vec<CartId> = newest.keys().copied().collect();
        let mut snapshots = if old.is_empty() { HashMap::new() } else { self.snapshots(&old).await? };
        let mut carts = Vec::with_capacity(cart_ids.len());
        for cart_id in cart_ids {
            let newest = newest.remove(cart_id).unwrap_or_default();
            carts.push(self.assemble(*cart_id, snapshots.remove(cart_id), newest).await?);
        }
        Ok(carts)
    }

    /// A cart from its snapshot and its newest rows, newest first.
    async fn assemble(
        &self,
        cart_id: CartId,
        snapshot: Option<Aggregate>,
        newest: Vec<Entry>,
    ) -> Result<Aggregate, Error> {
        let mut cart = snapshot.unwrap_or_else(|| Aggregate::new(cart_id));
        let known = cart.sequence_number();
        let oldest = newest.last().map_or(known, |entry| entry.sequence_number);
        if oldest > known.next() {
            // The rows do not join the snapshot (it could not be read, or its writer died): read all that follow it.
            for entry in self.after(cart_id, known).await? {
                cart.apply(&self.event(&entry).await?);
            }
            return Ok(cart);
        }
        for entry in newest.iter().rev().filter(|entry| entry.sequence_number > known) {
            cart.apply(&self.event(entry).await?);
        }
        Ok(cart)
    }

    /// A cart as it was before the command at `position`.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn load_before(&self, cart_id: CartId, position: Position) -> Result<Aggregate, Error> {
        let snapshot = self.snapshot(cart_id).await?.filter(|cart| cart.position() < position);
        let mut cart = snapshot.unwrap_or_else(|| Aggregate::new(cart_id));
        for entry in self.after(cart_id, cart.sequence_number()).await? {
            if entry.position < position {
                cart.apply(&self.event(&entry).await?);
            }
        }
        Ok(cart)
    }

    /// What a cart's commands from `position` on made, oldest first.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn since(&self, cart_id: CartId, position: Position) -> Result<Vec<Entry>, Error> {
        // Newest first, since that is what is asked for; stops at the first that is older.
        let newest = self.newest(cart_id).await?;
        let mut entries = if newest.last().is_some_and(|oldest| oldest.position >= position) {
            self.all(cart_id).await?
        } else {
            newest.into_iter().rev().collect()
        };
        entries.retain(|entry| entry.position >= position);
        Ok(entries)
    }

    /// What comes after an event of a cart's journal, oldest first: at most `len_max` entries, however many there are.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn page(&self, cart_id: CartId, after: SequenceNumber, len_max: i32) -> Result<Vec<Entry>, Error> {
        const OPERATION: &str = "reading a cart's journal";
        // Each row has at least one that is later.
        let values = (cart_id.as_uuid(), after.get(), len_max);
        let pager = self.session.execute_iter(self.statements.after.clone(), values).await;
        let mut rows = pager
            .map_err(|error| Error::new(OPERATION, error))?
            .rows_stream::<Row>()
            .map_err(|error| Error::new(OPERATION, error))?;
        let len_max = usize::try_from(len_max).unwrap_or_default();
        let mut entries = Vec::new();
        while entries.len() < len_max
            && let Some(row) = rows.try_next().await.map_err(|error| Error::new(OPERATION, error))?
        {
            let known = entries.len();
            entries.extend(entries_of(row).take_while(|entry| entry.sequence_number > after));
            entries[known..].reverse();
        }
        entries.truncate(len_max);
        Ok(entries)
    }

    /// All that has happened to a cart after an event, oldest first.
    async fn after(&self, cart_id: CartId, after: SequenceNumber) -> Result<Vec<Entry>, Error> {
        self.page(cart_id, after, i32::MAX).await
    }

    /// All that has happened to a cart, oldest first.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn all(&self, cart_id: CartId) -> Result<Vec<Entry>, Error> {
        self.after(cart_id, SequenceNumber::ZERO).await
    }

    /// All carts that have a journal, in no order.
    ///
    /// # Errors
    /// As [`Journal::load`]; also in the middle.
    pub async fn cart_ids(&self) -> Result<impl Stream<Item = Result<CartId, Error>> + use<>, Error> {
        const OPERATION: &str = "listing the carts of the journal";
        let pager = self.session.query_iter("SELECT DISTINCT cart_id FROM cart_journal", ()).await;
        let pager = pager.map_err(|error| Error::new(OPERATION, error))?;
        let rows = pager.rows_stream::<(Uuid,)>().map_err(|error| Error::new(OPERATION, error))?;
        Ok(rows.map_ok(|(cart_id,)| cart_id.into()).map_err(|error| Error::new(OPERATION, error)))
    }

    /// The events that an accepted command made.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn events_of(&self, cart_id: CartId, command: &RememberedCommand) -> Result<Vec<CartEvent>, Error> {
        let last = command.first_sequence_number.get() + i64::from(command.event_count) - 1;
        let operation = || format!("reading event {last} of cart {cart_id}");
        let rows = self.rows::<Row>(&self.statements.row, (cart_id.as_uuid(), last), &operation).await?;
        let entries: Vec<Entry> = rows.into_iter().flat_map(entries_of).collect();
        let mut events = Vec::with_capacity(entries.len());
        for entry in entries.iter().rev() {
            events.push(self.event(entry).await?);
        }
        Ok(events)
    }

    /// The event of an entry.
    ///
    /// # Errors
    /// When it can't be read: the registry is away, or the event is newer than this program.
    pub async fn event(&self, entry: &Entry) -> Result<CartEvent, Error> {
        let failed = |error| Error::new(format!("reading event {} of a journal", entry.sequence_number), error);
        decode(&self.codecs.events, &entry.bytes).await.map_err(failed)
    }

    async fn snapshot(&self, cart_id: CartId) -> Result<Option<Aggregate>, Error> {
        let operation = || format!("reading the snapshot of cart {cart_id}");
        let row = self
            .session
            .execute_unpaged(&self.statements.snapshot, (cart_id.as_uuid(),))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?
            .maybe_first_row::<(Option<Vec<u8>>,)>()
            .map_err(|error| Error::new(operation(), error))?;
        let Some((Some(bytes),)) = row else { return Ok(None) };
        Ok(self.decode_snapshot(cart_id, &bytes).await)
    }

    async fn snapshots(&self, cart_ids: &[CartId]) -> Result<HashMap<CartId, Aggregate>, Error> {
        let rows = self.rows_of::<(Uuid, Option<Vec<u8>>)>(&self.statements.snapshots, cart_ids).await?;
        let mut snapshots = HashMap::with_capacity(rows.len());
        for (cart_id, bytes) in rows {
            let cart_id = CartId::from(cart_id);
            if let Some(bytes) = bytes
                && let Some(cart) = self.decode_snapshot(cart_id, &bytes).await
            {
                snapshots.insert(cart_id, cart);
            }
        }
        Ok(snapshots)
    }

    async fn decode_snapshot(&self, cart_id: CartId, bytes: &[u8]) -> Option<Aggregate> {
        let decoded = decode(&self.codecs.snapshots, bytes).await;
        // It only saves reading; the rows say the same.
        decoded
            .inspect_err(|error| {
                tracing::warn!(%cart_id, error, "a snapshot can't be read, reading the whole journal instead");
            })
            .ok()
    }

    async fn newest_of(&self, cart_ids: &[CartId]) -> Result<HashMap<CartId, Vec<Entry>>, Error> {
        type RowOf = (Uuid, i64, i64, Uuid, Vec<Vec<u8>>);
        let mut carts: HashMap<CartId, Vec<Entry>> = HashMap::with_capacity(cart_ids.len());
        for (cart_id, last, position, command_id, events) in
            self.rows_of::<RowOf>(&self.statements.newest_of, cart_ids).await?
        {
            carts.entry(cart_id.into()).or_default().extend(entries_of((last, position, command_id, events)));
        }
        Ok(carts)
    }

    async fn newest(&self, cart_id: CartId) -> Result<Vec<Entry>, Error> {
        let operation = || format!("reading the newest events of cart {cart_id}");
        let rows = self.rows::<Row>(&self.statements.newest, (cart_id.as_uuid(),), &operation).await?;
        Ok(rows.into_iter().flat_map(entries_of).collect())
    }

    async fn rows_of<R>(&self, statement: &PreparedStatement, cart_ids: &[CartId]) -> Result<Vec<R>, Error>
    where
        R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let ids: Vec<Uuid> = cart_ids.iter().map(|cart_id| cart_id.as_uuid()).collect();
        self.rows(statement, (ids,), &|| format!("reading {} carts", cart_ids.len())).await
    }

    async fn rows<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        operation: &(dyn Fn() -> String + Sync),
    ) -> Result<Vec<R>, Error>
    where
        R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let result = self
            .session
            .execute_unpaged(statement, values)
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<R>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| row.map_err(|error| Error::new(operation(), error))).collect()
    }
}

/// Decodes, after fetching the schema if it is not known yet. The error is text: it ends in an [`Error`].
async fn decode<T>(codec: &Codec<T>, bytes: &[u8]) -> Result<T, String>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    match codec.decode(bytes) {
        Err(DecodeError::NotLearnt { id }) => {
            codec.learn(id).await.map_err(|error| error.to_string())?;
            codec.decode(bytes).map_err(|error| error.to_string())
        }
        result => result.map_err(|error| error.to_string()),
    }
}
