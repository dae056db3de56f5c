//! A Kafka transaction as a value: records and consumed offsets, all or none.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, TopicPartitionList};

use crate::reconnect::BootstrapReconnect;
use crate::{Error, KafkaArgs, Record, client_log};

/// The broker aborts what is open for longer. A killed process's open transaction stops committed readers until
/// its successor starts under the same id, or until this time is over.
const TRANSACTION_TIMEOUT_MS: &str = "15000";

/// How long a record waits for others of its partition.
const LINGER_MS: &str = "5";

/// Queues records for at most this long before it waits for their delivery. It must stay below `linger.ms`, so that a
/// partition's records leave together: a record that waits behind others in flight makes librdkafka busy-loop (see `PartitionBatcher`) and
/// starves a broker on the same machine.
const HAND_OVER_MAX: Duration = Duration::from_millis(2);

/// The maximum time from the beginning of a transaction to the end of its commit; after it the producer is given up. Longer than the
/// broker's own timeout, so that a slow broker has decided by then.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(20);

/// After this the offsets, and the producer, are given up. A group gets another coordinator in about this time.
/// librdkafka has no timeout there: it waits for ever for a coordinator that is gone
/// (<https://github.com/confluentinc/librdkafka/issues/5456>, `/5511`).
const OFFSETS_DEADLINE: Duration = Duration::from_secs(10);

/// Initialising waits for the abort of what a predecessor left open.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How much later than asked a call may come back that does keep to its time-out.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How long to let librdkafka work before looking again whether everything is delivered. Slept, not polled: the
/// wrapper's poll rounds what is left of a millisecond down to nothing and then spins.
const DRAIN_PAUSE: Duration = Duration::from_micros(500);

/// A producer that writes in transactions only. For one thread; its calls block.
///
/// Whatever fails, replace the producer by a new one under the same id: librdkafka has no KIP-890, so a request that
/// was given up on could otherwise still arrive and finish the next transaction.
pub struct TransactionalProducer {
    producer: Arc<BaseProducer<Deliveries>>,
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionalProducer").finish_non_exhaustive()
    }
}

/// Keeps the first failed delivery with its topic, and the places of watched records.
struct Deliveries {
    failed: Mutex<Option<(String, KafkaError)>>,
    watched: Mutex<Vec<WatchedRecord>>,
    reconnect: BootstrapReconnect,
}

/// Where a record is that was sent with [`Transaction::send_watched`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchedRecord {
    /// The number that it was sent with.
    pub number: usize,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// The number of records that are not watched.
const UNWATCHED: usize = 0;

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

impl Deliveries {
    fn new(args: &KafkaArgs) -> Self {
        Self { failed: Mutex::default(), watched: Mutex::default(), reconnect: BootstrapReconnect::of(args) }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) if number != UNWATCHED => {
                let record = WatchedRecord { number, partition: message.partition(), offset: message.offset() };
                self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            }
            Ok(_) => {}
            Err((error, message)) => {
                let failed = || (message.topic().to_owned(), error.clone());
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(failed);
            }
        }
    }
}

impl TransactionalProducer {
    /// Connects under a stable id. A predecessor's open transaction is aborted, and the predecessor fenced.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn connect(args: &KafkaArgs, transactional_id: &str) -> Result<Self, Error> {
        let operation = || format!("initialising the transactional producer {transactional_id}");
        let producer: BaseProducer<Deliveries> = args
            .producer()
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("linger.ms", LINGER_MS)
            // Room for the largest outbox; a full queue is waited out in `send`.
            .set("queue.buffering.max.messages", "200000")
            // A dead letter carries the original, which may have the broker's default 1 MiB, and its headers.
            .set("message.max.bytes", "2097152")
            .create_with_context(Deliveries::new(args))
            .map_err(|error| Error::kafka(operation(), error))?;
        producer.init_transactions(INIT_TIMEOUT).map_err(|error| Error::kafka(operation(), error))?;
        Ok(Self { producer: Arc::new(producer) })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the producer is fenced or failed.
    pub fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        self.producer.begin_transaction().map_err(|error| Error::kafka("beginning a transaction", error))?;
        let deadline = Instant::now() + COMMIT_DEADLINE;
        Ok(Transaction { producer: &self.producer, deadline, handed_over_since: None })
    }
}

/// An open transaction. Dropped without a commit it stays open until the producer is replaced, which aborts it.
#[must_use = "a transaction that is not committed is aborted with its producer"]
pub struct Transaction<'a> {
    producer: &'a Arc<BaseProducer<Deliveries>>,
    deadline: Instant,
    /// When the first record was queued whose delivery was not awaited yet.
    handed_over_since: Option<Instant>,
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Transaction<'_> {
    /// Adds a record.
    ///
    /// # Errors
    /// When the record is too large, the producer fenced, or the deadline over.
    pub fn send(&mut self, topic: &str, record: &Record) -> Result<(), Error> {
        self.send_numbered(topic, record, UNWATCHED)
    }

    /// Adds a record under a number above 0. [`Transaction::watched`] says where it is.
    ///
    /// # Errors
    /// As [`Transaction::send`].
    pub fn send_watched(&mut self, topic: &str, record: &Record, number: usize) -> Result<(), Error> {
        self.send_numbered(topic, record, number)
    }

    /// The places of the watched records that the brokers have by now, each once. After [`Transaction::deliver`] that is all.
    #[must_use]
    pub fn watched(&self) -> Vec<WatchedRecord> {
        std::mem::take(&mut *self.producer.context().watched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send_numbered(&mut self, topic: &str, record: &Record, number: usize) -> Result<(), Error> {
        let failed = |error| Error::kafka(format!("producing to {topic}"), error);
        if self.handed_over_since.is_some_and(|since| since.elapsed() >= HAND_OVER_MAX) {
            self.deliver()?;
        }
        self.handed_over_since.get_or_insert_with(Instant::now);
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number);
        message.partition = record.partition;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers.clone_from(&record.headers);
        message.timestamp = Some(crate::producer::timestamp());
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((error, unsent)) if is_queue_full(&error) && Instant::now() < self.deadline => {
                    message = unsent;
                    self.work();
                }
                Err((error, _)) => return Err(failed(error)),
            }
        }
    }

    /// Waits until the brokers have all records. [`Transaction::commit`] does so too.
    ///
    /// # Errors
    /// When one could not be delivered.
    pub fn deliver(&mut self) -> Result<(), Error> {
        self.handed_over_since = None;
        // The wrapper's own flush waits in steps of 100 ms while anything is in flight.
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > self.deadline {
                return Err(Error::retry("delivering a transaction's records", "the deadline has passed"));
            }
            self.work();
        }
        match self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((topic, error)) => Err(Error::kafka(format!("delivering a transaction's records to {topic}"), error)),
            None => Ok(()),
        }
    }

    /// Adds the consumed offsets and commits.
    ///
    /// # Errors
    /// Whatever it is, the outcome may be open: replace the producer (which settles it) and go back to what is
    /// committed then. [`crate::Recovery::AbortTransaction`] is normal when a rebalance came between.
    pub fn commit(mut self, offsets: TopicPartitionList, group: ConsumerGroupMetadata) -> Result<(), Error> {
        self.deliver()?;
        self.send_offsets(offsets, group)?;
        fail_points::crash_point("transaction-with-offsets");
        self.commit_delivered()
    }

    /// Commits records that come from no consumed ones.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn commit_records(mut self) -> Result<(), Error> {
        self.deliver()?;
        self.commit_delivered()
    }

    fn commit_delivered(self) -> Result<(), Error> {
        until(self.deadline, self.producer, "committing a transaction", |timeout| {
            self.producer.commit_transaction(timeout)
        })
    }

    /// On a thread of its own, which is left to itself, with the producer, when it does not come back.
    fn send_offsets(&self, offsets: TopicPartitionList, group: ConsumerGroupMetadata) -> Result<(), Error> {
        const OPERATION: &str = "sending the offsets to a transaction";
        let deadline = self.deadline.min(Instant::now() + OFFSETS_DEADLINE);
        let (sender, sent) = sync_channel(1);
        let producer = self.producer.clone();
        let send = move || {
            let result = until(deadline, &producer, OPERATION, |timeout| {
                producer.send_offsets_to_transaction(&offsets, &group, timeout)
            });
            // It fails if the receiver has timed out.
            sender.send(result).unwrap_or_default();
        };
        std::thread::Builder::new()
            .name(String::from("offsets"))
            .spawn(send)
            .map_err(|error| Error::retry(OPERATION, error))?;
        let left = deadline.saturating_duration_since(Instant::now()) + ANSWER_TIME;
        sent.recv_timeout(left).unwrap_or_else(|_| Err(Error::retry(OPERATION, "the client does not return")))
    }

    /// Lets librdkafka work, then serves its callbacks.
    fn work(&self) {
        work(self.producer);
    }
}

fn work(producer: &BaseProducer<Deliveries>) {
    std::thread::sleep(DRAIN_PAUSE);
    producer.poll(Duration::ZERO);
    producer.context().reconnect.keep(producer.client());
}

/// Repeats what librdkafka calls retriable: the same call again is what it asks for.
fn until(
    deadline: Instant,
    producer: &BaseProducer<Deliveries>,
    operation: &str,
    call: impl Fn(Duration) -> Result<(), KafkaError>,
) -> Result<(), Error> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match call(left.max(DRAIN_PAUSE)) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !left.is_zero() => work(producer),
            Err(error) => return Err(Error::kafka(operation, error)),
        }
    }
}

fn is_queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull)
}
