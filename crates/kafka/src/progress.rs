//! How far a consumer group is in a topic, asked again and again.
//!
//! A group has done with a partition up to some offset when nothing that it gets to see is left before it. Its committed
//! offset alone does not show it: the topics are written by transactions, whose markers take offsets too, and a group
//! commits what comes behind its last record. So at the end of an idle partition it stays below the end for ever.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::client_log::PlainConsumer;
use crate::reader::ToTheEnd;
use crate::token::TokenFile;
use crate::{Error, KafkaArgs};

/// A broker answers each of these questions in milliseconds; when it has just become the leader, or its machine stood still, in seconds.
/// An operator's command ends with the first question that gets no answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A record that a group has not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstRecord {
    pub offset: i64,
    /// When it was sent, by its producer's clock, in milliseconds since 1970.
    pub sent_at_ms: i64,
}

/// How long the client's queue is read. Without a time the wrapper stops at a line of the log, which may stand before an error.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(1);

/// Asks about one group on one topic, over connections that stay. For one thread; its calls block.
pub struct GroupProgress {
    group: String,
    topic: String,
    token: TokenFile,
    // Two clients: the end that a broker reports depends on the client's isolation level.
    offsets: PlainConsumer,
    records: BaseConsumer<ToTheEnd>,
    denied: Mutex<Option<KafkaError>>,
}

impl std::fmt::Debug for GroupProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupProgress").field("group", &self.group).field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl GroupProgress {
    /// Clients for `group` (full name) on `topic` (full name); does not wait for the brokers, and joins nothing.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn new(args: &KafkaArgs, group: &str, topic: &str) -> Result<Self, Error> {
        let failed = |error| Error::kafka(format!("starting to watch group {group} on {topic}"), error);
        let mut config = args.client();
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // Does not wait for a transaction that is about to commit offsets: until it has, the older ones hold.
        let offsets = config.clone().set("isolation.level", "read_uncommitted").create().map_err(failed)?;
        let records = config
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // An empty fetch reports the end: soon, not after the default half second.
            .set_always("fetch.wait.max.ms", "5")
            // All that is asked for is whether there is a record. A fetch brings one batch at least.
            .set_always("fetch.message.max.bytes", "1")
            // Not the default second between two fetches when one has brought enough.
            .set_always("fetch.queue.backoff.ms", "1")
            // An offset that is not there any more is an error, not a silent start elsewhere.
            .set("auto.offset.reset", "error")
            .create_with_context(ToTheEnd::new(args))
            .map_err(failed)?;
        let token = args.security.token();
        Ok(Self { group: group.to_owned(), topic: topic.to_owned(), token, offsets, records, denied: Mutex::default() })
    }

    /// The first offset of a partition, and the one behind all that was written, also by transactions that are still open.
    ///
    /// # Errors
    /// If the brokers do not respond, or there is no such partition.
    pub fn bounds(&self, partition: i32) -> Result<(i64, i64), Error> {
        self.watermarks(&self.offsets, partition)
    }

    /// The offset where the first open transaction of a partition begins, or the end: before it, all is settled.
    ///
    /// # Errors
    /// As [`GroupProgress::bounds`].
    pub fn last_stable_offset(&self, partition: i32) -> Result<i64, Error> {
        self.watermarks(&self.records, partition).map(|(_, end)| end)
    }

    fn watermarks<C: ConsumerContext>(&self, client: &BaseConsumer<C>, partition: i32) -> Result<(i64, i64), Error> {
        self.token.renew(client.client());
        client
            .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| end_unknown(format!("reading the end of {}/{partition}", self.topic), error))
    }

    /// The offset that the group has committed in each of these partitions; none where it has committed none.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn committed(&self, partitions: impl IntoIterator<Item = i32>) -> Result<BTreeMap<i32, i64>, Error> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        self.token.renew(self.offsets.client());
        let committed = self.offsets.committed_offsets(list, REQUEST_TIMEOUT).map_err(|error| {
            let reason = self.denial().unwrap_or(error);
            Error::kafka(format!("reading the committed offsets of group {}", self.group), reason)
        })?;
        *self.denied() = None;
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(committed
            .elements()
            .iter()
            .filter_map(|element| Some((element.partition(), offset(element.offset())?)))
            .collect())
    }

    /// Why no coordinator answers, if the user may not ask for it. The client reports that once and goes on looking, so it is kept
    /// until there is an answer.
    fn denial(&self) -> Option<KafkaError> {
        while let Some(reported) = self.offsets.poll(QUEUE_TIMEOUT) {
            if let Err(error) = reported
                && error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
            {
                *self.denied() = Some(error);
            }
        }
        self.denied().clone()
    }

    fn denied(&self) -> MutexGuard<'_, Option<KafkaError>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first committed record at or behind each of these offsets (by partition); none where there is none before the
    /// partition's last stable offset.
    ///
    /// # Errors
    /// If the brokers do not respond in time, or an offset is not there any more.
    pub fn first_records(&self, starts: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, FirstRecord>, Error> {
        let operation = || format!("searching records of {}", self.topic);
        let failed = |error| Error::in_group(&self.group, operation(), error);
        let mut list = TopicPartitionList::new();
        for (partition, offset) in starts {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
        }
        self.records.assign(&list).map_err(failed)?;
        let found = self.read_first(starts).map_err(|error| match error {
            Some(error) => failed(error),
            None => Error::retry(operation(), format!("no response within {} s", REQUEST_TIMEOUT.as_secs())),
        });
        // Whatever came of it: what is assigned is fetched on and on.
        self.records.unassign().map_err(failed)?;
        found
    }

    /// Reads until each partition has shown a record or its end. `None` as the error: not in time.
    fn read_first(&self, starts: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, FirstRecord>, Option<KafkaError>> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut unknown: Vec<i32> = starts.keys().copied().collect();
        let mut found = BTreeMap::new();
        while !unknown.is_empty() {
            let partition = match self.records.poll(deadline.saturating_duration_since(Instant::now())) {
                Some(Ok(message)) => {
                    let sent_at_ms = message.timestamp().to_millis().unwrap_or_default();
                    found.entry(message.partition()).or_insert(FirstRecord { offset: message.offset(), sent_at_ms });
                    message.partition()
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => partition,
                Some(Err(error)) => return Err(Some(error)),
                None => return Err(None),
            };
            unknown.retain(|other| *other != partition);
        }
        Ok(found)
    }
}

/// The end of a partition could not be read. After the loss of a broker the client may not know a partition for a moment, so that is no
/// reason to end.
fn end_unknown(operation: String, error: KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            Error::retry(operation, error)
        }
        _ => Error::kafka(operation, error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[expect(unsafe_code, reason = "rdkafka has no call that makes an error; client and text outlive it")]
mod tests {
    use rdkafka_sys as sys;

    use super::*;
    use crate::Recovery;
    use crate::error::error_text;

    #[test]
    fn a_partition_that_is_unknown_for_a_moment_is_asked_for_again() {
        let recovery = |code| end_unknown(String::from("reading the end"), KafkaError::MetadataFetch(code)).recovery();
        for code in [RDKafkaErrorCode::UnknownPartition, RDKafkaErrorCode::UnknownTopicOrPartition] {
            assert_eq!(recovery(code), Recovery::Retry);
        }
        assert_eq!(recovery(RDKafkaErrorCode::TopicAuthorizationFailed), Recovery::Fatal);
    }

    #[test]
    fn an_error_of_an_earlier_question_is_no_reason() {
        let progress = GroupProgress::new(&KafkaArgs::plain("127.0.0.1:1", ""), "group", "topic").unwrap();
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        // SAFETY: both outlive the call, which copies the text.
        unsafe {
            sys::rd_kafka_test_fatal_error(progress.offsets.client().native_ptr(), code, c"earlier".as_ptr());
        }
        let text = error_text(&progress.committed([0]).unwrap_err());
        assert!(!text.contains("Fatal"), "{text}");
        // librdkafka 2.12 never ends a consumer with a fatal error.
        std::mem::forget(progress);
    }
}
