//! Producing outside transactions: records whose delivery is awaited, or that may get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use crate::reconnect::BootstrapReconnect;
use crate::{Error, KafkaArgs, client_log};

/// A record to be produced.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its partition, where that is not for the key to say.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Option<OwnedHeaders>,
}

/// What a record that is sent now has as its time, in milliseconds since 1970.
pub(crate) fn timestamp() -> i64 {
    let now = fail_points::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// How long the polling thread waits for deliveries. It works on each at once, so this only bounds how long the thread
/// outlives its producer. The wrapper spins for the last millisecond of each wait, so it is long: with the 100 ms of
/// `FutureProducer` an idle process used a hundredth of a core.
const POLL: Duration = Duration::from_secs(1);

/// Completes the futures of deliveries.
struct Deliveries {
    reconnect: BootstrapReconnect,
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reconnect.error(error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.reconnect.generate_oauth_token(None)
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<i64, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivered: Self::DeliveryOpaque) {
        let result = result.as_ref().map(|message| message.offset()).map_err(|(error, _)| error.clone());
        // An error means that the future was dropped.
        drop(delivered.send(result));
    }
}

/// Ends the polling thread.
struct Polling {
    ended: Arc<AtomicBool>,
}

impl Polling {
    fn start(producer: Arc<BaseProducer<Deliveries>>) -> std::io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = ended.clone();
        let poll = move || {
            while !is_over.load(Ordering::Relaxed) {
                producer.poll(POLL);
            }
        };
        std::thread::Builder::new().name(String::from("deliveries")).spawn(poll)?;
        Ok(Self { ended })
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A producer of one topic. Clones share it.
#[derive(Clone)]
pub struct Producer {
    producer: Arc<BaseProducer<Deliveries>>,
    #[expect(dead_code, reason = "dropped with the last clone")]
    polling: Arc<Polling>,
    topic: String,
    reconnect: BootstrapReconnect,
    delivery_timeout: Duration,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Producer {
    /// Whether it can still send.
    ///
    /// # Errors
    /// When librdkafka has ended it for good, as for a user without the grant to write: every record fails from then on.
    pub fn check(&self) -> Result<(), Error> {
        match self.producer.client().fatal_error() {
            None => Ok(()),
            Some((code, reason)) => Err(Error::ended(format!("producing to {} ({reason})", self.topic), code)),
        }
    }

    /// How long librdkafka tries to deliver a record before it says so: as long as a client may wait for what comes of it.
    /// A cluster that lost a broker misses it after its session (9 s by default), and needs some seconds more to go on.
    pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

    /// For records that must not get lost, doubled or reordered: idempotent, on all in-sync replicas.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn durable(args: &KafkaArgs, topic: &str) -> Result<Self, Error> {
        Self::durable_within(args, topic, Self::DELIVERY_TIMEOUT)
    }

    /// The same for records that are not to come late: what is not delivered in this time has failed, within a second.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn durable_within(args: &KafkaArgs, topic: &str, delivery_timeout: Duration) -> Result<Self, Error> {
        let settings = [("enable.idempotence", "true"), ("acks", "all"), ("queue.buffering.max.messages", "100000")];
        Self::new(args, topic, delivery_timeout, &settings)
    }

    /// For records that are of use only for moments, such as replies. Not idempotent: a duplicate does no harm.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn transient(args: &KafkaArgs, topic: &str) -> Result<Self, Error> {
        let settings = [
            // Readers get a record when all in-sync replicas have it, so waiting for them costs a reader nothing, and what the
            // leader alone had when its broker died is sent again.
            ("acks", "all"),
            ("message.max.bytes", "8388608"),
            // While one request is in flight the next batch collects, so load makes larger batches, not more requests.
            ("max.in.flight.requests.per.connection", "1"),
        ];
        Self::new(args, topic, Self::DELIVERY_TIMEOUT, &settings)
    }

    fn new(
        args: &KafkaArgs,
        topic: &str,
        delivery_timeout: Duration,
        settings: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let mut config = args.producer();
        config.set("delivery.timeout.ms", delivery_timeout.as_millis().to_string());
        for (name, value) in settings {
            config.set(name, *value);
        }
        let reconnect = BootstrapReconnect::of(args);
        let operation = || format!("setting up the producer of {topic}");
        let producer: BaseProducer<Deliveries> = config
            .create_with_context(Deliveries { reconnect: reconnect.clone() })
            .map_err(|error| Error::kafka(operation(), error))?;
        let producer = Arc::new(producer);
        let polling = Polling::start(producer.clone()).map_err(|error| Error::fatal(operation(), error))?;
        Ok(Self { producer, polling: Arc::new(polling), topic: topic.to_owned(), reconnect, delivery_timeout })
    }

    /// How long it tries to deliver a record.
    pub(crate) fn delivery_timeout(&self) -> Duration {
        self.delivery_timeout
    }

    /// The topic's full name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Queues a record and returns at once. The future completes when the record is in the log, with its offset.
    ///
    /// # Errors
    /// At once when the queue is full (nothing was sent); from the future when delivery failed, in which case the
    /// record may still be in the log.
    pub fn send(&self, record: &Record) -> Result<impl Future<Output = Result<i64, Error>> + Send + use<>, Error> {
        let (delivered, delivery) = oneshot::channel();
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(delivered));
        message.partition = record.partition;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers.clone_from(&record.headers);
        message.timestamp = Some(timestamp());
        let topic = self.topic.clone();
        self.reconnect.keep(self.producer.client());
        match self.producer.send(message) {
            Ok(()) => Ok(async move {
                match delivery.await {
                    Ok(Ok(offset)) => Ok(offset),
                    Ok(Err(error)) => Err(Error::kafka(format!("producing to {topic}"), error)),
                    Err(_) => Err(Error::retry(format!("producing to {topic}"), "the producer was closed")),
                }
            }),
            Err((error, _)) => Err(Error::kafka(format!("queueing a record for {topic}"), error)),
        }
    }

    /// Waits until everything is delivered or given up.
    ///
    /// # Errors
    /// When that takes longer than `timeout`. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.producer
            .flush(timeout)
            .map_err(|error| Error::kafka(format!("flushing the producer of {}", self.topic), error))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[expect(unsafe_code, reason = "rdkafka has no call that ends a client as an error would; client and text outlive it")]
mod tests {
    use rdkafka_sys as sys;

    use super::*;
    use crate::Recovery;
    use crate::error::error_text;

    #[test]
    fn an_ended_producer_names_its_topic_the_reason_and_what_to_do() {
        let producer = Producer::durable(&KafkaArgs::plain("127.0.0.1:1", ""), "shop-cart-commands").unwrap();
        producer.check().unwrap();
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        // SAFETY: both outlive the call, which copies the text.
        unsafe {
            sys::rd_kafka_test_fatal_error(producer.producer.client().native_ptr(), code, c"no grant".as_ptr());
        }
        let error = producer.check().unwrap_err();
        assert_eq!(error.recovery(), Recovery::Fatal);
        let text = error_text(&error);
        for part in ["shop-cart-commands", "no grant", "cartctl grants"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
