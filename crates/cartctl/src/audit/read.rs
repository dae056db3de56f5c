//! Reads everything: the tables first, then the topics that they are made from, and the commands last. So the cause of each
//! row or record is read after it.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, LogEpoch, PurchasedItem};
use kafka::{Admin, Codec, DecodeError, Headers as _, KafkaArgs, Message as _, Registry, TopicReader};
use scylla::client::session::Session;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use tokio::runtime::Handle;

use super::Target;
use super::catch_up::catch_up;
use super::client_view::SentCommand;
use super::evidence::{Content, DeadLetter, Evidence, LogRecord, Record};
use super::stores;
use crate::topic::{RawRecord, SILENCE_MAX, for_each};

/// Waits until all consumers have reached the current ends of the topics, then reads everything.
///
/// # Errors
/// Consumers have not caught up within `deadline`, or something can't be read.
pub async fn collect(
    target: &Target,
    database: &PgPool,
    sent: Vec<SentCommand>,
    deadline: Duration,
) -> anyhow::Result<Evidence> {
    let kafka = &target.kafka;
    let cut = catch_up(kafka, database, deadline).await?;
    let session = cassandra::connect(&target.cassandra).await.context("reading Cassandra's tables")?;
    let commands_epoch = epoch(kafka, &session, CartCommand::TOPIC).await?;
    let purchases_epoch = epoch(kafka, &session, PurchasedItem::TOPIC).await?;
    let registry = Registry::new(kafka)?;
    let purchase_codec = Codec::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
    let event_codec = Codec::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    let command_codec = Codec::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;

    let tables = stores::read(&session, database, &kafka.prefixed(PurchasedItem::TOPIC), purchases_epoch).await?;
    let (journal, requests) = crate::journal::read_tables(&session).await.context("reading the journal")?;
    let (args, runtime) = (kafka.clone(), Handle::current());
    let partitions = i32::try_from(cut.commands.len())?;
    let purchase_partitions = i32::try_from(cut.purchases.len())?;
    tokio::task::spawn_blocking(move || {
        let purchases = records(&args, &purchase_codec, &runtime, false)?;
        let events = records(&args, &event_codec, &runtime, true)?;
        let dead_letters = dead_letters(&args).context("reading topic cart-commands-dead-letter")?;
        let letters = dead_letters.iter().filter_map(|letter| letter.origin).collect();
        let commands = commands(&args, &command_codec, &runtime, partitions, &letters)?;
        Ok(Evidence {
            partitions,
            purchase_partitions,
            commands_epoch: commands_epoch.get(),
            cut,
            commands,
            dead_letters,
            events,
            journal,
            requests,
            purchases,
            tables,
            sent,
        })
    })
    .await?
}

/// The topic's log epoch. Fails if the topic is not the recorded log.
async fn epoch(kafka: &KafkaArgs, session: &Session, topic: &str) -> anyhow::Result<LogEpoch> {
    let full = kafka.prefixed(topic);
    let (args, name) = (kafka.clone(), full.clone());
    let identity = tokio::task::spawn_blocking(move || Admin::new(&args)?.identity(&name)).await??;
    Ok(cassandra::log_epoch(session, &full, &identity).await?)
}

/// Decodes a value. The outer error: the registry is unavailable, or the record is newer than this program. The inner error:
/// the bytes are invalid.
fn decode<T: Serialize + DeserializeOwned>(
    codec: &Codec<T>,
    bytes: &[u8],
    runtime: &Handle,
) -> Result<Result<T, DecodeError>, kafka::Error> {
    match codec.decode_or_fetch_blocking(bytes, runtime)? {
        Err(newer @ DecodeError::Newer { .. }) => Err(kafka::Error::fatal("reading a record", newer)),
        decoded => Ok(decoded),
    }
}

fn records<T: Contract + Serialize + DeserializeOwned>(
    kafka: &KafkaArgs,
    codec: &Codec<T>,
    runtime: &Handle,
    keep_bytes: bool,
) -> anyhow::Result<Vec<Record<T>>> {
    let mut records = Vec::new();
    for_each::<anyhow::Error>(kafka, &kafka.prefixed(T::TOPIC), |RawRecord { partition, offset, key, value }| {
        let bytes = value.unwrap_or_default();
        let value = decode(codec, &bytes, runtime)?.map_err(|error| error.to_string());
        let key = String::from_utf8_lossy(&key.unwrap_or_default()).into_owned();
        let bytes = if keep_bytes { bytes } else { Vec::new() };
        records.push(Record { partition, offset, key, bytes, value });
        Ok(())
    })
    .with_context(|| format!("reading topic {}", T::TOPIC))?;
    Ok(records)
}

fn commands(
    kafka: &KafkaArgs,
    codec: &Codec<CartCommand>,
    runtime: &Handle,
    partitions: i32,
    letters: &HashSet<(i32, i64)>,
) -> anyhow::Result<Vec<LogRecord>> {
    let mut commands = Vec::new();
    for_each::<anyhow::Error>(kafka, &kafka.prefixed(CartCommand::TOPIC), |record| {
        let RawRecord { partition, offset, key, value } = record;
        let decoded = match &value {
            None => Err(String::from("no value")),
            Some(bytes) => decode(codec, bytes, runtime)?.map_err(|error| error.to_string()),
        };
        let is_letter = letters.contains(&(partition, offset));
        let command = decoded
            .and_then(|command| belongs(command, key.as_deref(), partition, partitions))
            .and_then(|command| check(command, is_letter));
        let content = match command {
            Ok(command) => Content::Command(Box::new(command)),
            Err(reason) => Content::Undecidable { reason, key, value },
        };
        commands.push(LogRecord { partition, offset, content });
        Ok(())
    })
    .context("reading topic cart-commands")?;
    Ok(commands)
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

fn dead_letters(kafka: &KafkaArgs) -> anyhow::Result<Vec<DeadLetter>> {
    let topic = kafka.prefixed(DEAD_LETTER_TOPIC);
    let starts = Admin::new(kafka)?.watermarks(&topic)?.into_iter().map(|(start, _)| start);
    let mut reader = TopicReader::open(kafka, &topic, (0..).zip(starts))?;
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
