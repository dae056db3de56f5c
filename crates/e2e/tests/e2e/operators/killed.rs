//! `pause`, `resume` and `skip` that are killed in the middle: either nothing has changed, or what they were to do is recorded.
//! Repeated, each is done. A switch, a drop and a rebuild that are killed are in `rebuild::kills`, a try of parked carts in
//! [`super::parked`], one of parked rows in `projectors::parked_rows`, a discard in `parking::discard`.

use anyhow::{Context as _, ensure};
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING};
use e2e::harness::wait_until;

use crate::projectors::garbage::{Garbage, reports};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};
use crate::rebuild::{cartctl, keep_first, logged, start_cartctl};

/// A record of the control topic was not sent.
const BEFORE: &str = "control-before-record=return";
/// It is in the log.
const AFTER: &str = "control-after-record=return";

const PAUSE: [&str; 6] = ["pause", POPULAR_ITEMS, "--reason", "index build", "--by", "ops"];
const PAUSE_AND_WAIT: [&str; 8] = ["pause", POPULAR_ITEMS, "--reason", "index build", "--by", "ops", "--wait", "60s"];
const RESUME: [&str; 4] = ["resume", POPULAR_ITEMS, "--wait", "60s"];

/// How the log shows these pauses, and their ends.
const PAUSED: &str = "pause/popular-items: pause, by ops: index build";
const RESUMED: &str = "pause/popular-items: resume";

const PARTITION: i32 = 1;

async fn dies(read_side: &ReadSide, args: &[&str], fail_point: &str) -> anyhow::Result<()> {
    read_side.installation.cartctl_dies(args, fail_point, DEADLINE).await
}

/// The group applies nothing, while another one goes on.
async fn stands_still(read_side: &ReadSide) -> anyhow::Result<()> {
    let next = read_side.next_offsets(POPULAR_ITEMS).await?;
    read_side.progress(&[VENDOR_BILLING], 50).await?;
    ensure!(read_side.next_offsets(POPULAR_ITEMS).await? == next, "the paused group has gone on");
    Ok(())
}

async fn pause_and_resume(read_side: &ReadSide) -> anyhow::Result<()> {
    dies(read_side, &PAUSE_AND_WAIT, BEFORE).await?;
    ensure!(logged(read_side, PAUSED).await? == 0, "a pause is recorded that was not sent");
    read_side.progress(&[POPULAR_ITEMS], 20).await?;
    dies(read_side, &PAUSE_AND_WAIT, AFTER).await?;
    ensure!(logged(read_side, PAUSED).await? == 1, "the pause is not recorded");
    cartctl(read_side, &PAUSE_AND_WAIT, &[]).await?.with(0, "is paused")?;
    stands_still(read_side).await?;

    dies(read_side, &RESUME, BEFORE).await?;
    ensure!(logged(read_side, RESUMED).await? == 0, "a resume is recorded that was not sent");
    stands_still(read_side).await?;
    dies(read_side, &RESUME, AFTER).await?;
    ensure!(logged(read_side, RESUMED).await? == 1, "the resume is not recorded");
    cartctl(read_side, &RESUME, &[]).await?.with(0, "is not paused")?;
    read_side.progress(&[POPULAR_ITEMS], 20).await
}

/// Of a pause of several partitions some records are sent: the others follow with the repeat. Nothing is written meanwhile, so that
/// no partition goes past its offset.
async fn pause_of_some_partitions(read_side: &mut ReadSide) -> anyhow::Result<()> {
    let next = read_side.next_offsets(POPULAR_ITEMS).await?;
    let cuts: Vec<String> =
        next.iter().enumerate().map(|(partition, next)| format!("--at-offset={partition}={next}")).collect();
    let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
    dies(read_side, &[&PAUSE[..], &cuts[..]].concat(), "control-before-record=2*off->return").await?;
    for (partition, expected) in [1, 1, 0, 0].into_iter().enumerate() {
        let words = format!("pause/popular-items/{partition}: pause before ");
        ensure!(logged(read_side, &words).await? == expected, "not {expected} pauses of partition {partition}");
    }
    cartctl(read_side, &[&PAUSE_AND_WAIT[..], &cuts[..]].concat(), &[]).await?.with(0, "is paused")?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    read_side.rest(&TABLES[1..]).await?;
    ensure!(read_side.next_offsets(POPULAR_ITEMS).await? == next, "the paused group has gone on");
    cartctl(read_side, &RESUME, &[]).await?.with(0, "goes on")?;
    read_side.rest(&TABLES).await
}

/// A kill while it waits for a partition that cannot reach its offset, since nothing is written.
async fn kill_in_the_wait(read_side: &ReadSide) -> anyhow::Result<()> {
    let next = read_side.next_offsets(POPULAR_ITEMS).await?;
    let next = next.get(usize::try_from(PARTITION)?).context("the partition")?;
    let cut = format!("--at-offset={PARTITION}={}", next + 1_000_000);
    let mut waits = start_cartctl(read_side, &[&PAUSE_AND_WAIT[..], &[cut.as_str()]].concat(), &[])?;
    let words = format!("pause/popular-items/{PARTITION}: pause before {}", next + 1_000_000);
    wait_until("the pause to be recorded", DEADLINE, async || match logged(read_side, &words).await {
        Ok(1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    ensure!(waits.state().is_some_and(|state| state != 'Z'), "it has not waited: {}", waits.log());
    waits.kill9()?;
    // Neither is the offset reached, nor is anything lost: the repeat waits in vain, too.
    let repeat = [&PAUSE[..], &[cut.as_str(), "--wait", "2s"]].concat();
    cartctl(read_side, &repeat, &[]).await?.with(2, "not paused in time: partition 1")?;
    cartctl(read_side, &RESUME, &[]).await?.with(0, "goes on").map(drop)
}

async fn skip(read_side: &ReadSide, garbage: &Garbage) -> anyhow::Result<()> {
    let expected = format!("sha256:{}", garbage.sha256);
    let skip = ["skip", POPULAR_ITEMS, &garbage.short, "--expect", &expected, "--reason", "garbage"];
    let skips = format!("popular-items skips {}", garbage.short);
    dies(read_side, &skip, BEFORE).await?;
    cartctl(read_side, &["skipped"], &[]).await?.with(0, "")?.without(&skips)?;
    dies(read_side, &skip, AFTER).await?;
    cartctl(read_side, &["skipped"], &[]).await?.with(0, &skips)?;
    cartctl(read_side, &skip, &[]).await?.with(0, "already")?;
    let sent = format!("skip/popular-items/{}: skip ", garbage.short);
    ensure!(logged(read_side, &sent).await? == 1, "the skip is recorded more than once");
    read_side.rest(&[POPULAR_ITEMS]).await
}

pub(crate) async fn a_killed_pause_resume_or_skip_is_done_by_its_repeat() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("killed_verbs").await?;
    let load = read_side.start_load(read_side.purchases());
    let processes = keep_first(&read_side).await?;
    read_side.progress(&TABLES, 100).await?;
    pause_and_resume(&read_side).await?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    pause_of_some_partitions(&mut read_side).await?;
    kill_in_the_wait(&read_side).await?;

    let topic = read_side.purchases_topic();
    let garbage = Garbage::put(&read_side, &topic, PARTITION).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    for (group, process) in TABLES.iter().zip(&processes) {
        reports(process, group, std::slice::from_ref(&garbage)).await?;
    }
    skip(&read_side, &garbage).await?;
    for group in &TABLES[1..] {
        garbage.skip(&read_side, group).await?;
    }
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    drop(processes);
    read_side.remove().await
}
