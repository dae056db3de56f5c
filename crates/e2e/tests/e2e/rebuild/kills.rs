//! A builder and a switch that are killed go on when they are repeated.

use anyhow::ensure;
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING_JDBC};
use e2e::harness::wait_until;

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
