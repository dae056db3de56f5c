//! Reading and writing the control topic.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::contract::{Contract as _, header};
use cart::{ControlKey, ControlRecord};
use kafka::{
    Admin, BorrowedMessage, Codec, Error, Header, KafkaArgs, Message as _, OwnedHeaders, Producer, Record, Registry,
    TopicReader,
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::{Controls, Temporary};

/// How long a read may go without a record or the end.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a record is tried to be delivered. A member waits for that, and must poll again before its heartbeat is missed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// SHA-256 of a record's value, as skips name it; of no bytes for a record without a value.
#[must_use]
pub fn sha256(value: Option<&[u8]>) -> String {
    format!("{:x}", Sha256::digest(value.unwrap_or_default()))
}

/// A record of the topic, as far as it can be read.
#[derive(Debug)]
pub struct LogEntry {
    pub offset: i64,
    /// The key as text.
    pub key: String,
    /// `None`: it ends what its key stood for. The inner error: why it can't be decoded.
    pub record: Option<Result<ControlRecord, String>>,
}

/// The topic of an installation. Clones share their connections. Its calls block, except where they are `async`.
#[derive(Clone)]
pub struct ControlTopic {
    kafka: KafkaArgs,
    topic: String,
    codec: Codec<ControlRecord>,
    admin: Arc<Admin>,
    runtime: Handle,
    // Made for the first record: most processes never write one.
    producer: Arc<Mutex<Option<Producer>>>,
}

impl std::fmt::Debug for ControlTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl ControlTopic {
    /// Registers its schema, if that was not done.
    ///
    /// # Errors
    /// If the registry does not respond, or a setting is invalid.
    pub async fn open(kafka: &KafkaArgs, registry: &Registry, admin: Arc<Admin>) -> Result<Self, Error> {
        let codec = Codec::register(registry, ControlRecord::TOPIC, ControlRecord::SCHEMA).await?;
        Ok(Self {
            kafka: kafka.clone(),
            topic: kafka.prefixed(ControlRecord::TOPIC),
            codec,
            admin,
            runtime: Handle::current(),
            producer: Arc::default(),
        })
    }

    pub(crate) fn kafka(&self) -> &KafkaArgs {
        &self.kafka
    }

    pub(crate) fn admin(&self) -> &Admin {
        &self.admin
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The offsets of the first record and behind the last.
    ///
    /// # Errors
    /// If the brokers do not respond, or there is no such topic.
    pub fn bounds(&self) -> Result<(i64, i64), Error> {
        let bounds = self.admin.watermarks(&self.topic)?.first().copied();
        bounds.ok_or_else(|| Error::retry(format!("reading the end of {}", self.topic), "it has no partition"))
    }

    /// Passes each record from `start` to the end.
    pub(crate) fn read(&self, start: i64, mut take: impl FnMut(LogEntry)) -> Result<(), Error> {
        let mut reader = TopicReader::open(&self.kafka, &self.topic, [(0, start)])?;
        while let Some(message) = reader.next(SILENCE_MAX)? {
            take(self.entry(&message)?);
        }
        Ok(())
    }

    /// A reader that stays.
    pub(crate) fn follow(&self, start: i64) -> Result<TopicReader, Error> {
        TopicReader::open_to_follow(&self.kafka, &self.topic, [(0, start)])
    }

    pub(crate) fn entry(&self, message: &BorrowedMessage<'_>) -> Result<LogEntry, Error> {
        let record = message.payload().map(|value| self.codec.decode_or_fetch_blocking(value, &self.runtime));
        let record = record.transpose()?.map(|decoded| decoded.map_err(|error| error.to_string()));
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        Ok(LogEntry { offset: message.offset(), key, record })
    }

    /// All records, in their order.
    ///
    /// # Errors
    /// If the brokers or the registry do not respond, or there is no such topic.
    pub fn read_all(&self) -> Result<Vec<LogEntry>, Error> {
        let (start, _) = self.bounds()?;
        let mut entries = Vec::new();
        self.read(start, |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// What holds now. Records that can't be read change nothing.
    ///
    /// # Errors
    /// As [`ControlTopic::read_all`].
    pub fn controls(&self) -> Result<Controls, Error> {
        let mut controls = Controls::default();
        for LogEntry { offset, key, record } in self.read_all()? {
            if let (Ok(key), Ok(record)) = (key.parse(), record.transpose()) {
                controls.apply(offset, key, record);
            }
        }
        Ok(controls)
    }

    /// What holds now, and what would hold without one process's own records.
    ///
    /// # Errors
    /// As [`ControlTopic::read_all`].
    pub fn temporary(&self, is_own: impl Fn(&ControlRecord) -> bool) -> Result<Temporary, Error> {
        let mut temporary = Temporary::default();
        for LogEntry { offset, key, record } in self.read_all()? {
            if let (Ok(key), Ok(record)) = (key.parse(), record.transpose()) {
                let is_own = record.as_ref().is_some_and(&is_own);
                temporary.apply(offset, key, record, is_own);
            }
        }
        Ok(temporary)
    }

    /// Appends a record and waits until it is in the log. Returns its offset. Without a value it ends what the key stood for.
    ///
    /// # Errors
    /// If it could not be delivered in time; it may still be in the log.
    pub async fn send(&self, key: &ControlKey, record: Option<&ControlRecord>) -> Result<i64, Error> {
        let producer = self.producer()?;
        let content_type = Header { key: header::CONTENT_TYPE, value: Some(header::AVRO) };
        let record = Record {
            partition: Some(0),
            key: Some(key.to_string().into_bytes()),
            value: record.map(|record| self.codec.encode(record)).transpose()?,
            headers: Some(OwnedHeaders::new().insert(content_type)),
        };
        fail_points::crash_point("control-before-record");
        let sent = producer.send(&record)?.await;
        if sent.is_ok() {
            fail_points::crash_point("control-after-record");
        }
        // If the producer has ended, the reason of that says more, such as which grant is missing.
        sent.map_err(|error| producer.check().err().unwrap_or(error))
    }

    fn producer(&self) -> Result<Producer, Error> {
        let mut kept = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = kept.as_ref().filter(|producer| producer.check().is_ok()) {
            return Ok(producer.clone());
        }
        Ok(kept.insert(Producer::durable_within(&self.kafka, &self.topic, DELIVERY_TIMEOUT)?).clone())
    }
}
