//! A builder, a switch, a drop and a rebuild in place that are killed go on when they are repeated.

use anyhow::{Context as _, ensure};
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING_JDBC};
use cartctl::vendor_id;
use e2e::harness::wait_until;
use kafka::Admin;

use super::{SESSION, cartctl, keep, keep_first, rebuild, start_cartctl, switch};
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

/// Where a builder of a generation dies before its first batch is in the table.
fn before_the_first_batch(model: &str) -> &'static str {
    if model == VENDOR_BILLING_JDBC { "jdbc-before-transaction=return" } else { "totals-before-write=return" }
}

/// Kills a builder before it has applied a record and one after it has applied some, and lets another one go on.
async fn a_killed_builder_goes_on(read_side: &ReadSide, model: &'static str) -> anyhow::Result<()> {
    let (group, build) = (format!("{model}-g2"), [&["rebuild", model][..], &SESSION].concat());
    read_side.installation.cartctl_dies(&build, before_the_first_batch(model), DEADLINE).await?;
    let next = read_side.next_offsets(&group).await?;
    ensure!(next.iter().all(|next| *next == 0), "the builder of {group} has applied records: it is at {next:?}");
    let mut builder = start_cartctl(read_side, &[&build[..], &["--rate-max", RATE]].concat(), &[])?;
    in_the_middle(read_side, &group).await?;
    builder.kill9()?;
    cartctl(read_side, &[&build[..], &["--dry-run"]].concat(), &[]).await?.with(0, "generation=2")?;
    cartctl(read_side, &build, &[]).await?.with(0, "generation 2")?;
    cartctl(read_side, &["diff", model], &[]).await?.with(0, "diff none")?;
    Ok(())
}

/// The records of a switch that pause both groups, with the four partitions of a test: one for each group; then, for one group after the
/// other, one for each partition with its offset, and one that ends the pause of the whole group.
const PAUSED: usize = 12;

/// With those that let each partition go on after the change, first the partitions of generation 1.
const ENDED: usize = 20;

/// Where a switch dies: the generation that it is to, the fail point, and how many of its records are sent by then.
type Place = (i32, &'static str, usize);

/// While both groups stand still, before the change and after it.
const FROZEN: Place = (2, "switch-frozen=return", PAUSED);
const CHANGED: Place = (2, "switch-changed=return", PAUSED);
const CHANGED_BACK: Place = (1, "switch-changed=return", PAUSED);

/// Places between the records of a switch, to generation 2 and back in turns. Freezing and ending pauses is the same for both stores;
/// in Cassandra each takes longer, so few are there.
const IN_CASSANDRA: [Place; 2] = [
    // The group that readers leave is paused, and the other one is not.
    (2, "control-after-record=return", 1),
    // Generation 1, which readers see again, goes on, and generation 2 does not.
    (1, "control-after-record=15*off->return", 16),
];
const IN_POSTGRES: [Place; 5] = [
    (2, "switch-claimed=return", 0),
    (1, "switch-claimed=return", 0),
    // One group is paused in its partitions, the other one as a whole.
    (2, "control-after-record=6*off->return", 7),
    // Nothing is paused any more.
    (1, "control-after-record=19*off->return", ENDED),
    // One partition goes on.
    (2, "control-after-record=12*off->return", 13),
];

fn args_of(model: &'static str, to: i32) -> Vec<&'static str> {
    if to == 1 { vec![model, "--back"] } else { vec![model, "--to", "2", "--accept-diff", "none"] }
}

/// How many records of the control topic pause a group, or end that, for this reason. Members repeat the reason in theirs, which have
/// other keys.
async fn recorded(read_side: &ReadSide, reason: &str) -> anyhow::Result<usize> {
    let log = cartctl(read_side, &["log"], &[]).await?.with(0, "")?;
    Ok(log.output.lines().filter(|line| line.contains(" pause/") && line.contains(reason)).count())
}

async fn kill_switch(read_side: &ReadSide, model: &'static str, (to, fail_point, sent): Place) -> anyhow::Result<()> {
    let direction = if to == 1 { " back" } else { "" };
    let reason = format!("cartctl switch of {model}{direction} to generation {to}, run ");
    let before = recorded(read_side, &reason).await?;
    let args = args_of(model, to);
    let switch = [&["switch"][..], &args[..]].concat();
    read_side.installation.cartctl_dies(&switch, fail_point, DEADLINE).await?;
    let records = recorded(read_side, &reason).await? - before;
    ensure!(records == sent, "a switch of {model} that dies at {fail_point} has sent {records} records, not {sent}");
    Ok(())
}

/// Readers see this generation, and nothing is paused.
async fn is_done(read_side: &ReadSide, model: &str, to: i32) -> anyhow::Result<()> {
    ensure!(read_side.active(model).await?.get() == to, "readers of {model} do not see generation {to}");
    read_side.progress(&[model, &format!("{model}-g2")], 20).await
}

/// Switches after one that was killed. Nothing is paused afterwards.
async fn go_on(read_side: &ReadSide, model: &'static str, to: i32) -> anyhow::Result<()> {
    switch(read_side, &args_of(model, to)).await?.with(0, "pauses of an earlier switch were ended")?;
    is_done(read_side, model, to).await
}

/// Kills a switch and repeats it. A `--back` that has left its claim and no pause is refused once: it is not known what it was to do.
async fn killed_and_repeated_switch(read_side: &ReadSide, model: &'static str, place: Place) -> anyhow::Result<()> {
    let (to, fail_point, sent) = place;
    kill_switch(read_side, model, place).await?;
    let active = read_side.active(model).await?.get();
    ensure!((active == to) == (sent > PAUSED), "after {fail_point} readers of {model} see generation {active}");
    if (1..ENDED).contains(&sent) {
        return go_on(read_side, model, to).await.with_context(|| format!("{model}, after {fail_point}"));
    }
    let args = args_of(model, to);
    let repeat = cartctl(read_side, &[&["switch"][..], &args[..]].concat(), &[]).await?;
    let repeat = repeat.without("pauses of an earlier switch were ended")?;
    if to == 1 {
        repeat.with(1, &format!("see generation {active}. Run it again if they are to leave it"))?;
        ensure!(read_side.active(model).await?.get() == active, "a refused switch has changed what readers see");
        if active != to {
            switch(read_side, &args).await?;
        }
    } else {
        repeat.with(0, "it is taken over after 10 s")?.with(0, "readers see generation 2 after 1")?;
    }
    is_done(read_side, model, to).await.with_context(|| format!("{model}, after {fail_point}"))
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
        kill_switch(&read_side, model, FROZEN).await?;
        let drop_second = ["drop", model, "--generation", "2", "--dry-run"];
        cartctl(&read_side, &drop_second, &[]).await?.with(1, "is at work or has died")?;
        go_on(&read_side, model, 2).await?;
        // The pointer was changed: a repeat must not change it back.
        kill_switch(&read_side, model, CHANGED_BACK).await?;
        go_on(&read_side, model, 1).await?;
        // Nor is this `--back` a repeat: it undoes the switch before.
        kill_switch(&read_side, model, CHANGED).await?;
        go_on(&read_side, model, 1).await?;
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

/// Switches of one model that die, one after the other.
async fn killed_switches(read_side: &ReadSide, model: &'static str, places: &[Place]) -> anyhow::Result<()> {
    for place in places {
        killed_and_repeated_switch(read_side, model, *place).await?;
    }
    Ok(())
}

pub(crate) async fn a_switch_that_is_killed_between_its_records_goes_on() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("killed_switches").await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    let load = read_side.start_load(read_side.purchases());
    let processes = keep_first(&read_side).await?;
    let mut second = Vec::new();
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        second.push(rebuild(&read_side, model, "2", &[]).await?);
    }
    // Most of the time is the wait for a claim that is not renewed: one model does not wait for the other.
    tokio::try_join!(
        killed_switches(&read_side, POPULAR_ITEMS, &IN_CASSANDRA),
        killed_switches(&read_side, VENDOR_BILLING_JDBC, &IN_POSTGRES)
    )?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    // The view in PostgreSQL shows this one in the end.
    read_side.rest(&["vendor-billing-jdbc-g2"]).await?;
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
