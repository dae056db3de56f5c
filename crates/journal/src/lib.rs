//! The journal: what has happened to every cart, the system of record.
//!
//! ```text
//! cart_journal (cart_id, sequence_number)   one row a command that changed the cart, newest first
//!   sequence_number                         of the last event that it made
//!   position, command_id                    the command, and where it stands
//!   events                                  what it made, oldest first: the very bytes that are published to cart-events
//!   snapshot (static)                       the cart's state after some event, in one cell
//! ```
//!
//! One row, however many lines a checkout has: rows are what a write costs Cassandra, and all of a command is there or
//! nothing. By the last event's number, so that whoever has read up to some event finds all rows that have later ones.
//!
//! Every statement says `USING TIMESTAMP` of the command's position, and what it writes is a function of the log up
//! to there. So whoever writes late writes the same again, or something older that loses. No locks.

mod entry;
mod read;
mod write;

use std::sync::Arc;

use cart::contract::Contract;
use cart::{Aggregate, CartEvent};
use kafka::{Codec, Registry};
use scylla::client::session::Session;
use scylla::errors::{DbError, PrepareError, RequestAttemptError};
use scylla::statement::prepared::PreparedStatement;

pub use cassandra::Error;
pub use entry::{Entry, Snapshot};
pub use read::LOAD_LEN_MAX;
pub use write::Append;

const TABLE: &str = "cart_journal";

// Rows are small and never change: default compaction does.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS cart_journal (\
    cart_id uuid, sequence_number bigint, position bigint, command_id uuid, events frozen<list<blob>>, \
    snapshot blob STATIC, \
    PRIMARY KEY (cart_id, sequence_number)) WITH CLUSTERING ORDER BY (sequence_number DESC)";

const ROW: &str = "SELECT sequence_number, position, command_id, events FROM cart_journal \
    WHERE cart_id = ? AND sequence_number = ?";

/// A snapshot is written at every checkout and when this many events have come since the last: a load reads at most
/// so many rows beside it.
pub const SNAPSHOT_EVERY: i64 = 32;

/// Rows that come at a time where a journal is read from some event on: one may have a checkout of a thousand lines.
const PAGE_ROWS: i32 = 100;

/// Reads and writes what the table holds. Clones share the schemas.
#[derive(Debug, Clone)]
pub struct Codecs {
    /// Events: what is journalled is what it wrote.
    pub events: Codec<CartEvent>,
    /// Snapshots.
    pub snapshots: Codec<Aggregate>,
}

impl Codecs {
    /// Registers the schemas.
    ///
    /// # Errors
    /// When the registry is away, or refuses a schema.
    pub async fn register(registry: &Registry) -> Result<Self, kafka::Error> {
        Ok(Self {
            events: Codec::register(registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?,
            snapshots: Codec::register(registry, Aggregate::TOPIC, Aggregate::SCHEMA).await?,
        })
    }
}

/// The journal's table, prepared. Clones share the session.
#[derive(Clone)]
pub struct Journal {
    session: Arc<Session>,
    codecs: Codecs,
    statements: Arc<Statements>,
}

struct Statements {
    snapshot: PreparedStatement,
    newest: PreparedStatement,
    snapshots: PreparedStatement,
    newest_of: PreparedStatement,
    after: PreparedStatement,
    row: PreparedStatement,
    insert: PreparedStatement,
    insert_snapshot: PreparedStatement,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Makes the table if it is not there.
    ///
    /// # Errors
    /// When Cassandra is away, or the table that is there is of another version.
    pub async fn setup(session: &Session) -> Result<(), Error> {
        session.query_unpaged(CREATE, ()).await.map_err(|error| Error::new("creating table cart_journal", error))?;
        prepare(session, ROW).await?;
        Ok(())
    }

    /// Prepares the statements.
    ///
    /// # Errors
    /// When Cassandra is away, there is no table, or it is of another version.
    pub async fn open(session: Arc<Session>, codecs: Codecs) -> Result<Self, Error> {
        let mut after = prepare(
            &session,
            "SELECT sequence_number, position, command_id, events FROM cart_journal \
             WHERE cart_id = ? AND sequence_number > ? ORDER BY sequence_number ASC LIMIT ?",
        )
        .await?;
        after.set_page_size(PAGE_ROWS);
        let statements = Arc::new(Statements {
            snapshot: prepare(&session, "SELECT snapshot FROM cart_journal WHERE cart_id = ? LIMIT 1").await?,
            newest: prepare(
                &session,
                &format!(
                    "SELECT sequence_number, position, command_id, events FROM cart_journal WHERE cart_id = ? LIMIT {SNAPSHOT_EVERY}"
                ),
            )
            .await?,
            snapshots: prepare(&session, "SELECT cart_id, snapshot FROM cart_journal WHERE cart_id IN ? PER PARTITION LIMIT 1").await?,
            newest_of: prepare(
                &session,
                &format!(
                    "SELECT cart_id, sequence_number, position, command_id, events FROM cart_journal \
                     WHERE cart_id IN ? PER PARTITION LIMIT {SNAPSHOT_EVERY}"
                ),
            )
            .await?,
            after,
            row: prepare(&session, ROW).await?,
            insert: prepare(
                &session,
                "INSERT INTO cart_journal (cart_id, sequence_number, position, command_id, events) VALUES (?, ?, ?, ?, ?) \
                 USING TIMESTAMP ?",
            )
            .await?,
            insert_snapshot: prepare(&session, "INSERT INTO cart_journal (cart_id, snapshot) VALUES (?, ?) USING TIMESTAMP ?")
                .await?,
        });
        Ok(Self { session, codecs, statements })
    }

    /// The codecs of what it holds.
    #[must_use]
    pub fn codecs(&self) -> &Codecs {
        &self.codecs
    }
}

async fn prepare(session: &Session, statement: &str) -> Result<PreparedStatement, Error> {
    let mut prepared = session.prepare(statement).await.map_err(|error| {
        let hint = if is_invalid(&error) {
            " (without the table: `cart-processor setup` makes it; where it lacks a column it is of another version: drop \
             it, and `cart-processor restore-journal` makes it again)"
        } else {
            ""
        };
        Error::new(format!("preparing '{statement}'{hint}"), error)
    })?;
    // Each writes what it has always written at that timestamp: trying again is right.
    prepared.set_is_idempotent(true);
    Ok(prepared)
}

/// Cassandra does not know the table, or a column.
fn is_invalid(error: &PrepareError) -> bool {
    matches!(
        error,
        PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(DbError::Invalid, _), .. }
    )
}
