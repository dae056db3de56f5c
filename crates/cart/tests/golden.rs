//! Golden files: every record that was ever written can be decoded, and today's code encodes the newest ones byte for byte.
//!
//! `golden/<generation>/` holds a record a file, `<topic>.<what>.hex` (the Avro datum, without the registry's frame), and
//! the schemas that wrote them. Every generation is read, each with its own schemas, as records on a topic are. The newest
//! must also be what today's code writes, with all branches of all unions.
//!
//! To change a schema: make the folder of a new generation, run this test once with `CART_GOLDEN_WRITE=1`, look at what it
//! wrote, and commit it. It only ever writes files that are missing. A field that is new goes into the values below; in
//! the older generations it must have come out as its default. A generation's files never change.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use cart::contract::Contract;
use cart::*;
use serde::{Serialize, de::DeserializeOwned};

/// Checks that today's code decodes bytes of this schema to some value. Otherwise returns what it decodes.
type Read = Box<dyn Fn(&Schema, &[u8]) -> Result<(), String>>;

/// A value, and its comparison with a file, without its type, so that all are in one list.
struct Golden {
    topic: &'static str,
    schema: &'static str,
    /// The file's name, without its ending.
    name: String,
    /// The bytes that today's code encodes.
    bytes: Vec<u8>,
    read: Read,
}

fn golden<T>(what: &str, value: T) -> Golden
where
    T: Contract + Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    let schema = Schema::parse_str(T::SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
    let bytes = writer.write_ser_to_vec(&value).unwrap();
    let read = move |schema: &Schema, mut bytes: &[u8]| {
        let reader = GenericDatumReader::builder(schema).human_readable(false).build().unwrap();
        let read: T = reader.read_deser(&mut bytes).map_err(|error| error.to_string())?;
        if read == value && bytes.is_empty() { Ok(()) } else { Err(format!("{read:#?}, then {bytes:?}")) }
    };
    let name = format!("{}.{what}", T::TOPIC);
    Golden { topic: T::TOPIC, schema: T::SCHEMA, name, bytes, read: Box::new(read) }
}

fn id<T: From<uuid::Uuid>>(n: u128) -> T {
    // Every byte counts.
    uuid::Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_0000 + n).into()
}

fn item(product: u128, name: &str, price: &str, quantity: i32) -> Item {
    Item {
        product_id: id(product),
        vendor_id: id(9),
        name: name.to_owned().try_into().unwrap(),
        price: price.parse().unwrap(),
        quantity: quantity.try_into().unwrap(),
    }
}

fn mug(quantity: i32) -> Item {
    item(3, "red mug", "12.5", quantity)
}

/// The largest price, most pieces, and a name that is not ASCII.
fn jade() -> Item {
    item(4, "翡翠, “grün”", "999999999.9999", 1_000_000)
}

fn commands() -> Vec<(&'static str, Command)> {
    let add = |Item { product_id, vendor_id, name, price, quantity }: Item| Command::AddItem {
        product_id,
        vendor_id,
        name,
        price,
        quantity: quantity.get(),
    };
    let adjust = |by: i32| Command::AdjustQuantity { product_id: id(3), adjust_by: by.try_into().unwrap() };
    let remove = || Command::RemoveItem { product_id: id(4) };
    let batch = vec![add(jade()), adjust(1), remove(), Command::Checkout {}];
    vec![
        ("AddItem", add(mug(3))),
        ("AddItem-jade", add(jade())),
        // 0 and negative numbers can be encoded; a rule rejects them.
        (
            "AddItem-free",
            Command::AddItem {
                product_id: id(5),
                vendor_id: id(9),
                name: String::from("sample").try_into().unwrap(),
                price: "0".parse().unwrap(),
                quantity: -1,
            },
        ),
        ("RemoveItem", remove()),
        ("AdjustQuantity-up", adjust(2)),
        ("AdjustQuantity-down", adjust(-4)),
        ("Checkout", Command::Checkout {}),
        ("Batch", Command::Batch { commands: batch.clone() }),
        ("IndependentBatch", Command::IndependentBatch { commands: batch }),
    ]
}

fn command(command: Command, expected_version: Option<i64>) -> CartCommand {
    CartCommand {
        command_id: id(1),
        cart_id: id(2),
        issued_at: "2026-11-23T10:00:00.123456Z".parse().unwrap(),
        command,
        expected_version: expected_version.map(SequenceNumber::from),
        keyed: None,
    }
}

/// The request that made an event.
fn decided(event: &CartEvent) -> Decided {
    let CartEvent { cart_id, command_id, position, command_digest: digest, occurred_at: issued_at, .. } = *event;
    let events = vec![event.clone()];
    Decided { cart_id, command_id, position, keyed: None, digest, issued_at, outcome: None, events }
}

/// A snapshot of a version before 0.2.
fn without_requests(cart: &Aggregate) -> Aggregate {
    let mut json = serde_json::to_value(cart).unwrap();
    let fields = json.as_object_mut().unwrap();
    for new in ["requests", "newestIssuedAt", "unchangedCount"] {
        assert!(fields.remove(new).is_some(), "{new}");
    }
    let old: Aggregate = serde_json::from_value(json).unwrap();
    assert!(old.lacks_requests() && !cart.lacks_requests());
    old
}

/// Ids and digests are computed by the code. They are stored, so they are golden too.
fn events() -> Vec<(&'static str, CartEvent)> {
    let digest = |name: &str| commands().into_iter().find(|(other, _)| *other == name).unwrap().1.digest();
    let all = [
        ("ItemAdded", digest("AddItem"), Event::ItemAdded { item: mug(3) }),
        ("ItemAdded-jade", digest("AddItem-jade"), Event::ItemAdded { item: jade() }),
        ("ItemRemoved", digest("RemoveItem"), Event::ItemRemoved { item: jade() }),
        (
            "ItemQuantityIncreased",
            digest("AdjustQuantity-up"),
            Event::ItemQuantityIncreased { item: mug(5), increased_by: 2 },
        ),
        (
            "ItemQuantityDecreased",
            digest("AdjustQuantity-down"),
            Event::ItemQuantityDecreased { item: mug(1), decreased_by: 4 },
        ),
        ("ItemPurchased", digest("Checkout"), Event::ItemPurchased { item: mug(1) }),
        ("ItemAdded-in-batch", digest("Batch"), Event::ItemAdded { item: jade() }),
    ];
    let event = |(n, (name, command_digest, event)): (i64, (&'static str, i64, Event))| {
        let sequence_number = SequenceNumber::from(n);
        let one = CartEvent {
            event_id: EventId::of(id(2), sequence_number),
            cart_id: id(2),
            session_id: SessionId::of(id(2), 0),
            sequence_number,
            position: Position::new(LogEpoch::FIRST, 40 + n),
            command_id: id(100 + n.unsigned_abs() as u128),
            command_digest,
            occurred_at: "1969-12-31T23:59:59.999999Z".parse().unwrap(),
            event,
        };
        (name, one)
    };
    (1..).zip(all).map(event).collect()
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let changed = || Outcome::ItemChanged { session_id: SessionId::of(id(2), 0), version: 7.into(), item: mug(3) };
    let bought = || Outcome::CheckedOut {
        session_id: SessionId::of(id(2), 0),
        version: 9.into(),
        items: vec![mug(3), jade()],
        purchased_at: "2026-11-23T10:00:00.123456Z".parse().unwrap(),
    };
    let refused = |rejection, index| Outcome::Rejected { rejection, index };
    vec![
        ("ItemChanged", changed()),
        ("CheckedOut", bought()),
        ("ItemAlreadyInCart", refused(Rejection::ItemAlreadyInCart, None)),
        ("ItemNotInCart", refused(Rejection::ItemNotInCart, Some(4))),
        ("NegativeQuantity", refused(Rejection::NegativeQuantity { quantity: -3 }, None)),
        (
            "QuantityTooLarge",
            refused(Rejection::QuantityTooLarge { quantity: 5_000_000_000, max: Quantity::MAX }, Some(0)),
        ),
        ("EmptyCartCheckout", refused(Rejection::EmptyCartCheckout, None)),
        ("CartFull", refused(Rejection::CartFull { max: 1_000 }, None)),
        ("IdempotencyKeyReused", refused(Rejection::IdempotencyKeyReused, None)),
        ("VersionMismatch", refused(Rejection::VersionMismatch { version: 12.into() }, None)),
        ("Batch", Outcome::Batch { outcomes: vec![changed(), bought()] }),
        (
            "IndependentBatch",
            Outcome::IndependentBatch { outcomes: vec![refused(Rejection::ItemNotInCart, None), changed(), bought()] },
        ),
        ("Parked", Outcome::Parked { reason: "journal-unreadable".to_owned() }),
    ]
}

fn parked() -> Vec<(&'static str, CartParked)> {
    let at = || "2026-11-23T10:00:00.123456Z".parse().unwrap();
    let position = |offset| Position::new(LogEpoch::new(2).unwrap(), offset);
    let marker = |state| ParkedCart {
        first_position: position(41),
        next_position: position(43),
        state,
        reason: "rule-panicked: overflow".to_owned(),
        since: at(),
    };
    let requested = ParkedEntry::RetryRequested { by: "ops".to_owned(), requested_at: at() };
    vec![
        ("Trying", marker(ParkingState::Trying).record(id(2))),
        ("Parked", marker(ParkingState::Parked).record(id(2))),
        ("Retrying", marker(ParkingState::Retrying).record(id(2))),
        ("RetryRequested", CartParked { cart_id: id(2), entry: requested }),
    ]
}

fn controls() -> Vec<(&'static str, Control)> {
    let sha256 = || "9f0c".repeat(16);
    let position = Position::new(LogEpoch::new(2).unwrap(), 41);
    vec![
        ("Pause", Control::Pause { before_offset: None }),
        ("Pause-before", Control::Pause { before_offset: Some(120_000) }),
        ("Resume", Control::Resume {}),
        ("Skip", Control::Skip { sha256: sha256() }),
        ("Paused", Control::Paused { pause: 7, next_offset: 119_999 }),
        ("Stopped", Control::Stopped { offset: 77, sha256: sha256() }),
        ("Withdraw", Control::Withdraw {}),
        ("Discard", Control::Discard { cart_id: id(2), command_id: id(1), position, sha256: sha256() }),
    ]
}

fn all() -> Vec<Golden> {
    let mut all = Vec::new();
    for (name, one) in commands() {
        all.push(golden(name, command(one, None)));
    }
    all.push(golden("Checkout-at-version", command(Command::Checkout {}, Some(7))));
    for (name, keyed) in [("Checkout-keyed", true), ("Checkout-unkeyed", false)] {
        all.push(golden(name, CartCommand { keyed: Some(keyed), ..command(Command::Checkout {}, Some(0)) }));
    }
    let mut cart = Aggregate::new(id(2));
    all.push(golden("empty", without_requests(&cart)));
    all.push(golden("empty-with-requests", cart.clone()));
    for (name, event) in events() {
        cart.apply(&decided(&event));
        if let Some(purchase) = PurchasedItem::of(event.clone()) {
            all.push(golden("PurchasedItem", purchase));
        }
        all.push(golden(name, event));
    }
    all.push(golden("CartSnapshot", without_requests(&cart)));
    all.push(golden("CartSnapshot-with-requests", cart));
    for (name, control) in controls() {
        let (by, reason) = (String::from("ops"), String::from("index build"));
        all.push(golden(name, ControlRecord { by, at: "2026-11-29T12:04:00.5Z".parse().unwrap(), reason, control }));
    }
    for (name, outcome) in outcomes() {
        let position = Position::new(LogEpoch::new(2).unwrap(), 41);
        all.push(golden(name, CartReply { command_id: id(1), cart_id: id(2), position, outcome }));
    }
    for (name, one) in parked() {
        all.push(golden(name, one));
    }
    all
}

/// 16 bytes per line, with the printable ones as text.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let pairs: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        writeln!(text, "{:<47}  {}", pairs.join(" "), line.iter().map(shown).collect::<String>()).unwrap();
    }
    text
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.lines().flat_map(|line| line[..47].split_whitespace());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The folders of the generations, oldest first.
fn generations() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut numbers: Vec<u32> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().expect("a generation's number"))
        .collect();
    numbers.sort_unstable();
    let generations: Vec<_> = numbers.iter().map(|number| folder.join(number.to_string())).collect();
    // Written before any test reads them; two tests run at the same time.
    static WRITE: Once = Once::new();
    if std::env::var_os("CART_GOLDEN_WRITE").is_some() {
        WRITE.call_once(|| write_missing(generations.last().unwrap()));
    }
    generations
}

fn schema_file(generation: &Path, topic: &str) -> PathBuf {
    generation.join(format!("{topic}.avsc"))
}

fn write_missing(generation: &Path) {
    for golden in all() {
        let files = [
            (generation.join(format!("{}.hex", golden.name)), hex(&golden.bytes)),
            (schema_file(generation, golden.topic), golden.schema.to_owned()),
        ];
        for (file, text) in files.into_iter().filter(|(file, _)| !file.exists()) {
            fs::write(file, text).unwrap();
        }
    }
}

#[test]
fn what_was_written_is_read() {
    let all = all();
    for generation in generations() {
        for entry in fs::read_dir(&generation).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_stem().unwrap().to_str().unwrap();
            if file.extension().is_some_and(|extension| extension == "avsc") {
                continue;
            }
            let golden = all.iter().find(|golden| golden.name == name);
            let golden = golden.unwrap_or_else(|| panic!("what value does {} stand for?", file.display()));
            let schema = fs::read_to_string(schema_file(&generation, golden.topic)).unwrap();
            let bytes = bytes(&fs::read_to_string(&file).unwrap());
            let read = (golden.read)(&Schema::parse_str(&schema).unwrap(), &bytes);
            assert_eq!(read, Ok(()), "{} is read as something else", file.display());
        }
    }
}

#[test]
fn the_same_is_written_today() {
    let newest = generations().pop().unwrap();
    for golden in all() {
        let file = newest.join(format!("{}.hex", golden.name));
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(hex(&golden.bytes), text, "{}: see the top of this file", file.display());
        let schema = fs::read_to_string(schema_file(&newest, golden.topic)).unwrap();
        let [then, now] = [&schema, golden.schema].map(|text| without_docs(serde_json::from_str(text).unwrap()));
        assert_eq!(then, now, "the schema of {} has changed: see the top of this file", golden.topic);
    }
}

/// A schema's doc comments may change at any time.
fn without_docs(mut json: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = json.as_object_mut() {
        fields.remove("doc");
        fields.values_mut().for_each(|value| *value = without_docs(value.take()));
    } else if let Some(values) = json.as_array_mut() {
        values.iter_mut().for_each(|value| *value = without_docs(value.take()));
    }
    json
}

#[test]
fn no_branch_of_a_union_is_missing() {
    let all = all();
    let topics: BTreeSet<_> = all.iter().map(|golden| (golden.topic, golden.schema)).collect();
    assert_eq!(topics.len(), 7, "commands, events, replies, parked carts, purchases, snapshots, control");
    for (topic, schema) in topics {
        let schema = Schema::parse_str(schema).unwrap();
        let reader = GenericDatumReader::builder(&schema).human_readable(false).build().unwrap();
        let mut seen = BTreeSet::new();
        for golden in all.iter().filter(|golden| golden.topic == topic) {
            note_branches(&reader.read_value(&mut golden.bytes.as_slice()).unwrap(), topic, &mut seen);
        }
        let missing: Vec<_> = branches(&schema, topic).into_iter().filter(|branch| !seen.contains(branch)).collect();
        assert!(missing.is_empty(), "no golden file has {missing:?}");
    }
}

/// Every branch of every union of a schema, by its path.
fn branches(schema: &Schema, path: &str) -> Vec<String> {
    if let Schema::Record(record) = schema {
        let field =
            |field: &apache_avro::schema::RecordField| branches(&field.schema, &format!("{path}.{}", field.name));
        record.fields.iter().flat_map(field).collect()
    } else if let Schema::Array(array) = schema {
        branches(&array.items, &format!("{path}[]"))
    } else if let Schema::Union(union) = schema {
        let branch = |(index, schema)| {
            let path = format!("{path}|{index}");
            std::iter::once(path.clone()).chain(branches(schema, &path)).collect::<Vec<_>>()
        };
        (0..).zip(union.variants()).flat_map(branch).collect()
    } else {
        Vec::new()
    }
}

/// The branches that a value takes, by the same paths.
fn note_branches(value: &Value, path: &str, seen: &mut BTreeSet<String>) {
    if let Value::Record(fields) = value {
        fields.iter().for_each(|(name, value)| note_branches(value, &format!("{path}.{name}"), seen));
    } else if let Value::Array(values) = value {
        values.iter().for_each(|value| note_branches(value, &format!("{path}[]"), seen));
    } else if let Value::Union(index, value) = value {
        let path = format!("{path}|{index}");
        note_branches(value, &path, seen);
        seen.insert(path);
    }
}
