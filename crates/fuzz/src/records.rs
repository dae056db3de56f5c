//! A record is rejected, or it is a value that survives a round trip. A command can also be decided.
//!
//! The first byte of an input chooses the topic, the rest is the Avro datum.

use std::fmt::Debug;
use std::sync::LazyLock;

use cart::contract::Contract;
use cart::{
    Aggregate, CartCommand, CartEvent, CartId, CartParked, CartReply, ControlRecord, LogEpoch, Position, PurchasedItem,
};
use kafka::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// The topics, in the order of the byte that chooses them. `scripts/fuzz` has the same list.
pub const TOPICS: [&str; 6] = [
    CartCommand::TOPIC,
    CartEvent::TOPIC,
    CartReply::TOPIC,
    PurchasedItem::TOPIC,
    CartParked::TOPIC,
    ControlRecord::TOPIC,
];

static COMMANDS: LazyLock<Codec<CartCommand>> = LazyLock::new(crate::codec);
static EVENTS: LazyLock<Codec<CartEvent>> = LazyLock::new(crate::codec);
static REPLIES: LazyLock<Codec<CartReply>> = LazyLock::new(crate::codec);
static PURCHASES: LazyLock<Codec<PurchasedItem>> = LazyLock::new(crate::codec);
static PARKED: LazyLock<Codec<CartParked>> = LazyLock::new(crate::codec);
static CONTROL: LazyLock<Codec<ControlRecord>> = LazyLock::new(crate::codec);

/// Decodes a record; writes and reads back its value; decides a command.
///
/// # Panics
/// If a value does not survive the round trip.
pub fn run(input: &[u8]) -> bool {
    let Some((topic, datum)) = input.split_first() else { return false };
    let record = [&[0][..], &crate::SCHEMA_ID.to_be_bytes(), datum].concat();
    match topic % 6 {
        0 => {
            let command = round_trip(&COMMANDS, &record);
            if let Some(command) = &command {
                let cart = Aggregate::new(CartId::from(Uuid::nil()));
                drop(cart.decide(command, Position::new(LogEpoch::FIRST, 1)));
            }
            command.is_some()
        }
        1 => round_trip(&EVENTS, &record).is_some(),
        2 => round_trip(&REPLIES, &record).is_some(),
        3 => round_trip(&PURCHASES, &record).is_some(),
        4 => round_trip(&PARKED, &record).is_some(),
        _ => round_trip(&CONTROL, &record).is_some(),
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(codec: &Codec<T>, record: &[u8]) -> Option<T> {
    let value = codec.decode(record).ok()?;
    assert_eq!(codec.decode(&codec.encode(&value).unwrap()).unwrap(), value);
    Some(value)
}
