//! The commands of parked carts that wait in the log.

use std::collections::{BTreeMap, HashMap};

use cart::contract::Contract as _;
use cart::{CartCommand, CartId, Position};
use chrono::{DateTime, Utc};
use kafka::{Admin, Codec, DecodeError, KafkaArgs, Message as _, Registry, TopicReader};
use parking::AllParked;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::topic::SILENCE_MAX;

/// A waiting command; its fields are those of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    pub(super) offset: i64,
    /// `None`: it is newer than this program.
    #[serde(flatten)]
    pub(super) command: Option<CartCommand>,
    /// Why it cannot be decoded then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) too_new: Option<String>,
    /// The time of the record.
    #[serde(skip)]
    pub(super) at: Option<DateTime<Utc>>,
    /// The hash of the record's value.
    #[serde(skip)]
    pub(super) sha256: String,
}

/// The waiting commands of each cart, in their order.
pub(super) async fn waiting(kafka: &KafkaArgs, parked: &AllParked) -> anyhow::Result<HashMap<CartId, Vec<Waiting>>> {
    let mut starts: BTreeMap<i32, i64> = BTreeMap::new();
    for ((partition, _), cart) in &parked.carts {
        let next = cart.next_position.offset();
        starts.entry(*partition).and_modify(|start| *start = next.min(*start)).or_insert(next);
    }
    let codec = Codec::<CartCommand>::register(&Registry::new(kafka)?, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let (kafka, parked, runtime) = (kafka.clone(), parked.clone(), Handle::current());
    let read = move || {
        let mut waiting: HashMap<CartId, Vec<Waiting>> = HashMap::new();
        if starts.is_empty() {
            return Ok(waiting);
        }
        let topic = kafka.prefixed(CartCommand::TOPIC);
        // The log may begin later: then what waited there is lost, and the rest is shown.
        let bounds = Admin::new(&kafka)?.watermarks(&topic)?;
        let first = |partition: i32| usize::try_from(partition).ok().and_then(|p| bounds.get(p)).map_or(0, |one| one.0);
        let starts = starts.into_iter().map(|(partition, start)| (partition, start.max(first(partition))));
        let mut log = TopicReader::open(&kafka, &topic, starts)?;
        while let Some(message) = log.next(SILENCE_MAX)? {
            let key = std::str::from_utf8(message.key().unwrap_or_default()).unwrap_or_default();
            let Ok(cart_id) = key.parse::<CartId>() else { continue };
            let Some(cart) = parked.carts.get(&(message.partition(), cart_id)) else { continue };
            let epoch = cart.next_position.epoch().unwrap_or(cart::LogEpoch::FIRST);
            if !cart.holds(Position::new(epoch, message.offset())) {
                continue;
            }
            let value = message.payload().unwrap_or_default();
            let (command, too_new) = match codec.decode_or_fetch_blocking(value, &runtime)? {
                Ok(command) if is_decidable(&command, cart_id) => (Some(command), None),
                Err(newer @ DecodeError::Newer { .. }) => (None, Some(newer.to_string())),
                // A dead letter.
                Ok(_) | Err(_) => continue,
            };
            let sha256 = control::sha256(message.payload());
            let at = message.timestamp().to_millis().and_then(DateTime::from_timestamp_millis);
            let one = Waiting { offset: message.offset(), command, too_new, at, sha256 };
            waiting.entry(cart_id).or_default().push(one);
        }
        Ok(waiting)
    };
    tokio::task::spawn_blocking(read).await?
}

/// Whether a record with the key of this cart waits, or is a dead letter.
fn is_decidable(command: &CartCommand, cart_id: CartId) -> bool {
    command.cart_id == cart_id && (command.keyed.is_none() || command.check().is_ok())
}
