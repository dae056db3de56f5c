//! Records of `cart-commands` and of its dead letters, as the audit and the rehearsal read them.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use cart::contract::DEAD_LETTER_TOPIC;
use cart::{CartCommand, CartId, LogEpoch, Position};
use kafka::{Admin, Codec, DecodeError, Headers as _, KafkaArgs, Message as _, TopicReader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::topic::{RawRecord, SILENCE_MAX};

/// A record of `cart-commands-dead-letter`.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub partition: i32,
    pub offset: i64,
    /// Partition and offset on `cart-commands`, from its headers.
    pub origin: Option<(i32, i64)>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Decodes a value. The outer error: the registry is unavailable, or the record is newer than this program. The inner error:
/// the bytes are invalid.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(
    codec: &Codec<T>,
    bytes: &[u8],
    runtime: &Handle,
) -> Result<Result<T, DecodeError>, kafka::Error> {
    match codec.decode_or_fetch_blocking(bytes, runtime)? {
        Err(newer @ DecodeError::Newer { .. }) => Err(kafka::Error::fatal("reading a record", newer)),
        decoded => Ok(decoded),
    }
}

/// Turns records of `cart-commands` into commands, as its processor does.
pub(crate) struct Intake<'a> {
    pub(crate) codec: &'a Codec<CartCommand>,
    pub(crate) runtime: &'a Handle,
    pub(crate) partitions: i32,
    /// The records that are dead letters, by partition and offset.
    pub(crate) letters: &'a HashSet<(i32, i64)>,
    /// The parked carts, each with the position before which its commands are decided.
    pub(crate) parked: &'a HashMap<CartId, Position>,
    /// The epoch of the log.
    pub(crate) epoch: LogEpoch,
}

/// A record of `cart-commands`.
#[derive(Debug)]
pub(crate) enum Received {
    Command(Box<CartCommand>),
    /// Why it cannot be decided.
    Undecidable(String),
    /// A command that is newer than this program. It waits: the cart of its key is parked.
    TooNew {
        cart_id: CartId,
        /// Why it cannot be decoded.
        reason: String,
    },
}

impl Intake<'_> {
    /// The command of a record. Fails if the registry is unavailable, or for a command that is newer than this program and does not
    /// wait.
    pub(crate) fn command(&self, record: &RawRecord) -> Result<Received, kafka::Error> {
        let decoded = match &record.value {
            None => Err(String::from("no value")),
            Some(bytes) => match self.codec.decode_or_fetch_blocking(bytes, self.runtime)? {
                Err(newer @ DecodeError::Newer { .. }) => return self.too_new(record, newer),
                decoded => decoded.map_err(|error| error.to_string()),
            },
        };
        let is_letter = self.letters.contains(&(record.partition, record.offset));
        let command = decoded
            .and_then(|command| belongs(command, record.key.as_deref(), record.partition, self.partitions))
            .and_then(|command| check(command, is_letter));
        Ok(command.map_or_else(Received::Undecidable, |command| Received::Command(Box::new(command))))
    }

    /// A newer program may have decided it, unless its cart is parked at it or before.
    fn too_new(&self, record: &RawRecord, newer: DecodeError) -> Result<Received, kafka::Error> {
        let position = Position::new(self.epoch, record.offset);
        let waits = |cart_id: &CartId| self.parked.get(cart_id).is_some_and(|next| position >= *next);
        match cart_of_key(record, self.partitions).filter(waits) {
            Some(cart_id) => Ok(Received::TooNew { cart_id, reason: newer.to_string() }),
            None => Err(kafka::Error::fatal("reading a record", newer)),
        }
    }
}

/// The cart of a record's key, if it belongs to the record's partition.
fn cart_of_key(record: &RawRecord, partitions: i32) -> Option<CartId> {
    let key = record.key.as_deref()?;
    let cart_id: CartId = std::str::from_utf8(key).ok()?.parse().ok()?;
    let is_here = key == cart_id.to_string().as_bytes() && kafka::partition_of(key, partitions) == record.partition;
    is_here.then_some(cart_id)
}

/// Fails for a command outside the partition of its cart: it has no order among the cart's other commands.
fn belongs(command: CartCommand, key: Option<&[u8]>, partition: i32, partitions: i32) -> Result<CartCommand, String> {
    let cart_id = command.cart_id.to_string();
    if key != Some(cart_id.as_bytes()) {
        return Err(format!("the key is not cart id {cart_id}"));
    }
    match kafka::partition_of(cart_id.as_bytes(), partitions) {
        belongs if belongs == partition => Ok(command),
        belongs => Err(format!("cart {cart_id} belongs to partition {belongs}")),
    }
}

/// Fails for a command whose outcome a reader could not represent. Before version 0.2 that was not checked, so a command of an
/// earlier version that is not a dead letter was decided.
fn check(command: CartCommand, is_letter: bool) -> Result<CartCommand, String> {
    match command.check() {
        Err(reason) if is_letter || command.keyed.is_some() => Err(reason.to_string()),
        Err(_) | Ok(()) => Ok(command),
    }
}

/// Reads the dead letters from these offsets by partition on; without offsets all of them. Blocks.
pub(crate) fn dead_letters(kafka: &KafkaArgs, from: Option<&[i64]>) -> anyhow::Result<Vec<DeadLetter>> {
    let topic = kafka.prefixed(DEAD_LETTER_TOPIC);
    let starts: Vec<i64> = match from {
        Some(from) => from.to_vec(),
        None => Admin::new(kafka)?.watermarks(&topic)?.into_iter().map(|(start, _)| start).collect(),
    };
    read_dead_letters(kafka, &topic, &starts).context("reading topic cart-commands-dead-letter")
}

fn read_dead_letters(kafka: &KafkaArgs, topic: &str, starts: &[i64]) -> anyhow::Result<Vec<DeadLetter>> {
    let mut reader = TopicReader::open(kafka, topic, (0..).zip(starts.iter().copied()))?;
    let mut letters = Vec::new();
    while let Some(message) = reader.next(SILENCE_MAX)? {
        let header = |name: &str| -> Option<i64> {
            let headers = message.headers()?;
            // A dead letter that was resent and failed again has both origins; the last one is of this topic.
            let value = headers.iter().filter(|header| header.key == name).last()?.value?;
            std::str::from_utf8(value).ok()?.parse().ok()
        };
        let origin = header("dead-letter-partition").zip(header("dead-letter-offset"));
        letters.push(DeadLetter {
            partition: message.partition(),
            offset: message.offset(),
            origin: origin.and_then(|(partition, offset)| Some((i32::try_from(partition).ok()?, offset))),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
        });
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use cart::contract::Contract as _;
    use kafka::Registry;
    use uuid::Uuid;

    use super::*;

    const PARTITIONS: i32 = 4;

    #[tokio::test]
    async fn a_command_that_is_too_new_waits_if_its_cart_is_parked_there() {
        let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).expect("a client");
        let codec = Codec::registered(&registry, CartCommand::TOPIC, CartCommand::SCHEMA, 1).expect("a schema");
        let cart_id = CartId::from(Uuid::from_u128(1));
        let key = cart_id.to_string();
        let partition = kafka::partition_of(key.as_bytes(), PARTITIONS);
        let parked = HashMap::from([(cart_id, Position::new(LogEpoch::FIRST, 5))]);
        let (runtime, letters) = (Handle::current(), HashSet::new());
        let intake = Intake {
            codec: &codec,
            runtime: &runtime,
            partitions: PARTITIONS,
            letters: &letters,
            parked: &parked,
            epoch: LogEpoch::FIRST,
        };
        let received = |partition, offset, key: &str| {
            let record = RawRecord { partition, offset, key: Some(key.as_bytes().to_vec()), value: None };
            intake.too_new(&record, DecodeError::Newer { id: 7, reason: String::from("branch 6") })
        };
        for offset in [5, 6] {
            let waits = received(partition, offset, &key);
            assert!(matches!(&waits, Ok(Received::TooNew { cart_id: of, .. }) if *of == cart_id), "{waits:?}");
        }
        assert!(received(partition, 4, &key).is_err(), "a newer program has decided it");
        assert!(received((partition + 1) % PARTITIONS, 5, &key).is_err(), "the partition of other carts");
        let other = Uuid::from_u128(2).to_string();
        let of_other = kafka::partition_of(other.as_bytes(), PARTITIONS);
        assert!(received(of_other, 5, &other).is_err(), "its cart is not parked");
        assert!(received(partition, 5, "no id").is_err());
    }
}
