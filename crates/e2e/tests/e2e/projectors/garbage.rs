//! An unreadable record on a topic of the system stops its partition, and no other. The instance reports the offset and what
//! to do, and with `--skip` it continues after the record.

use std::collections::BTreeMap;

use anyhow::ensure;
use cart::CartEvent;
use cart::contract::Contract as _;
use cartctl::topic::read_all;
use e2e::harness::{Process, wait_until};
use kafka::{Admin, Producer, Record, partition_of};

use super::read_side::{DEADLINE, EVENTS, ReadSide, TABLES, get};
use super::shop::Line;

/// The garbage of each partition, and a part of the expected reason.
const KINDS: [(Option<&[u8]>, &str); 4] = [
    (None, "the value has 0 bytes"),
    (Some(b"{\"eventId\": 1}"), "the value starts with byte 0x7b"),
    // An id larger than any that a registry assigns.
    (Some(&[0, 0x7f, 0xff, 0xff, 0xfe, 2, 4]), "the registry has no Avro schema 2147483646"),
    (Some(&[0, 1]), "the value has 2 bytes"),
];

/// An unreadable record.
struct Garbage {
    partition: i32,
    offset: i64,
    /// The argument of `--skip`.
    name: String,
    reason: &'static str,
}

impl Garbage {
    /// Appends the partition's kind of garbage, while there is no other writer.
    async fn put(read_side: &ReadSide, topic: &str, partition: i32) -> anyhow::Result<Self> {
        let kafka = read_side.installation.kafka();
        let place = usize::try_from(partition)?;
        let offset = tokio::task::block_in_place(|| Admin::new(kafka)?.watermarks(topic))?[place].1;
        let (value, reason) = KINDS[place];
        let record = Record { partition: Some(partition), key: None, value: value.map(<[u8]>::to_vec), headers: None };
        Producer::durable(kafka, topic)?.send(&record)?.await?;
        Ok(Self { partition, offset, name: format!("{topic}/{partition}/{offset}"), reason })
    }

    /// Whether an instance's readiness reports it as expected.
    fn is_reported(&self, readiness: &str) -> bool {
        let start = format!("partition {}: {} cannot be read: {}", self.partition, self.name, self.reason);
        let end = format!("start with --skip {}", self.name);
        readiness.lines().any(|line| line.starts_with(&start) && line.ends_with(&end))
    }
}

fn skip(garbage: &[Garbage]) -> String {
    garbage.iter().map(|garbage| garbage.name.as_str()).collect::<Vec<_>>().join(",")
}

/// Waits until an instance reports exactly these.
async fn reports(process: &Process, garbage: &[Garbage]) -> anyhow::Result<()> {
    reports_some(process, garbage, garbage.len()).await
}

/// Waits until an instance reports this many of these, and nothing else.
async fn reports_some(process: &Process, garbage: &[Garbage], count: usize) -> anyhow::Result<()> {
    wait_until(&format!("an instance to tell of {count} of {}", skip(garbage)), DEADLINE, async || {
        let readiness = get(process, "/health/ready").await.map_err(|error| format!("{error:#}"))?;
        let reported = garbage.iter().filter(|garbage| garbage.is_reported(&readiness)).count();
        if reported == count && readiness.lines().count() == count { Ok(()) } else { Err(readiness) }
    })
    .await
}

/// Waits until a projector is at the end of every partition, or at its garbage.
async fn rest_in_front(read_side: &ReadSide, projector: &str, topic: &str, garbage: &[Garbage]) -> anyhow::Result<()> {
    let mut ends = BTreeMap::new();
    for record in read_all(read_side.installation.kafka(), topic).await? {
        if !garbage.iter().any(|garbage| garbage.partition == record.partition && garbage.offset <= record.offset) {
            ends.insert(record.partition, record.offset + 1);
        }
    }
    read_side.rest_at(projector, &ends).await?;
    let next = read_side.next_offsets(projector).await?;
    for Garbage { partition, offset, name, .. } in garbage {
        ensure!(next[usize::try_from(*partition)?] <= *offset, "{projector} is at {next:?}, behind {name}");
    }
    Ok(())
}

async fn on_cart_events(read_side: &mut ReadSide) -> anyhow::Result<()> {
    let topic = read_side.installation.kafka().prefixed(CartEvent::TOPIC);
    let mut processes = read_side.start(&[EVENTS], "a").await?;
    read_side.send(read_side.events(), read_side.lines(100))?;
    read_side.rest(&[EVENTS]).await?;
    let garbage = [Garbage::put(read_side, &topic, 1).await?];
    read_side.send(read_side.events(), read_side.lines(100))?;
    reports(&processes[0], &garbage).await?;
    rest_in_front(read_side, EVENTS, &topic, &garbage).await?;
    processes[0].terminate(DEADLINE).await?;

    let mut processes = read_side.start_to_skip(&[EVENTS], "a", &skip(&garbage)).await?;
    read_side.rest(&[EVENTS]).await?;
    read_side.check_topic().await?;
    processes[0].terminate(DEADLINE).await
}

async fn on_item_purchased(read_side: &mut ReadSide) -> anyhow::Result<()> {
    let topic = read_side.purchases_topic();
    let mut first = read_side.start(&TABLES, "a").await?;
    read_side.rest(&TABLES).await?;
    let before = read_side.sent.len();
    let mut garbage = vec![Garbage::put(read_side, &topic, 0).await?, Garbage::put(read_side, &topic, 2).await?];
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    for (projector, process) in TABLES.iter().zip(&first) {
        reports(process, &garbage).await?;
        rest_in_front(read_side, projector, &topic, &garbage).await?;
    }
    // From the stopped partitions the records before the garbage, from the others all.
    let partitions = i32::try_from(KINDS.len())?;
    let is_stopped = |line: &Line| {
        let partition = partition_of(line.vendor.to_string().as_bytes(), partitions);
        garbage.iter().any(|garbage| garbage.partition == partition)
    };
    let (old, new) = read_side.sent.split_at(before);
    let reached: Vec<_> = old.iter().chain(new.iter().filter(|line| !is_stopped(line))).cloned().collect();
    ensure!(old.len() < reached.len() && reached.len() < read_side.sent.len(), "all partitions are stopped, or none");
    let differences = read_side.expected_of(&reached).await?.differences(&read_side.rows().await?);
    ensure!(differences.is_empty(), "beside stopped partitions:\n{}", differences.join("\n"));

    // Also in the other partitions, so that all partitions of a second instance are stopped.
    garbage.push(Garbage::put(read_side, &topic, 1).await?);
    garbage.push(Garbage::put(read_side, &topic, 3).await?);
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    for process in &first {
        reports(process, &garbage).await?;
    }
    let _second = read_side.start_to_skip(&TABLES, "b", &skip(&garbage)).await?;
    for process in &mut first {
        // Of its own partitions.
        reports_some(process, &garbage, garbage.len() / 2).await?;
        process.terminate(DEADLINE).await?;
    }
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await
}

pub(crate) async fn garbage_stops_its_partition_until_it_is_skipped() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("garbage").await?;
    on_cart_events(&mut read_side).await?;
    on_item_purchased(&mut read_side).await?;
    read_side.remove().await
}
