//! Finding out about topics; making them, and what groups have committed, is below.

mod groups;
mod missing;
mod owners;
mod settings;
mod topics;

use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};

use crate::client_log::{PlainConsumer, Reporting};
use crate::diagnosis::{Diagnosis, diagnose};
use crate::reconnect::BootstrapReconnect;
use crate::{Error, KafkaArgs, topic_id::topic_id};

pub use settings::{Difference, Settings, differences};
pub use topics::{TopicArgs, TopicSpec};

/// A broker answers such requests in milliseconds; when it is starting, in seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Before what is being made is asked for again.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// Whether the brokers answer is asked again and again, and while it is asked a thread waits.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Identifies one life of a topic: a recreated topic has another identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    pub cluster_id: String,
    pub topic_id: String,
    /// Its partitions: another number would put keys elsewhere.
    pub partitions: i32,
}

/// Where the copies of a partition are; brokers by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReplicas {
    /// The topic's full name.
    pub topic: String,
    pub partition: i32,
    /// The leader's broker id; negative if the partition has no leader.
    pub leader: i32,
    /// Who has a copy, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Whose copies are complete.
    pub in_sync: Vec<i32>,
}

/// A client for such requests. Its calls block for up to some seconds, except where they are `async`.
pub struct Admin {
    client: AdminClient<Reporting>,
    args: KafkaArgs,
}

/// Why the brokers do not answer.
struct Unanswered {
    error: Error,
    /// Whether a wait would not change it.
    is_decisive: bool,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// A client; does not wait for the brokers.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn new(args: &KafkaArgs) -> Result<Self, Error> {
        // To librdkafka it is a producer, and a producer that looks a topic up makes it.
        let client = args.client().set("allow.auto.create.topics", "false").create();
        let client = client.map_err(|error| Error::kafka("setting up the Kafka admin client", error))?;
        Ok(Self { client, args: args.clone() })
    }

    /// The client, with the present token: it is never polled, so it does not ask for one.
    pub(crate) fn client(&self) -> &AdminClient<Reporting> {
        self.args.security.token().renew(self.client.inner());
        &self.client
    }

    /// Whether the brokers answer.
    ///
    /// # Errors
    /// Says what they did instead, with the option to change where a setting is the reason.
    pub async fn check(&self) -> Result<(), Error> {
        let operation = || format!("querying Kafka at {}", self.args.kafka_bootstrap_servers);
        tokio::task::block_in_place(|| {
            let answer = self.client().inner().fetch_metadata(Some("__consumer_offsets"), CHECK_TIMEOUT);
            answer.map(|_| ()).map_err(|error| {
                // It may have none left to ask.
                BootstrapReconnect::of(&self.args).readd_brokers(self.client.inner());
                match diagnose(&self.args) {
                    Some(diagnosis) => Error::retry(operation(), diagnosis.reason),
                    None => Error::kafka(operation(), error),
                }
            })
        })
    }

    /// What the brokers say of a topic, or of all. If they do not answer soon, it is found out why.
    fn metadata(&self, topic: Option<&str>, operation: impl Fn() -> String) -> Result<Metadata, Error> {
        self.try_metadata(topic, operation).map_err(|unanswered| unanswered.error)
    }

    fn try_metadata(&self, topic: Option<&str>, operation: impl Fn() -> String) -> Result<Metadata, Unanswered> {
        if let Ok(metadata) = self.client().inner().fetch_metadata(topic, CHECK_TIMEOUT) {
            return Ok(metadata);
        }
        let diagnosis = match diagnose(&self.args) {
            Some(Diagnosis { is_decisive: true, reason }) => {
                return Err(Unanswered { error: Error::retry(operation(), reason), is_decisive: true });
            }
            other => other,
        };
        self.client.inner().fetch_metadata(topic, REQUEST_TIMEOUT / 2).map_err(|error| {
            let error = match diagnosis {
                Some(Diagnosis { reason, .. }) => Error::retry(operation(), reason),
                None => Error::kafka(operation(), error),
            };
            Unanswered { error, is_decisive: false }
        })
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// If the brokers do not respond; [`crate::Recovery::Retry`] also while there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<i32, Error> {
        let found = self.partitions_if_exists(topic)?;
        found.ok_or_else(|| Error::retry(self.looking_up(topic), self.explain_missing(topic)))
    }

    /// As [`Admin::partitions`]; `None` where there is no such topic.
    fn partitions_if_exists(&self, topic: &str) -> Result<Option<i32>, Error> {
        let metadata = self.metadata(Some(topic), || self.looking_up(topic))?;
        let found = metadata.topics().first();
        // A topic that the user may not see looks like one that is not there, but for this.
        let code = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
        if let Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) = code {
            return Err(Error::kafka(self.looking_up(topic), KafkaError::MetadataFetch(code)));
        }
        let partitions = found.map_or(0, |topic| topic.partitions().len());
        Ok(Some(i32::try_from(partitions).unwrap_or(i32::MAX)).filter(|partitions| *partitions > 0))
    }

    fn looking_up(&self, topic: &str) -> String {
        format!("looking up topic {topic} at {}", self.args.kafka_bootstrap_servers)
    }

    /// Where the copies of all partitions are, those of Kafka's own topics too.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn copies(&self) -> Result<Vec<PartitionReplicas>, Error> {
        let operation = || format!("listing the partitions at {}", self.args.kafka_bootstrap_servers);
        let metadata = self.metadata(None, operation)?;
        let partitions = |topic: &MetadataTopic| {
            let copies = |partition: &MetadataPartition| PartitionReplicas {
                topic: topic.name().to_owned(),
                partition: partition.id(),
                leader: partition.leader(),
                replicas: partition.replicas().to_vec(),
                in_sync: partition.isr().to_vec(),
            };
            topic.partitions().iter().map(copies).collect::<Vec<_>>()
        };
        Ok(metadata.topics().iter().flat_map(partitions).collect())
    }

    /// The identity of this life of a topic.
    ///
    /// # Errors
    /// As [`Admin::partitions`].
    pub fn identity(&self, topic: &str) -> Result<LogIdentity, Error> {
        let operation = || format!("reading the identity of topic {topic}");
        let partitions = self.partitions(topic)?;
        let client = self.client().inner();
        let cluster_id = client
            .fetch_cluster_id(REQUEST_TIMEOUT)
            .ok_or_else(|| Error::retry(operation(), "no broker returned the id of the cluster"))?;
        let topic_id = topic_id(client, topic, REQUEST_TIMEOUT).map_err(|reason| Error::retry(operation(), reason))?;
        Ok(LogIdentity { cluster_id, topic_id, partitions })
    }

    /// The first offset of each partition, and the one behind its last record; the one where the first open transaction
    /// begins, if there is one.
    ///
    /// # Errors
    /// As [`Admin::partitions`].
    pub fn watermarks(&self, topic: &str) -> Result<Vec<(i64, i64)>, Error> {
        (0..self.partitions(topic)?)
            .map(|partition| {
                self.client
                    .inner()
                    .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
                    .map_err(|error| Error::kafka(format!("reading the end of {topic}/{partition}"), error))
            })
            .collect()
    }

    /// The offset of the first record of that time (milliseconds since 1970) or later in each partition; the end where there
    /// is none.
    ///
    /// # Errors
    /// As [`Admin::partitions`].
    pub fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<Vec<i64>, Error> {
        let failed = |error| Error::kafka(format!("searching the records of a time in {topic}"), error);
        let ends = self.watermarks(topic)?;
        let mut times = TopicPartitionList::new();
        for (partition, _) in (0..).zip(&ends) {
            times.add_partition_offset(topic, partition, Offset::Offset(at_ms)).map_err(failed)?;
        }
        let consumer: PlainConsumer =
            self.args.client().set("group.id", format!("{topic}-reader")).create().map_err(failed)?;
        let found = consumer.offsets_for_times(times, REQUEST_TIMEOUT).map_err(failed)?;
        let offset = |offset, end| if let Offset::Offset(offset) = offset { offset } else { end };
        Ok(found.elements().iter().zip(ends).map(|(element, (_, end))| offset(element.offset(), end)).collect())
    }

    /// Whether a transaction is open on `topic`: then there are records that readers of committed ones do not see yet.
    ///
    /// # Errors
    /// As [`Admin::partitions`].
    pub fn has_open_transaction(&self, topic: &str) -> Result<bool, Error> {
        // The end that a broker reports depends on the client's isolation level; the other clients here read committed records.
        let operation = || format!("reading the end of {topic}");
        let uncommitted: PlainConsumer = self
            .args
            .client()
            .set("group.id", format!("{topic}-reader"))
            .set("isolation.level", "read_uncommitted")
            .create()
            .map_err(|error| Error::kafka(operation(), error))?;
        for (partition, (_, stable_end)) in (0..).zip(self.watermarks(topic)?) {
            let (_, end) = uncommitted
                .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
                .map_err(|error| Error::kafka(operation(), error))?;
            if end > stable_end {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
