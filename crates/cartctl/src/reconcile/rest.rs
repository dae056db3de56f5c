//! Waits until the pipeline is idle: every consumer has processed all records of its topic.
//!
//! The topics are written by transactions, whose markers take offsets too. So a group whose offset is below the topic's end is
//! only behind if there is a committed record in between. While a transaction is open on a topic, its last records may still be
//! committed or aborted.

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use cart::PurchasedItem;
use cart::contract::{Contract as _, READ_MODELS, STAGES};
use cassandra::CassandraArgs;
use kafka::{Admin, KafkaArgs, TopicReader};
use scylla::client::session::Session;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::OnceCell;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::read_tables::active;
use crate::topic::SILENCE_MAX;

/// The pause between two checks.
const INTERVAL: Duration = Duration::from_millis(200);

/// The pause between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The lag of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Lag {
    /// It has processed all records.
    AtRest,
    /// The number of remaining offsets, including transactions' markers.
    Behind(i64),
    /// A transaction is open on its topic.
    OpenTransaction,
    /// The lag could not be read.
    Unknown(String),
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtRest => f.write_str("done"),
            Self::Behind(offsets) => write!(f, "{offsets} behind"),
            Self::OpenTransaction => f.write_str("a transaction is open on its topic"),
            Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerLag {
    /// The group's name, without the installation's prefix.
    pub consumer: String,
    pub lag: Lag,
}

/// All consumers on one line.
#[derive(Debug)]
struct Lags<'a>(&'a [ConsumerLag]);

impl fmt::Display for Lags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, ConsumerLag { consumer, lag }) in self.0.iter().enumerate() {
            write!(f, "{}{consumer} {lag}", if place == 0 { "" } else { " · " })?;
        }
        Ok(())
    }
}

/// The pipeline did not become idle in time.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline did not become idle within {} s; last seen: {}", .waited.as_secs(), Lags(.last_seen))]
pub struct NotAtRest {
    /// The time waited.
    pub waited: Duration,
    /// The last lag of each consumer.
    pub last_seen: Vec<ConsumerLag>,
}

/// Waits until every consumer has processed all records; of a read model the one that keeps the generation that readers see. Prints
/// their lags on standard error when they change.
///
/// # Errors
/// The pipeline does not become idle within `timeout`.
pub async fn wait(
    kafka: &KafkaArgs,
    cassandra: &CassandraArgs,
    database: &PgPool,
    timeout: Duration,
) -> Result<(), NotAtRest> {
    let start = Instant::now();
    let session = OnceCell::new();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reported, mut reported_at) = (Vec::new(), None::<Instant>);
    loop {
        ticks.tick().await;
        let lags = match consumers(&session, cassandra, database).await {
            Ok(consumers) => look(kafka, database, consumers).await,
            Err(error) => vec![unknown("the active generations", format!("{error:#}"))],
        };
        if lags.iter().all(|consumer| consumer.lag == Lag::AtRest) {
            return Ok(());
        }
        if start.elapsed() >= timeout {
            return Err(NotAtRest { waited: timeout, last_seen: lags });
        }
        if reported != lags && reported_at.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            let seconds = start.elapsed().as_secs();
            // Standard error may be closed.
            writeln!(std::io::stderr().lock(), "waiting ({seconds} s): {}", Lags(&lags)).unwrap_or_default();
            (reported, reported_at) = (lags, Some(Instant::now()));
        }
    }
}

/// A consumer group, without the installation's prefix.
#[derive(Debug)]
struct ConsumerGroup {
    name: String,
    topic: &'static str,
    has_offsets_in_postgres: bool,
}

/// All groups that are waited for, from the front to the end.
async fn consumers(
    session: &OnceCell<Session>,
    cassandra: &CassandraArgs,
    database: &PgPool,
) -> anyhow::Result<Vec<ConsumerGroup>> {
    let session = session.get_or_try_init(async || cassandra::connect(cassandra).await).await?;
    let mut consumers = Vec::new();
    for stage in STAGES {
        let name = match READ_MODELS.into_iter().find(|model| model.group == stage.group) {
            Some(model) => model.group_name(active(model, session, database).await?),
            None => stage.group.to_owned(),
        };
        let has_offsets_in_postgres = stage.has_offsets_in_postgres();
        consumers.push(ConsumerGroup { name, topic: stage.topic, has_offsets_in_postgres });
    }
    Ok(consumers)
}

fn unknown(consumer: &str, reason: String) -> ConsumerLag {
    ConsumerLag { consumer: consumer.to_owned(), lag: Lag::Unknown(reason) }
}

/// Reads all lags once, from the front to the end. Never reports too small a lag: offsets are read before the ends that they
/// are compared with, and a consumer is idle only if all before it are.
async fn look(kafka: &KafkaArgs, database: &PgPool, consumers: Vec<ConsumerGroup>) -> Vec<ConsumerLag> {
    let mut stored = HashMap::new();
    for consumer in consumers.iter().filter(|consumer| consumer.has_offsets_in_postgres) {
        let offsets = stored_offsets(database, kafka, &consumer.name).await.map_err(|error| format!("{error:#}"));
        stored.insert(consumer.name.clone(), offsets);
    }
    let args = kafka.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut look = Look { args, stored, is_open: HashMap::new() };
        let lags = consumers.into_iter().map(|ConsumerGroup { name, topic, .. }| {
            let lag = look.lag(&name, topic).unwrap_or_else(|error| Lag::Unknown(format!("{error:#}")));
            ConsumerLag { consumer: name, lag }
        });
        lags.collect()
    });
    // Fails only if the task has panicked.
    looked.await.unwrap_or_else(|error| vec![unknown("reconcile", error.to_string())])
}

struct Look {
    args: KafkaArgs,
    /// The offsets in PostgreSQL of each group that keeps them there, or why they can't be read.
    stored: HashMap<String, Result<HashMap<i32, i64>, String>>,
    /// Whether a transaction is open on a topic. Read once for each topic: once all consumers before it are idle, no new
    /// transaction begins.
    is_open: HashMap<&'static str, bool>,
}

impl Look {
    fn lag(&mut self, consumer: &str, topic: &'static str) -> anyhow::Result<Lag> {
        let (group, full_topic) = (self.args.prefixed(consumer), self.args.prefixed(topic));
        let admin = Admin::new(&self.args)?;
        let committed = match self.stored.get(consumer) {
            Some(Err(error)) => return Ok(Lag::Unknown(error.clone())),
            Some(Ok(stored)) => {
                (0..admin.partitions(&full_topic)?).map(|partition| stored.get(&partition).copied()).collect()
            }
            None => admin.committed(&group, &full_topic)?,
        };
        let is_open = match self.is_open.get(topic) {
            Some(is_open) => *is_open,
            None => admin.has_open_transaction(&full_topic)?,
        };
        self.is_open.insert(topic, is_open);
        if is_open {
            return Ok(Lag::OpenTransaction);
        }
        let mut unread = Vec::new();
        let mut behind = 0;
        for ((partition, next), (start, end)) in (0..).zip(committed).zip(admin.watermarks(&full_topic)?) {
            let next = next.unwrap_or(start).max(start);
            if next < end {
                behind += end - next;
                unread.push((partition, next));
            }
        }
        // The rest may be transactions' markers and aborted records.
        let is_behind =
            !unread.is_empty() && TopicReader::open(&self.args, &full_topic, unread)?.next(SILENCE_MAX)?.is_some();
        Ok(if is_behind { Lag::Behind(behind) } else { Lag::AtRest })
    }
}

/// The next offset of each partition for the newest log epoch, which the projector keeps in its database transactions. `group` is that of
/// a generation.
pub(crate) async fn stored_offsets(
    database: &PgPool,
    kafka: &KafkaArgs,
    group: &str,
) -> anyhow::Result<HashMap<i32, i64>> {
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT DISTINCT ON (partition) partition::int4, next_offset::int8 FROM projection_offset \
         WHERE projection = $1 AND topic = $2 ORDER BY partition, log_epoch DESC, next_offset DESC",
    )
    .bind(group)
    .bind(kafka.prefixed(PurchasedItem::TOPIC))
    .fetch_all(database)
    .await
    .context("reading table projection_offset")?;
    Ok(rows.into_iter().collect())
}
