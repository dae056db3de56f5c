//! An unreadable record on a topic of the system stops its partition, and no other. The instance reports the offset, the hash
//! and what to do, and after `cartctl skip` it continues after the record, as does each later instance.

use std::collections::BTreeMap;

use anyhow::ensure;
use cart::CartEvent;
use cart::contract::Contract as _;
use cartctl::topic::read_all;
use e2e::harness::{Process, wait_until};
use futures::future::try_join_all;
use kafka::{Admin, OwnedHeaders, Producer, Record, partition_of};
use trace::TraceHeaders;

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

/// The trace of each, which is not recorded.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// An unreadable record.
pub(crate) struct Garbage {
    partition: i32,
    offset: i64,
    /// The record's full name.
    name: String,
    /// The record's name without the installation's prefix.
    pub(crate) short: String,
    pub(crate) sha256: String,
    reason: &'static str,
}

impl Garbage {
    /// Appends the partition's kind of garbage, while there is no other writer.
    pub(crate) async fn put(read_side: &ReadSide, topic: &str, partition: i32) -> anyhow::Result<Self> {
        let kafka = read_side.installation.kafka();
        let place = usize::try_from(partition)?;
        let offset = tokio::task::block_in_place(|| Admin::new(kafka)?.watermarks(topic))?[place].1;
        let (value, reason) = KINDS[place];
        let parent = format!("00-{TRACE_ID}-00f067aa0ba902b7-00");
        let trace = TraceHeaders::new(Some(parent.as_bytes()), None);
        let record = Record {
            partition: Some(partition),
            key: None,
            value: value.map(<[u8]>::to_vec),
            headers: Some(kafka::with_trace(OwnedHeaders::new(), trace)),
        };
        Producer::durable(kafka, topic)?.send(&record)?.await?;
        let name = format!("{topic}/{partition}/{offset}");
        let short = name.strip_prefix(&kafka.topic_prefix).unwrap_or(&name).to_owned();
        Ok(Self { partition, offset, name, short, sha256: control::sha256(value), reason })
    }

    /// Whether the readiness of a member of `group` reports it as expected.
    fn is_reported(&self, group: &str, readiness: &str) -> bool {
        let start = format!("partition {}: {} cannot be read: {}", self.partition, self.name, self.reason);
        let end = format!("`cartctl skip {group} {} --expect sha256:{} --reason TEXT`", self.short, self.sha256);
        readiness.lines().any(|line| line.starts_with(&start) && line.ends_with(&end))
    }

    pub(crate) async fn skip(&self, read_side: &ReadSide, group: &str) -> anyhow::Result<()> {
        let expected = format!("sha256:{}", self.sha256);
        let args = ["skip", group, &self.short, "--expect", &expected, "--reason", "garbage", "--by", "the test"];
        let said =
            read_side.installation.run(&format!("skip-{group}-{}", self.partition), "cartctl", args, DEADLINE).await?;
        ensure!(said.contains("goes on behind it"), "{said}");
        Ok(())
    }
}

/// Fails unless the log has this message with the record's position and trace.
fn is_logged(process: &Process, message: &str, garbage: &Garbage) -> anyhow::Result<()> {
    let (log, position) = (process.log(), format!("position={} ", garbage.name));
    let is_meant = |line: &str| line.contains(message) && line.contains(&position) && line.contains(TRACE_ID);
    ensure!(log.lines().any(is_meant), "no '{message}' with {position}and its trace in {log}");
    Ok(())
}

/// Waits until a member of `group` reports exactly these.
pub(crate) async fn reports(process: &Process, group: &str, garbage: &[Garbage]) -> anyhow::Result<()> {
    let names: Vec<_> = garbage.iter().map(|garbage| garbage.name.as_str()).collect();
    wait_until(&format!("an instance to report {names:?}"), DEADLINE, async || {
        let readiness = get(process, "/health/ready").await.map_err(|error| format!("{error:#}"))?;
        let reported = garbage.iter().filter(|garbage| garbage.is_reported(group, &readiness)).count();
        if reported == garbage.len() && readiness.lines().count() == reported { Ok(()) } else { Err(readiness) }
    })
    .await?;
    garbage.iter().try_for_each(|garbage| is_logged(process, "a partition is stopped", garbage))
}

/// A skip that is refused, and why.
async fn refused(read_side: &ReadSide, record: &str, sha256: &str, why: &str) -> anyhow::Result<()> {
    let expected = format!("sha256:{sha256}");
    let args = ["skip", EVENTS, record, "--expect", &expected, "--reason", "garbage"];
    let mut process = read_side.installation.spawn("refused", "cartctl", args)?;
    let status = process.ended(DEADLINE).await?;
    ensure!(status.code() == Some(1) && process.log().contains(why), "{status}: {}", process.log());
    Ok(())
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
    reports(&processes[0], EVENTS, &garbage).await?;
    rest_in_front(read_side, EVENTS, &topic, &garbage).await?;
    let Garbage { offset, short, sha256, .. } = &garbage[0];
    refused(read_side, short, &"00".repeat(32), &format!("has sha256:{sha256}")).await?;
    let other = format!("{}/1/{}", CartEvent::TOPIC, offset + 1);
    refused(read_side, &other, sha256, &format!("is stopped at {offset}, not at {}", offset + 1)).await?;
    refused(read_side, &format!("{}/0/{offset}", CartEvent::TOPIC), sha256, "is not stopped").await?;

    garbage[0].skip(read_side, EVENTS).await?;
    read_side.rest(&[EVENTS]).await?;
    is_logged(&processes[0], "skipping a record", &garbage[0])?;
    read_side.check_topic().await?;
    processes[0].terminate(DEADLINE).await
}

async fn on_item_purchased(read_side: &mut ReadSide) -> anyhow::Result<()> {
    let topic = read_side.purchases_topic();
    let mut first = read_side.start(&TABLES, "a").await?;
    read_side.rest(&TABLES).await?;
    let before = read_side.sent.len();
    let garbage = [Garbage::put(read_side, &topic, 0).await?, Garbage::put(read_side, &topic, 2).await?];
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    for (projector, process) in TABLES.iter().zip(&first) {
        reports(process, projector, &garbage).await?;
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

    for projector in TABLES {
        try_join_all(garbage.iter().map(|garbage| garbage.skip(read_side, projector))).await?;
    }
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;

    // The skips hold when a table is built again from the first record.
    let (rebuilt, process) = (TABLES[0], &mut first[0]);
    process.terminate(DEADLINE).await?;
    read_side.installation.run("rebuild", "cartctl", ["rebuild", rebuilt, "--in-place"], DEADLINE).await?;
    *process = read_side.start(&[rebuilt], "a").await?.remove(0);
    read_side.rest(&TABLES).await?;
    for process in &mut first {
        process.terminate(DEADLINE).await?;
    }
    read_side.check_tables().await
}

pub(crate) async fn garbage_stops_its_partition_until_it_is_skipped() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("garbage").await?;
    on_cart_events(&mut read_side).await?;
    on_item_purchased(&mut read_side).await?;
    read_side.remove().await
}
