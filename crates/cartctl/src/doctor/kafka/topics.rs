//! The topics that the trials use, and names for their group and their producer.

use std::time::Duration;

use cart::contract::{Contract as _, DEAD_LETTER_SETTINGS};
use cart::{CartCommand, CartReply};
use kafka::{Admin, KafkaArgs, Record, TopicSpec};
use tokio::task::block_in_place;

use crate::doctor::own;
use crate::doctor::report::{Check, Server, Verdict};

/// The most copies that the trials ask for, as production does.
const COPIES_MAX: usize = 3;

/// The broker's own time in each record.
const BROKER_TIME: &[(&str, &str)] = &[("message.timestamp.type", "LogAppendTime")];

/// A check of this server.
pub(super) const fn check(name: &'static str, without_it: &'static str, needs: &'static str) -> Check {
    Check { server: Server::Kafka, name, without_it, needs }
}

/// What to do where a broker is not Kafka, or an old one.
pub(super) const OTHER_BROKER: &str =
    "use Apache Kafka 4.1, with which the guarantees are tested, or a broker that does the same";

/// The servers answer within milliseconds, or have a problem.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// The topics of one run, one partition each.
pub(super) struct Topics {
    /// As `cart-commands`, and as every topic without a limit of its own.
    pub(super) log: String,
    /// As `cart-replies`.
    pub(super) replies: String,
    /// As the topic of dead letters.
    pub(super) dead: String,
    pub(super) clock: String,
    /// Of the consumer group and of the transactional id.
    pub(super) name: String,
}

impl Topics {
    pub(super) fn new(args: &KafkaArgs) -> Self {
        let name = args.prefixed(&own::name());
        let topic = |suffix| format!("{name}-{suffix}");
        Self { log: topic("log"), replies: topic("replies"), dead: topic("dead"), clock: topic("clock"), name }
    }

    pub(super) fn all(&self) -> [&str; 4] {
        [&self.log, &self.replies, &self.dead, &self.clock]
    }

    /// Makes them.
    pub(super) async fn create(&self, admin: &Admin) -> anyhow::Result<Verdict> {
        let brokers = block_in_place(|| admin.brokers())?.len();
        let replication = i32::try_from(brokers.clamp(1, COPIES_MAX))?;
        let spec = |name: &str, config| TopicSpec { name: name.to_owned(), partitions: 1, replication, config };
        let specs = [
            spec(&self.log, CartCommand::SETTINGS),
            spec(&self.replies, CartReply::SETTINGS),
            spec(&self.dead, DEAD_LETTER_SETTINGS),
            spec(&self.clock, BROKER_TIME),
        ];
        admin.ensure_topics(&specs).await?;
        Ok(Verdict::holds(format!(
            "topics with the settings of `setup` and {replication} copies can be made: {}-*",
            self.name
        )))
    }

    /// Removes them and the group; what is not there is fine.
    pub(super) async fn remove(&self, admin: &Admin) -> anyhow::Result<()> {
        admin.remove_topics(&self.all()).await?;
        Ok(admin.remove_groups(&[&self.name]).await?)
    }
}

/// Removes the topics that a killed doctor has left under this prefix. Its group's offsets go with them.
pub(super) async fn remove_left(args: &KafkaArgs, admin: &Admin) -> anyhow::Result<()> {
    let mut topics: Vec<_> = block_in_place(|| admin.copies())?.into_iter().map(|partition| partition.topic).collect();
    topics.retain(|topic| topic.strip_prefix(&args.topic_prefix).is_some_and(own::is_left));
    topics.dedup();
    if topics.is_empty() {
        return Ok(());
    }
    Ok(admin.remove_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>()).await?)
}

/// A record of the only partition.
pub(super) fn record(value: Vec<u8>) -> Record {
    Record { partition: Some(0), key: Some(b"doctor".to_vec()), value: Some(value), headers: None }
}
