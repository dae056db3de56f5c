//! Where Kafka and the registry are, and the settings that every client of ours has.

use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext};

use crate::client_log::Reporting;
use crate::registry_args::RegistryArgs;
use crate::security::KafkaSecurityArgs;
use crate::token::{HasClient, TokenFile};

/// How to reach Kafka and the schema registry.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaArgs {
    /// Kafka brokers to connect to first, as host:port, comma-separated
    #[arg(long, env, help_heading = "Common", default_value = "127.0.0.1:9092")]
    pub kafka_bootstrap_servers: String,

    /// URL of the schema registry's Confluent-compatible API
    #[arg(long, env, help_heading = "Common", default_value = "http://127.0.0.1:8081/apis/ccompat/v7")]
    pub schema_registry_url: String,

    /// Additional librdkafka settings as name=value, comma-separated, such as fetch.min.bytes=1000. They override the program's
    /// own; a setting that the guarantees depend on, such as group.id, is rejected
    #[arg(long, env, help_heading = "Servers", value_delimiter = ',', value_parser = property, hide_env_values = true)]
    pub kafka_properties: Vec<(String, String)>,

    /// Prefix of the names of all topics, subjects and consumer groups; with it several installations can share a cluster
    #[arg(long, env, help_heading = "Servers", default_value = "")]
    pub topic_prefix: String,

    /// How the brokers are secured.
    #[command(flatten)]
    pub security: KafkaSecurityArgs,
    /// How the registry is secured.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Who a process is in its consumer group.
#[derive(Debug, Clone, clap::Args)]
pub struct MemberArgs {
    /// Name of this process in its consumer group; by default the host name and the first free number, such as myhost-0. A
    /// restart under the same name aborts the transaction that its predecessor left open
    #[arg(long, env, help_heading = "Common")]
    pub instance: Option<String>,

    /// Session timeout in the consumer group; a member that is silent for longer loses its partitions to the others
    #[arg(help_heading = "Times")]
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

/// Settings with another name in librdkafka: they are the same setting.
const ALIASES: [(&str, &str); 8] = [
    ("auto.commit.enable", "enable.auto.commit"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

/// What cannot be given, and what to do instead. With another value records could be lost, doubled, reordered or read before
/// they are committed, or an answer would come later than the API promises. Others have options of their own, and a secret does not
/// belong on a command line.
const FIXED: [(&str, &str); 35] = [
    ("acks", FOR_GUARANTEES),
    ("auto.offset.reset", FOR_GUARANTEES),
    ("bootstrap.servers", "use --kafka-bootstrap-servers"),
    ("delivery.timeout.ms", "ingest derives it from --reply-timeout-ms"),
    ("enable.auto.commit", FOR_GUARANTEES),
    ("enable.auto.offset.store", FOR_GUARANTEES),
    ("enable.idempotence", FOR_GUARANTEES),
    ("enable.partition.eof", FOR_GUARANTEES),
    ("group.id", "use --topic-prefix, which is put before the groups' names"),
    ("heartbeat.interval.ms", "it follows from --session-timeout-ms"),
    ("isolation.level", FOR_GUARANTEES),
    ("max.in.flight.requests.per.connection", FOR_GUARANTEES),
    ("max.poll.interval.ms", FOR_GUARANTEES),
    ("message.max.bytes", FOR_GUARANTEES),
    ("partition.assignment.strategy", FOR_GUARANTEES),
    ("partitioner", FOR_GUARANTEES),
    ("queue.buffering.max.messages", FOR_GUARANTEES),
    ("sasl.mechanism", "use --kafka-sasl-mechanism"),
    ("sasl.oauthbearer.assertion.private.key.passphrase", "use --kafka-token-file"),
    ("sasl.oauthbearer.assertion.private.key.pem", "use --kafka-token-file"),
    ("sasl.oauthbearer.client.credentials.client.secret", "use --kafka-token-file"),
    ("sasl.oauthbearer.client.secret", "use --kafka-token-file"),
    ("sasl.oauthbearer.config", "use --kafka-token-file"),
    ("sasl.password", "use --kafka-password-file"),
    ("sasl.username", "use --kafka-user"),
    ("security.protocol", "use --kafka-security"),
    ("session.timeout.ms", "use --session-timeout-ms"),
    ("ssl.ca.location", "use --kafka-ca-cert"),
    ("ssl.certificate.location", "use --kafka-client-cert"),
    ("ssl.key.location", "use --kafka-client-key"),
    ("ssl.key.password", "use --kafka-client-key with a key that is not encrypted"),
    ("ssl.keystore.password", "use --kafka-client-cert and --kafka-client-key"),
    ("ssl.key.pem", "use --kafka-client-key"),
    ("transaction.timeout.ms", FOR_GUARANTEES),
    ("transactional.id", "use --instance, from which it is made"),
];

const FOR_GUARANTEES: &str = "leave it out, because the guarantees depend on the program's own value";

/// Below this the producer in transactions would keep a core busy while it waits, see `HAND_OVER_MAX` there.
const LINGER_MS_MIN: f64 = 5.0;

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.trim().is_empty()).ok_or("it is not of the form name=value")?;
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name.trim());
    let name = alias.map_or(name.trim(), |(_, name)| name);
    if let Some((_, instead)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        return Err(format!("{name} cannot be set: {instead}"));
    }
    if name == "linger.ms" && value.trim().parse::<f64>().is_ok_and(|linger| linger < LINGER_MS_MIN) {
        return Err(format!("linger.ms must be at least {LINGER_MS_MIN}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A client's settings in the making: what `--kafka-properties` gives wins over what the program sets.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    config: ClientConfig,
    given: Vec<String>,
    token: TokenFile,
    /// The error of the options.
    problem: Option<String>,
}

impl Settings {
    /// Sets what is not given.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        if self.given.iter().all(|given| given != name) {
            self.config.set(name, value);
        }
        self
    }

    /// Sets it in any case: for a client that asks and reads nothing, so that nothing can be tuned.
    pub(crate) fn set_always(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.config.set(name, value);
        self
    }
}

impl Settings {
    /// Lets librdkafka also log what is no error to it, whatever the levels of our own log are.
    pub(crate) fn with_information(&mut self) -> &mut Self {
        self.config.set_log_level(RDKafkaLogLevel::Info);
        self
    }

    /// Makes a client that only reports.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub(crate) fn create<T: FromClientConfigAndContext<Reporting> + HasClient<Reporting>>(
        &self,
    ) -> Result<T, KafkaError> {
        self.create_with_context(Reporting::new(self.token.clone()))
    }

    /// Makes a client with a context, and gives it its token.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub(crate) fn create_with_context<C, T>(&self, context: C) -> Result<T, KafkaError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C> + HasClient<C>,
    {
        const { assert!(C::ENABLE_REFRESH_OAUTH_TOKEN, "a client outlives its token") };
        if let Some(problem) = &self.problem {
            return Err(KafkaError::ClientCreation(problem.clone()));
        }
        let client: T = self.config.create_with_context(context)?;
        self.token.renew(client.inner_client());
        Ok(client)
    }

    #[cfg(test)]
    fn get(&self, name: &str) -> Option<&str> {
        self.config.get(name)
    }
}

impl KafkaArgs {
    /// For servers without security, with the default for everything else.
    #[must_use]
    pub fn plain(kafka_bootstrap_servers: &str, schema_registry_url: &str) -> Self {
        Self {
            kafka_bootstrap_servers: kafka_bootstrap_servers.to_owned(),
            schema_registry_url: schema_registry_url.to_owned(),
            kafka_properties: Vec::new(),
            topic_prefix: String::new(),
            security: KafkaSecurityArgs::default(),
            registry: RegistryArgs::default(),
        }
    }

    /// A topic's or group's full name.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// What every client of ours starts from.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes a configuration")]
    pub(crate) fn client(&self) -> Settings {
        let mut config = ClientConfig::new();
        for (name, value) in &self.kafka_properties {
            config.set(name, value);
        }
        let given = self.kafka_properties.iter().map(|(name, _)| name.clone()).collect();
        let (secured, problem) = match self.security.settings() {
            Ok(secured) => (secured, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        for (name, value) in secured {
            config.set(name, value);
        }
        let mut settings = Settings { config, given, token: self.security.token(), problem };
        settings
            .set("bootstrap.servers", &self.kafka_bootstrap_servers)
            // A dead TCP connection is found by its owner, not after the kernel's hours.
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // Back within a second after a broker's restart.
            .set("reconnect.backoff.max.ms", "1000");
        settings
    }

    /// What every producer of ours starts from.
    pub(crate) fn producer(&self) -> Settings {
        let mut settings = self.client();
        // All producers agree with Java's on a key's partition; librdkafka's own default does not.
        settings.set("partitioner", "murmur2_random");
        // A record does not wait for others: while one request is in flight the next batch collects anyway.
        settings.set("linger.ms", "0");
        settings
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::Parser;

    use super::{ALIASES, FIXED, KafkaArgs, property};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        kafka: KafkaArgs,
    }

    fn parse(properties: &str) -> Result<KafkaArgs, String> {
        let cli = Cli::try_parse_from(["test", "--kafka-properties", properties]);
        cli.map(|cli| cli.kafka).map_err(|error| error.to_string())
    }

    #[test]
    fn a_property_has_a_name_and_a_value() {
        assert_eq!(property("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        // Behind a comma there may be a blank.
        assert_eq!(property(" a.b=c"), Ok(("a.b".into(), "c".into())));
        assert!(property("security.protocol").is_err());
        assert!(property("=x").is_err());
        assert!(property(" =x").is_err());
    }

    #[test]
    fn given_properties_override_those_of_every_client() {
        let given =
            parse("fetch.min.bytes=1000,fetch.queue.backoff.ms=7,socket.keepalive.enable=false,client.id=us").unwrap();
        let mut settings = given.client();
        settings.set("fetch.min.bytes", "1").set("fetch.queue.backoff.ms", "1").set("client.id", "own");
        settings.set("fetch.wait.max.ms", "10");
        for (name, value) in [
            ("fetch.min.bytes", "1000"),
            ("fetch.queue.backoff.ms", "7"),
            ("fetch.wait.max.ms", "10"),
            ("socket.keepalive.enable", "false"),
            ("client.id", "us"),
        ] {
            assert_eq!(settings.get(name), Some(value), "{name}");
        }
        let mut producer = parse("linger.ms=20,batch.size=100000").unwrap().producer();
        producer.set("linger.ms", "5");
        assert_eq!((producer.get("linger.ms"), producer.get("batch.size")), (Some("20"), Some("100000")));
        // By its other name as well.
        let mut consumer = parse("max.partition.fetch.bytes=2000").unwrap().client();
        consumer.set("fetch.message.max.bytes", "1048576");
        assert_eq!(consumer.get("fetch.message.max.bytes"), Some("2000"));
        assert_eq!(consumer.get("max.partition.fetch.bytes"), None);
        // Without a given one the program's own, the last one.
        let mut own = parse("statistics.interval.ms=0").unwrap().producer();
        own.set("linger.ms", "5");
        assert_eq!(own.get("linger.ms"), Some("5"));
    }

    #[test]
    fn rejects_properties_that_guarantees_depend_on() {
        for (name, instead) in FIXED {
            let error = parse(&format!("fetch.min.bytes=1,{name}=1")).unwrap_err();
            assert!(error.contains(&format!("{name} cannot be set: {instead}")), "{error}");
        }
        for (alias, name) in ALIASES {
            let refused = FIXED.iter().any(|(fixed, _)| *fixed == name);
            assert_eq!(parse(&format!("{alias}=100")).is_err(), refused, "{alias}");
        }
        assert!(parse("linger.ms=4.9").unwrap_err().contains("linger.ms must be at least 5"));
        assert!(parse("queue.buffering.max.ms=0").unwrap_err().contains("linger.ms must be at least 5"));
    }
}
