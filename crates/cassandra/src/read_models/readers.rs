//! How long readers go by what they know of the tables, and how they ask which generations are active. `ingest` is the reader;
//! `cartctl switch` and `cartctl rebuild --in-place` wait for it. Both have these times from here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cart::Generation;
use cart::contract::ReadModel;
use scylla::client::session::Session;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::Statement;

use super::{TABLE, is_missing_table};
use crate::Error;

/// How often a reader asks which generations are active, from one question to the next.
pub const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// When [`all_active`] gives up, whatever the timeout of other requests is.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a reader may go by an answer, from when it asked. After that it must not begin a read of these tables, since another
/// generation may be active by now. Two questions in a row may be lost: the third one is answered, or late, when this has passed.
pub const LEASE: Duration = Duration::from_secs(4);

/// After a switch no read begins any more that goes by the generation before: each answer from before has expired. Until then both
/// generations must have the same rows, so `cartctl switch` keeps both paused. The second is for a process that is slow.
pub const READERS_FOLLOW: Duration = LEASE.saturating_add(Duration::from_secs(1));

/// How long a reader remembers that a table includes a command (`Read-After`). Short, because a table can be emptied and built again
/// under the same name; long enough for a client that reads several months with one token.
pub const INCLUSION_REMEMBERED: Duration = Duration::from_secs(3);

/// After a group was reset to the beginning no reader takes its table for one that includes a command: what was remembered has
/// expired, and the reads that had gone by it have ended. `cartctl rebuild --in-place` empties the table then.
pub const READERS_FORGET: Duration = INCLUSION_REMEMBERED.saturating_add(Duration::from_secs(2));

const OPERATION: &str = "reading the active generations in table read_model";

/// The generation that readers of each model see, in the order of `models`, with one query. A row without a generation is an error
/// of its model alone.
///
/// # Errors
/// If Cassandra does not respond within [`ASK_TIMEOUT`].
pub async fn all_active(session: &Session, models: &[ReadModel]) -> Result<Vec<Result<Generation, Error>>, Error> {
    // The names are letters and hyphens. A statement without values is one request.
    let names: Vec<_> = models.iter().map(|model| format!("'{}'", model.group)).collect();
    let mut select =
        Statement::new(format!("SELECT name, active FROM read_model WHERE name IN ({})", names.join(", ")));
    select.set_is_idempotent(true);
    // As the session's other requests, but in this time: a node that stands still must not take all of it.
    let speculation = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: ASK_TIMEOUT / 4 };
    let profile = session.get_default_execution_profile_handle().pointee_to_builder();
    let profile = profile.request_timeout(Some(ASK_TIMEOUT)).speculative_execution_policy(Some(Arc::new(speculation)));
    select.set_execution_profile_handle(Some(profile.build().into_handle()));
    let rows = match session.query_unpaged(select, ()).await {
        Ok(result) => result.into_rows_result().map_err(|error| Error::new(OPERATION, error))?,
        Err(error) if is_missing_table(&error, TABLE) => return Ok(decode(models, &HashMap::new())),
        Err(error) => return Err(Error::new(OPERATION, error)),
    };
    let rows = rows.rows::<(String, Option<i32>)>().map_err(|error| Error::new(OPERATION, error))?;
    let found = rows.collect::<Result<HashMap<_, _>, _>>().map_err(|error| Error::new(OPERATION, error))?;
    Ok(decode(models, &found))
}

/// Without a row readers see the first generation.
fn decode(models: &[ReadModel], found: &HashMap<String, Option<i32>>) -> Vec<Result<Generation, Error>> {
    let decode = |model: &ReadModel| {
        let Some(number) = found.get(model.group) else { return Ok(Generation::FIRST) };
        number.and_then(Generation::new).ok_or_else(|| {
            let number = number.map_or_else(|| String::from("null"), |number| number.to_string());
            Error::undecodable(OPERATION, format!("{} has {number}, which is not a generation", model.group))
        })
    };
    models.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use cart::contract::ReadTable;

    use super::*;

    #[test]
    fn a_row_without_a_generation_is_an_error_of_its_model_alone() {
        let models = [ReadTable::BalanceByVendor.model(), ReadTable::ItemQuantityByDay.model()];
        let decoded = |rows: &[(ReadModel, Option<i32>)]| {
            let rows = rows.iter().map(|(model, number)| (model.group.to_owned(), *number)).collect();
            let reason = |error: Error| error.source().map(ToString::to_string).unwrap_or_default();
            let found = decode(&models, &rows).into_iter();
            found.map(|found| found.map(Generation::get).map_err(reason)).collect::<Vec<_>>()
        };
        assert_eq!(decoded(&[]), [Ok(1), Ok(1)], "before the first switch");
        assert_eq!(decoded(&[(models[1], Some(3))]), [Ok(1), Ok(3)]);
        for (number, shown) in [(Some(0), "0"), (Some(1_000), "1000"), (None, "null")] {
            let reason = format!("{} has {shown}, which is not a generation", models[0].group);
            assert_eq!(decoded(&[(models[0], number), (models[1], Some(2))]), [Err(reason), Ok(2)]);
        }
    }

    #[test]
    fn a_lease_outlasts_two_lost_questions() {
        let third = ASK_INTERVAL.max(ASK_TIMEOUT) * 3;
        assert!(third + ASK_TIMEOUT <= LEASE && LEASE < READERS_FOLLOW && INCLUSION_REMEMBERED < READERS_FORGET);
    }
}
