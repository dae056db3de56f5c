//! Whether the brokers slow this client down: a quota is seen by its effect, since librdkafka cannot ask for quotas.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::token::TokenFile;
use crate::{Error, KafkaArgs, client_log};

/// How often librdkafka reports what it was throttled.
const STATISTICS_INTERVAL: Duration = Duration::from_millis(50);

/// After the last answer: the report that has its throttling comes within this time.
const REPORT_TIME: Duration = Duration::from_millis(150);

/// Bytes of a record. Several of them are one request, as under load.
const RECORD_LEN: usize = 128 * 1_024;

/// The longest time that a broker has asked this client to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Between two requests that produce.
    pub producing: Duration,
    /// Between two requests that fetch.
    pub fetching: Duration,
}

/// Keeps the longest throttling that was reported.
#[derive(Default)]
struct Observed {
    token: TokenFile,
    throttled_ms: AtomicI64,
    failed: Mutex<Option<KafkaError>>,
}

impl Observed {
    fn new(args: &KafkaArgs) -> Self {
        Self { token: args.security.token(), ..Self::default() }
    }

    fn throttled(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.throttled_ms.load(Ordering::Relaxed)).unwrap_or_default())
    }

    fn failed(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Observed {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let throttled = statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref());
        let longest = throttled.map(|window| window.max).max().unwrap_or_default();
        self.throttled_ms.fetch_max(longest, Ordering::Relaxed);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token.read()
    }
}

impl ProducerContext for Observed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

impl ConsumerContext for Observed {}

/// Produces `bytes` to partition 0 of `topic` (full name) at once, reads them, and says how long the brokers made it wait. It
/// stops as soon as it has to wait. Blocks.
///
/// # Errors
/// If the brokers do not respond within `timeout`, or refuse.
pub fn throttling(args: &KafkaArgs, topic: &str, bytes: usize, timeout: Duration) -> Result<Throttling, Error> {
    let deadline = Instant::now() + timeout;
    let count = bytes.div_ceil(RECORD_LEN);
    let producing = produce(args, topic, count, deadline)?;
    // What is not there cannot be read.
    let fetching = if producing.is_zero() { fetch(args, topic, count, deadline)? } else { Duration::ZERO };
    Ok(Throttling { producing, fetching })
}

fn produce(args: &KafkaArgs, topic: &str, count: usize, deadline: Instant) -> Result<Duration, Error> {
    let operation = || format!("producing to {topic} as fast as the brokers take it");
    let failed = |error| Error::kafka(operation(), error);
    let mut settings = args.producer();
    settings.set("acks", "all").set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string());
    let producer: BaseProducer<Observed> = settings.create_with_context(Observed::new(args)).map_err(failed)?;
    let value = vec![0; RECORD_LEN];
    for _ in 0..count {
        producer
            .send(BaseRecord::<(), _>::to(topic).partition(0).payload(&value))
            .map_err(|(error, _)| failed(error))?;
    }
    let mut delivered_at = None;
    loop {
        producer.poll(STATISTICS_INTERVAL);
        let observed = producer.context();
        if let Some(error) = observed.failed() {
            return Err(failed(error));
        }
        let is_reported = delivered_at.is_some_and(|at: Instant| at.elapsed() > REPORT_TIME);
        if is_reported || !observed.throttled().is_zero() {
            return Ok(observed.throttled());
        }
        if producer.in_flight_count() == 0 {
            delivered_at.get_or_insert_with(Instant::now);
        }
        if Instant::now() > deadline {
            return Err(Error::retry(operation(), "not all was delivered in time"));
        }
    }
}

fn fetch(args: &KafkaArgs, topic: &str, count: usize, deadline: Instant) -> Result<Duration, Error> {
    let operation = || format!("reading {topic} as fast as the brokers answer");
    let failed = |error| Error::kafka(operation(), error);
    let mut settings = args.client();
    settings
        .set("group.id", format!("{topic}-reader"))
        .set("enable.auto.commit", "false")
        .set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string());
    let consumer: BaseConsumer<Observed> = settings.create_with_context(Observed::new(args)).map_err(failed)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).map_err(failed)?;
    consumer.assign(&partitions).map_err(failed)?;
    let (mut read, mut read_at) = (0, None);
    loop {
        match consumer.poll(STATISTICS_INTERVAL) {
            Some(Ok(_)) => read += 1,
            Some(Err(error)) => return Err(failed(error)),
            None => {}
        }
        let throttled = consumer.context().throttled();
        let is_reported = read_at.is_some_and(|at: Instant| at.elapsed() > REPORT_TIME);
        if is_reported || !throttled.is_zero() {
            return Ok(throttled);
        }
        if read >= count {
            read_at.get_or_insert_with(Instant::now);
        }
        if Instant::now() > deadline {
            return Err(Error::retry(operation(), format!("{read} of {count} records came in time")));
        }
    }
}
