//! Where Kafka and the registry are, and the settings that every client of ours has.

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::TopicSpec;

/// How to reach Kafka and the schema registry.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaArgs {
    /// Brokers to start from: host:port, comma-separated
    #[arg(long, env, default_value = "127.0.0.1:9092")]
    pub kafka_bootstrap_servers: String,

    /// Further librdkafka settings, such as security.protocol=SSL: name=value, comma-separated
    #[arg(long, env, value_delimiter = ',', value_parser = property, hide_env_values = true)]
    pub kafka_properties: Vec<(String, String)>,

    /// The schema registry's Confluent-compatible API
    #[arg(long, env, default_value = "http://127.0.0.1:8081/apis/ccompat/v7")]
    pub schema_registry_url: String,

    /// Put before every topic's, subject's and consumer group's name, so that several installations can share a cluster
    #[arg(long, env, default_value = "")]
    pub topic_prefix: String,
}

/// How topics are made. Only `setup` reads this.
#[derive(Debug, Clone, clap::Args)]
pub struct TopicArgs {
    /// Partitions of each topic: the most workers that can share its load. Can't be changed later without a new log epoch
    #[arg(long, env, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,

    /// Copies of each partition; production wants 3: then two must have a record before it counts, and any one may be away
    #[arg(long, env, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    pub topic_replication: i32,
}

impl TopicArgs {
    /// How the topic with this full name is to be.
    #[must_use]
    pub fn spec(&self, name: String, config: &'static [(&'static str, &'static str)]) -> TopicSpec {
        TopicSpec { name, partitions: self.topic_partitions, replication: self.topic_replication, config }
    }
}

/// Who a process is in its consumer group.
#[derive(Debug, Clone, clap::Args)]
pub struct MemberArgs {
    /// Name of this process in its group. Unless given: host name and first free number, such as myhost-0. A restart under the
    /// same name ends the transaction that its predecessor left open
    #[arg(long, env)]
    pub instance: Option<String>,

    /// A member that is silent for so long loses its partitions to the others
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..=300_000))]
    pub session_timeout_ms: u64,
}

impl MemberArgs {
    /// After this silence the group goes on without the member.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms)
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not of the form name=value")),
    }
}

impl KafkaArgs {
    /// A topic's or group's full name.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// What every client of ours starts from.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes a configuration")]
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.kafka_bootstrap_servers)
            // A dead TCP connection is found by its owner, not after the kernel's hours.
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // Back within a second after a broker's restart.
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.kafka_properties {
            config.set(name, value);
        }
        config
    }

    /// What every producer of ours starts from.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        // All producers agree with Java's on a key's partition; librdkafka's own default does not.
        config.set("partitioner", "murmur2_random");
        // A record does not wait for company: while one request is under way the next batch collects anyway.
        config.set("linger.ms", "0");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::property;

    #[test]
    fn a_property_has_a_name_and_a_value() {
        assert_eq!(property("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert!(property("security.protocol").is_err());
        assert!(property("=x").is_err());
    }
}
