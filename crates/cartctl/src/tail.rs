//! Watching a topic: its committed records, decoded, one a line.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use cart::contract::{Contract, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, CartId, CartReply, PurchasedItem, VendorId};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use kafka::{Admin, Codec, DecodeError, Headers as _, KafkaArgs, Message as _, Registry, TopicReader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::topic::SILENCE_MAX;

/// How long a wait for the next record blocks.
const POLL_TIME: Duration = Duration::from_millis(500);

/// Shows a topic's committed records, decoded, one a line, in order within a partition.
///
/// It joins no group and commits nothing, so it disturbs nobody. Settings come from options or environment variables.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which topic
    #[arg(value_enum)]
    topic: Topic,

    /// Where to start
    #[arg(long, value_enum, default_value = "end")]
    from: From,

    /// Stop at the end that the topic has now, instead of waiting for more
    #[arg(long)]
    until_end: bool,

    /// Only what is about this cart
    #[arg(long, value_name = "UUID")]
    cart: Option<CartId>,

    /// Only what is about this vendor
    #[arg(long, value_name = "UUID")]
    vendor: Option<VendorId>,

    /// A JSON object a line, with partition, offset, time, key and headers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Our topics.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "kebab-case")]
enum Topic {
    /// What is wanted of carts
    CartCommands,
    /// What happened to them
    CartEvents,
    /// What their clients are told
    CartReplies,
    /// Each line of each checkout
    ItemPurchased,
    /// Records of cart-commands that nobody can decide
    CartCommandsDeadLetter,
}

/// Where to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// With the oldest record that there is
    Beginning,
    /// With the next record that comes
    End,
}

/// Writes records to `out` until there are none any more, or for ever. Ends when nobody reads `out` any more.
///
/// # Errors
/// When Kafka or the registry is away, or `out` fails.
pub async fn tail(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    match args.topic {
        Topic::CartCommands => tail_of::<CartCommand>(args, CartCommand::TOPIC, out).await,
        Topic::CartEvents => tail_of::<CartEvent>(args, CartEvent::TOPIC, out).await,
        Topic::CartReplies => tail_of::<CartReply>(args, CartReply::TOPIC, out).await,
        Topic::ItemPurchased => tail_of::<PurchasedItem>(args, PurchasedItem::TOPIC, out).await,
        // They should have been commands.
        Topic::CartCommandsDeadLetter => tail_of::<CartCommand>(args, DEAD_LETTER_TOPIC, out).await,
    }
}

async fn tail_of<T>(args: &Args, topic: &str, out: &mut impl Write) -> anyhow::Result<()>
where
    T: Contract + Serialize + DeserializeOwned,
{
    let topic = args.kafka.prefixed(topic);
    let codec = Codec::<T>::register(&Registry::new(&args.kafka)?, T::TOPIC, T::SCHEMA).await?;
    let mut reader = tokio::task::block_in_place(|| {
        let ends = Admin::new(&args.kafka)?.watermarks(&topic)?;
        let start = |(start, end)| if args.from == From::Beginning { start } else { end };
        TopicReader::open(&args.kafka, &topic, (0..).zip(ends.into_iter().map(start)))
    })?;
    loop {
        let record = tokio::task::block_in_place(|| {
            let message = if args.until_end { reader.next(SILENCE_MAX)? } else { reader.follow(POLL_TIME)? };
            Ok::<_, kafka::Error>(message.map(|message| record(&message)))
        })?;
        let Some((mut record, bytes)) = record else {
            if args.until_end {
                return Ok(());
            }
            continue;
        };
        match decode(&codec, &bytes).await? {
            Ok(value) => record.value = serde_json::to_value(value)?,
            Err(error) => record.error = Some(error.to_string()),
        }
        if !record.is_about(args) {
            continue;
        }
        match record.write(args.json, out) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
}

/// The value, or why it is none.
async fn decode<T>(codec: &Codec<T>, bytes: &[u8]) -> Result<Result<T, DecodeError>, kafka::Error>
where
    T: Serialize + DeserializeOwned,
{
    match codec.decode(bytes) {
        Err(DecodeError::NotLearnt { id }) => {
            codec.learn(id).await?;
            Ok(codec.decode(bytes))
        }
        result => Ok(result),
    }
}

/// A record as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    key: Option<String>,
    headers: Map<String, Value>,
    value: Value,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A record without its value, and the value's bytes.
fn record(message: &kafka::BorrowedMessage<'_>) -> (Record, Vec<u8>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let time = message.timestamp().to_millis().and_then(DateTime::<Utc>::from_timestamp_millis);
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let record = Record {
        partition: message.partition(),
        offset: message.offset(),
        time: time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)),
        key: message.key().map(text),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(text).into())).collect(),
        value: Value::Null,
        error: None,
    };
    (record, message.payload().unwrap_or_default().to_vec())
}

impl Record {
    fn is_about(&self, args: &Args) -> bool {
        let names = |field: &str, id: Option<String>| match id {
            None => true,
            Some(id) => self.key.as_ref() == Some(&id) || has(&self.value, field, &id),
        };
        names("cartId", args.cart.map(|id| id.to_string())) && names("vendorId", args.vendor.map(|id| id.to_string()))
    }

    fn write(&self, is_json: bool, out: &mut impl Write) -> std::io::Result<()> {
        if is_json {
            serde_json::to_writer(&mut *out, self)?;
        } else {
            let (time, key) = (self.time.as_deref().unwrap_or("-"), self.key.as_deref().unwrap_or("-"));
            write!(out, "{}/{} {time} {key} ", self.partition, self.offset)?;
            match &self.error {
                None => write!(out, "{}", self.value)?,
                Some(error) => write!(out, "{error} {}", Value::Object(self.headers.clone()))?,
            }
        }
        writeln!(out)?;
        out.flush()
    }
}

/// Whether a field of this name, at any depth, has this value.
fn has(value: &Value, field: &str, id: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| (name == field && value.as_str() == Some(id)) || has(value, field, id))
        }
        Value::Array(values) => values.iter().any(|value| has(value, field, id)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_found_at_any_depth() {
        let value = json!({"cartId": "a", "commands": [{"AddItem": {"item": {"vendorId": "v", "name": "w"}}}]});
        assert!(has(&value, "cartId", "a") && has(&value, "vendorId", "v"));
        assert!(!has(&value, "vendorId", "w") && !has(&value, "cartId", "v"));
    }
}
