//! Records on `cart-commands` that can't be decided are copied to the dead-letter topic, with the reason and the origin. The
//! commands around them are decided, also if the processor crashes meanwhile.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC};
use cart::{Aggregate, CartCommand, CartEvent, CartId, Command, CommandId, Decision, LogEpoch, Position};
use cartctl::journal::{self, journal_equals_topic};
use chrono::DateTime;
use e2e::harness::{Installation, Service, wait_until};
use kafka::{
    Admin, Codec, Header, Headers as _, KafkaArgs, Message as _, OwnedHeaders, Producer, Record, Registry, TopicReader,
    partition_of,
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(180);

/// A crashed member's partitions are reassigned after this.
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

/// The maximum length of a reason, which people read in a list.
const REASON_LEN_MAX: usize = 200;

/// The headers that follow the original's.
const ADDED: [&str; 5] =
    ["dead-letter-reason", "dead-letter-topic", "dead-letter-partition", "dead-letter-offset", "dead-letter-timestamp"];

/// A record that is not a valid command in its partition.
struct Undecidable {
    record: Record,
    /// A part of the expected reason.
    reason: &'static str,
}

/// Undecidable records between good commands of one cart.
struct Load {
    cart_id: CartId,
    partition: i32,
    bad: Vec<Undecidable>,
    /// The records in the order of the partition, which was empty, so that the index is the offset.
    records: Vec<Record>,
}

/// The order in the partition: commands have even offsets, undecidable records odd ones.
fn is_good(offset: usize) -> bool {
    offset.is_multiple_of(2)
}

fn add(product: u128) -> Command {
    add_named(product, "red mug")
}

fn add_named(product: u128, name: &str) -> Command {
    Command::AddItem {
        product_id: Uuid::from_u128(product).into(),
        vendor_id: Uuid::from_u128(1).into(),
        name: name.to_owned().try_into().expect("a name"),
        price: "3.5".parse().expect("a price"),
        quantity: 1,
    }
}

fn command(cart_id: CartId, id: u128, command: Command) -> CartCommand {
    let issued_at = "2026-01-31T12:00:00Z".parse().expect("a time");
    CartCommand {
        command_id: Uuid::from_u128(id).into(),
        cart_id,
        issued_at,
        command,
        expected_version: None,
        keyed: Some(true),
    }
}

fn event() -> CartEvent {
    let cart_id = Uuid::from_u128(3).into();
    let decision = Aggregate::new(cart_id).decide(&command(cart_id, 4, add(5)), 6.into());
    let Decision::Decided(mut decided) = decision else { panic!("an empty cart takes an item") };
    decided.events.remove(0)
}

impl Load {
    async fn new(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let registry = Registry::new(kafka)?;
        let commands = Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
        let events = Codec::<CartEvent>::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
        let partitions = Admin::new(kafka)?.partitions(&kafka.prefixed(CartCommand::TOPIC))?;
        let cart_id = CartId::from(Uuid::new_v4());
        let partition = partition_of(cart_id.to_string().as_bytes(), partitions);
        let elsewhere = (0..).map(|n| CartId::from(Uuid::from_u128(n)));
        let elsewhere = elsewhere.filter(|id| partition_of(id.to_string().as_bytes(), partitions) != partition);
        let misplaced = elsewhere.into_iter().next().context("all carts are in one partition")?;

        let bad = undecidable(cart_id, misplaced, &commands, &events.encode(&event())?)?;
        let mut records = Vec::new();
        for (n, bad) in (0..).zip(&bad) {
            records.push(keyed(cart_id, commands.encode(&command(cart_id, 1_000 + n, add(n)))?));
            records.push(bad.record.clone());
        }
        records.push(keyed(cart_id, commands.encode(&command(cart_id, 9_999, Command::Checkout {}))?));
        for record in &mut records {
            record.partition = Some(partition);
        }
        Ok(Self { cart_id, partition, bad, records })
    }

    async fn send(&self, kafka: &KafkaArgs) -> anyhow::Result<()> {
        let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
        for record in &self.records {
            producer.send(record)?.await?;
        }
        Ok(())
    }

    /// The commands, each at its position.
    fn good(&self) -> Vec<(Position, CommandId)> {
        let id = |offset: usize| if offset + 1 == self.records.len() { 9_999 } else { 1_000 + (offset / 2) as u128 };
        let position = |offset| Position::new(LogEpoch::FIRST, i64::try_from(offset).expect("a small number"));
        let offsets = (0..self.records.len()).filter(|offset| is_good(*offset));
        offsets.map(|offset| (position(offset), Uuid::from_u128(id(offset)).into())).collect()
    }

    /// The differences between the dead-letter topic and the journal, and what is expected there.
    async fn check(&self, installation: &Installation) -> anyhow::Result<()> {
        let letters = letters(installation.kafka()).await?;
        let origins: Vec<_> = letters.iter().map(|letter| letter.offset).collect();
        let expected: Vec<_> = (0..self.records.len()).filter(|offset| !is_good(*offset)).collect();
        ensure!(origins == expected, "the letters are of offsets {origins:?}, not of {expected:?}");
        for (letter, Undecidable { record, reason }) in letters.iter().zip(&self.bad) {
            let place = format!("the letter of offset {} ({reason})", letter.offset);
            ensure!(letter.key == record.key, "{place} has the key {:?}", letter.key);
            ensure!(letter.value == record.value, "{place} has the value {:?}", letter.value);
            let own = record.headers.as_ref().map_or_else(Vec::new, |headers| texts(headers.iter()));
            ensure!(letter.own_headers == own, "{place} has the headers {:?}", letter.own_headers);
            let [reason_told, topic, partition, _, timestamp] = &letter.added;
            let told_well = reason_told.contains(reason) && reason_told.len() <= REASON_LEN_MAX;
            ensure!(told_well, "{place} has the reason '{reason_told}'");
            ensure!(*topic == installation.kafka().prefixed(CartCommand::TOPIC), "{place} is of {topic}");
            ensure!(*partition == self.partition.to_string(), "{place} is of partition {partition}");
            ensure!(timestamp.parse::<i64>().is_ok_and(|ms| ms > 0), "{place} is of {timestamp} ms");
        }

        let session = cassandra::connect(installation.cassandra()).await?;
        let mut carts = journal::read(&session).await?;
        let rows = carts.remove(&self.cart_id.as_uuid()).context("the cart is not in the journal")?;
        let mut decided: Vec<_> = rows.iter().map(|row| (row.position.into(), row.command_id.into())).collect();
        // The last checkout has bought every line.
        decided.dedup();
        ensure!(decided == self.good(), "journalled are {decided:?}");
        ensure!(carts.is_empty(), "carts {:?} got something", carts.keys());
        let differences = journal_equals_topic(installation.kafka(), installation.cassandra()).await?;
        ensure!(differences.is_empty(), "journal and topic differ: {differences:?}");
        Ok(())
    }
}

fn keyed(cart_id: CartId, value: Vec<u8>) -> Record {
    Record { partition: None, key: Some(cart_id.to_string().into_bytes()), value: Some(value), headers: None }
}

/// One record of each kind of a producer's mistake.
fn undecidable(
    cart_id: CartId,
    misplaced: CartId,
    commands: &Codec<CartCommand>,
    event: &[u8],
) -> anyhow::Result<Vec<Undecidable>> {
    let good = commands.encode(&command(cart_id, 1, add(1)))?;
    let checkout = commands.encode(&command(cart_id, 2, Command::Checkout {}))?;
    let adjust = Command::AdjustQuantity { product_id: Uuid::from_u128(1).into(), adjust_by: 1.try_into()? };
    let adjust = commands.encode(&command(cart_id, 3, adjust))?;
    let empty = commands.encode(&command(cart_id, 4, Command::Batch { commands: vec![] }))?;
    let at = |micros: i64| -> anyhow::Result<Vec<u8>> {
        let issued_at = DateTime::from_timestamp_micros(micros).context("a time")?;
        Ok(commands.encode(&CartCommand { issued_at, ..command(cart_id, 6, add(1)) })?)
    };
    let named =
        |name: &str| -> anyhow::Result<Vec<u8>> { Ok(commands.encode(&command(cart_id, 7, add_named(1, name)))?) };
    let second = Command::Batch { commands: vec![add(1), add_named(2, "\u{2800}")] };
    let in_batch = commands.encode(&command(cart_id, 8, second))?;
    let frame = &good[..5];
    let framed_as = |id: u32| [&[0], id.to_be_bytes().as_slice(), &good[5..]].concat();
    // After the command follow expectedVersion's branch, and keyed's branch and value.
    let command_ends_with = |bytes: &[u8], byte: u8| {
        let (at, mut bytes) = (bytes.len() - 4, bytes.to_vec());
        bytes[at] = byte;
        bytes
    };
    let value = |value: Vec<u8>, reason| Undecidable { record: keyed(cart_id, value), reason };
    let key = |key: Option<&[u8]>, value: &[u8]| Undecidable {
        record: Record { key: key.map(<[u8]>::to_vec), ..keyed(cart_id, value.to_vec()) },
        reason: "the key is not the cart id",
    };
    let upper = cart_id.to_string().to_uppercase();
    let own_headers = OwnedHeaders::new()
        .insert(Header { key: "traceparent", value: Some("00-1-2-01") })
        .insert(Header { key: "dead-letter-reason", value: Some("its producer says so") });
    let garbage = keyed(cart_id, b"{\"productId\": 7}".to_vec());
    let nothing = Record { partition: None, key: None, value: None, headers: None };
    Ok(vec![
        Undecidable { record: Record { headers: Some(own_headers), ..garbage }, reason: "starts with byte 0x7b" },
        value(vec![0xff; 3_000], "starts with byte 0xff"),
        value(vec![], "has 0 bytes"),
        value(vec![0, 0], "has 2 bytes"),
        Undecidable { record: Record { value: None, ..keyed(cart_id, vec![]) }, reason: "the value is null" },
        Undecidable { record: nothing, reason: "the value is null" },
        key(None, &good),
        key(Some(b""), &good),
        key(Some(b"7"), &good),
        key(Some(upper.as_bytes()), &good),
        key(Some(misplaced.to_string().as_bytes()), &good),
        Undecidable {
            record: keyed(misplaced, commands.encode(&command(misplaced, 5, add(5)))?),
            reason: "does not use the partitioner of Java's clients",
        },
        value(framed_as(i32::MAX.unsigned_abs()), "no Avro schema 2147483647"),
        // A length beyond any array in Java.
        value(framed_as(u32::MAX), "no Avro schema 4294967295"),
        value(framed_as(0), "no Avro schema 0"),
        value(event.to_vec(), "CartEvent"),
        value(frame.to_vec(), "cannot be decoded"),
        value(good[..good.len() - 9].to_vec(), "cannot be decoded"),
        value([&good, [0].as_slice()].concat(), "1 bytes follow"),
        // A string of a terabyte.
        value([frame, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40]].concat(), "Unable to allocate"),
        // The union has 6 branches.
        value(command_ends_with(&checkout, 6 << 1), "Union index 6"),
        value(command_ends_with(&adjust, 0), "expected a nonzero i32"),
        value(empty, "the batch has no commands"),
        // Nanoseconds; the first microsecond of the year 10000; the last one before the year 1.
        value(at(1_790_000_000_000_000_000)?, "issuedAt is not in the years 1 to 9999 in UTC"),
        value(at(253_402_300_800_000_000)?, "issuedAt is not in the years 1 to 9999 in UTC"),
        value(at(-62_135_596_800_000_001)?, "issuedAt is not in the years 1 to 9999 in UTC"),
        value(named("red mug\0")?, "the name has the control character U+0000"),
        value(named("red\u{85}mug")?, "the name has the control character U+0085"),
        value(named("\u{200b}")?, "the name has only invisible characters"),
        value(in_batch, "the name has only invisible characters"),
    ])
}

/// The committed records of the dead-letter topic.
struct Letter {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    own_headers: Vec<(String, String)>,
    /// The values of [`ADDED`].
    added: [String; 5],
    /// The origin, from its headers.
    offset: usize,
}

fn texts<'a>(headers: impl Iterator<Item = Header<'a, &'a [u8]>>) -> Vec<(String, String)> {
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    headers.map(|header| (header.key.to_owned(), text(header.value))).collect()
}

/// In the order of their origins.
async fn letters(kafka: &KafkaArgs) -> anyhow::Result<Vec<Letter>> {
    let kafka = kafka.clone();
    let read = move || {
        let topic = kafka.prefixed(DEAD_LETTER_TOPIC);
        let starts = Admin::new(&kafka)?.watermarks(&topic)?;
        let mut reader = TopicReader::open(&kafka, &topic, (0..).zip(starts.into_iter().map(|(start, _)| start)))?;
        let mut letters = Vec::new();
        while let Some(message) = reader.next(DEADLINE)? {
            let mut own_headers = message.headers().map_or_else(Vec::new, |headers| texts(headers.iter()));
            let own = own_headers.len().checked_sub(ADDED.len()).context("a letter lacks headers")?;
            let (names, added): (Vec<_>, Vec<_>) = own_headers.drain(own..).unzip();
            ensure!(names == ADDED, "a letter has the headers {names:?}");
            let added: [String; 5] = added.try_into().ok().context("as many as names")?;
            letters.push(Letter {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                own_headers,
                offset: added[3].parse()?,
                added,
            });
        }
        letters.sort_by_key(|letter| letter.offset);
        Ok(letters)
    };
    tokio::task::spawn_blocking(read).await?
}

/// Waits until the group has committed the end of every partition.
async fn all_is_consumed(kafka: &KafkaArgs) -> anyhow::Result<()> {
    let (group, topic) = (kafka.prefixed("cart-processor"), kafka.prefixed(CartCommand::TOPIC));
    wait_until("the group to be at the end", DEADLINE, async || {
        let committed = tokio::task::block_in_place(|| {
            let admin = Admin::new(kafka)?;
            Ok::<_, kafka::Error>((admin.committed(&group, &topic)?, admin.watermarks(&topic)?))
        });
        match committed {
            Ok((committed, ends)) if committed.iter().zip(&ends).all(|(next, (_, end))| *next == Some(*end)) => Ok(()),
            Ok(seen) => Err(format!("committed, and (start, end): {seen:?}")),
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        }
    })
    .await
}

async fn set_up() -> anyhow::Result<Installation> {
    let installation = Installation::new("letters")?;
    // Only these services run; there are no projectors.
    installation.run("cart-processor-setup", "cart-processor", ["setup"], DEADLINE).await?;
    Ok(installation)
}

pub(crate) async fn each_undecidable_record_is_a_dead_letter_and_its_partition_goes_on() -> anyhow::Result<()> {
    let installation = set_up().await?;
    let kafka = installation.kafka();
    let services: [(Service, &str, &[&str]); 2] =
        [(Service::CartProcessor, "0", &SESSION), (Service::Ingest, "0", &[])];
    let mut processes = installation.start_all(&services).await?;
    let load = Load::new(kafka).await?;
    load.send(kafka).await?;
    all_is_consumed(kafka).await?;
    load.check(&installation).await?;

    // A client gets an answer for that cart in that partition.
    let address = processes[1].address().context("ingest has an address")?;
    let body = serde_json::json!({
        "productId": Uuid::from_u128(7), "vendorId": Uuid::from_u128(8), "name": "blue mug", "price": "1", "quantity": 1
    });
    let url = format!("http://{address}/cart/{}", load.cart_id);
    let answer = reqwest::Client::new().post(url).json(&body).send().await?;
    ensure!(answer.status() == reqwest::StatusCode::OK, "answered with {}", answer.status());
    let answer: serde_json::Value = answer.json().await?;
    // The checkout has an event for each line.
    let version = 2 * (load.good().len() - 1) + 1;
    ensure!(answer["version"] == version, "{answer}, not version {version}");
    all_is_consumed(kafka).await?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}

pub(crate) async fn each_dead_letter_is_written_once_after_crashes() -> anyhow::Result<()> {
    let installation = set_up().await?;
    let kafka = installation.kafka();
    let load = Load::new(kafka).await?;
    load.send(kafka).await?;
    let topic = kafka.prefixed(DEAD_LETTER_TOPIC);
    // The number of committed records, and whether an open transaction has more.
    for (fail_point, is_visible, is_open) in [
        ("processor-after-journal", false, false),
        ("processor-in-transaction", false, true),
        ("processor-after-commit", true, false),
    ] {
        let action = format!("{fail_point}=return");
        let mut processor = installation.start_to_crash(Service::CartProcessor, "0", &SESSION, &action)?;
        let status = processor.ended(DEADLINE).await?;
        ensure!(!status.success(), "the processor was to crash at {fail_point}, but ended well");
        let found_open = tokio::task::block_in_place(|| Admin::new(kafka)?.has_open_transaction(&topic))?;
        let letters = letters(kafka).await?.len();
        ensure!(
            (letters > 0, found_open) == (is_visible, is_open),
            "after a crash at {fail_point} there are {letters} letters, and a transaction is open: {found_open}"
        );
    }
    let mut processor = installation.start_all(&[(Service::CartProcessor, "0", &SESSION)]).await?;
    all_is_consumed(kafka).await?;
    load.check(&installation).await?;
    processor[0].terminate(DEADLINE).await?;
    installation.remove().await
}
