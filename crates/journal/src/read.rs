//! Loading a cart, and reading its history.

use std::collections::HashMap;

use cart::{Aggregate, CartEvent, CartId, Position, RememberedCommand, SequenceNumber};
use futures::{Stream, TryStreamExt as _, try_join};
use kafka::{Codec, DecodeError};
use scylla::deserialize::row::DeserializeRow;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::{Entry, Error, Journal};

/// Carts that are loaded in one round trip: their newest rows and snapshots are some hundred kilobytes then.
pub const LOAD_LEN_MAX: usize = 24;

type Row = (i64, i64, Uuid, Vec<u8>);

impl From<Row> for Entry {
    fn from((sequence_number, position, command_id, bytes): Row) -> Self {
        Self {
            sequence_number: sequence_number.into(),
            position: position.into(),
            command_id: command_id.into(),
            bytes,
        }
    }
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
            for entry in self.entries(&self.statements.after, (cart_id.as_uuid(), known.get())).await? {
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
        let after = (cart_id.as_uuid(), cart.sequence_number().get());
        for entry in self.entries(&self.statements.after, after).await? {
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
            self.entries(&self.statements.after, (cart_id.as_uuid(), 0_i64)).await?
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
        self.entries(&self.statements.page, (cart_id.as_uuid(), after.get(), len_max)).await
    }

    /// All that has happened to a cart, oldest first.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn all(&self, cart_id: CartId) -> Result<Vec<Entry>, Error> {
        self.entries(&self.statements.after, (cart_id.as_uuid(), 0_i64)).await
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
        let first = command.first_sequence_number.get();
        let range = (cart_id.as_uuid(), first, first + i64::from(command.event_count));
        let entries = self.entries(&self.statements.range, range).await?;
        let mut events = Vec::with_capacity(entries.len());
        for entry in &entries {
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
        let mut carts: HashMap<CartId, Vec<Entry>> = HashMap::with_capacity(cart_ids.len());
        for (cart_id, sequence_number, position, command_id, bytes) in
            self.rows_of::<(Uuid, i64, i64, Uuid, Vec<u8>)>(&self.statements.newest_of, cart_ids).await?
        {
            carts.entry(cart_id.into()).or_default().push((sequence_number, position, command_id, bytes).into());
        }
        Ok(carts)
    }

    async fn rows_of<R>(&self, statement: &PreparedStatement, cart_ids: &[CartId]) -> Result<Vec<R>, Error>
    where
        R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let operation = || format!("reading {} carts", cart_ids.len());
        let ids: Vec<Uuid> = cart_ids.iter().map(|cart_id| cart_id.as_uuid()).collect();
        let result = self
            .session
            .execute_unpaged(statement, (ids,))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<R>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| row.map_err(|error| Error::new(operation(), error))).collect()
    }

    async fn newest(&self, cart_id: CartId) -> Result<Vec<Entry>, Error> {
        let operation = || format!("reading the newest events of cart {cart_id}");
        let result = self
            .session
            .execute_unpaged(&self.statements.newest, (cart_id.as_uuid(),))
            .await
            .map_err(|error| Error::new(operation(), error))?
            .into_rows_result()
            .map_err(|error| Error::new(operation(), error))?;
        let rows = result.rows::<Row>().map_err(|error| Error::new(operation(), error))?;
        rows.map(|row| row.map(Entry::from).map_err(|error| Error::new(operation(), error))).collect()
    }

    async fn entries(
        &self,
        statement: &PreparedStatement,
        values: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Vec<Entry>, Error> {
        const OPERATION: &str = "reading a cart's journal";
        let pager = self.session.execute_iter(statement.clone(), values).await;
        let rows = pager
            .map_err(|error| Error::new(OPERATION, error))?
            .rows_stream::<Row>()
            .map_err(|error| Error::new(OPERATION, error))?;
        rows.map_ok(Entry::from).try_collect().await.map_err(|error| Error::new(OPERATION, error))
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
