//! Reads partitions from their ends on, without a group, so no rebalance takes them away.

use std::ops::Range;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};

use crate::reconnect::BootstrapReconnect;
use crate::{Error, KafkaArgs};

/// Reads the new records of some partitions. Others may read the same ones. For one thread; its calls block.
pub struct TailConsumer {
    consumer: BaseConsumer<BootstrapReconnect>,
    topic: String,
}

/// librdkafka wants a name; nothing is ever committed under it.
fn group(topic: &str) -> String {
    format!("{topic}-follower")
}

/// What the brokers have against a look at the topic. Without it librdkafka says only that there is no such partition.
fn denial(consumer: &BaseConsumer<BootstrapReconnect>, topic: &str, timeout: Duration) -> Option<KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout).ok()?;
    let denied = metadata.topics().iter().find_map(MetadataTopic::error)?;
    Some(KafkaError::MetadataFetch(denied.into()))
}

impl std::fmt::Debug for TailConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TailConsumer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl TailConsumer {
    /// For partitions of `topic` (full name): reads all records that are appended after this has returned, also those of open
    /// and aborted transactions.
    ///
    /// # Errors
    /// If the brokers do not report the end of a partition within `timeout`.
    pub fn open(args: &KafkaArgs, topic: &str, partitions: Range<i32>, timeout: Duration) -> Result<Self, Error> {
        let failed = |error| Error::kafka(format!("starting to follow {topic}"), error);
        let consumer: BaseConsumer<BootstrapReconnect> = args
            .client()
            .set("group.id", group(topic))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Answer a fetch as soon as there is anything, and ask for more as soon as there is room.
            .set("fetch.min.bytes", "1")
            .set("fetch.queue.backoff.ms", "1")
            // What is fetched ahead bounds memory.
            .set("queued.max.messages.kbytes", "16384")
            // No wait for a commit: of its topics one has no transactions, and the records of the other only announce what
            // is durable elsewhere.
            .set("isolation.level", "read_uncommitted")
            // If the records at its offset were deleted meanwhile, it continues with new ones.
            .set("auto.offset.reset", "latest")
            .create_with_context(BootstrapReconnect::of(args))
            .map_err(failed)?;
        let mut assignment = TopicPartitionList::new();
        for partition in partitions {
            let (_, end) = consumer
                .fetch_watermarks(topic, partition, timeout)
                .map_err(|error| failed(denial(&consumer, topic, timeout).unwrap_or(error)))?;
            assignment.add_partition_offset(topic, partition, Offset::Offset(end)).map_err(failed)?;
        }
        consumer.assign(&assignment).map_err(failed)?;
        Ok(Self { consumer, topic: topic.to_owned() })
    }

    /// The next record, if one comes within `timeout`.
    ///
    /// # Errors
    /// As librdkafka reports them; poll again: they pass.
    pub fn poll(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, Error> {
        self.consumer.context().keep(self.consumer.client());
        let polled = self.consumer.poll(timeout).transpose();
        polled.map_err(|error| Error::in_group(&group(&self.topic), format!("following {}", self.topic), error))
    }
}
