//! Pauses under load: nothing is applied while a group is paused, whatever its members do; afterwards it goes on exactly where
//! it was. Two groups that are paused before the same offsets have the same rows.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING};
use cartctl::topic::read_all;
use e2e::harness::{Installation, Process, wait_until};
use serde_json::Value;

use super::read_side::{DEADLINE, ReadSide, TABLES, get, metric, work};
use super::shop::Line;

/// Runs `cartctl` with JSON as its output.
async fn cartctl(read_side: &ReadSide, args: &[&str]) -> anyhow::Result<Value> {
    let args = [args, &["--json"]].concat();
    read_side.installation.cartctl(&args, &[], DEADLINE).await?.with(0, "")?.json()
}

/// Pauses, waits, and returns the offsets that the members have recorded.
async fn pause(read_side: &ReadSide, group: &str, more: &[&str]) -> anyhow::Result<BTreeMap<i32, i64>> {
    let args = [&["pause", group, "--reason", "a test", "--by", "ops", "--wait", "60s"], more].concat();
    let done = cartctl(read_side, &args).await?;
    let offsets = done["paused"].as_object().with_context(|| done.to_string())?;
    offsets.iter().map(|(partition, next)| Ok((partition.parse()?, next.as_i64().context("an offset")?))).collect()
}

async fn resume(read_side: &ReadSide, group: &str) -> anyhow::Result<()> {
    cartctl(read_side, &["resume", group, "--wait", "60s"]).await.map(drop)
}

async fn committed(read_side: &ReadSide, group: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    Ok((0..).zip(read_side.next_offsets(group).await?).collect())
}

/// Waits until a process has all partitions of its group, and each is paused.
pub(crate) async fn has_all_partitions_paused(installation: &Installation, process: &Process) -> anyhow::Result<()> {
    let all = u64::from(installation.partitions());
    wait_until("the member to have all partitions paused", DEADLINE, async || {
        match metric(process, "cart_partition_paused").await {
            Ok(paused) if paused == all => Ok(()),
            Ok(paused) => Err(format!("{paused} are paused")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// The lines of the purchases before a cut.
async fn before(read_side: &ReadSide, lines: &[Line], cut: &BTreeMap<i32, i64>) -> anyhow::Result<Vec<Line>> {
    let mut ids = std::collections::HashSet::new();
    for record in read_all(read_side.installation.kafka(), &read_side.purchases_topic()).await? {
        if cut.get(&record.partition).is_some_and(|cut| record.offset < *cut) {
            ids.insert(read_side.purchase(&record.value.unwrap_or_default())?.event_id);
        }
    }
    Ok(lines.iter().filter(|line| ids.contains(&line.event_id())).cloned().collect())
}

pub(crate) async fn a_pause_holds_until_it_is_resumed() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("control").await?;
    let load = read_side.start_load(read_side.purchases());
    let mut processes = read_side.start(&TABLES, "a").await?;
    read_side.progress(&TABLES, 100).await?;

    let acks = pause(&read_side, POPULAR_ITEMS, &[]).await?;
    let rows = read_side.rows().await?.days;
    ensure!(acks.len() == usize::from(read_side.installation.partitions()), "{acks:?}");
    ensure!(acks == committed(&read_side, POPULAR_ITEMS).await?, "{acks:?}");
    let popular = TABLES.iter().position(|table| *table == POPULAR_ITEMS).context("it is one of the tables")?;
    let ready = get(&processes[popular], "/health/ready").await?;
    ensure!(ready.starts_with("ready\n") && ready.contains("paused by ops") && ready.contains("a test"), "{ready}");

    // A new member takes over from one that dies, and applies nothing.
    processes[popular].kill9()?;
    let mut successor = vec![read_side.start_with(POPULAR_ITEMS, "b", "resume-fails=1*return")?];
    successor[0].ready(DEADLINE).await?;
    has_all_partitions_paused(&read_side.installation, &successor[0]).await?;
    // So does one that takes some of its partitions and gives them back.
    let mut third = read_side.start_with(POPULAR_ITEMS, "c", "")?;
    third.ready(DEADLINE).await?;
    wait_until("the third member to have paused partitions", DEADLINE, async || {
        match metric(&third, "cart_partition_paused").await {
            Ok(0) => Err(String::from("none is paused")),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    ensure!(metric(&third, "projector_records_total").await? == 0, "the third member has applied something");
    third.terminate(DEADLINE).await?;
    has_all_partitions_paused(&read_side.installation, &successor[0]).await?;
    read_side.progress(&[VENDOR_BILLING], 50).await?;
    ensure!(metric(&successor[0], "projector_records_total").await? == 0, "the successor has applied something");
    ensure!(read_side.rows().await?.days == rows, "the table has changed while its group was paused");
    ensure!(acks == committed(&read_side, POPULAR_ITEMS).await?, "the group has gone on");
    resume(&read_side, POPULAR_ITEMS).await?;
    work(&successor, 1).await?;

    // A common cut, ahead of both groups, which is recorded before the records come that it divides.
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    let next = committed(&read_side, VENDOR_BILLING).await?;
    let cut: BTreeMap<i32, i64> = next.iter().map(|(partition, next)| (*partition, next + 40)).collect();
    let options: Vec<String> =
        cut.iter().map(|(partition, offset)| format!("--at-offset={partition}={offset}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for group in [POPULAR_ITEMS, VENDOR_BILLING] {
        cartctl(&read_side, &[&["pause", group, "--reason", "a cut"], &options[..]].concat()).await?;
    }
    let load = read_side.start_load(read_side.purchases());
    // A pause may be repeated.
    let (of_popular, of_billing) =
        tokio::try_join!(pause(&read_side, POPULAR_ITEMS, &options), pause(&read_side, VENDOR_BILLING, &options))?;
    ensure!(of_popular == of_billing, "{of_popular:?} and {of_billing:?} for the cut {cut:?}");
    ensure!(of_popular.iter().all(|(partition, next)| next <= &cut[partition]), "{of_popular:?}, behind {cut:?}");
    read_side.finish(load).await?;
    let lines = before(&read_side, &read_side.sent, &cut).await?;
    let expected = read_side.expected_of(&lines).await?;
    let found = read_side.rows().await?;
    ensure!(!lines.is_empty() && lines.len() < read_side.sent.len(), "{} of {}", lines.len(), read_side.sent.len());
    ensure!(
        expected.days == found.days && expected.months == found.months,
        "the tables are not those at the cut {cut:?}"
    );

    resume(&read_side, POPULAR_ITEMS).await?;
    resume(&read_side, VENDOR_BILLING).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    successor[0].terminate(DEADLINE).await?;
    read_side.remove().await
}

/// Pauses a group that has no member, then starts one. Returns how many records it had applied when all its partitions were
/// paused, or after the deadline.
async fn applied_by_a_paused_member(name: &str, fail_points: &str) -> anyhow::Result<u64> {
    let mut read_side = ReadSide::set_up(name).await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    cartctl(&read_side, &["pause", POPULAR_ITEMS, "--reason", "a test"]).await?;
    let mut process = read_side.start_with(POPULAR_ITEMS, "a", fail_points)?;
    process.ready(DEADLINE).await?;
    if fail_points.is_empty() {
        has_all_partitions_paused(&read_side.installation, &process).await?;
    } else {
        work(std::slice::from_ref(&process), 1).await?;
    }
    let applied = metric(&process, "projector_records_total").await?;
    drop(process);
    read_side.remove().await?;
    Ok(applied)
}

pub(crate) async fn a_member_that_does_not_read_the_control_topic_first_applies_records() -> anyhow::Result<()> {
    ensure!(applied_by_a_paused_member("guard_control_on", "").await? == 0, "a paused member has applied records");
    let applied = applied_by_a_paused_member("guard_control_off", "guard-control=return").await?;
    ensure!(applied > 0, "without the guard nothing was applied");
    Ok(())
}
