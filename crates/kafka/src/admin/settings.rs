//! The settings that topics and brokers have, for `setup` and for `cartctl doctor`.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminOptions, ConfigEntry, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataBroker;

use super::{Admin, REQUEST_TIMEOUT};
use crate::Error;
use crate::error::MISSING_GRANT;

/// Settings by their names, each with the value that is in effect. A secret one has no value.
pub type Settings = BTreeMap<String, String>;

/// A setting of a topic that is not what this system wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub setting: &'static str,
    pub found: String,
    pub wanted: &'static str,
    /// The command that changes it.
    pub command: String,
}

/// The settings of `topic` (full name) that are not as `wanted` says.
#[must_use]
pub fn differences(
    topic: &str,
    settings: &Settings,
    wanted: &'static [(&'static str, &'static str)],
) -> Vec<Difference> {
    let difference = |(setting, wanted): &(&'static str, &'static str)| {
        let found = settings.get(*setting).map_or("no value", String::as_str);
        (found != *wanted).then(|| Difference {
            setting,
            found: found.to_owned(),
            wanted,
            command: format!("kafka-configs.sh --alter --topic {topic} --add-config {setting}={wanted}"),
        })
    };
    wanted.iter().filter_map(difference).collect()
}

impl Admin {
    /// The settings of a topic (full name).
    ///
    /// # Errors
    /// If the brokers do not respond, or refuse; also where there is no such topic.
    pub async fn topic_settings(&self, topic: &str) -> Result<Settings, Error> {
        self.settings(&ResourceSpecifier::Topic(topic), &format!("reading the settings of topic {topic}")).await
    }

    /// The settings of a broker.
    ///
    /// # Errors
    /// If the brokers do not respond, or refuse.
    pub async fn broker_settings(&self, broker: i32) -> Result<Settings, Error> {
        self.settings(&ResourceSpecifier::Broker(broker), &format!("reading the settings of broker {broker}")).await
    }

    async fn settings(&self, of: &ResourceSpecifier<'_>, operation: &str) -> Result<Settings, Error> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let described = self.client().describe_configs([of], &options).await;
        match described.map_err(|error| Error::kafka(operation, error))?.pop() {
            // The wrapper leaves out the error of a resource. One that may be read has settings.
            Some(Ok(resource)) if resource.entries.is_empty() => {
                let code = match of {
                    ResourceSpecifier::Topic(topic) => {
                        match tokio::task::block_in_place(|| self.partitions_if_exists(topic))? {
                            Some(_) => RDKafkaErrorCode::TopicAuthorizationFailed,
                            None => return Err(Error::retry(operation, RDKafkaErrorCode::UnknownTopic)),
                        }
                    }
                    ResourceSpecifier::Broker(_) | ResourceSpecifier::Group(_) => {
                        RDKafkaErrorCode::ClusterAuthorizationFailed
                    }
                };
                Err(Error::retry(format!("{operation} ({MISSING_GRANT})"), code))
            }
            Some(Ok(resource)) => {
                let setting = |entry: ConfigEntry| entry.value.map(|value| (entry.name, value));
                Ok(resource.entries.into_iter().filter_map(setting).collect())
            }
            Some(Err(code)) => Err(Error::retry(operation, code)),
            None => Err(Error::retry(operation, "the response has no settings")),
        }
    }

    /// The ids of the brokers.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn brokers(&self) -> Result<Vec<i32>, Error> {
        let operation = || format!("listing the brokers at {}", self.args.kafka_bootstrap_servers);
        let metadata = self.client().inner().fetch_metadata(None, REQUEST_TIMEOUT);
        let metadata = metadata.map_err(|error| Error::kafka(operation(), error))?;
        Ok(metadata.brokers().iter().map(MetadataBroker::id).collect())
    }
}
