//! A builder, a switch, a drop and a rebuild in place that are killed go on when they are repeated.

use anyhow::{Context as _, ensure};
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING_JDBC};
use cartctl::vendor_id;
use e2e::harness::wait_until;
use kafka::Admin;

use super::{SESSION, cartctl, keep, keep_first, logged, start_cartctl, switch};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};

/// Enough that the builder is in the middle for a while, at [`RATE`] records a second.
pub(crate) const LINES: usize = 900;
pub(crate) const RATE: &str = "150";

/// Waits until a builder has applied some records, and not all.
pub(crate) async fn in_the_middle(read_side: &ReadSide, group: &str) -> anyhow::Result<()> {
    let applied = async || Ok::<i64, anyhow::Error>(read_side.next_offsets(group).await?.iter().sum());
    let applied = wait_until("the builder to be in the middle", DEADLINE, async || match applied().await {
        Ok(applied) if applied >= 100 => Ok(applied),
        Ok(applied) => Err(format!("{applied} are applied")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    ensure!(applied < LINES as i64, "the builder was done: what follows shows nothing");
    Ok(())
}

/// Kills a builder after it has applied some records, and lets another one go on.
async fn a_killed_builder_goes_on(read_side: &ReadSide, model: &'static str) -> anyhow::Result<()> {
    let args = [&["rebuild", model, "--rate-max", RATE][..], &SESSION].concat();
    let mut builder = start_cartctl(read_side, &args, &[])?;
    in_the_middle(read_side, &format!("{model}-g2")).await?;
    builder.kill9()?;
    cartctl(read_side, &[&["rebuild", model, "--dry-run"][..], &SESSION].concat(), &[])
        .await?
        .with(0, "generation=2")?;
    cartctl(read_side, &[&["rebuild", model][..], &SESSION].concat(), &[]).await?.with(0, "generation 2")?;
    cartctl(read_side, &["diff", model], &[]).await?.with(0, "diff none")?;
    Ok(())
}

/// Kills a switch at a place, when it has paused both groups in the name of `reason`.
async fn kill_switch(read_side: &ReadSide, args: &[&str], place: &str, reason: &str) -> anyhow::Result<()> {
    let reason = format!("cartctl switch of {} {reason}, run ", args[0]);
    let before = logged(read_side, &reason).await?;
    let switch = [&["switch"], args].concat();
    read_side.installation.cartctl_dies(&switch, &format!("{place}=return"), DEADLINE).await?;
    ensure!(logged(read_side, &reason).await? > before, "it has not paused for '{reason}'");
    Ok(())
}

/// Switches after one that was killed. Nothing is paused afterwards.
async fn go_on(read_side: &ReadSide, args: &[&str], to: i32) -> anyhow::Result<()> {
    switch(read_side, args).await?.with(0, "pauses of an earlier switch were ended")?;
    ensure!(read_side.active(args[0]).await?.get() == to, "readers of {} do not see generation {to}", args[0]);
    read_side.progress(&[args[0], &format!("{}-g2", args[0])], 20).await
}

pub(crate) async fn a_killed_builder_and_a_killed_switch_go_on() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("killed_builds").await?;
    read_side.send(read_side.purchases(), read_side.lines(LINES))?;
    let processes = keep_first(&read_side).await?;
    read_side.rest(&TABLES).await?;
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        a_killed_builder_goes_on(&read_side, model).await?;
    }

    let load = read_side.start_load(read_side.purchases());
    let mut second = Vec::new();
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        second.push(keep(&read_side, model, "2").await?);
        let to_second = [model, "--to", "2", "--accept-diff", "none"];
        let back = [model, "--back"];
        kill_switch(&read_side, &to_second, "switch-frozen", "to generation 2").await?;
        let drop_second = ["drop", model, "--generation", "2", "--dry-run"];
        cartctl(&read_side, &drop_second, &[]).await?.with(1, "is at work or has died")?;
        go_on(&read_side, &to_second, 2).await?;
        // The pointer was changed: a repeat must not change it back.
        kill_switch(&read_side, &back, "switch-changed", "back to generation 1").await?;
        go_on(&read_side, &back, 1).await?;
        // Nor is this `--back` a repeat: it undoes the switch before.
        kill_switch(&read_side, &to_second, "switch-changed", "to generation 2").await?;
        go_on(&read_side, &back, 1).await?;
    }
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        cartctl(&read_side, &["diff", model, "1", "2"], &[]).await?.with(0, "diff none")?;
    }
    read_side.check_tables().await?;
    drop((processes, second));
    read_side.remove().await
}

/// A drop, where it dies, and whether the generation has its table then: in Cassandra behind the table of its parked rows and behind its
/// own, in PostgreSQL behind the transaction that deletes both. Its group is there each time.
const DROPS: [(&str, &str, bool); 3] = [
    (POPULAR_ITEMS, "drop-deleted=return", true),
    (POPULAR_ITEMS, "drop-deleted=1*off->return", false),
    (VENDOR_BILLING_JDBC, "drop-deleted=return", false),
];

/// Whether a group has committed offsets.
fn has_offsets(read_side: &ReadSide, group: &str) -> anyhow::Result<bool> {
    let kafka = read_side.installation.kafka();
    let committed = tokio::task::block_in_place(|| {
        Admin::new(kafka)?.committed(&kafka.prefixed(group), &read_side.purchases_topic())
    })?;
    Ok(committed.iter().any(Option::is_some))
}

pub(crate) async fn a_killed_drop_is_done_by_its_repeat() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("killed_drops").await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    let processes = keep_first(&read_side).await?;
    read_side.rest(&TABLES).await?;
    for (model, fail_point, has_table) in DROPS {
        let build = [&["rebuild", model][..], &SESSION].concat();
        cartctl(&read_side, &build, &[]).await?.with(0, "had caught up")?;
        let built = read_side.generations(model).await?.into_iter().max().context("it was built")?;
        let (group, number) = (format!("{model}-g{built}"), built.to_string());
        let drop_it = ["drop", model, "--generation", &number];
        read_side.installation.cartctl_dies(&drop_it, fail_point, DEADLINE).await?;
        let is_left = read_side.generations(model).await?.contains(&built);
        ensure!(is_left == has_table, "a kill at {fail_point} leaves a table of {group}: {is_left}");
        ensure!(has_offsets(&read_side, &group)?, "{group} is gone before its table");

        let repeat = cartctl(&read_side, &drop_it, &[]).await?.with(0, "it is taken over after 10 s")?;
        repeat.with(0, if has_table { "are deleted" } else { "has no table of generation" })?;
        ensure!(!read_side.generations(model).await?.contains(&built), "{group} has a table after the repeat");
        ensure!(!has_offsets(&read_side, &group)?, "{group} is there after the repeat");
    }
    read_side.send(read_side.purchases(), read_side.lines(50))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    drop(processes);
    read_side.remove().await
}

/// Where a rebuild in place dies. The group is at the beginning then; in Cassandra the table of the parked rows is empty besides, and at
/// last the table itself.
const EMPTYINGS: [(&str, &[&str]); 2] = [
    (POPULAR_ITEMS, &["emptying-reset=return", "emptying-truncated=return", "emptying-truncated=1*off->return"]),
    (VENDOR_BILLING_JDBC, &["emptying-reset=return"]),
];

/// Runs a projector until it has applied everything.
async fn run(read_side: &ReadSide, model: &'static str, instance: &str, fail_points: &str) -> anyhow::Result<()> {
    let mut process = read_side.start_with(model, instance, fail_points)?;
    process.ready(DEADLINE).await?;
    read_side.rest(&[model]).await?;
    process.terminate(DEADLINE).await
}

async fn parked_rows(read_side: &ReadSide, model: &str) -> anyhow::Result<usize> {
    let parked = read_side.installation.parked_rows().await?;
    Ok(parked.iter().filter(|row| row["projector"] == model).count())
}

/// The projector runs between the kill and the repeat. A row is parked before.
async fn killed_and_repeated(
    read_side: &mut ReadSide,
    model: &'static str,
    round: usize,
    fail_point: &str,
) -> anyhow::Result<()> {
    let in_place = ["rebuild", model, "--in-place"];
    let overflows = format!("row-overflows=return({})", vendor_id("V0"));
    read_side.send(read_side.purchases(), read_side.lines(72))?;
    run(read_side, model, &format!("parks{round}"), &overflows).await?;
    ensure!(parked_rows(read_side, model).await? > 0, "{model} has parked nothing");
    read_side.installation.cartctl_dies(&in_place, fail_point, DEADLINE).await?;
    run(read_side, model, &format!("between{round}"), "").await?;
    cartctl(read_side, &in_place, &[]).await?.with(0, "the table is empty")?;
    run(read_side, model, &format!("after{round}"), "").await?;
    let parked = parked_rows(read_side, model).await?;
    ensure!(parked == 0, "{parked} rows of {model} are parked after a kill at {fail_point}");
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await.with_context(|| format!("{model}, after a kill at {fail_point}"))
}

pub(crate) async fn a_killed_rebuild_in_place_is_done_by_its_repeat() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("killed_in_place").await?;
    for (model, fail_points) in EMPTYINGS {
        let others: Vec<&'static str> = TABLES.into_iter().filter(|other| *other != model).collect();
        let mut processes = read_side.start(&others, &format!("beside-{model}")).await?;
        for (round, fail_point) in fail_points.iter().enumerate() {
            killed_and_repeated(&mut read_side, model, round, fail_point).await?;
        }
        for process in &mut processes {
            process.terminate(DEADLINE).await?;
        }
    }
    read_side.remove().await
}
