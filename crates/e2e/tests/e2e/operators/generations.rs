//! A pause of a generation that is built, and skips where there are two generations.

use anyhow::ensure;
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING, VENDOR_BILLING_JDBC};
use e2e::harness::{Ended, Process, wait_until};

use crate::projectors::garbage::{Garbage, reports};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};
use crate::rebuild::kills::in_the_middle;
use crate::rebuild::{SESSION, cartctl, keep_first, kills, rebuild, start_cartctl};

/// The partition with an undecodable record.
const STOPPED: i32 = 1;

/// Records per second of a builder that is paused: it must not be done before the pause, which another process asks for.
const RATE: &str = "30";

/// Pauses a generation while it is built. Nothing is built until the resume; the generation that readers see goes on.
async fn pause_a_builder(read_side: &mut ReadSide, model: &'static str) -> anyhow::Result<()> {
    let group = format!("{model}-g2");
    let args = [&["rebuild", model, "--rate-max", RATE][..], &SESSION].concat();
    let mut builder = start_cartctl(read_side, &args, &[])?;
    in_the_middle(read_side, &group).await?;
    let pause = ["pause", &group, "--reason", "index build", "--by", "ops", "--wait", "60s"];
    cartctl(read_side, &pause, &[]).await?.with(0, "is paused")?;
    let next = read_side.next_offsets(&group).await?;
    let log = builder.log();
    ensure!(log.contains("a partition is paused") && log.contains("index build"), "the builder says nothing: {log}");

    read_side.send(read_side.purchases(), read_side.lines(100))?;
    read_side.rest(&[model]).await?;
    ensure!(read_side.next_offsets(&group).await? == next, "a paused generation of {model} was built further");
    // A builder that goes on is paused, too. It need not be slow: it finds the pause.
    builder.kill9()?;
    let mut builder = start_cartctl(read_side, &[&["rebuild", model][..], &SESSION].concat(), &[])?;
    wait_until("the next builder to be paused", DEADLINE, async || {
        let log = builder.log();
        if log.contains("a partition is paused") { Ok(()) } else { Err(log) }
    })
    .await?;
    ensure!(read_side.next_offsets(&group).await? == next, "the next builder of {model} has not waited");

    cartctl(read_side, &["resume", &group, "--wait", "60s"], &[]).await?.with(0, "goes on")?;
    builder.succeeded(DEADLINE).await?;
    ensure!(builder.log().contains("had caught up"), "{}", builder.log());
    cartctl(read_side, &["diff", model, "1", "2"], &[]).await?.with(0, "diff none").map(drop)
}

pub(crate) async fn a_paused_generation_is_built_after_the_resume() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("paused_build").await?;
    read_side.send(read_side.purchases(), read_side.lines(kills::LINES))?;
    let processes = keep_first(&read_side).await?;
    read_side.rest(&TABLES).await?;
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        pause_a_builder(&mut read_side, model).await?;
    }
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    drop(processes);
    read_side.remove().await
}

/// Both generations are stopped at a record. A skip by either group holds for both.
async fn skip_in_both(read_side: &mut ReadSide, first: &[Process], second: &Process) -> anyhow::Result<Garbage> {
    let topic = read_side.purchases_topic();
    let garbage = Garbage::put(read_side, &topic, STOPPED).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    let stopped = std::slice::from_ref(&garbage);
    for (group, process) in TABLES.iter().zip(first) {
        reports(process, group, stopped).await?;
    }
    reports(second, "popular-items-g2", stopped).await?;
    for group in ["popular-items-g2", VENDOR_BILLING, VENDOR_BILLING_JDBC] {
        garbage.skip(read_side, group).await?;
    }
    read_side.rest(&[&TABLES[..], &["popular-items-g2"]].concat()).await?;
    skip(read_side, POPULAR_ITEMS, &garbage).await?.with(0, "popular-items skips")?.with(0, "already")?;
    cartctl(read_side, &["diff", POPULAR_ITEMS, "1", "2"], &[]).await?.with(0, "diff none")?;
    Ok(garbage)
}

async fn skip(read_side: &ReadSide, group: &str, garbage: &Garbage) -> anyhow::Result<Ended> {
    let expected = format!("sha256:{}", garbage.sha256);
    cartctl(read_side, &["skip", group, &garbage.short, "--expect", &expected, "--reason", "garbage"], &[]).await
}

/// The skip is withdrawn behind the first generation. A new one stops at the record, which may not be skipped for it alone.
async fn refuse_for_one(read_side: &ReadSide, garbage: &Garbage) -> anyhow::Result<()> {
    let withdraw = ["skip", POPULAR_ITEMS, &garbage.short, "--withdraw", "--reason", "it was not garbage"];
    cartctl(read_side, &withdraw, &[]).await?.with(0, "no more")?;
    let args = [&["rebuild", POPULAR_ITEMS][..], &SESSION].concat();
    let mut builder = start_cartctl(read_side, &args, &[])?;
    // Until the builder has recorded its stop, another reason is given.
    wait_until("the skip to be refused because of the first generation", DEADLINE, async || {
        let refused = skip(read_side, "popular-items-g3", garbage).await;
        let refused = refused.and_then(|ended| ended.with(1, "popular-items has applied the record"));
        refused.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    cartctl(read_side, &["skipped"], &[])
        .await?
        .with(0, "")?
        .without(&format!("popular-items skips {}", garbage.short))?;
    builder.kill9()?;
    wait_until("the unreadable generation to be dropped", DEADLINE, async || {
        let dropped = cartctl(read_side, &["drop", POPULAR_ITEMS, "--generation", "3"], &[]).await;
        dropped.and_then(|ended| ended.with(0, "are deleted")).map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    // The builder that was killed has not ended its stop.
    let ended = format!("partition {STOPPED} of popular-items-g3 is not stopped");
    skip(read_side, "popular-items-g3", garbage).await?.with(1, &ended).map(drop)
}

pub(crate) async fn a_skip_holds_for_all_generations_or_is_refused() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("skip_generations").await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    let first = keep_first(&read_side).await?;
    read_side.rest(&TABLES).await?;
    let mut second = rebuild(&read_side, POPULAR_ITEMS, "2", &[]).await?;
    let garbage = skip_in_both(&mut read_side, &first, &second).await?;
    second.terminate(DEADLINE).await?;
    cartctl(&read_side, &["drop", POPULAR_ITEMS, "--generation", "2"], &[]).await?.with(0, "are deleted")?;
    refuse_for_one(&read_side, &garbage).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    drop(first);
    read_side.remove().await
}
