//! Records of `cart-parked`, and the operators' requests on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cart::{CartId, CartParked, LogEpoch, ParkedEntry, is_retry_key, retry_key};
use kafka::{Codec, Error, KafkaArgs, Message as _, Record, TopicReader};
use parking::{ParkedCarts, ParkedPartition, is_undecodable};
use tokio::runtime::Handle;

use super::lots::Change;

/// Requests that are taken at once; the rest comes with the next step of the loop.
const REQUESTS_MAX: usize = 100;

/// Why the parked carts of a partition cannot be known. Reading its markers again says the same.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition} is stopped: {reason}")]
pub(crate) struct BadMarkers {
    pub(crate) partition: i32,
    /// Where it would go on in `cart-commands`.
    pub(crate) next_offset: i64,
    reason: String,
}

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

    /// The markers of a partition, whose committed offset `next_offset` was read before. The inner error is a matter of this
    /// partition only.
    pub(crate) fn read(
        &mut self,
        partition: i32,
        next_offset: i64,
    ) -> Result<Result<Arc<ParkedPartition>, BadMarkers>, Error> {
        let checked = checked(self.carts.read(partition), &self.topic, self.epoch)?;
        Ok(checked.map_err(|reason| BadMarkers { partition, next_offset, reason }))
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

/// The markers, if they are of this log and can be decoded; otherwise why not. The outer error is one of a server.
fn checked(
    read: Result<Arc<ParkedPartition>, Error>,
    topic: &str,
    epoch: LogEpoch,
) -> Result<Result<Arc<ParkedPartition>, String>, Error> {
    match read {
        Ok(read) if read.is_of_another_log(epoch) => Ok(Err(format!(
            "a cart is parked at a position of an earlier log, and its commands are not in this one (`cartctl parked`). If \
             they are given up, and no other cart is parked, stop all cart-processors, delete the topic {topic}, run \
             `cart-processor setup`, and start them"
        ))),
        Ok(read) => Ok(Ok(read)),
        Err(error) if is_undecodable(&error) => Ok(Err(format!(
            "{:#}. If this program is too old for the record, upgrade it; if the schema is missing, restore it in the \
             registry, and restart this process",
            anyhow::Error::new(error)
        ))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::HashMap;

    use cart::{ParkedCart, ParkingState, Position};
    use chrono::DateTime;
    use kafka::DecodeError;
    use uuid::Uuid;

    use super::*;

    fn parked_at(epoch: LogEpoch) -> Arc<ParkedPartition> {
        let position = Position::new(epoch, 5);
        let cart = ParkedCart {
            first_position: position,
            next_position: position,
            state: ParkingState::Parked,
            reason: String::from("rule-panicked: overflow"),
            since: DateTime::UNIX_EPOCH,
        };
        let carts = HashMap::from([(CartId::from(Uuid::from_u128(1)), cart)]);
        Arc::new(ParkedPartition { carts, ..ParkedPartition::default() })
    }

    #[test]
    fn what_another_read_does_not_change_is_a_matter_of_the_partition() {
        let check = |read| checked(read, "cart-parked", LogEpoch::FIRST);
        let second = LogEpoch::new(2).unwrap();
        assert_eq!(check(Ok(parked_at(LogEpoch::FIRST))).unwrap(), Ok(parked_at(LogEpoch::FIRST)));
        let earlier = check(Ok(parked_at(second))).unwrap().unwrap_err();
        assert!(earlier.contains("of an earlier log") && earlier.contains("delete the topic cart-parked"), "{earlier}");
        let garbage = Error::retry("reading a record of cart-parked", DecodeError::TooShort { len: 2 });
        let garbage = check(Err(garbage)).unwrap().unwrap_err();
        assert!(garbage.starts_with("reading a record of cart-parked failed: the value has 2 bytes"), "{garbage}");
        assert!(check(Err(Error::retry("reading", "no broker answers"))).is_err(), "a server does not respond");
    }
}
