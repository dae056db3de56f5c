//! Two operators at once, and what comes in the middle of a switch: records, a parked row, a pause, another run, SIGTERM.

use anyhow::ensure;
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING, VENDOR_BILLING_JDBC};
use cartctl::vendor_id;
use e2e::harness::{Process, Service, wait_until};
use uuid::Uuid;

use super::{Ended, SESSION, cartctl, ended, keep_first, logged, rebuild, start_cartctl, stopped, switch};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};
use crate::projectors::shop::Line;

/// Enough that a builder at [`RATE`] records a second is at work for a while.
const LINES: usize = 600;
const RATE: &str = "20";

const SECOND: &str = "popular-items-g2";

const TO_SECOND: [&str; 6] = ["switch", POPULAR_ITEMS, "--to", "2", "--accept-diff", "none"];

async fn stopped_at(read_side: &ReadSide, place: &str, args: &[&str]) -> anyhow::Result<Process> {
    stopped(read_side, &format!("{place}=return(stop)"), args).await
}

async fn go_on(process: Process) -> anyhow::Result<Ended> {
    process.resume()?;
    ended(process).await
}

/// An operator pauses the first generation when a switch has come to this place. The pause holds afterwards, and nothing else is paused.
async fn a_pause_in_the_middle_holds(
    read_side: &ReadSide,
    place: &str,
    code: i32,
    says: &str,
    active: i32,
) -> anyhow::Result<()> {
    let recorded = "pause/popular-items: pause, by ops: index build";
    let before = logged(read_side, recorded).await?;
    let process = stopped_at(read_side, place, &TO_SECOND).await?;
    let pause = ["pause", POPULAR_ITEMS, "--reason", "index build", "--by", "ops"];
    cartctl(read_side, &pause, &[]).await?.with(0, "is to pause")?;
    go_on(process).await?.with(code, says)?;
    ensure!(read_side.active(POPULAR_ITEMS).await?.get() == active, "after a pause at {place}");
    cartctl(read_side, &["resume", SECOND], &[]).await?.with(0, "is not paused")?;
    // It is not replaced, not even for a moment: then it would be recorded again.
    let records = logged(read_side, recorded).await? - before;
    ensure!(records == 1, "a pause at {place} is recorded {records} times");
    cartctl(read_side, &["resume", POPULAR_ITEMS, "--wait", "60s"], &[]).await?.with(0, "popular-items goes on")?;
    read_side.progress(&[POPULAR_ITEMS, SECOND], 20).await
}

/// `cartctl resume` in the middle of a switch: before the change the switch fails, and afterwards it says so.
async fn a_resume_in_the_middle_is_noticed(read_side: &ReadSide) -> anyhow::Result<()> {
    let places = [
        ("switch-frozen", 2, "readers see generation 1, as before", 1),
        ("switch-changed", 0, "others have ended the pauses", 2),
    ];
    for (place, code, says, active) in places {
        let process = stopped_at(read_side, place, &TO_SECOND).await?;
        cartctl(read_side, &["resume", SECOND], &[]).await?.with(0, "goes on")?;
        go_on(process).await?.with(code, says)?;
        ensure!(read_side.active(POPULAR_ITEMS).await?.get() == active, "after a resume at {place}");
        read_side.progress(&[POPULAR_ITEMS, SECOND], 20).await?;
    }
    switch(read_side, &[POPULAR_ITEMS, "--back"]).await?;
    Ok(())
}

async fn a_second_operator_is_refused(read_side: &ReadSide) -> anyhow::Result<()> {
    let of_ann = [&TO_SECOND[..], &["--by", "ann"]].concat();
    let first = stopped_at(read_side, "switch-frozen", &of_ann).await?;
    let by_ann = "popular-items is changed by ann with `cartctl switch`, run ";
    let drop_second = ["drop", POPULAR_ITEMS, "--generation", "2", "--by", "bob"];
    cartctl(read_side, &drop_second, &[]).await?.with(1, by_ann)?;
    cartctl(read_side, &["rebuild", POPULAR_ITEMS, "--dry-run"], &[]).await?.with(1, by_ann)?;
    let of_bob = [&TO_SECOND[..], &["--by", "bob"]].concat();
    let second = start_cartctl(read_side, &of_bob, &[])?;
    wait_until("the second to find the first", DEADLINE, async || {
        let log = second.log();
        if log.contains(&format!("waiting: {by_ann}")) { Ok(()) } else { Err(log) }
    })
    .await?;
    first.resume()?;
    ended(second).await?.with(1, by_ann)?.with(1, "which is at work")?;
    ended(first).await?.with(0, "readers see generation 2 after 1")?;
    switch(read_side, &[POPULAR_ITEMS, "--back"]).await?;
    Ok(())
}

/// It ends what it has begun: the next one has nothing to take over.
async fn sigterm_lets_both_groups_go_on(read_side: &ReadSide) -> anyhow::Result<()> {
    let mut process = stopped_at(read_side, "switch-frozen", &TO_SECOND).await?;
    // The signal waits until the process goes on.
    process.interrupt()?;
    go_on(process).await?.with(2, "readers see generation 1, as before")?.with(2, "interrupted")?;
    for group in [POPULAR_ITEMS, SECOND] {
        cartctl(read_side, &["resume", group], &[]).await?.with(0, "is not paused")?;
    }
    read_side.progress(&[POPULAR_ITEMS, SECOND], 20).await?;
    let next = switch(read_side, &TO_SECOND[1..]).await?;
    ensure!(!next.output.contains("earlier switch") && !next.output.contains("waiting: popular"), "{next:?}");
    switch(read_side, &[POPULAR_ITEMS, "--back"]).await?;
    Ok(())
}

async fn a_second_builder_and_a_second_drop_are_refused(read_side: &ReadSide) -> anyhow::Result<()> {
    let build = [&["rebuild", VENDOR_BILLING, "--rate-max", RATE][..], &SESSION].concat();
    let mut first = start_cartctl(read_side, &build, &[])?;
    let group = "vendor-billing-g2";
    wait_until("the first builder to be at work", DEADLINE, async || match read_side.next_offsets(group).await {
        Ok(next) if next.iter().sum::<i64>() > 0 => Ok(()),
        Ok(next) => Err(format!("it is at {next:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    let second = [&["rebuild", VENDOR_BILLING][..], &SESSION].concat();
    cartctl(read_side, &second, &[]).await?.with(1, "has members (")?.with(1, &format!(":{}", first.id()))?;
    first.kill9()?;
    // Its session has to end before it is no member any more.
    let drop_it = ["drop", VENDOR_BILLING, "--generation", "2"];
    wait_until("the killed builder to be no member", DEADLINE, async || {
        let dry_run = [&drop_it[..], &["--dry-run"]].concat();
        let would = cartctl(read_side, &dry_run, &[]).await.and_then(|ended| ended.with(0, "would be deleted"));
        would.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    drops_wait_for_each_other(read_side, &drop_it).await
}

/// One that is interrupted deletes nothing; another one waits for one that is at work, and takes over from one that was killed.
async fn drops_wait_for_each_other(read_side: &ReadSide, drop_it: &[&str]) -> anyhow::Result<()> {
    let mut first = stopped_at(read_side, "drop-claimed", drop_it).await?;
    first.interrupt()?;
    go_on(first).await?.with(2, "interrupted: nothing was deleted")?;

    let first = stopped_at(read_side, "drop-claimed", &[drop_it, &["--by", "ann"]].concat()).await?;
    let second = start_cartctl(read_side, &[drop_it, &["--by", "bob"]].concat(), &[])?;
    let waits = "waiting: vendor-billing is changed by ann with `cartctl drop`, run ";
    wait_until("the second drop to find the first", DEADLINE, async || {
        let log = second.log();
        if log.contains(waits) { Ok(()) } else { Err(log) }
    })
    .await?;
    go_on(first).await?.with(0, "are deleted")?;
    // Which of the two it has seen depends on the moment in which it has looked.
    let second = ended(second).await?;
    let is_refused = second.code == Some(1) && second.output.contains("which is at work");
    let has_come_after = second.code == Some(0) && second.output.contains("has no table of generation 2");
    ensure!(is_refused || has_come_after, "{second:?}");

    read_side.installation.cartctl_dies(drop_it, "drop-claimed=return", DEADLINE).await?;
    cartctl(read_side, drop_it, &[]).await?.with(0, "it is taken over after 10 s")?.with(0, "has no table")?;
    Ok(())
}

async fn the_size_is_asked_for_and_the_result_is_json(read_side: &ReadSide) -> anyhow::Result<()> {
    let dry_run = ["rebuild", VENDOR_BILLING, "--dry-run", "--json"];
    let result = cartctl(read_side, &dry_run, &[]).await?.with(0, "table_mib=")?.json()?;
    ensure!(
        result["done"] == "nothing" && result["model"] == VENDOR_BILLING && result["freeBytes"].is_null(),
        "{result}"
    );
    let of_postgres = ["rebuild", VENDOR_BILLING_JDBC, "--dry-run", "--json", "--disk-free-mib", "100000"];
    let result = cartctl(read_side, &of_postgres, &[]).await?.with(0, "free_mib=")?.json()?;
    ensure!(result["tableBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{result}");
    let full = ["rebuild", VENDOR_BILLING_JDBC, "--dry-run", "--disk-free-mib", "0"];
    cartctl(read_side, &full, &[]).await?.with(1, "--yes")?;
    cartctl(read_side, &[&full[..], &["--yes"]].concat(), &[]).await?.with(0, "it would be built")?;
    Ok(())
}

/// Replaces the keeper of the second generation.
async fn keep_second_with(
    read_side: &ReadSide,
    second: &mut Process,
    instance: &str,
    fail_points: String,
) -> anyhow::Result<()> {
    second.terminate(DEADLINE).await?;
    let (service, args) = (Service::Projector(POPULAR_ITEMS), [&["--generation", "2"][..], &SESSION].concat());
    *second = read_side.installation.start_with(service, instance, &args, &[("FAILPOINTS", fail_points)])?;
    second.ready(DEADLINE).await
}

/// A vendor's first purchases come after the comparison of a switch. Returns how the switch ends.
async fn bought_since_the_comparison(read_side: &mut ReadSide, vendor: Uuid) -> anyhow::Result<Ended> {
    cartctl(read_side, &["diff", POPULAR_ITEMS], &[]).await?.with(0, "diff none")?;
    let process = stopped_at(read_side, "switch-claimed", &TO_SECOND).await?;
    let later: Vec<Line> = read_side.lines(3).into_iter().map(|line| Line { vendor, ..line }).collect();
    read_side.send(read_side.purchases(), later)?;
    read_side.rest(&[POPULAR_ITEMS, SECOND]).await?;
    go_on(process).await
}

/// The second generation parks a row. After its repair readers may see it.
async fn a_row_is_parked_since_the_comparison(read_side: &mut ReadSide, second: &mut Process) -> anyhow::Result<()> {
    let vendor = vendor_id("PARKED");
    keep_second_with(read_side, second, "g2-parks", format!("row-overflows=return({vendor})")).await?;
    let refused = bought_since_the_comparison(read_side, vendor).await?;
    // Of one row, or of more.
    let refused = refused.with(1, "parked, and lack")?.with(1, &format!("of vendor {vendor}"))?;
    ensure!(read_side.active(POPULAR_ITEMS).await?.get() == 1, "readers see a parked row: {refused:?}");
    let parked = read_side.installation.parked_rows().await?;
    ensure!(parked.iter().all(|row| row["projector"] == SECOND) && !parked.is_empty(), "{parked:?}");

    keep_second_with(read_side, second, "g2-repaired", String::new()).await?;
    read_side.installation.retry_parked_rows(parked.len()).await?;
    switch(read_side, &TO_SECOND[1..]).await?;
    switch(read_side, &[POPULAR_ITEMS, "--back"]).await?;
    Ok(())
}

/// The keeper of the second generation counts a vendor twice whose first purchase comes after the comparison.
async fn records_since_the_comparison_are_compared(
    read_side: &mut ReadSide,
    second: &mut Process,
) -> anyhow::Result<()> {
    let vendor = vendor_id("LATER");
    keep_second_with(read_side, second, "g2-later", format!("counts-twice=return({vendor})")).await?;
    let refused = bought_since_the_comparison(read_side, vendor).await?;
    let refused = refused.with(1, "the difference is not the accepted one")?;
    ensure!(refused.output.contains(&format!("vendor {vendor}")), "{refused:?}");
    ensure!(read_side.active(POPULAR_ITEMS).await?.get() == 1, "a refused switch has changed what readers see");
    Ok(())
}

pub(crate) async fn what_comes_in_the_middle_of_a_switch_is_seen() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("operators").await?;
    read_side.send(read_side.purchases(), read_side.lines(LINES))?;
    let processes = keep_first(&read_side).await?;
    read_side.rest(&TABLES).await?;
    the_size_is_asked_for_and_the_result_is_json(&read_side).await?;
    a_second_builder_and_a_second_drop_are_refused(&read_side).await?;

    let load = read_side.start_load(read_side.purchases());
    let mut second = rebuild(&read_side, POPULAR_ITEMS, "2", &[]).await?;
    let refused = "is paused by ops (index build)";
    a_pause_in_the_middle_holds(&read_side, "switch-claimed", 1, refused, 1).await?;
    a_pause_in_the_middle_holds(&read_side, "switch-frozen", 1, refused, 1).await?;
    a_pause_in_the_middle_holds(&read_side, "switch-changed", 0, "an operator has paused meanwhile", 2).await?;
    switch(&read_side, &[POPULAR_ITEMS, "--back"]).await?;
    a_resume_in_the_middle_is_noticed(&read_side).await?;
    a_second_operator_is_refused(&read_side).await?;
    sigterm_lets_both_groups_go_on(&read_side).await?;

    read_side.finish(load).await?;
    read_side.rest(&[POPULAR_ITEMS, SECOND]).await?;
    a_row_is_parked_since_the_comparison(&mut read_side, &mut second).await?;
    records_since_the_comparison_are_compared(&mut read_side, &mut second).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    drop((processes, second));
    read_side.remove().await
}
