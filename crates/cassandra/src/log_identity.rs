//! Which logs the stored positions belong to.
//!
//! Positions of one log mean nothing in another. So the first start writes down which log it is, and a later start
//! against another one must not go on: a wiped Kafka beside a kept Cassandra would look like 'all done before'.

use cart::LogEpoch;
use kafka::LogIdentity;
use scylla::client::session::Session;

use crate::Error;

/// Why no epoch can be given.
#[derive(Debug, thiserror::Error)]
pub enum LogNotRecorded {
    /// `setup` was not run yet.
    #[error("topic {topic} is not recorded in keyspace {keyspace} yet: run `setup`")]
    Unknown {
        /// Its name.
        topic: String,
        /// The session's keyspace.
        keyspace: String,
    },
    /// Another log than the recorded one.
    #[error(
        "topic {topic} is not the log that this keyspace was built from. Recorded: {recorded:?}; found: {found:?}. If the \
         topic was recreated on purpose and continues where the stored rows end, run `setup --accept-new-log`, which starts a \
         new log epoch; otherwise set --kafka-bootstrap-servers or --cassandra-keyspace to the right cluster or keyspace"
    )]
    Another {
        /// Its name.
        topic: String,
        /// What was written down.
        recorded: Box<LogIdentity>,
        /// What is there now.
        found: Box<LogIdentity>,
    },
    /// Cassandra failed.
    #[error(transparent)]
    Cassandra(#[from] Error),
}

/// Every keyspace of ours has this table.
pub(crate) const LOG_TABLE: &str = "log_epoch";

// Not one of the tables that are written by position: it has one row a topic, written once, by compare-and-set.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS log_epoch \
    (topic text PRIMARY KEY, epoch int, cluster_id text, topic_id text, partitions int)";
const INSERT: &str =
    "INSERT INTO log_epoch (topic, epoch, cluster_id, topic_id, partitions) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS";
const SELECT: &str = "SELECT epoch, cluster_id, topic_id, partitions FROM log_epoch WHERE topic = ?";
const UPDATE: &str =
    "UPDATE log_epoch SET epoch = ?, cluster_id = ?, topic_id = ?, partitions = ? WHERE topic = ? IF epoch = ?";

/// Writes down which log `topic` is, the first time; later it only checks. For `setup`.
///
/// # Errors
/// When it is another log than the recorded one.
pub async fn ensure_log(session: &Session, topic: &str, found: &LogIdentity) -> Result<LogEpoch, LogNotRecorded> {
    restore_log(session, topic, found, LogEpoch::FIRST).await
}

/// As [`ensure_log`], for a keyspace that was lost: what it held before was of that epoch.
///
/// # Errors
/// As [`ensure_log`].
pub async fn restore_log(
    session: &Session,
    topic: &str,
    found: &LogIdentity,
    epoch: LogEpoch,
) -> Result<LogEpoch, LogNotRecorded> {
    let failed = |error| Error::new(format!("recording the identity of topic {topic}"), error);
    create_log_table(session).await?;
    let row = (topic, epoch.get(), &found.cluster_id, &found.topic_id, found.partitions);
    session.query_unpaged(INSERT, row).await.map_err(failed)?;
    log_epoch(session, topic, found).await
}

/// Makes the table of the logs, if it is not there yet.
///
/// # Errors
/// If Cassandra does not respond, or refuses.
pub async fn create_log_table(session: &Session) -> Result<(), Error> {
    session.query_unpaged(CREATE, ()).await.map_err(|error| Error::new("creating table log_epoch", error))?;
    Ok(())
}

/// The epoch of the log that `topic` is.
///
/// # Errors
/// When it is not the recorded one, or none is recorded.
pub async fn log_epoch(session: &Session, topic: &str, found: &LogIdentity) -> Result<LogEpoch, LogNotRecorded> {
    let topic_name = || topic.to_owned();
    let keyspace = || session.get_keyspace().map(|name| name.to_string()).unwrap_or_default();
    let unknown = || LogNotRecorded::Unknown { topic: topic_name(), keyspace: keyspace() };
    let (epoch, recorded) = recorded(session, topic).await?.ok_or_else(unknown)?;
    if recorded == *found {
        Ok(epoch)
    } else {
        let (recorded, found) = (Box::new(recorded), Box::new(found.clone()));
        Err(LogNotRecorded::Another { topic: topic_name(), recorded, found })
    }
}

/// Starts a new epoch with the log that `topic` is now, if it is another one. Everything in it then counts as newer
/// than everything that is stored: right when the new log continues the old one, wrong when it repeats it.
///
/// # Errors
/// When there is no epoch left, or Cassandra fails.
pub async fn accept_new_log(session: &Session, topic: &str, found: &LogIdentity) -> Result<LogEpoch, LogNotRecorded> {
    let error = match ensure_log(session, topic, found).await {
        Err(error @ LogNotRecorded::Another { .. }) => error,
        other => return other,
    };
    let Some((old, known)) = recorded(session, topic).await? else { return Err(error) };
    // Another process has accepted it since the check above.
    if known == *found {
        return Ok(old);
    }
    let failed = |error| Error::new(format!("starting a new log epoch of topic {topic}"), error);
    let new = LogEpoch::new(old.get() + 1)
        .ok_or_else(|| Error::new(format!("starting a new log epoch of topic {topic}"), "all epochs are used up"))?;
    let row = (new.get(), &found.cluster_id, &found.topic_id, found.partitions, topic, old.get());
    session.query_unpaged(UPDATE, row).await.map_err(failed)?;
    tracing::warn!(topic, epoch = new.get(), "accepted a new log");
    log_epoch(session, topic, found).await
}

async fn recorded(session: &Session, topic: &str) -> Result<Option<(LogEpoch, LogIdentity)>, Error> {
    let operation = || format!("reading the recorded identity of topic {topic}");
    let row = session
        .query_unpaged(SELECT, (topic,))
        .await
        .map_err(|error| Error::new(operation(), error))?
        .into_rows_result()
        .map_err(|error| Error::new(operation(), error))?
        .maybe_first_row::<(i32, String, String, i32)>()
        .map_err(|error| Error::new(operation(), error))?;
    let Some((epoch, cluster_id, topic_id, partitions)) = row else { return Ok(None) };
    let epoch = LogEpoch::new(epoch).ok_or_else(|| Error::new(operation(), format!("{epoch} is not a log epoch")))?;
    Ok(Some((epoch, LogIdentity { cluster_id, topic_id, partitions })))
}
