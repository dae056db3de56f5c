//! Damaged records: decoding gives a usable value or an error, never a panic, and never an allocation of all memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use cart::contract::Contract;
use cart::{
    Aggregate, CartCommand, CartEvent, CartId, CartParked, CartReply, ControlRecord, LogEpoch, Position, PurchasedItem,
};
use proptest::prelude::*;
use proptest::sample::Index;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The maximum allocation for a record, as in the codec.
const ALLOCATION_MAX: usize = 8 << 20;

/// The folder of the newest generation of golden records, see golden.rs.
fn newest_generation() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let numbers = entries.map(|name| name.to_str().unwrap().parse::<u32>().expect("a generation's number"));
    folder.join(numbers.max().unwrap().to_string())
}

/// The golden records of a topic.
fn records(topic: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(newest_generation()).unwrap().map(|entry| entry.unwrap().path());
    let is_record = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&format!("{topic}.")) && name.ends_with(".hex")
    };
    let bytes = |path| {
        let text = fs::read_to_string(path).unwrap();
        // The rest of the line is the same bytes as text, see golden.rs.
        let pairs = text.lines().flat_map(|line| line[..47].split_whitespace());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    files.filter(is_record).map(bytes).collect()
}

/// A byte is changed, inserted or removed, or the rest is cut off.
#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let (at, byte) = (any::<Index>, any::<u8>);
    prop_oneof![
        4 => (at(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (at(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => at().prop_map(Damage::Remove),
        1 => at().prop_map(Damage::Cut),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: Vec<Damage>) -> Vec<u8> {
    for damage in all {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match damage {
            Damage::Set(at, byte) => bytes[at.index(len)] = byte,
            Damage::Insert(at, byte) => bytes.insert(at.index(len), byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(len))),
            Damage::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
    bytes
}

/// Decodes bytes. Checks that a value is encoded and decoded to itself.
fn read<T: Contract + Serialize + DeserializeOwned + PartialEq>(mut bytes: &[u8]) -> Option<T> {
    apache_avro::util::max_allocation_bytes(ALLOCATION_MAX);
    let schema = Schema::parse_str(T::SCHEMA).unwrap();
    let reader = GenericDatumReader::builder(&schema).human_readable(false).build().unwrap();
    let value: T = reader.read_deser(&mut bytes).ok()?;
    let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
    let again: T = reader.read_deser(&mut writer.write_ser_to_vec(&value).unwrap().as_slice()).unwrap();
    assert!(again == value);
    Some(value)
}

/// Checks that a topic has records, and that they are values.
fn are_values<T: Contract + Serialize + DeserializeOwned + PartialEq>() {
    let records = records(T::TOPIC);
    assert!(!records.is_empty(), "{} has no golden record", T::TOPIC);
    assert!(records.iter().all(|bytes| read::<T>(bytes).is_some()), "a golden record of {} is no value", T::TOPIC);
}

/// Checks that the records are valid before they are damaged.
#[test]
fn an_undamaged_record_is_a_value() {
    are_values::<CartCommand>();
    are_values::<CartEvent>();
    are_values::<CartReply>();
    are_values::<PurchasedItem>();
    are_values::<CartParked>();
    are_values::<ControlRecord>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_damaged_record_is_a_value_or_none(record: Index, all in prop::collection::vec(damage(), 1..6)) {
        let one = |topic| {
            let records = records(topic);
            damaged(records[record.index(records.len())].clone(), all.clone())
        };
        read::<CartEvent>(&one(CartEvent::TOPIC));
        read::<CartReply>(&one(CartReply::TOPIC));
        read::<PurchasedItem>(&one(PurchasedItem::TOPIC));
        read::<CartParked>(&one(CartParked::TOPIC));
        read::<ControlRecord>(&one(ControlRecord::TOPIC));
        if let Some(command) = read::<CartCommand>(&one(CartCommand::TOPIC)) {
            let cart = Aggregate::new(CartId::from(uuid::Uuid::nil()));
            // Any decoded command can be decided.
            drop(cart.decide(&command, Position::new(LogEpoch::FIRST, 1)));
        }
    }
}
