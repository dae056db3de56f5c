//! `cartctl tail`: prints the committed records of a topic, decoded, one per line.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use cart::contract::{Contract, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, CartId, CartReply, PurchasedItem, VendorId};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use kafka::{Admin, Codec, Headers as _, KafkaArgs, Message as _, Registry, TopicReader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::line::{InWords, Line};
use crate::topic::SILENCE_MAX;

/// How long a wait for the next record blocks.
const POLL_TIME: Duration = Duration::from_millis(500);

/// Print the committed records of a topic, decoded, one per line
///
/// A line has partition/offset, time, cart, version and the content. Records are in order within a partition. The command joins
/// no consumer group and commits nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl tail cart-events --from beginning --until-end")]
pub struct Args {
    /// Topic to read
    #[arg(value_enum)]
    topic: Topic,

    /// Where to start
    #[arg(long, value_enum, default_value = "end")]
    from: From,

    /// Stop at the current end of the topic instead of waiting for more records
    #[arg(long)]
    until_end: bool,

    /// Only records of this cart
    #[arg(long, value_name = "UUID")]
    cart: Option<CartId>,

    /// Only records of this vendor
    #[arg(long, value_name = "UUID")]
    vendor: Option<VendorId>,

    /// Print one JSON object per line, with partition, offset, time, key and headers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// The topics.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "kebab-case")]
enum Topic {
    /// Commands to change carts
    CartCommands,
    /// Events of the carts
    CartEvents,
    /// Outcomes of the commands
    CartReplies,
    /// Purchased items, one per line of a checkout
    ItemPurchased,
    /// Records of cart-commands that cannot be decided
    CartCommandsDeadLetter,
}

/// The start of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// At the oldest record
    Beginning,
    /// At the next new record
    End,
}

/// Writes records to `out` until the end of the topic, or without end. Ends when `out` is closed by its reader.
///
/// # Errors
/// Kafka or the registry is unavailable, or writing fails.
pub async fn tail(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    match args.topic {
        Topic::CartCommands => tail_of::<CartCommand>(args, CartCommand::TOPIC, out).await,
        Topic::CartEvents => tail_of::<CartEvent>(args, CartEvent::TOPIC, out).await,
        Topic::CartReplies => tail_of::<CartReply>(args, CartReply::TOPIC, out).await,
        Topic::ItemPurchased => tail_of::<PurchasedItem>(args, PurchasedItem::TOPIC, out).await,
        // Dead letters have the values of commands.
        Topic::CartCommandsDeadLetter => tail_of::<CartCommand>(args, DEAD_LETTER_TOPIC, out).await,
    }
}

async fn tail_of<T>(args: &Args, topic: &str, out: &mut impl Write) -> anyhow::Result<()>
where
    T: Contract + Serialize + DeserializeOwned + InWords,
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
        record.is_dead_letter = matches!(args.topic, Topic::CartCommandsDeadLetter);
        match codec.decode_or_fetch(&bytes).await? {
            Ok(value) => {
                record.line = Some(value.line());
                record.value = serde_json::to_value(value)?;
            }
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

/// A record as it is printed.
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
    /// Why the value can't be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The origin, on the topic of dead letters. A dead letter that was resent has these headers on other topics too.
    #[serde(skip)]
    is_dead_letter: bool,
    /// The value as text, if there is one.
    #[serde(skip)]
    line: Option<Line>,
}

/// Takes a record apart: all but the value, and the value's bytes.
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
        is_dead_letter: false,
        line: None,
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
            out.write_all(self.in_words().as_bytes())?;
        }
        writeln!(out)?;
        out.flush()
    }

    /// Writes offset, time, cart, version and content. A record without a value has its key in place of the cart, and the
    /// reason.
    fn in_words(&self) -> String {
        let at = self.line.as_ref().and_then(|line| line.at);
        let at = at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true)).or_else(|| self.time.clone());
        let cart = self.line.as_ref().map(|line| line.cart_id.to_string()).or_else(|| self.key.clone());
        let version = self.line.as_ref().and_then(|line| line.version).map(|version| version.to_string());
        let dead = self.dead_letter();
        let what = match (&self.line, &self.error) {
            (Some(line), _) => Some(line.what.clone()),
            // The dead letter's reason has it already.
            (None, error) if dead.is_none() => error.clone(),
            (None, _) => None,
        };
        let or_none = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
        let line = format!(
            "{}/{} {} {} {} {}",
            self.partition,
            self.offset,
            or_none(at),
            or_none(cart),
            or_none(version),
            [dead, what].into_iter().flatten().collect::<Vec<_>>().join(": ")
        );
        // Keys and reasons may contain control characters.
        line.replace(char::is_control, " ")
    }

    /// The origin of a dead letter, and its reason.
    fn dead_letter(&self) -> Option<String> {
        let header = |name: &str| self.headers.get(name).and_then(Value::as_str);
        let reason = header("dead-letter-reason").filter(|_| self.is_dead_letter)?;
        let (topic, partition, offset) =
            (header("dead-letter-topic")?, header("dead-letter-partition")?, header("dead-letter-offset")?);
        Some(format!("dead letter of {topic} {partition}/{offset} ({reason})"))
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

    fn record(key: Option<&str>, headers: &[(&str, &str)], line: Option<Line>, error: Option<&str>) -> Record {
        Record {
            partition: 3,
            offset: 17,
            time: Some("2026-01-31T12:00:00.000Z".to_owned()),
            key: key.map(str::to_owned),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect(),
            value: Value::Null,
            error: error.map(str::to_owned),
            is_dead_letter: true,
            line,
        }
    }

    #[test]
    fn prints_a_record_on_one_line() {
        let cart_id = CartId::from(uuid::Uuid::from_u128(9));
        let line = |version: Option<i64>| Line {
            at: version.map(|_| DateTime::UNIX_EPOCH),
            cart_id,
            version: version.map(Into::into),
            what: "Checkout".to_owned(),
        };
        let dead = [
            ("dead-letter-topic", "cart-commands"),
            ("dead-letter-partition", "2"),
            ("dead-letter-offset", "5"),
            ("dead-letter-reason", "the key is not the cart id"),
        ];
        for (record, words) in [
            (
                record(Some("k"), &[], Some(line(Some(4))), None),
                format!("3/17 1970-01-01T00:00:00Z {cart_id} 4 Checkout"),
            ),
            (record(None, &[], Some(line(None)), None), format!("3/17 2026-01-31T12:00:00.000Z {cart_id} - Checkout")),
            (
                record(Some("7"), &[("x", "y")], None, Some("the value is null")),
                "3/17 2026-01-31T12:00:00.000Z 7 - the value is null".to_owned(),
            ),
            (
                record(Some(""), &[], None, Some("two\nlines\0")),
                "3/17 2026-01-31T12:00:00.000Z - - two lines ".to_owned(),
            ),
            // The reason is printed whether the record can be decoded or not.
            (
                record(Some("7"), &dead, Some(line(None)), None),
                format!(
                    "3/17 2026-01-31T12:00:00.000Z {cart_id} - dead letter of cart-commands 2/5 (the key is not the cart id): \
                     Checkout"
                ),
            ),
            (
                record(Some("7"), &dead, None, Some("it does not decode")),
                "3/17 2026-01-31T12:00:00.000Z 7 - dead letter of cart-commands 2/5 (the key is not the cart id)"
                    .to_owned(),
            ),
        ] {
            assert_eq!(record.in_words(), words);
        }
        // Resent to another topic.
        let again = Record { is_dead_letter: false, ..record(None, &dead, Some(line(None)), None) };
        assert_eq!(again.in_words(), format!("3/17 2026-01-31T12:00:00.000Z {cart_id} - Checkout"));
    }

    #[test]
    fn finds_a_field_at_any_depth() {
        let value = json!({"cartId": "a", "commands": [{"AddItem": {"item": {"vendorId": "v", "name": "w"}}}]});
        assert!(has(&value, "cartId", "a") && has(&value, "vendorId", "v"));
        assert!(!has(&value, "vendorId", "w") && !has(&value, "cartId", "v"));
    }
}
