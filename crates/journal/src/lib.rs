//! The journal: what has happened to every cart, the system of record.
//!
//! ```text
//! cart_journal (cart_id, sequence_number)   one row a request that changed the cart, newest first
//!   sequence_number                         of the last event that it made
//!   position, command_id                    the command, and where it stands
//!   events                                  what it made, oldest first: the very bytes that are published to cart-events
//!   keyed                                   whether it may come again; null for a command from before version 0.2
//!   outcome                                 of an independent batch: the result of each command, as JSON
//!   snapshot (static)                       the cart's state after some request, in one cell
//!
//! cart_unchanged (cart_id, position)        one row a keyed request that made no event, newest first
//!   sequence_number                         the cart's, which it left as it was
//!   command_id, digest, issued_at           what the events of another request say
//!   outcome                                 why it was rejected, as JSON
//! ```
//!
//! One row, however many lines a checkout has: rows are what a write costs Cassandra, and all of a request is there or
//! nothing. By the last event's number, so that a reader that has read up to some event finds all rows with later ones.
//!
//! Every statement says `USING TIMESTAMP` of the command's position, and what it writes is a function of the log up
//! to there. So a late writer writes the same cells again, or older ones that lose. No locks.
//!
//! Of a cart's rows those in `cart_unchanged` are written first, then all others in one mutation: where an event is, all
//! requests before it are. A row of `cart_unchanged` whose sequence number is not reached yet is passed over.

mod open;
mod read;
mod row;
mod write;

use std::sync::Arc;

use cart::contract::Contract;
use cart::{Aggregate, CartEvent};
use kafka::{Codec, Registry};
use scylla::client::session::Session;
use scylla::errors::{DbError, PrepareError, RequestAttemptError};
use scylla::statement::prepared::PreparedStatement;

pub use cassandra::Error;
pub use open::{Opened, open};
pub use read::LOAD_LEN_MAX;
pub use row::{Content, Entry, Row, Snapshot};
pub use write::Append;

const TABLE: &str = "cart_journal";

// Rows are small and never change: default compaction does.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS cart_journal (\
    cart_id uuid, sequence_number bigint, position bigint, command_id uuid, events frozen<list<blob>>, \
    keyed boolean, outcome text, snapshot blob STATIC, \
    PRIMARY KEY (cart_id, sequence_number)) WITH CLUSTERING ORDER BY (sequence_number DESC)";

/// A table from before version 0.2 lacks these columns.
const UPGRADE: &str = "ALTER TABLE cart_journal ADD IF NOT EXISTS (keyed boolean, outcome text)";

const CREATE_UNCHANGED: &str = "CREATE TABLE IF NOT EXISTS cart_unchanged (\
    cart_id uuid, position bigint, sequence_number bigint, command_id uuid, digest bigint, issued_at bigint, outcome text, \
    PRIMARY KEY (cart_id, position)) WITH CLUSTERING ORDER BY (position DESC)";

const ROW: &str = "SELECT sequence_number, position, command_id, events, keyed, outcome FROM cart_journal \
    WHERE cart_id = ? AND sequence_number = ?";

const UNCHANGED_ROW: &str = "SELECT sequence_number, command_id, digest, issued_at, outcome FROM cart_unchanged \
    WHERE cart_id = ? AND position = ?";

/// A snapshot is written at every checkout, when this many events have come since the last, and when this many requests were
/// rejected: a load reads about so many rows beside it.
pub const SNAPSHOT_EVERY: i64 = 32;

/// Rows of a cart that are read at once, before its snapshot is known: each may be a checkout of a thousand lines, almost a
/// megabyte. Most carts that are loaded have fewer.
const NEWEST_ROWS: i32 = 8;

/// Rows that come at a time where a journal is read from some event on. Bounds the memory that a page takes.
const PAGE_ROWS: i32 = 32;

/// Reads and writes what the table holds. Clones share the schemas.
#[derive(Debug, Clone)]
pub struct Codecs {
    /// Events: what is journalled is what it wrote.
    pub events: Codec<CartEvent>,
    pub snapshots: Codec<Aggregate>,
}

impl Codecs {
    /// Registers the schemas.
    ///
    /// # Errors
    /// If the registry does not respond, or refuses a schema.
    pub async fn register(registry: &Registry) -> Result<Self, kafka::Error> {
        Ok(Self {
            events: Codec::register(registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?,
            snapshots: Codec::register(registry, Aggregate::TOPIC, Aggregate::SCHEMA).await?,
        })
    }
}

/// The journal's tables, prepared. Clones share the session.
#[derive(Clone)]
pub struct Journal {
    session: Arc<Session>,
    codecs: Codecs,
    statements: Arc<Statements>,
}

struct Statements {
    snapshot: PreparedStatement,
    snapshots: PreparedStatement,
    newest: PreparedStatement,
    newest_of: PreparedStatement,
    after: PreparedStatement,
    row: PreparedStatement,
    unchanged_of: PreparedStatement,
    unchanged_between: PreparedStatement,
    insert: PreparedStatement,
    insert_unchanged: PreparedStatement,
    insert_snapshot: PreparedStatement,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Journal {
    /// Makes the tables that are not there, and adds columns that are new.
    ///
    /// # Errors
    /// If Cassandra does not respond, or the table that is there is of an unknown version.
    pub async fn setup(session: &Session) -> Result<(), Error> {
        for (operation, statement) in [
            ("creating table cart_journal", CREATE),
            ("adding columns to table cart_journal", UPGRADE),
            ("creating table cart_unchanged", CREATE_UNCHANGED),
        ] {
            session.query_unpaged(statement, ()).await.map_err(|error| Error::new(operation, error))?;
        }
        Self::check(session).await
    }

    /// Whether the session's keyspace has the tables, with the columns of this version. Changes nothing.
    ///
    /// # Errors
    /// If it does not ([`is_another_version`]), or Cassandra does not respond.
    pub async fn check(session: &Session) -> Result<(), Error> {
        prepare(session, ROW).await?;
        prepare(session, UNCHANGED_ROW).await?;
        Ok(())
    }

    /// Prepares the statements.
    ///
    /// # Errors
    /// If Cassandra does not respond, there is no table, or it is of another version.
    pub async fn open(session: Arc<Session>, codecs: Codecs) -> Result<Self, Error> {
        const COLUMNS: &str = "sequence_number, position, command_id, events, keyed, outcome";
        const UNCHANGED: &str = "cart_id, position, sequence_number, command_id, digest, issued_at, outcome";
        let prepare = async |statement: &str| prepare(&session, statement).await;
        let mut after = prepare(&format!(
            "SELECT {COLUMNS} FROM cart_journal WHERE cart_id = ? AND sequence_number > ? \
             ORDER BY sequence_number ASC LIMIT ?"
        ))
        .await?;
        after.set_page_size(PAGE_ROWS);
        let mut unchanged_between = prepare(&format!(
            "SELECT {UNCHANGED} FROM cart_unchanged WHERE cart_id = ? AND position >= ? AND position <= ?"
        ))
        .await?;
        unchanged_between.set_page_size(1_000);
        let statements = Arc::new(Statements {
            snapshot: prepare("SELECT snapshot FROM cart_journal WHERE cart_id = ? LIMIT 1").await?,
            snapshots: prepare("SELECT cart_id, snapshot FROM cart_journal WHERE cart_id IN ? PER PARTITION LIMIT 1")
                .await?,
            newest: prepare(&format!("SELECT {COLUMNS} FROM cart_journal WHERE cart_id = ? LIMIT {NEWEST_ROWS}"))
                .await?,
            newest_of: prepare(&format!(
                "SELECT cart_id, {COLUMNS} FROM cart_journal WHERE cart_id IN ? PER PARTITION LIMIT {NEWEST_ROWS}"
            ))
            .await?,
            after,
            row: prepare(ROW).await?,
            unchanged_of: prepare(&format!(
                "SELECT {UNCHANGED} FROM cart_unchanged WHERE cart_id IN ? PER PARTITION LIMIT {SNAPSHOT_EVERY}"
            ))
            .await?,
            unchanged_between,
            insert: prepare(
                "INSERT INTO cart_journal (cart_id, sequence_number, position, command_id, events, keyed, outcome) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            insert_unchanged: prepare(
                "INSERT INTO cart_unchanged (cart_id, position, sequence_number, command_id, digest, issued_at, outcome) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            insert_snapshot: prepare("INSERT INTO cart_journal (cart_id, snapshot) VALUES (?, ?) USING TIMESTAMP ?")
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
            " (run `cart-processor setup`: it creates the table, or upgrades that of an earlier version; if it \
             cannot, drop the table and run `cartctl restore-journal`)"
        } else {
            ""
        };
        Error::new(format!("preparing '{statement}'{hint}"), error)
    })?;
    // Each writes what it has always written at that timestamp: trying again is right.
    prepared.set_is_idempotent(true);
    Ok(prepared)
}

/// Whether the tables are missing or of another version. Other errors of [`Journal::check`] leave that open.
#[must_use]
pub fn is_another_version(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|source| source.downcast_ref()).is_some_and(is_invalid)
}

/// Cassandra does not know the table, or a column.
fn is_invalid(error: &PrepareError) -> bool {
    matches!(
        error,
        PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(DbError::Invalid, _), .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preparing(attempt: RequestAttemptError) -> Error {
        Error::new("preparing", PrepareError::AllAttemptsFailed { first_attempt: attempt })
    }

    #[test]
    fn a_node_that_does_not_answer_says_nothing_about_the_tables() {
        let refused =
            |error| preparing(RequestAttemptError::DbError(error, String::from("Undefined column name keyed")));
        assert!(is_another_version(&refused(DbError::Invalid)));
        assert!(!is_another_version(&refused(DbError::Overloaded)));
        assert!(!is_another_version(&Error::new("preparing", PrepareError::PreparedStatementIdsMismatch)));
    }
}
