//! Bytes on a topic are garbage, or a value that is written and read again as the same; a command can be decided.
//! The first byte chooses the topic.
#![no_main]
#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use std::fmt::Debug;
use std::sync::LazyLock;

use cart::{Aggregate, CartCommand, CartEvent, CartId, CartReply, Limits, LogEpoch, Position, PurchasedItem};
use kafka::Codec;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

static COMMANDS: LazyLock<Codec<CartCommand>> = LazyLock::new(|| fuzz::codec().unwrap());
static EVENTS: LazyLock<Codec<CartEvent>> = LazyLock::new(|| fuzz::codec().unwrap());
static REPLIES: LazyLock<Codec<CartReply>> = LazyLock::new(|| fuzz::codec().unwrap());
static PURCHASES: LazyLock<Codec<PurchasedItem>> = LazyLock::new(|| fuzz::codec().unwrap());

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(codec: &Codec<T>, record: &[u8]) -> Option<T> {
    let value = codec.decode(record).ok()?;
    assert_eq!(codec.decode(&codec.encode(&value).unwrap()).unwrap(), value);
    Some(value)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((topic, datum)) = bytes.split_first() else { return };
    let record = [&[0][..], &fuzz::SCHEMA_ID.to_be_bytes(), datum].concat();
    match topic % 4 {
        0 => {
            if let Some(command) = read(&COMMANDS, &record) {
                let cart = Aggregate::new(CartId::from(Uuid::nil()));
                drop(cart.decide(&command, Position::new(LogEpoch::FIRST, 1), &Limits { lines_max: 3 }));
            }
        }
        1 => drop(read(&EVENTS, &record)),
        2 => drop(read(&REPLIES, &record)),
        _ => drop(read(&PURCHASES, &record)),
    }
});
