//! Records of `cart-commands` and of its dead letters, as the audit and the rehearsal read them.

use std::collections::HashSet;

use anyhow::Context as _;
use cart::CartCommand;
use cart::contract::DEAD_LETTER_TOPIC;
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
}

impl Intake<'_> {
    /// The command of a record. The inner error: why it cannot be decided.
    pub(crate) fn command(&self, record: &RawRecord) -> Result<Result<CartCommand, String>, kafka::Error> {
        let decoded = match &record.value {
            None => Err(String::from("no value")),
            Some(bytes) => decode(self.codec, bytes, self.runtime)?.map_err(|error| error.to_string()),
        };
        let is_letter = self.letters.contains(&(record.partition, record.offset));
        Ok(decoded
            .and_then(|command| belongs(command, record.key.as_deref(), record.partition, self.partitions))
            .and_then(|command| check(command, is_letter)))
    }
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
