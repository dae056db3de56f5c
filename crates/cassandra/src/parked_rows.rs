//! Which rows of a read table in Cassandra are parked: a table beside each generation's table, and the operators' requests.
//!
//! ```text
//! balance_by_vendor_parked   a marker a parked row; written by position, as the rows are
//! parked_row_retry           a request to try a row again; of all tables, written by wall-clock time
//! ```
//!
//! A marker's write timestamp is the position of the newest record that was passed over because of it. So a projector that was paused,
//! and that ends a marker late, does not end one that holds newer records. Whatever a marker says, no record is counted twice: the row
//! has the position that it includes. Where the rows of a table were replaced, the timestamps of its markers have the same base as those of
//! its rows (`read_models::write_base`): the offsets may have gone back, and a marker must not lose to the end of an earlier one.
//!
//! A retry that fails writes a marker once more with the timestamp that it has. Of two values of one cell with one timestamp Cassandra keeps
//! the greater one. So all that changes then is one cell, [`progress`], whose order is that of the changes.

use std::sync::Arc;

use cart::{ParkedRow, Position, VendorId};
use chrono::{DateTime, Utc};
use scylla::client::session::Session;
use scylla::response::query_result::QueryResult;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::Error;
use crate::read_models::is_missing_table;

const RETRIES: &str = "parked_row_retry";

const CREATE_RETRIES: &str = "CREATE TABLE IF NOT EXISTS parked_row_retry (projection text, vendorid uuid, row_key text, \
    requested_by text, requested_at timestamp, PRIMARY KEY (projection, vendorid, row_key))";
const SELECT_RETRIES: &str = "SELECT vendorid, row_key, requested_by, WRITETIME(requested_by) FROM parked_row_retry \
    WHERE projection = ?";
const INSERT_RETRY: &str = "INSERT INTO parked_row_retry (projection, vendorid, row_key, requested_by, requested_at) \
    VALUES (?, ?, ?, ?, ?)";
// With the timestamp of the request itself: a newer one stays, whatever the clocks say.
const DELETE_RETRY: &str =
    "DELETE FROM parked_row_retry USING TIMESTAMP ? WHERE projection = ? AND vendorid = ? AND row_key = ?";
const DELETE_RETRIES: &str = "DELETE FROM parked_row_retry WHERE projection = ?";

const COLUMNS: &str = "log_partition, vendorid, row_key, first_position, passed_position, progress, since";

type Row = (i32, Uuid, String, i64, i64, String, DateTime<Utc>);

/// What changes of a marker while no record is passed over: its next position, and behind that the revision of its reason.
#[must_use]
pub fn progress(row: &ParkedRow) -> String {
    format!("{:020} {:010} {}", row.next_position.get(), row.revision, row.reason)
}

/// The next position, the revision and the reason in a cell of [`progress`]; `None` if it is no such cell.
#[must_use]
pub fn parse_progress(cell: &str) -> Option<(Position, u32, String)> {
    let mut parts = cell.splitn(3, ' ');
    let next: i64 = parts.next()?.parse().ok()?;
    let revision = parts.next()?.parse().ok()?;
    Some((next.into(), revision, parts.next()?.to_owned()))
}

/// The table of the parked rows of a table.
#[must_use]
pub fn table_name(table: &str) -> String {
    format!("{table}_parked")
}

/// The statement that creates the table of the parked rows of a table.
#[must_use]
pub fn create(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (log_partition int, vendorid uuid, row_key text, first_position bigint, \
         passed_position bigint, progress text, since timestamp, \
         PRIMARY KEY (log_partition, vendorid, row_key))",
        table_name(table)
    )
}

/// Makes the table of the requests, if it is not there yet.
///
/// # Errors
/// If Cassandra does not respond, or refuses.
pub async fn create_retries(session: &Session) -> Result<(), Error> {
    session
        .query_unpaged(CREATE_RETRIES, ())
        .await
        .map_err(|error| Error::new(format!("creating table {RETRIES}"), error))?;
    Ok(())
}

/// An operator's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryRequest {
    pub vendor_id: VendorId,
    pub row_key: String,
    /// Who asks.
    pub by: String,
    /// Its write timestamp.
    pub written_at: i64,
}

/// The parked rows of one table, for its projector.
#[derive(Debug)]
pub struct ParkedRows {
    session: Arc<Session>,
    table: String,
    projection: String,
    select: PreparedStatement,
    insert: PreparedStatement,
    delete: PreparedStatement,
    select_retries: PreparedStatement,
    delete_retry: PreparedStatement,
}

impl ParkedRows {
    /// Of a table that the consumer group `projection` keeps. The tables must exist.
    ///
    /// # Errors
    /// If one does not, or Cassandra does not respond.
    pub async fn open(session: Arc<Session>, table: &str, projection: &str) -> Result<Self, Error> {
        let table = table_name(table);
        let select = format!("SELECT {COLUMNS} FROM {table} WHERE log_partition = ?");
        let insert = format!("INSERT INTO {table} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?");
        let delete =
            format!("DELETE FROM {table} USING TIMESTAMP ? WHERE log_partition = ? AND vendorid = ? AND row_key = ?");
        let select = prepare(&session, &table, &select).await?;
        let insert = prepare(&session, &table, &insert).await?;
        let delete = prepare(&session, &table, &delete).await?;
        let select_retries = prepare(&session, RETRIES, SELECT_RETRIES).await?;
        let delete_retry = prepare(&session, RETRIES, DELETE_RETRY).await?;
        let projection = projection.to_owned();
        Ok(Self { session, table, projection, select, insert, delete, select_retries, delete_retry })
    }

    /// The markers of a partition, each with the position of the newest record that was passed over because of it.
    ///
    /// # Errors
    /// If Cassandra does not respond.
    pub async fn read(&self, partition: i32) -> Result<Vec<(ParkedRow, Position)>, Error> {
        let operation = || format!("reading the parked rows of partition {partition} in {}", self.table);
        let result = self.session.execute_unpaged(&self.select, (partition,)).await;
        rows(result.map_err(|error| Error::new(operation(), error))?, &operation)
    }

    /// Writes a marker. `passed` is the newest record that was passed over because of it, or could not be taken; `base` is the one of the
    /// table's write timestamps.
    ///
    /// # Errors
    /// If Cassandra does not respond.
    pub async fn write(&self, row: &ParkedRow, passed: Position, base: i16) -> Result<(), Error> {
        let ParkedRow { partition, vendor_id, row_key, first_position, since, .. } = row;
        let values = (
            partition,
            vendor_id.as_uuid(),
            row_key,
            first_position.get(),
            passed.get(),
            progress(row),
            since,
            passed.timestamp(base),
        );
        self.session
            .execute_unpaged(&self.insert, values)
            .await
            .map_err(|error| Error::new(format!("parking a row in {}", self.table), error))?;
        Ok(())
    }

    /// Ends a marker. The row includes everything up to `position`; a marker that holds a newer record stays. `base` is the one of the
    /// table's write timestamps.
    ///
    /// # Errors
    /// If Cassandra does not respond.
    pub async fn remove(&self, row: &ParkedRow, position: Position, base: i16) -> Result<(), Error> {
        let values = (position.timestamp(base), row.partition, row.vendor_id.as_uuid(), &row.row_key);
        self.session
            .execute_unpaged(&self.delete, values)
            .await
            .map_err(|error| Error::new(format!("ending a parked row in {}", self.table), error))?;
        Ok(())
    }

    /// What operators want to be tried again.
    ///
    /// # Errors
    /// If Cassandra does not respond.
    pub async fn requests(&self) -> Result<Vec<RetryRequest>, Error> {
        let operation = || format!("reading table {RETRIES}");
        let result = self.session.execute_unpaged(&self.select_retries, (&self.projection,)).await;
        requests(result.map_err(|error| Error::new(operation(), error))?, &operation)
    }

    /// A request is done with.
    ///
    /// # Errors
    /// If Cassandra does not respond.
    pub async fn end_request(&self, request: &RetryRequest) -> Result<(), Error> {
        let RetryRequest { vendor_id, row_key, written_at, .. } = request;
        self.session
            .execute_unpaged(&self.delete_retry, (written_at, &self.projection, vendor_id.as_uuid(), row_key))
            .await
            .map_err(|error| Error::new(format!("ending a request in {RETRIES}"), error))?;
        Ok(())
    }
}

/// Each writes what its timestamp says, so it may be sent more than once.
async fn prepare(session: &Session, table: &str, statement: &str) -> Result<PreparedStatement, Error> {
    let prepared = session.prepare(statement).await;
    let mut prepared =
        prepared.map_err(|error| Error::new(format!("preparing the statements of table {table}"), error))?;
    prepared.set_is_idempotent(true);
    Ok(prepared)
}

fn rows(result: QueryResult, operation: &impl Fn() -> String) -> Result<Vec<(ParkedRow, Position)>, Error> {
    let rows = result.into_rows_result().map_err(|error| Error::new(operation(), error))?;
    let rows = rows.rows::<Row>().map_err(|error| Error::new(operation(), error))?;
    rows.map(|row| {
        let (partition, vendor_id, row_key, first, passed, progress, since) =
            row.map_err(|error| Error::new(operation(), error))?;
        let (next_position, revision, reason) = parse_progress(&progress)
            .ok_or_else(|| Error::new(operation(), format!("the progress of a marker is `{progress}`")))?;
        let row = ParkedRow {
            partition,
            vendor_id: vendor_id.into(),
            row_key,
            first_position: first.into(),
            next_position,
            reason,
            since,
            retry_by: None,
            revision,
        };
        Ok((row, passed.into()))
    })
    .collect()
}

fn requests(result: QueryResult, operation: &impl Fn() -> String) -> Result<Vec<RetryRequest>, Error> {
    let rows = result.into_rows_result().map_err(|error| Error::new(operation(), error))?;
    let rows = rows.rows::<(Uuid, String, String, i64)>().map_err(|error| Error::new(operation(), error))?;
    rows.map(|row| {
        let (vendor_id, row_key, by, written_at) = row.map_err(|error| Error::new(operation(), error))?;
        Ok(RetryRequest { vendor_id: vendor_id.into(), row_key, by, written_at })
    })
    .collect()
}

/// A statement that may be sent more than once.
fn statement(text: impl Into<String>) -> Statement {
    let mut statement = Statement::new(text);
    statement.set_is_idempotent(true);
    statement
}

/// All parked rows of a table that the consumer group `projection` keeps; none where `setup` has not made the tables.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn list(session: &Session, table: &str, projection: &str) -> Result<Vec<ParkedRow>, Error> {
    // Before the markers: a projector ends a request after the marker that it is for. The other way round a row that becomes live
    // meanwhile would be listed as parked, and as tried.
    let operation = || format!("reading table {RETRIES}");
    let wanted = match session.query_unpaged(statement(SELECT_RETRIES), (projection,)).await {
        Ok(result) => requests(result, &operation)?,
        Err(error) if is_missing_table(&error, RETRIES) => Vec::new(),
        Err(error) => return Err(Error::new(operation(), error)),
    };
    let table = table_name(table);
    let operation = || format!("reading table {table}");
    let markers = match session.query_unpaged(statement(format!("SELECT {COLUMNS} FROM {table}")), ()).await {
        Ok(result) => rows(result, &operation)?,
        Err(error) if is_missing_table(&error, &table) => return Ok(Vec::new()),
        Err(error) => return Err(Error::new(operation(), error)),
    };
    let with_request = |(mut row, _): (ParkedRow, Position)| {
        let is_of = |request: &&RetryRequest| (request.vendor_id, &request.row_key) == (row.vendor_id, &row.row_key);
        row.retry_by = wanted.iter().find(is_of).map(|request| request.by.clone());
        row
    };
    Ok(markers.into_iter().map(with_request).collect())
}

/// Asks for another try of a row.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn request(session: &Session, projection: &str, row: &ParkedRow, by: &str) -> Result<(), Error> {
    let values = (projection, row.vendor_id.as_uuid(), &row.row_key, by, Utc::now());
    session
        .query_unpaged(INSERT_RETRY, values)
        .await
        .map_err(|error| Error::new(format!("requesting another try in {RETRIES}"), error))?;
    Ok(())
}

/// Forgets all requests of a projection, whose table is gone or emptied.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn forget_requests(session: &Session, projection: &str) -> Result<(), Error> {
    match session.query_unpaged(statement(DELETE_RETRIES), (projection,)).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing_table(&error, RETRIES) => Ok(()),
        Err(error) => Err(Error::new(format!("deleting requests in {RETRIES}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use cart::contract::READ_MODELS;
    use cart::{Generation, LogEpoch};

    use super::*;

    #[test]
    fn the_cell_of_a_marker_that_changes_is_ordered_by_progress() {
        let row = |offset, revision, reason: &str| ParkedRow {
            partition: 0,
            vendor_id: Uuid::nil().into(),
            row_key: String::from("2026-11"),
            first_position: Position::new(LogEpoch::FIRST, 7),
            next_position: Position::new(LogEpoch::FIRST, offset),
            reason: reason.to_owned(),
            since: DateTime::UNIX_EPOCH,
            retry_by: None,
            revision,
        };
        let changes = [row(9, 0, "z"), row(9, 1, "row-rejected: a b"), row(9, 12, "a"), row(10, 0, "a")];
        let cells = changes.each_ref().map(progress);
        assert!(cells.is_sorted(), "{cells:?}");
        for (row, cell) in changes.into_iter().zip(cells) {
            assert_eq!(parse_progress(&cell), Some((row.next_position, row.revision, row.reason)));
        }
        assert_eq!(parse_progress("7 8"), None);
    }

    #[test]
    fn a_table_of_parked_rows_is_no_generation() {
        for model in READ_MODELS {
            for number in [1, 2] {
                let table = model.table_name(Generation::new(number).expect("a generation"));
                assert_eq!(model.generation_of_table(&table_name(&table)), None, "{table}");
            }
        }
    }
}
