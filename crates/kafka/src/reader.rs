//! Reading a topic as it stands now, from outside: no group, nothing committed, nothing changed.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::token::TokenFile;
use crate::{Admin, Error, KafkaArgs, client_log};

/// An empty fetch reports the end: soon, not after the default half second.
const FETCH_WAIT_MS: &str = "10";

/// The broker answers a fetch as soon as there is a record, or after this time: for readers that stay.
const FOLLOW_WAIT_MS: &str = "500";

/// The context of a reader.
pub(crate) struct ToTheEnd {
    token: TokenFile,
}

impl ToTheEnd {
    pub(crate) fn new(args: &KafkaArgs) -> Self {
        Self { token: args.security.token() }
    }
}

impl ClientContext for ToTheEnd {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token.read()
    }
}

impl ConsumerContext for ToTheEnd {}

/// Reads the committed records of a topic's partitions up to their ends. For one thread; its calls block.
///
/// The end is where an open transaction begins, if there is one: what is behind it is not settled yet.
pub struct TopicReader {
    consumer: BaseConsumer<ToTheEnd>,
    topic: String,
    unfinished: BTreeSet<i32>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader")
            .field("topic", &self.topic)
            .field("unfinished", &self.unfinished)
            .finish_non_exhaustive()
    }
}

impl TopicReader {
    /// A reader of `topic` (full name) that starts at the offset that is given for each partition.
    ///
    /// # Errors
    /// If a setting or an offset is invalid.
    pub fn open(args: &KafkaArgs, topic: &str, starts: impl IntoIterator<Item = (i32, i64)>) -> Result<Self, Error> {
        Self::open_with(args, topic, starts, FETCH_WAIT_MS)
    }

    fn open_with(
        args: &KafkaArgs,
        topic: &str,
        starts: impl IntoIterator<Item = (i32, i64)>,
        fetch_wait_ms: &str,
    ) -> Result<Self, Error> {
        let failed = |error| Error::kafka(format!("starting to read {topic}"), error);
        let mut partitions = TopicPartitionList::new();
        let mut unfinished = BTreeSet::new();
        for (partition, offset) in starts {
            partitions.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
            unfinished.insert(partition);
        }
        let consumer = consumer(args, topic, fetch_wait_ms)?;
        consumer.assign(&partitions).map_err(failed)?;
        Ok(Self { consumer, topic: topic.to_owned(), unfinished })
    }

    /// As [`TopicReader::open`], for [`TopicReader::follow`]: an idle topic costs two requests a second, and its end is
    /// reported half a second late.
    ///
    /// # Errors
    /// As [`TopicReader::open`].
    pub fn open_to_follow(
        args: &KafkaArgs,
        topic: &str,
        starts: impl IntoIterator<Item = (i32, i64)>,
    ) -> Result<Self, Error> {
        Self::open_with(args, topic, starts, FOLLOW_WAIT_MS)
    }

    /// A reader of all of `topic`.
    ///
    /// # Errors
    /// When there is no such topic, or the brokers do not respond.
    pub fn open_at_beginning(args: &KafkaArgs, topic: &str) -> Result<Self, Error> {
        let starts = Admin::new(args)?.watermarks(topic)?.into_iter().map(|(start, _)| start);
        Self::open(args, topic, (0..).zip(starts))
    }

    /// A reader of one partition of `topic` that starts at the first record of that time (milliseconds since 1970) or
    /// later.
    ///
    /// # Errors
    /// If the brokers do not answer within `timeout`.
    pub fn open_at_time(
        args: &KafkaArgs,
        topic: &str,
        partition: i32,
        at_ms: i64,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let failed = |error| Error::kafka(format!("searching the records of a time in {topic}/{partition}"), error);
        let consumer = consumer(args, topic, FETCH_WAIT_MS)?;
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(topic, partition, Offset::Offset(at_ms)).map_err(failed)?;
        let starts = consumer.offsets_for_times(times, timeout).map_err(failed)?;
        let mut reader = Self { consumer, topic: topic.to_owned(), unfinished: BTreeSet::new() };
        // Without such a record the answer is the end, and there is nothing to read.
        if starts.elements().iter().any(|element| matches!(element.offset(), Offset::Offset(_))) {
            reader.consumer.assign(&starts).map_err(failed)?;
            reader.unfinished.insert(partition);
        }
        Ok(reader)
    }

    /// The next record; `None` at the end of all partitions.
    ///
    /// # Errors
    /// If the brokers do not respond, or neither a record nor an end comes within `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, Error> {
        while !self.unfinished.is_empty() {
            match self.consumer.poll(timeout) {
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.unfinished.remove(&partition);
                }
                Some(Err(error)) => return Err(self.failed(error)),
                None => {
                    let silence = format!("neither a record nor the end arrived within {} s", timeout.as_secs());
                    return Err(Error::retry(format!("reading {}", self.topic), silence));
                }
            }
        }
        Ok(None)
    }

    /// The next record, also of those that come behind the ends; `None` when none comes within `timeout`.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn follow(&mut self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, Error> {
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.unfinished.remove(&partition);
                Ok(None)
            }
            None => Ok(None),
            Some(Err(error)) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: KafkaError) -> Error {
        Error::in_group(&group(&self.topic), format!("reading {}", self.topic), error)
    }

    /// Whether the end of a partition was reported once. A partition that is written all the time may never report it.
    #[must_use]
    pub fn has_reached_end(&self, partition: i32) -> bool {
        !self.unfinished.contains(&partition)
    }
}

/// librdkafka wants a name; nothing is ever committed under it.
fn group(topic: &str) -> String {
    format!("{topic}-reader")
}

fn consumer(args: &KafkaArgs, topic: &str, fetch_wait_ms: &str) -> Result<BaseConsumer<ToTheEnd>, Error> {
    args.client()
        .set("group.id", group(topic))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", fetch_wait_ms)
        .set("fetch.queue.backoff.ms", "10")
        // An offset that is not there any more is an error, not a silent start elsewhere.
        .set("auto.offset.reset", "error")
        .create_with_context(ToTheEnd::new(args))
        .map_err(|error| Error::kafka(format!("starting to read {topic}"), error))
}
