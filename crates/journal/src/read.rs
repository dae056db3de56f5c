//! Loading a cart, and reading its history.

use std::collections::HashMap;

use cart::{
    Aggregate, CartCommand, CartEvent, CartId, Decided, Decision, Outcome, Position, RememberedRequest, SequenceNumber,
};
use chrono::DateTime;
use futures::{Stream, TryStreamExt as _, try_join};
use kafka::{Codec, DecodeError};
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::{Content, Entry, Error, Journal, NEWEST_ROWS, Row, SNAPSHOT_EVERY};

/// Carts that are loaded in one round trip: their newest rows and snapshots are some hundred kilobytes then.
pub const LOAD_LEN_MAX: usize = 24;

/// A row of `cart_journal`: the number of the last event, the command's position and id, its events, whether it is keyed, its
/// outcome. A cart that only has a snapshot comes as a row of nothing.
type JournalRow = (Option<i64>, Option<i64>, Option<Uuid>, Option<Vec<Vec<u8>>>, Option<bool>, Option<String>);

/// The same, with the cart in front.
type JournalRowOf = (Uuid, Option<i64>, Option<i64>, Option<Uuid>, Option<Vec<Vec<u8>>>, Option<bool>, Option<String>);

/// A row of `cart_unchanged`: cart, position, sequence number, command, digest, time, outcome.
type UnchangedRow = (Uuid, i64, i64, Uuid, i64, i64, Option<String>);

fn of_journal((last, position, command_id, events, keyed, outcome): JournalRow) -> Option<Row> {
    Some(Row {
        sequence_number: last?.into(),
        position: position?.into(),
        command_id: command_id?.into(),
        keyed,
        outcome,
        content: Content::Events(events?),
    })
}

fn of_unchanged((cart_id, position, number, command_id, digest, issued_at, outcome): UnchangedRow) -> (CartId, Row) {
    let issued_at = DateTime::from_timestamp_micros(issued_at).unwrap_or_default();
    let row = Row {
        sequence_number: number.into(),
        position: position.into(),
        command_id: command_id.into(),
        keyed: Some(true),
        outcome,
        content: Content::Unchanged { digest, issued_at },
    };
    (cart_id.into(), row)
}

impl Journal {
    /// A cart as it is now, to be shown: without the requests that made no event. One round trip, whatever its age: the
    /// snapshot and the newest rows are asked for together.
    ///
    /// # Errors
    /// If Cassandra does not respond, or a row cannot be read.
    pub async fn show(&self, cart_id: CartId) -> Result<Aggregate, Error> {
        // Not one query: a static column would come once a row.
        let (snapshot, newest) = try_join!(self.snapshot(cart_id), self.newest(cart_id))?;
        self.assemble(cart_id, snapshot, newest, Vec::new()).await
    }

    /// Carts as they are now, in no order: at most [`LOAD_LEN_MAX`] at a time. One round trip for all that are new, another for
    /// the snapshots of those that are not.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn load(&self, cart_ids: &[CartId]) -> Result<Vec<Aggregate>, Error> {
        if let Some(cart_id) = cart_ids.iter().find(|cart_id| fail_points::names("load-fails", *cart_id)) {
            return Err(Error::undecodable(format!("reading cart {cart_id}"), "a test lets it fail"));
        }
        let (mut newest, mut unchanged) = try_join!(self.newest_of(cart_ids), self.unchanged_of(cart_ids))?;
        // Most carts that are not in memory are new. One that has no rows has no snapshot, which is written last.
        let old: Vec<CartId> =
            cart_ids.iter().copied().filter(|id| newest.contains_key(id) || unchanged.contains_key(id)).collect();
        let mut snapshots = HashMap::new();
        if !old.is_empty() {
            // Once more after the events: another process may be writing to the end, and where an event is, all requests before
            // it are.
            (snapshots, unchanged) = try_join!(self.snapshots(&old), self.unchanged_of(&old))?;
        }
        let mut carts = Vec::with_capacity(cart_ids.len());
        for cart_id in cart_ids {
            let snapshot: Option<Aggregate> =
                snapshots.remove(cart_id).filter(|cart: &Aggregate| !cart.lacks_requests());
            let newest = newest.remove(cart_id).unwrap_or_default();
            let mut unchanged = unchanged.remove(cart_id).unwrap_or_default();
            let known = snapshot.as_ref().map_or(Position::NONE, Aggregate::position);
            let is_cut = i64::try_from(unchanged.len()).is_ok_and(|len| len >= SNAPSHOT_EVERY);
            if is_cut && unchanged.last().is_some_and(|oldest| oldest.position > known) {
                unchanged = self.unchanged_between(*cart_id, known, Position::MAX).await?;
            }
            carts.push(self.assemble(*cart_id, snapshot, newest, unchanged).await?);
        }
        Ok(carts)
    }

    /// A cart from its snapshot, its newest rows, newest first, and its unchanged rows since the snapshot, in any order.
    async fn assemble(
        &self,
        cart_id: CartId,
        snapshot: Option<Aggregate>,
        newest: Vec<Row>,
        mut unchanged: Vec<Row>,
    ) -> Result<Aggregate, Error> {
        assert!(!fail_points::names("load-panics", &cart_id), "a test lets the rules panic on what the journal has");
        let mut cart = snapshot.unwrap_or_else(|| Aggregate::new(cart_id));
        let known = cart.sequence_number();
        let oldest = newest.last().map_or(known, Row::first_sequence_number);
        let version = newest.first().map_or(known, |row| row.sequence_number.max(known));
        let mut rows = newest;
        if oldest > known.next() {
            // The rows do not join the snapshot (there are more, or it could not be read): read all that follow it.
            rows = self.rows_after(cart_id, known, i32::MAX, Position::MAX).await?;
        }
        rows.retain(|row| known < row.sequence_number && row.sequence_number <= version);
        // Another process may be writing to the end. What it wrote after our first look is left out, so that nothing before it
        // can be missing: its commands are decided again, which gives the same.
        unchanged.retain(|row| row.position > cart.position() && row.sequence_number <= version);
        rows.append(&mut unchanged);
        self.apply(&mut cart, rows).await?;
        Ok(cart)
    }

    async fn apply(&self, cart: &mut Aggregate, mut rows: Vec<Row>) -> Result<(), Error> {
        rows.sort_unstable_by_key(|row| row.position);
        for row in &rows {
            cart.apply(&self.decided(cart.cart_id(), row).await?);
        }
        Ok(())
    }

    /// A cart as it was before the command at `position`.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn load_before(&self, cart_id: CartId, position: Position) -> Result<Aggregate, Error> {
        let snapshot = self.snapshot(cart_id).await?;
        let snapshot = snapshot.filter(|cart| cart.position() < position && !cart.lacks_requests());
        let mut cart = snapshot.unwrap_or_else(|| Aggregate::new(cart_id));
        let known = cart.position();
        let (mut rows, unchanged) = try_join!(
            self.rows_after(cart_id, cart.sequence_number(), i32::MAX, position),
            self.unchanged_between(cart_id, known, position)
        )?;
        rows.extend(unchanged);
        rows.retain(|row| known < row.position && row.position < position);
        self.apply(&mut cart, rows).await?;
        Ok(cart)
    }

    /// The cart's journalled requests at these positions and between them, oldest first.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn between(&self, cart_id: CartId, from: Position, to: Position) -> Result<Vec<Row>, Error> {
        // Newest first, since that is what is asked for; more only if that does not go back far enough.
        let (mut rows, unchanged) = try_join!(self.newest(cart_id), self.unchanged_between(cart_id, from, to))?;
        let (newest, mut back) = (rows.first().map_or(0, |row| row.sequence_number.get()), 64);
        let goes_back = |rows: &[Row]| rows.iter().any(|row| row.position < from);
        let mut is_all = i32::try_from(rows.len()).is_ok_and(|len| len < NEWEST_ROWS);
        while !is_all && !goes_back(&rows) {
            let after = SequenceNumber::from((newest - back).max(0));
            rows = self.rows_after(cart_id, after, i32::MAX, to).await?;
            (is_all, back) = (after == SequenceNumber::ZERO, back * 8);
        }
        rows.extend(unchanged);
        Ok(in_range(rows, from, to))
    }

    /// The requests that follow a cart as it is known, up to a position, oldest first.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn following(&self, cart: &Aggregate, to: Position) -> Result<Vec<Row>, Error> {
        let cart_id = cart.cart_id();
        let (mut rows, unchanged) = try_join!(
            self.rows_after(cart_id, cart.sequence_number(), i32::MAX, to),
            self.unchanged_between(cart_id, cart.position(), to)
        )?;
        rows.extend(unchanged);
        rows.retain(|row| row.position > cart.position());
        Ok(in_range(rows, cart.position(), to))
    }

    /// What became of a command that was decided before, if that is known. `row` is the journal's at its position; without
    /// one it left no trace, and is decided again on what was before it.
    ///
    /// `None`: it was rejected by rules that are no longer those of this version.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn outcome(
        &self,
        command: &CartCommand,
        position: Position,
        row: Option<&Row>,
    ) -> Result<Option<Outcome>, Error> {
        let cart_id = command.cart_id;
        if let Some(row) = row {
            return self.outcome_of(&self.decided(cart_id, row).await?).await;
        }
        match self.load_before(cart_id, position).await?.decide(command, position) {
            Decision::KeyReused => Ok(Some(Outcome::key_reused())),
            Decision::Repeated(earlier) => self.outcome_again(cart_id, &earlier).await,
            Decision::Decided(decided) if decided.events.is_empty() => self.outcome_of(&decided).await,
            Decision::Decided(_) => Ok(None),
        }
    }

    /// What became of a remembered request.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn outcome_again(&self, cart_id: CartId, earlier: &RememberedRequest) -> Result<Option<Outcome>, Error> {
        let row = if earlier.sequence_number == SequenceNumber::ZERO {
            self.unchanged_between(cart_id, earlier.position, earlier.position).await?.pop()
        } else {
            self.row(cart_id, earlier.sequence_number).await?
        };
        let Some(row) = row else { return Ok(None) };
        self.outcome_of(&self.decided(cart_id, &row).await?).await
    }

    /// What a client hears of a request.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn outcome_of(&self, decided: &Decided) -> Result<Option<Outcome>, Error> {
        let mut earlier = HashMap::new();
        for number in decided.earlier() {
            if let Some(row) = self.row(decided.cart_id, number).await? {
                let outcome = Outcome::of(&self.decided(decided.cart_id, &row).await?.events);
                earlier.extend(outcome.map(|outcome| (number, outcome)));
            }
        }
        Ok(decided.outcome_with(|number| earlier.get(&number).cloned()))
    }

    /// What comes after an event of a cart's journal, oldest first: at most `len_max` entries, however many there are.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn page(&self, cart_id: CartId, after: SequenceNumber, len_max: i32) -> Result<Vec<Entry>, Error> {
        let rows = self.rows_after(cart_id, after, len_max, Position::MAX).await?;
        let mut entries = Vec::new();
        for row in rows {
            let known = entries.len();
            entries.extend(row.into_entries().take_while(|entry| entry.sequence_number > after));
            entries[known..].reverse();
        }
        entries.truncate(usize::try_from(len_max).unwrap_or_default());
        Ok(entries)
    }

    /// The rows that have later events than this one, oldest first, until they have `events_max` or are past `to`.
    async fn rows_after(
        &self,
        cart_id: CartId,
        after: SequenceNumber,
        events_max: i32,
        to: Position,
    ) -> Result<Vec<Row>, Error> {
        const OPERATION: &str = "reading a cart's journal";
        // Each row has at least one that is later.
        let values = (cart_id.as_uuid(), after.get(), events_max);
        let pager = self.session.execute_iter(self.statements.after.clone(), values).await;
        let mut stream = pager
            .map_err(|error| Error::new(OPERATION, error))?
            .rows_stream::<JournalRow>()
            .map_err(|error| Error::new(OPERATION, error))?;
        let events_max = usize::try_from(events_max).unwrap_or_default();
        let (mut rows, mut events) = (Vec::new(), 0);
        while events < events_max
            && let Some(row) = stream.try_next().await.map_err(|error| Error::new(OPERATION, error))?
        {
            let Some(row) = of_journal(row) else { continue };
            if row.position > to {
                break;
            }
            let first = row.first_sequence_number().get().max(after.get() + 1);
            events += usize::try_from(row.sequence_number.get() + 1 - first).unwrap_or_default();
            rows.push(row);
        }
        Ok(rows)
    }

    /// All that has happened to a cart, oldest first.
    ///
    /// # Errors
    /// As [`Journal::show`].
    pub async fn all(&self, cart_id: CartId) -> Result<Vec<Entry>, Error> {
        self.page(cart_id, SequenceNumber::ZERO, i32::MAX).await
    }

    /// All carts that have a journal, in no order.
    ///
    /// # Errors
    /// As [`Journal::show`]; also in the middle.
    pub async fn cart_ids(&self) -> Result<impl Stream<Item = Result<CartId, Error>> + use<>, Error> {
        const OPERATION: &str = "listing the carts of the journal";
        let pager = self.session.query_iter("SELECT DISTINCT cart_id FROM cart_journal", ()).await;
        let pager = pager.map_err(|error| Error::new(OPERATION, error))?;
        let rows = pager.rows_stream::<(Uuid,)>().map_err(|error| Error::new(OPERATION, error))?;
        Ok(rows.map_ok(|(cart_id,)| cart_id.into()).map_err(|error| Error::new(OPERATION, error)))
    }

    /// The row of an event, by the number of the last one of its request.
    async fn row(&self, cart_id: CartId, last: SequenceNumber) -> Result<Option<Row>, Error> {
        let operation = || format!("reading event {last} of a cart");
        let rows = self.rows::<JournalRow>(&self.statements.row, (cart_id.as_uuid(), last.get()), &operation).await?;
        Ok(rows.into_iter().find_map(of_journal))
    }

    /// The request of a row.
    ///
    /// # Errors
    /// When it can't be read: the registry does not respond, or the request is newer than this program.
    pub async fn decided(&self, cart_id: CartId, row: &Row) -> Result<Decided, Error> {
        let operation = || format!("reading the request at {} of a cart", row.position);
        let outcome = row.outcome.as_deref().map(serde_json::from_str).transpose();
        let outcome = outcome.map_err(|error| Error::undecodable(operation(), error))?;
        let mut events = Vec::with_capacity(row.events().len());
        for bytes in row.events() {
            events.push(decode(&self.codecs.events, bytes, operation).await?);
        }
        let (digest, issued_at) = match (&row.content, events.first()) {
            (Content::Unchanged { digest, issued_at }, _) => (*digest, *issued_at),
            (Content::Events(_), Some(event)) => (event.command_digest, event.occurred_at),
            (Content::Events(_), None) => return Err(Error::undecodable(operation(), "the row has no events")),
        };
        let Row { command_id, position, keyed, .. } = *row;
        Ok(Decided { cart_id, command_id, position, keyed, digest, issued_at, outcome, events })
    }

    /// The event of an entry.
    ///
    /// # Errors
    /// When it can't be read: the registry does not respond, or the event is newer than this program.
    pub async fn event(&self, entry: &Entry) -> Result<CartEvent, Error> {
        let operation = || format!("reading event {} of a journal", entry.sequence_number);
        decode(&self.codecs.events, &entry.bytes, operation).await
    }

    async fn snapshot(&self, cart_id: CartId) -> Result<Option<Aggregate>, Error> {
        let operation = || String::from("reading the snapshot of a cart");
        let rows = self.rows::<(Option<Vec<u8>>,)>(&self.statements.snapshot, (cart_id.as_uuid(),), &operation).await?;
        let Some((Some(bytes),)) = rows.into_iter().next() else { return Ok(None) };
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

    /// A snapshot only saves reading; the rows say the same.
    async fn decode_snapshot(&self, cart_id: CartId, bytes: &[u8]) -> Option<Aggregate> {
        let decoded = decode(&self.codecs.snapshots, bytes, || String::from("reading a snapshot")).await;
        decoded
            .map_err(anyhow::Error::new)
            .inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::warn!(error, "a snapshot cannot be read; the whole journal is read instead");
                tracing::debug!(%cart_id, "the cart of the snapshot");
            })
            .ok()
    }

    async fn newest_of(&self, cart_ids: &[CartId]) -> Result<HashMap<CartId, Vec<Row>>, Error> {
        let mut carts: HashMap<CartId, Vec<Row>> = HashMap::with_capacity(cart_ids.len());
        let rows = self.rows_of::<JournalRowOf>(&self.statements.newest_of, cart_ids).await?;
        for (cart_id, last, position, command_id, events, keyed, outcome) in rows {
            let row = of_journal((last, position, command_id, events, keyed, outcome));
            carts.entry(cart_id.into()).or_default().extend(row);
        }
        Ok(carts)
    }

    async fn newest(&self, cart_id: CartId) -> Result<Vec<Row>, Error> {
        let operation = || String::from("reading the newest events of a cart");
        let rows = self.rows::<JournalRow>(&self.statements.newest, (cart_id.as_uuid(),), &operation).await?;
        Ok(rows.into_iter().filter_map(of_journal).collect())
    }

    /// The newest unchanged rows of each cart, newest first, as many as there are between two snapshots.
    async fn unchanged_of(&self, cart_ids: &[CartId]) -> Result<HashMap<CartId, Vec<Row>>, Error> {
        let mut carts: HashMap<CartId, Vec<Row>> = HashMap::new();
        for row in self.rows_of::<UnchangedRow>(&self.statements.unchanged_of, cart_ids).await? {
            let (cart_id, row) = of_unchanged(row);
            carts.entry(cart_id).or_default().push(row);
        }
        Ok(carts)
    }

    /// The cart's unchanged rows at these positions and between them, newest first.
    async fn unchanged_between(&self, cart_id: CartId, from: Position, to: Position) -> Result<Vec<Row>, Error> {
        const OPERATION: &str = "reading a cart's rejected requests";
        let values = (cart_id.as_uuid(), from.get(), to.get());
        let pager = self.session.execute_iter(self.statements.unchanged_between.clone(), values).await;
        let rows = pager
            .map_err(|error| Error::new(OPERATION, error))?
            .rows_stream::<UnchangedRow>()
            .map_err(|error| Error::new(OPERATION, error))?;
        rows.map_ok(|row| of_unchanged(row).1).try_collect().await.map_err(|error| Error::new(OPERATION, error))
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

fn in_range(mut rows: Vec<Row>, from: Position, to: Position) -> Vec<Row> {
    rows.retain(|row| from <= row.position && row.position <= to);
    rows.sort_unstable_by_key(|row| row.position);
    rows
}

/// Decodes, after fetching the schema if it is not known yet.
async fn decode<T>(codec: &Codec<T>, bytes: &[u8], operation: impl Fn() -> String) -> Result<T, Error>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let decoded = codec.decode_or_fetch(bytes).await.map_err(|error| Error::new(operation(), error))?;
    decoded.map_err(|error| {
        // The rows of many carts may be newer: an upgrade helps, and parking them one by one does not.
        let is_newer = matches!(error, DecodeError::Newer { .. });
        if is_newer { Error::new(operation(), error) } else { Error::undecodable(operation(), error) }
    })
}
