//! Which generation of a read model its readers see: the table `read_model`, with one row a model.
//!
//! A row is changed by compare-and-set, so that of two operators one loses. Not one of the tables that are written by position.
//!
//! A compare-and-set that timed out may still be completed by a later one. So a switch first puts its run into the column `claim`, and
//! changes the pointer only while the row has it: another value there ends the run, whatever became of its statement.

mod readers;
mod write_base;

use cart::contract::ReadModel;
use cart::{Generation, GenerationClaim, GenerationPointer, GenerationSwitch};
use chrono::{DateTime, Utc};
use scylla::client::session::Session;
use scylla::response::query_result::QueryResult;
use scylla::statement::{Consistency, Statement};
use scylla::value::CqlValue;
use uuid::Uuid;

use crate::Error;

pub use readers::{ASK_INTERVAL, ASK_TIMEOUT, INCLUSION_REMEMBERED, LEASE, READERS_FOLLOW, READERS_FORGET, all_active};
pub use write_base::{raise_write_base, write_base};

const TABLE: &str = "read_model";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS read_model (name text PRIMARY KEY, active int, previous int, newest int, \
    since timestamp, changed_by text, reason text, accepted_diff text, claim uuid, claim_by text, \
    claim_renewals int, write_base int)";
const SELECT: &str = "SELECT active, previous, newest, since, changed_by, reason, accepted_diff, claim, claim_by, \
    claim_renewals FROM read_model WHERE name = ?";
const TABLES: &str = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
const INSERT: &str = "INSERT INTO read_model (name, active, newest) VALUES (?, 1, 1) IF NOT EXISTS";
const RESERVE: &str = "UPDATE read_model SET newest = ? WHERE name = ? IF newest = ?";
const SWITCH: &str = "UPDATE read_model SET active = ?, previous = ?, since = ?, changed_by = ?, reason = ?, accepted_diff = ? \
    WHERE name = ? IF active = ? AND claim = ?";
const CLAIM: &str = "UPDATE read_model SET claim = ?, claim_by = ?, claim_renewals = 0 WHERE name = ? IF claim = null";
const TAKE_OVER: &str = "UPDATE read_model SET claim = ?, claim_by = ?, claim_renewals = 0 WHERE name = ? IF claim = ?";
const RENEW: &str = "UPDATE read_model SET claim_renewals = ? WHERE name = ? IF claim = ?";
const RELEASE: &str =
    "UPDATE read_model SET claim = null, claim_by = null, claim_renewals = null WHERE name = ? IF claim = ?";

/// Makes the table, if it is not there yet.
///
/// # Errors
/// If Cassandra does not respond, or refuses.
pub async fn create_table(session: &Session) -> Result<(), Error> {
    session.query_unpaged(CREATE, ()).await.map_err(|error| Error::new("creating table read_model", error))?;
    Ok(())
}

/// The generation that readers see. The first one where `setup` has not made the table, or no other was ever built.
///
/// # Errors
/// If Cassandra does not respond, or the row has no generation.
pub async fn active(session: &Session, model: ReadModel) -> Result<Generation, Error> {
    Ok(pointer(session, model).await?.active)
}

/// As [`active`], with what is known of the last switch.
///
/// # Errors
/// As [`active`].
pub async fn pointer(session: &Session, model: ReadModel) -> Result<GenerationPointer, Error> {
    read(session, model, Consistency::LocalQuorum).await
}

/// The generations that have a table, in their order.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn generations(session: &Session, model: ReadModel) -> Result<Vec<Generation>, Error> {
    let keyspace = session.get_keyspace().map(|name| name.to_string()).unwrap_or_default();
    generations_in(session, &keyspace, model).await
}

/// As [`generations`], with a session that uses no keyspace.
///
/// # Errors
/// As [`generations`].
pub async fn generations_in(session: &Session, keyspace: &str, model: ReadModel) -> Result<Vec<Generation>, Error> {
    let operation = || format!("listing the generations of {}", model.group);
    let mut select = Statement::new(TABLES);
    select.set_is_idempotent(true);
    let rows = session.query_unpaged(select, (keyspace,)).await.map_err(|error| Error::new(operation(), error))?;
    let rows = rows.into_rows_result().map_err(|error| Error::new(operation(), error))?;
    let names = rows.rows::<(String,)>().map_err(|error| Error::new(operation(), error))?;
    let names: Vec<String> = names
        .map(|name| name.map(|(name,)| name))
        .collect::<Result<_, _>>()
        .map_err(|error| Error::new(operation(), error))?;
    let mut found: Vec<_> = names.iter().filter_map(|name| model.generation_of_table(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// As [`pointer()`], with every change of a process that got no answer: it is done by then, or never will be.
///
/// # Errors
/// As [`active`].
pub async fn decided_pointer(session: &Session, model: ReadModel) -> Result<GenerationPointer, Error> {
    read(session, model, Consistency::LocalSerial).await
}

/// Takes the number of the next generation to build. `pointer` is what was read before, `existing` are the generations with a table.
///
/// # Errors
/// If another process has taken it, there is none left, or Cassandra does not respond.
pub async fn reserve(
    session: &Session,
    model: ReadModel,
    pointer: &GenerationPointer,
    existing: &[Generation],
) -> Result<Generation, Error> {
    let operation = || format!("taking the number of the next generation of {}", model.group);
    let next = pointer.next(existing).ok_or_else(|| Error::new(operation(), "all 999 are used up"))?;
    insert(session, model).await.map_err(|error| Error::new(operation(), error))?;
    let values = (next.get(), model.group, pointer.newest.get());
    let is_taken = match session.query_unpaged(RESERVE, values).await {
        Ok(result) => is_applied(result).map_err(|error| Error::new(operation(), error))?,
        // The row says whether it was taken. Another process that has taken the same number at this moment is not noticed.
        Err(error) => {
            if decided_pointer(session, model).await?.newest != next {
                return Err(Error::new(operation(), error));
            }
            true
        }
    };
    if is_taken {
        return Ok(next);
    }
    Err(Error::new(operation(), "another process has taken it: run the command again"))
}

/// Lets `run` be the only one that may change the pointer, if `seen` still is what the row has. `by` says who it is. Returns whether it
/// is.
///
/// # Errors
/// If Cassandra does not respond: then it is not known.
pub async fn claim(
    session: &Session,
    model: ReadModel,
    seen: Option<Uuid>,
    run: Uuid,
    by: &str,
) -> Result<bool, Error> {
    let operation = || format!("claiming the read model {}", model.group);
    insert(session, model).await.map_err(|error| Error::new(operation(), error))?;
    let claimed = match seen {
        Some(seen) => session.query_unpaged(TAKE_OVER, (run, by, model.group, seen)).await,
        None => session.query_unpaged(CLAIM, (run, by, model.group)).await,
    };
    let applied = match claimed {
        Ok(result) => is_applied(result),
        Err(error) => Err(error.into()),
    };
    if matches!(applied, Ok(true)) {
        return Ok(true);
    }
    // The answer to the first of two attempts may be what was lost.
    if decided_pointer(session, model).await?.claim.is_some_and(|claim| claim.run == run) {
        return Ok(true);
    }
    applied.map_err(|error| Error::new(operation(), error))
}

/// Says that a run is still at work. Returns `false` if another one has taken over.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn renew(session: &Session, model: ReadModel, run: Uuid, renewals: i32) -> Result<bool, Error> {
    let operation = || format!("renewing the claim of the read model {}", model.group);
    let renewed = session.query_unpaged(RENEW, (renewals, model.group, run)).await;
    let renewed = renewed.map_err(|error| Error::new(operation(), error))?;
    is_applied(renewed).map_err(|error| Error::new(operation(), error))
}

/// Ends a claim, if the run still has it.
///
/// # Errors
/// If Cassandra does not respond.
pub async fn release(session: &Session, model: ReadModel, run: Uuid) -> Result<(), Error> {
    let operation = || format!("ending the claim of the read model {}", model.group);
    session.query_unpaged(RELEASE, (model.group, run)).await.map_err(|error| Error::new(operation(), error))?;
    Ok(())
}

/// Makes another generation the active one, if `from` still is and `run` has the claim. What holds afterwards says
/// [`decided_pointer`].
///
/// # Errors
/// If Cassandra does not respond: then it is not known, and may be done as long as `run` has the claim.
pub async fn switch(
    session: &Session,
    model: ReadModel,
    from: Generation,
    to: Generation,
    switch: &GenerationSwitch,
    run: Uuid,
) -> Result<(), Error> {
    let operation = || format!("switching {} to generation {to}", model.group);
    let GenerationSwitch { at, by, reason, accepted_diff } = switch;
    let values = (to.get(), from.get(), at, by, reason, accepted_diff, model.group, from.get(), run);
    session.query_unpaged(SWITCH, values).await.map_err(|error| Error::new(operation(), error))?;
    Ok(())
}

/// Makes the row of a model, if it is not there yet.
async fn insert(session: &Session, model: ReadModel) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    session.query_unpaged(INSERT, (model.group,)).await?;
    Ok(())
}

/// Whether a compare-and-set was applied: the first column of its answer. The columns behind it depend on the row.
fn is_applied(result: QueryResult) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let row = result.into_rows_result()?.first_row::<scylla::value::Row>()?;
    Ok(matches!(row.columns.first(), Some(Some(CqlValue::Boolean(true)))))
}

type Row = (
    i32,
    Option<i32>,
    i32,
    Option<DateTime<Utc>>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Uuid>,
    Option<String>,
    Option<i32>,
);

/// With `LocalSerial` it sees what a compare-and-set that timed out has done.
async fn read(session: &Session, model: ReadModel, consistency: Consistency) -> Result<GenerationPointer, Error> {
    let operation = || format!("reading the active generation of {} in table read_model", model.group);
    let mut select = Statement::new(SELECT);
    select.set_is_idempotent(true);
    select.set_consistency(consistency);
    let result = match session.query_unpaged(select, (model.group,)).await {
        Ok(result) => result,
        Err(error) if is_missing_table(&error, TABLE) => return Ok(GenerationPointer::FIRST),
        Err(error) => return Err(Error::new(operation(), error)),
    };
    let row = result
        .into_rows_result()
        .map_err(|error| Error::new(operation(), error))?
        .maybe_first_row::<Row>()
        .map_err(|error| Error::new(operation(), error))?;
    let Some((active, previous, newest, since, by, reason, accepted_diff, claim, claim_by, renewals)) = row else {
        return Ok(GenerationPointer::FIRST);
    };
    let generation = |number: i32| {
        Generation::new(number).ok_or_else(|| Error::undecodable(operation(), format!("{number} is not a generation")))
    };
    let text = Option::unwrap_or_default;
    Ok(GenerationPointer {
        active: generation(active)?,
        previous: previous.map(generation).transpose()?,
        newest: generation(newest)?,
        last_switch: since.map(|at| GenerationSwitch {
            at,
            by: text(by),
            reason: text(reason),
            accepted_diff: text(accepted_diff),
        }),
        claim: claim.map(|run| GenerationClaim { run, by: text(claim_by), renewals: renewals.unwrap_or_default() }),
    })
}

/// Whether a statement failed because there is no such table. Cassandra says that with the code of every invalid statement. Of one
/// that is dropped while it is read it says that a server has failed, and not its name.
#[must_use]
pub fn is_missing_table(error: &(dyn std::error::Error + 'static), table: &str) -> bool {
    let texts = [format!("table {table} does not exist"), String::from("Unknown CF ")];
    let is_meant = |error: &(dyn std::error::Error + 'static)| {
        let error = error.to_string();
        texts.iter().any(|text| error.contains(text))
    };
    std::iter::successors(Some(error), |error| error.source()).any(is_meant)
}
