//! Which log of `item-purchased` the tables in PostgreSQL were built from.

use cart::LogEpoch;
use kafka::LogIdentity;
use sqlx::PgPool;

/// Why the database has no epoch for a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogNotRecorded {
    /// `setup` was not run yet.
    #[error("topic {topic} is not recorded in this database yet: run `projectors setup`")]
    Unknown { topic: String },
    /// Another log than the recorded one.
    #[error(
        "topic {topic} is not the log that this database was built from. Recorded: {recorded:?}; found: {found:?}. \
         If the topic was recreated on purpose and continues where the tables end, run `projectors setup \
         --accept-new-log`; otherwise set --kafka-bootstrap-servers or --database-url to the right cluster or \
         database"
    )]
    Another { topic: String, recorded: Box<LogIdentity>, found: Box<LogIdentity> },
    /// Recorded by something else than a `setup`.
    #[error("topic {topic} is recorded with {epoch}, which is not a log epoch")]
    NoEpoch { topic: String, epoch: i32 },
    /// PostgreSQL failed; also where the table is not made yet.
    #[error("reading the recorded log failed; `projectors setup` creates its table")]
    Sql(#[source] sqlx::Error),
}

/// The epoch of the log that the database was built from, if that is this one.
pub(crate) async fn log_epoch(pool: &PgPool, topic: &str, found: &LogIdentity) -> Result<LogEpoch, LogNotRecorded> {
    let row: Option<(i32, String, String, i32)> =
        sqlx::query_as("SELECT epoch, cluster_id, topic_id, partitions FROM log_epoch WHERE topic = $1")
            .bind(topic)
            .fetch_optional(pool)
            .await
            .map_err(LogNotRecorded::Sql)?;
    let topic = topic.to_owned();
    let Some((epoch, cluster_id, topic_id, partitions)) = row else { return Err(LogNotRecorded::Unknown { topic }) };
    let recorded = LogIdentity { cluster_id, topic_id, partitions };
    if recorded != *found {
        let (recorded, found) = (Box::new(recorded), Box::new(found.clone()));
        return Err(LogNotRecorded::Another { topic, recorded, found });
    }
    LogEpoch::new(epoch).ok_or(LogNotRecorded::NoEpoch { topic, epoch })
}
