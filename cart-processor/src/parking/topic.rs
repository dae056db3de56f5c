//! Records of `cart-parked`, and the operators' requests on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cart::{CartId, CartParked, LogEpoch, ParkedEntry, is_retry_key, retry_key};
use kafka::{Codec, Error, KafkaArgs, Message as _, Record, TopicReader};
use parking::{ParkedCarts, ParkedPartition};
use tokio::runtime::Handle;

use super::lots::Change;

/// Requests that are taken at once; the rest comes with the next step of the loop.
const REQUESTS_MAX: usize = 100;

/// An operator wants a cart to be tried again.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) partition: i32,
    pub(crate) cart_id: CartId,
    /// Where it is on the topic.
    pub(crate) offset: i64,
}

/// Writes and reads the topic for one worker.
#[derive(Debug)]
pub(crate) struct ParkedTopic {
    kafka: KafkaArgs,
    /// Its full name.
    topic: String,
    codec: Codec<CartParked>,
    carts: ParkedCarts,
    epoch: LogEpoch,
    /// Follows the partitions that have parked carts; none while there is no such cart.
    follower: Option<(Vec<i32>, TopicReader)>,
}

impl ParkedTopic {
    pub(crate) fn new(
        kafka: &KafkaArgs,
        topic: String,
        codec: Codec<CartParked>,
        epoch: LogEpoch,
        runtime: Handle,
    ) -> Result<Self, Error> {
        let carts = ParkedCarts::new(kafka, codec.clone(), runtime)?;
        Ok(Self { kafka: kafka.clone(), topic, codec, carts, epoch, follower: None })
    }

    /// The markers of a partition. Its committed offset must have been read before.
    pub(crate) fn read(&mut self, partition: i32) -> Result<Arc<ParkedPartition>, Error> {
        let read = self.carts.read(partition)?;
        if read.is_of_another_log(self.epoch) {
            let operation = format!("restoring the parked carts of partition {partition}");
            let reason = format!(
                "a cart is parked at a position of an earlier log, and its commands are not in this one (`cartctl parked`). If \
                 they are given up, delete the topic {} and run `cart-processor setup`",
                self.topic
            );
            return Err(Error::retry(operation, reason));
        }
        Ok(read)
    }

    /// The record of a change.
    pub(crate) fn record(&self, partition: i32, cart_id: CartId, change: &Change) -> Result<Record, Error> {
        let (key, value) = match change {
            Change::Marker(cart) => (cart_id.to_string(), Some(self.codec.encode(&cart.record(cart_id))?)),
            Change::End => (cart_id.to_string(), None),
            Change::EndOfRequest => (retry_key(cart_id), None),
        };
        Ok(Record { partition: Some(partition), key: Some(key.into_bytes()), value, headers: None })
    }

    /// Operators' requests that have come since, each with its partition; and how far each partition was read. The partitions
    /// to follow come with the offsets from which on they are not known.
    pub(crate) fn requests(
        &mut self,
        followed: &BTreeMap<i32, i64>,
    ) -> Result<(Vec<Request>, BTreeMap<i32, i64>), Error> {
        let partitions: Vec<i32> = followed.keys().copied().collect();
        if partitions.is_empty() {
            self.follower = None;
            return Ok((Vec::new(), BTreeMap::new()));
        }
        let mut follower = match self.follower.take() {
            Some((of, follower)) if of == partitions => follower,
            _ => {
                let starts = followed.iter().map(|(partition, start)| (*partition, *start));
                TopicReader::open_to_follow(&self.kafka, &self.topic, starts)?
            }
        };
        let (mut requests, mut ends) = (Vec::new(), BTreeMap::new());
        for _ in 0..REQUESTS_MAX {
            let Some(message) = follower.follow(Duration::ZERO)? else { break };
            ends.insert(message.partition(), message.offset() + 1);
            if let Some(value) = message.payload()
                && is_retry_key(message.key().unwrap_or_default())
                && let CartParked { cart_id, entry: ParkedEntry::RetryRequested { .. } } = self.carts.decode(value)?
            {
                requests.push(Request { partition: message.partition(), cart_id, offset: message.offset() });
            }
        }
        self.follower = Some((partitions, follower));
        Ok((requests, ends))
    }
}
