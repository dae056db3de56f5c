//! Making topics.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::settings::{Difference, differences};
use super::{ASK_AGAIN_PAUSE, Admin, REQUEST_TIMEOUT, Unanswered};
use crate::Error;

/// For brokers that start together with `setup`.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// From a topic's creation until it can be used. A broker makes partitions one after the other, each with files of its own:
/// hundreds take it seconds.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(60);

/// With this many copies of a partition and more, so many must have a record before it is acknowledged: the loss of one
/// loses nothing, and with one of them down everything continues.
const COPIES_IN_SYNC: (i32, &str) = (3, "2");

/// How topics are made. Only `setup` reads this.
#[derive(Debug, Clone, clap::Args)]
pub struct TopicArgs {
    /// Partitions of each topic, shared by the workers of a group. Six take 100,000 commands/s; each one costs requests to
    /// Kafka. A later change needs a new log epoch
    #[arg(help_heading = "Setup")]
    #[arg(long, env, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,

    /// Replicas of each topic partition; use 3 in production. With 3, two replicas must store each record, so one may fail
    #[arg(long, env, help_heading = "Setup", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    pub topic_replication: i32,
}

impl TopicArgs {
    /// How the topic with this full name is to be.
    #[must_use]
    pub fn spec(&self, name: String, config: &'static [(&'static str, &'static str)]) -> TopicSpec {
        self.spec_of(name, self.topic_partitions, config)
    }

    /// The same for a topic whose partitions are not a matter of load.
    #[must_use]
    pub fn spec_of(&self, name: String, partitions: i32, config: &'static [(&'static str, &'static str)]) -> TopicSpec {
        TopicSpec { name, partitions, replication: self.topic_replication, config }
    }
}

/// The settings of a topic. An existing topic is not changed; a difference is logged.
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

impl Admin {
    /// Creates the missing topics and waits until all can be used. Settings of existing topics that differ are logged with the
    /// command that changes them: the operator may have had a reason.
    ///
    /// # Errors
    /// If the brokers do not respond, or refuse, or do not provide them in time.
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
        self.wait_for_brokers(&specs[0].name, || operation(&specs[0].name)).await?;
        let results = self.client().create_topics(&topics, &options).await;
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

    /// Waits for brokers that start. The request that follows would only say that it timed out.
    async fn wait_for_brokers(&self, topic: &str, operation: impl Fn() -> String) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match tokio::task::block_in_place(|| self.try_metadata(Some(topic), &operation)) {
                Ok(_) => return Ok(()),
                Err(Unanswered { error, is_decisive }) if is_decisive || Instant::now() > deadline => {
                    return Err(error);
                }
                Err(Unanswered { error, .. }) => tracing::debug!(%error, "waiting for the brokers"),
            }
            tokio::time::sleep(ASK_AGAIN_PAUSE).await;
        }
    }

    /// A topic is created when the controller has written that down; the brokers hear of it, and of what they lead,
    /// afterwards. Until then they answer as if there were none, or as if others led it.
    async fn wait_for_topic(&self, topic: &str) -> Result<(), Error> {
        let deadline = Instant::now() + IN_USE_TIMEOUT;
        // Without the explanation of a topic that does not exist: this one is about to, and it asks for all topics.
        let look = || match self.partitions_if_exists(topic)? {
            Some(_) => self.watermarks(topic).map(drop),
            None => Err(Error::retry(self.looking_up(topic), "it is being created")),
        };
        loop {
            match tokio::task::block_in_place(look) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(error) => tracing::debug!(%topic, %error, "waiting for a topic"),
            }
            tokio::time::sleep(ASK_AGAIN_PAUSE).await;
        }
    }

    async fn tell_differences(&self, specs: impl Iterator<Item = &TopicSpec>) -> Result<(), Error> {
        for TopicSpec { name: topic, config, .. } in specs {
            for Difference { setting, found, wanted, command } in
                differences(topic, &self.topic_settings(topic).await?, config)
            {
                tracing::warn!(
                    %topic,
                    setting,
                    found,
                    wanted,
                    %command,
                    "an existing topic has another setting, which `setup` does not change"
                );
            }
        }
        Ok(())
    }

    /// Removes topics with all that is in them; one that is not there is fine.
    ///
    /// # Errors
    /// If the brokers do not respond, or refuse.
    pub async fn remove_topics(&self, names: &[&str]) -> Result<(), Error> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let operation = |topic: &str| format!("removing topic {topic}");
        let results = self.client().delete_topics(names, &options).await;
        for result in results.map_err(|error| Error::kafka(operation(&names.join(", ")), error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(Error::retry(operation(&topic), code)),
            }
        }
        Ok(())
    }
}
