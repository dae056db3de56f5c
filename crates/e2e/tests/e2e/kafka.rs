//! crates/kafka on a real broker, without the services: transactions, fencing, the order of a partition, following a partition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::harness::Installation;
use futures::future::try_join_all;
use kafka::{
    Admin, GroupConsumer, Instance, KafkaArgs, Message as _, OffsetReset, PartitionBatcher, Producer, Record,
    TailConsumer, TopicReader, TopicSpec, TransactionalProducer, partition_of,
};
use tokio::task::block_in_place;

const DEADLINE: Duration = Duration::from_secs(60);

const PARTITIONS: i32 = 3;

/// A record by its key and value.
type Pair = (Vec<u8>, Vec<u8>);

/// Two topics of a test.
struct Topics {
    installation: Installation,
    input: String,
    output: String,
}

impl Topics {
    async fn create(name: &str) -> anyhow::Result<Self> {
        let installation = Installation::new(name)?;
        let (input, output) = (installation.kafka().prefixed("input"), installation.kafka().prefixed("output"));
        let spec =
            |name: &String| TopicSpec { name: name.clone(), partitions: PARTITIONS, replication: 1, config: &[] };
        Admin::new(installation.kafka())?.ensure_topics(&[spec(&input), spec(&output)]).await?;
        Ok(Self { installation, input, output })
    }

    fn kafka(&self) -> &KafkaArgs {
        self.installation.kafka()
    }

    async fn remove(self) -> anyhow::Result<()> {
        Admin::new(self.kafka())?.remove_topics(&[&self.input, &self.output]).await?;
        Ok(std::fs::remove_dir(self.installation.folder())?)
    }
}

/// Record `number` under one of seven keys. A key's values are in ascending order.
fn record(number: u32) -> Record {
    let key = format!("key {}", number % 7).into_bytes();
    Record { partition: None, key: Some(key), value: Some(number.to_be_bytes().to_vec()), headers: None }
}

/// The committed records of a topic by partition and offset.
fn records(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<BTreeMap<(i32, i64), Pair>> {
    let mut reader = TopicReader::open_at_beginning(kafka, topic)?;
    let mut records = BTreeMap::new();
    while let Some(message) = reader.next(DEADLINE)? {
        let pair = (message.key().unwrap_or_default().to_vec(), message.payload().unwrap_or_default().to_vec());
        records.insert((message.partition(), message.offset()), pair);
    }
    Ok(records)
}

/// Polls until the consumer has read so many records, and returns each partition's next offset.
fn read(consumer: &GroupConsumer, count: usize) -> anyhow::Result<BTreeMap<i32, i64>> {
    let deadline = Instant::now() + DEADLINE;
    let (mut next, mut read) = (BTreeMap::new(), 0);
    while read < count {
        ensure!(Instant::now() < deadline, "{read} of {count} records were read in time");
        if let Some(message) = consumer.poll(Duration::from_millis(100))? {
            next.insert(message.partition(), message.offset() + 1);
            read += 1;
        }
    }
    Ok(next)
}

pub(crate) async fn records_and_offsets_are_committed_together_or_not_at_all() -> anyhow::Result<()> {
    const COUNT: u32 = 40;
    let topics = Topics::create("transactions").await?;
    let kafka = topics.kafka();
    let producer = Producer::durable(kafka, &topics.input)?;
    let sent: Result<Vec<_>, _> = (0..COUNT).map(|number| producer.send(&record(number))).collect();
    try_join_all(sent?).await?;

    block_in_place(|| {
        let group = kafka.prefixed("group");
        let instance = Instance::named("test", group.clone(), Duration::from_secs(6));
        let consumer = GroupConsumer::join(kafka, &instance, 0, &topics.input, OffsetReset::CommittedOrBeginning)?;
        let next = read(&consumer, COUNT.try_into()?)?;
        let admin = Admin::new(kafka)?;
        let connect = || TransactionalProducer::connect(kafka, &kafka.prefixed("transactions"));

        // A process that ends before its commit: its successor's start aborts the transaction.
        let mut first = connect()?;
        let mut transaction = first.begin()?;
        for number in 0..COUNT {
            transaction.send(&topics.output, &record(number))?;
        }
        transaction.deliver()?;
        let mut second = connect()?;
        ensure!(records(kafka, &topics.output)?.is_empty(), "an aborted transaction's records are read");
        let committed = admin.committed(&group, &topics.input)?;
        ensure!(committed.iter().all(Option::is_none), "an aborted transaction has committed {committed:?}");

        // The predecessor was only paused: its commit fails, and changes nothing.
        let error = transaction.commit_records().err().context("a predecessor has committed")?;
        ensure!(error.is_fenced(), "a predecessor's commit failed otherwise: {error}");

        let mut transaction = second.begin()?;
        for number in 0..COUNT {
            transaction.send(&topics.output, &record(number))?;
        }
        transaction.commit(consumer.offsets(next.clone())?, consumer.group_metadata()?)?;
        let (input, output) = (records(kafka, &topics.input)?, records(kafka, &topics.output)?);
        ensure!(input.values().eq(output.values()), "a copy by partition differs: {input:?}, {output:?}");
        let committed = admin.committed(&group, &topics.input)?;
        let expected: Vec<_> = (0..PARTITIONS).map(|partition| next.get(&partition).copied()).collect();
        ensure!(committed == expected, "committed {committed:?}, not {expected:?}");
        anyhow::Ok(())
    })?;
    topics.remove().await
}

pub(crate) async fn a_batcher_keeps_the_order_of_each_partition_and_returns_the_offsets() -> anyhow::Result<()> {
    const COUNT: u32 = 2_000;
    let topics = Topics::create("batcher").await?;
    let kafka = topics.kafka();
    let batcher = PartitionBatcher::start(&Producer::durable(kafka, &topics.input)?, PARTITIONS);
    let sent: Result<Vec<_>, _> = (0..COUNT).map(|number| batcher.send(record(number))).collect();
    let offsets = try_join_all(sent?).await?;

    let mut expected = BTreeMap::new();
    for (number, offset) in (0..).zip(offsets) {
        let Record { key: Some(key), value: Some(value), .. } = record(number) else { continue };
        expected.insert((partition_of(&key, PARTITIONS), offset), (key, value));
    }
    let found = block_in_place(|| records(kafka, &topics.input))?;
    ensure!(found == expected, "{} records are elsewhere than reported", expected.len());
    let mut newest = BTreeMap::new();
    for ((partition, offset), (_, value)) in &found {
        let before = newest.insert(partition, value);
        ensure!(before < Some(value), "{partition}/{offset} has {value:?} after {before:?}");
    }
    topics.remove().await
}

pub(crate) async fn a_tail_has_what_is_appended_after_it_was_opened() -> anyhow::Result<()> {
    let topics = Topics::create("tail").await?;
    let kafka = topics.kafka();
    let producer = Producer::durable(kafka, &topics.input)?;
    let send = async |number| producer.send(&Record { partition: Some(1), ..record(number) })?.await;
    for number in 0..3 {
        send(number).await?;
    }
    let tail = block_in_place(|| TailConsumer::open(kafka, &topics.input, 1..2, DEADLINE))?;
    for number in 3..8 {
        send(number).await?;
    }
    block_in_place(|| {
        let deadline = Instant::now() + DEADLINE;
        for offset in 3..8 {
            let found = loop {
                ensure!(Instant::now() < deadline, "record {offset} does not come");
                if let Some(message) = tail.poll(Duration::from_millis(100))? {
                    break message.offset();
                }
            };
            ensure!(found == offset, "{found} came in place of {offset}");
        }
        anyhow::Ok(())
    })?;
    topics.remove().await
}
