//! How often the rows of a read model's first table were replaced. Other programs know that table by its name.
//!
//! A row's write timestamp is its position. Where a row is replaced by one of the same position with another content, Cassandra would
//! keep the larger value. So each replacement has a base of its own, which is added to the timestamps like further log epochs: of what was
//! written before it nothing is left. A late write with an earlier base loses to each row that was copied or deleted, and stays where there was
//! none.

use cart::contract::ReadModel;
use scylla::client::session::Session;
use scylla::statement::{Consistency, Statement};
use uuid::Uuid;

use super::{TABLE, is_applied, is_missing_table};
use crate::Error;

const SELECT: &str = "SELECT write_base FROM read_model WHERE name = ?";
const RAISE: &str = "UPDATE read_model SET write_base = ? WHERE name = ? IF claim = ?";

/// The base of what is written to the first table now.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn write_base(session: &Session, model: ReadModel) -> Result<i16, Error> {
    read(session, model, Consistency::LocalQuorum).await
}

/// Takes a base that no earlier write has, for a run that has the claim.
///
/// # Errors
/// If the run has lost the claim, all are used up, or Cassandra does not respond. Then it may be taken: a repeat takes another one.
pub async fn raise_write_base(session: &Session, model: ReadModel, run: Uuid) -> Result<i16, Error> {
    let operation = || format!("taking a base of the timestamps of {}", model.group);
    let last = read(session, model, Consistency::LocalSerial).await?;
    let base = last.checked_add(1).ok_or_else(|| Error::new(operation(), "all are used up"))?;
    let raised = session.query_unpaged(RAISE, (i32::from(base), model.group, run)).await;
    let raised = raised.map_err(|error| Error::new(operation(), error))?;
    if is_applied(raised).map_err(|error| Error::new(operation(), error))? {
        return Ok(base);
    }
    Err(Error::new(operation(), "another run has taken over"))
}

async fn read(session: &Session, model: ReadModel, consistency: Consistency) -> Result<i16, Error> {
    let operation = || format!("reading the base of the timestamps of {}", model.group);
    let mut select = Statement::new(SELECT);
    select.set_is_idempotent(true);
    select.set_consistency(consistency);
    let result = match session.query_unpaged(select, (model.group,)).await {
        Ok(result) => result,
        Err(error) if is_missing_table(&error, TABLE) => return Ok(0),
        Err(error) => return Err(Error::new(operation(), error)),
    };
    let row = result
        .into_rows_result()
        .map_err(|error| Error::new(operation(), error))?
        .maybe_first_row::<(Option<i32>,)>()
        .map_err(|error| Error::new(operation(), error))?;
    let base = row.and_then(|(base,)| base).unwrap_or_default();
    let invalid = || Error::undecodable(operation(), format!("{base} is not one"));
    i16::try_from(base).ok().filter(|base| *base >= 0).ok_or_else(invalid)
}
