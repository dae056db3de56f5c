//! Making topics and finding out about them.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};

use crate::lifeline::Lifeline;
use crate::{Error, KafkaArgs, topic_id::topic_id};

/// A broker answers such requests in milliseconds; when it is starting, in seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// From a topic's creation until it can be used. A broker makes partitions one after the other, each with files of its own:
/// hundreds take it seconds.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(60);

/// Before what is being made is asked for again.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// Whether the brokers answer is asked again and again, and while it is asked a thread waits.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// With this many copies of a partition and more, so many must have a record before it is acknowledged: the loss of one
/// loses nothing, and with one away all goes on.
const COPIES_IN_SYNC: (i32, &str) = (3, "2");

/// How a topic is to be. An existing one is left as it is; where its settings differ, that is told.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its full name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many copies of each.
    pub replication: i32,
    /// Settings that differ from the broker's.
    pub config: &'static [(&'static str, &'static str)],
}

/// What tells one life of a topic from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster's id.
    pub cluster_id: String,
    /// The topic's id.
    pub topic_id: String,
    /// Its partitions: another number would put keys elsewhere.
    pub partitions: i32,
}

/// Where the copies of a partition are; brokers by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Who leads it; nobody when negative.
    pub leader: i32,
    /// Who has a copy, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Whose copies are complete.
    pub in_sync: Vec<i32>,
}

/// A client for such requests. Its calls block for up to some seconds, except where they are `async`.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    args: KafkaArgs,
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
    /// When a setting is none.
    pub fn new(args: &KafkaArgs) -> Result<Self, Error> {
        let client =
            args.client().create().map_err(|error| Error::kafka("setting up the Kafka admin client", error))?;
        Ok(Self { client, args: args.clone() })
    }

    /// Makes the topics that are not there. Of those that are, the settings that differ are told in the log, with the command
    /// that changes them: whoever runs the brokers may have had a reason. All can be used then.
    ///
    /// # Errors
    /// When the brokers are away or refuse, or do not provide them in time.
    pub async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        let topics: Vec<_> = specs
            .iter()
            .map(|spec| {
                let mut topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication));
                if spec.replication >= COPIES_IN_SYNC.0 {
                    topic = topic.set("min.insync.replicas", COPIES_IN_SYNC.1);
                }
                spec.config.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let operation = |topic: &str| format!("creating topic {topic} at {}", self.args.kafka_bootstrap_servers);
        let results = self.client.create_topics(&topics, &options).await;
        let mut there = Vec::new();
        for result in results.map_err(|error| Error::kafka(operation(&specs[0].name), error))? {
            match result {
                Ok(_) => {}
                Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => there.push(topic),
                Err((topic, code)) => return Err(Error::retry(operation(&topic), code)),
            }
        }
        for spec in specs {
            self.wait_for_topic(&spec.name).await?;
        }
        self.tell_differences(specs.iter().filter(|spec| there.contains(&spec.name))).await
    }

    /// A topic is created when the controller has written that down; the brokers hear of it, and of what they lead,
    /// afterwards. Until then they answer as if there were none, or as if others led it.
    async fn wait_for_topic(&self, topic: &str) -> Result<(), Error> {
        let deadline = Instant::now() + IN_USE_TIMEOUT;
        loop {
            match tokio::task::block_in_place(|| self.watermarks(topic)) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(error) => tracing::debug!(%topic, %error, "waiting for a topic"),
            }
            tokio::time::sleep(ASK_AGAIN_PAUSE).await;
        }
    }

    async fn tell_differences(&self, specs: impl Iterator<Item = &TopicSpec>) -> Result<(), Error> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        for spec in specs {
            let topic = &spec.name;
            let operation = || format!("asking for the settings of topic {topic}");
            let described = self.client.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
            let described = described.map_err(|error| Error::kafka(operation(), error))?.pop();
            let settings = match described {
                Some(Ok(settings)) => settings,
                Some(Err(code)) => return Err(Error::retry(operation(), code)),
                None => return Err(Error::retry(operation(), "the answer has none")),
            };
            for (name, wanted) in spec.config {
                let found = settings.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or("no value");
                if found != *wanted {
                    tracing::warn!(
                        %topic,
                        "an existing topic has {name}={found}, and would be made with {wanted}; it stays so. To change it: \
                         kafka-configs.sh --alter --topic {topic} --add-config {name}={wanted}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Removes topics with all that is in them; one that is not there is fine. For tests.
    ///
    /// # Errors
    /// When the brokers are away or refuse.
    pub async fn remove_topics(&self, names: &[&str]) -> Result<(), Error> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let operation = |topic: &str| format!("removing topic {topic}");
        let results = self.client.delete_topics(names, &options).await;
        for result in results.map_err(|error| Error::kafka(operation(&names.join(", ")), error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(Error::retry(operation(&topic), code)),
            }
        }
        Ok(())
    }

    /// Removes consumer groups with their offsets; they must have no members. One that is not there is fine. For tests.
    ///
    /// # Errors
    /// When the brokers are away or refuse.
    pub async fn remove_groups(&self, names: &[&str]) -> Result<(), Error> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let operation = |group: &str| format!("removing group {group}");
        let results = self.client.delete_groups(names, &options).await;
        for result in results.map_err(|error| Error::kafka(operation(&names.join(", ")), error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((group, code)) => return Err(Error::retry(operation(&group), code)),
            }
        }
        Ok(())
    }

    /// Whether the brokers answer.
    ///
    /// # Errors
    /// Says what they did instead.
    pub async fn check(&self) -> Result<(), Error> {
        let ask = || self.client.inner().fetch_metadata(Some("__consumer_offsets"), CHECK_TIMEOUT);
        tokio::task::block_in_place(ask).map(|_| ()).map_err(|error| {
            // It may have none left to ask.
            Lifeline::of(&self.args).tell(self.client.inner());
            Error::kafka(format!("asking Kafka at {}", self.args.kafka_bootstrap_servers), error)
        })
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When the brokers are away; [`crate::Recovery::Retry`] also while there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<i32, Error> {
        let operation = || format!("looking up topic {topic} at {}", self.args.kafka_bootstrap_servers);
        let metadata = self
            .client
            .inner()
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .map_err(|error| Error::kafka(operation(), error))?;
        match metadata.topics().first().map(|topic| topic.partitions().len()) {
            None | Some(0) => Err(Error::retry(operation(), "it does not exist; `setup` makes it")),
            Some(partitions) => Ok(i32::try_from(partitions).unwrap_or(i32::MAX)),
        }
    }

    /// Where the copies of all partitions are, those of Kafka's own topics too.
    ///
    /// # Errors
    /// When the brokers are away.
    pub fn copies(&self) -> Result<Vec<Copies>, Error> {
        let operation = || format!("asking for all partitions at {}", self.args.kafka_bootstrap_servers);
        let metadata = self.client.inner().fetch_metadata(None, REQUEST_TIMEOUT);
        let metadata = metadata.map_err(|error| Error::kafka(operation(), error))?;
        let partitions = |topic: &MetadataTopic| {
            let copies = |partition: &MetadataPartition| Copies {
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

    /// What tells this life of a topic from another.
    ///
    /// # Errors
    /// As [`Admin::partitions`].
    pub fn identity(&self, topic: &str) -> Result<LogIdentity, Error> {
        let operation = || format!("finding out the identity of topic {topic}");
        let partitions = self.partitions(topic)?;
        let client = self.client.inner();
        let cluster_id = client
            .fetch_cluster_id(REQUEST_TIMEOUT)
            .ok_or_else(|| Error::retry(operation(), "no broker told the cluster's id"))?;
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
                    .map_err(|error| Error::kafka(format!("asking for the end of {topic}/{partition}"), error))
            })
            .collect()
    }

    /// The offset that a group has committed in each partition of `topic`; `None` where it has committed none.
    ///
    /// # Errors
    /// As [`Admin::partitions`]; waits for a transaction that commits offsets right now.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, Error> {
        let failed = |error| Error::kafka(format!("asking for the committed offsets of group {group}"), error);
        let consumer: BaseConsumer = self.args.client().set("group.id", group).create().map_err(failed)?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, self.partitions(topic)? - 1);
        let committed = committed_offsets(&consumer, &partitions).map_err(failed)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).collect())
    }

    /// Whether a transaction is open on `topic`: then there are records that readers of committed ones do not see yet.
    ///
    /// # Errors
    /// As [`Admin::partitions`].
    pub fn has_open_transaction(&self, topic: &str) -> Result<bool, Error> {
        // What a client is told as the end depends on what it may read; our other clients read committed records.
        let operation = || format!("asking for the end of {topic}");
        let uncommitted: BaseConsumer = self
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

    /// Commits the beginning of `topic` for a group that has no offsets there and whose `output` has no record yet.
    ///
    /// Groups that write to Kafka start from committed offsets only: without any, 'from the beginning' would
    /// publish everything again. So the beginning is committed once, before the first record.
    ///
    /// # Errors
    /// When offsets are missing although `output` has records: they were lost, or expired.
    pub fn ensure_start(&self, group: &str, topic: &str, output: &str) -> Result<(), Error> {
        let operation = || format!("setting the first offsets of group {group} on {topic}");
        let consumer: BaseConsumer = self
            .args
            .client()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .map_err(|error| Error::kafka(operation(), error))?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_range(topic, 0, self.partitions(topic)? - 1);
        let missing =
            |list: &TopicPartitionList| list.elements().iter().any(|element| element.offset() == Offset::Invalid);
        let committed = |list: &TopicPartitionList| {
            committed_offsets(&consumer, list).map_err(|error| Error::kafka(operation(), error))
        };
        if !missing(&committed(&offsets)?) {
            return Ok(());
        }
        if self.watermarks(output)?.iter().any(|(_, end)| *end > 0) {
            return Err(Error::fatal(
                operation(),
                format!(
                    "group {group} has no offsets on some partitions of {topic}, although {output} has records: they were \
                     lost or have expired. Starting over would publish every record twice. Set them with \
                     kafka-consumer-groups --reset-offsets to where the group was, or republish into a new topic"
                ),
            ));
        }
        offsets.set_all_offsets(Offset::Offset(0)).map_err(|error| Error::kafka(operation(), error))?;
        match consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => Ok(()),
            // Another instance was quicker and has joined the group already.
            Err(_) if !missing(&committed(&offsets)?) => Ok(()),
            Err(error) => Err(Error::kafka(operation(), error)),
        }
    }

    /// Commits the first offset of those partitions of `topic` in which a group without members has none: for a log
    /// that takes another one's place, or has got more partitions. Offsets that were carried over stay.
    ///
    /// # Errors
    /// When the brokers are away, or the group has members: they must end first.
    pub fn start_new_log(&self, group: &str, topic: &str) -> Result<(), Error> {
        let operation = || format!("setting the first offsets of group {group} on the new {topic}");
        let failed = |error| Error::kafka(operation(), error);
        let mut offsets = TopicPartitionList::new();
        let known = self.committed(group, topic)?.into_iter().zip(self.watermarks(topic)?);
        for (partition, (_, (start, _))) in (0..).zip(known).filter(|(_, (committed, _))| committed.is_none()) {
            offsets.add_partition_offset(topic, partition, Offset::Offset(start)).map_err(failed)?;
        }
        self.commit_for(group, &offsets).map_err(failed)
    }

    /// Commits where a group without members goes on in `topic`: an offset a partition, from partition 0 on.
    ///
    /// # Errors
    /// When the brokers are away, or the group has members: they must end first.
    pub fn set_offsets(&self, group: &str, topic: &str, next: impl IntoIterator<Item = i64>) -> Result<(), Error> {
        let failed = |error| Error::kafka(format!("setting the offsets of group {group} on {topic}"), error);
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(next) {
            offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        }
        self.commit_for(group, &offsets).map_err(failed)
    }

    fn commit_for(&self, group: &str, offsets: &TopicPartitionList) -> Result<(), KafkaError> {
        if offsets.count() == 0 {
            return Ok(());
        }
        let consumer: BaseConsumer = self.args.client().set("group.id", group).create()?;
        consumer.commit(offsets, CommitMode::Sync)
    }

    /// Refuses when a group has members: what follows would get between their feet.
    ///
    /// # Errors
    /// When it has some, or the brokers are away.
    pub fn ensure_idle(&self, group: &str) -> Result<(), Error> {
        let operation = || format!("making sure that nobody works in group {group}");
        let groups = self.client.inner().fetch_group_list(Some(group), REQUEST_TIMEOUT);
        let groups = groups.map_err(|error| Error::kafka(operation(), error))?;
        match groups.groups().iter().map(|group| group.members().len()).sum() {
            0 => Ok(()),
            members => Err(Error::fatal(operation(), format!("it has {members} members; stop them first"))),
        }
    }
}

/// A broker that is to become the group's coordinator may not know it yet: a new Kafka makes the topic of the offsets when it
/// is asked for the first time. So it is asked again.
fn committed_offsets(
    consumer: &BaseConsumer,
    partitions: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        let result = consumer.committed_offsets(partitions.clone(), REQUEST_TIMEOUT);
        let code = result.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        if code != Some(RDKafkaErrorCode::NotCoordinator) || Instant::now() > deadline {
            return result;
        }
        std::thread::sleep(ASK_AGAIN_PAUSE);
    }
}
