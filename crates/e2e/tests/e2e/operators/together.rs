//! Two operators at once: of two pauses and resumes the last record holds; of two skips one is recorded; of two switches one is
//! carried out. `cartctl log` shows who has done what.

use anyhow::{Context as _, ensure};
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING, VENDOR_BILLING_JDBC};
use e2e::harness::{Ended, Process, wait_until};

use crate::projectors::garbage::{Garbage, reports};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES, metric};
use crate::rebuild::{cartctl, keep_first, logged, rebuild};

/// How often the two begin at once. Each time another one may come first.
const ROUNDS: usize = 4;

const PARTITION: i32 = 1;

/// Runs two commands at once, by two operators.
async fn both(read_side: &ReadSide, ann: &[&str], bob: &[&str]) -> anyhow::Result<[Ended; 2]> {
    let (ann, bob) = ([ann, &["--by", "ann"]].concat(), [bob, &["--by", "bob"]].concat());
    let (ann, bob) = tokio::try_join!(cartctl(read_side, &ann, &[]), cartctl(read_side, &bob, &[]))?;
    Ok([ann, bob])
}

/// The last record of the pause of the whole group.
async fn last_of_pause(read_side: &ReadSide) -> anyhow::Result<String> {
    let log = cartctl(read_side, &["log"], &[]).await?.with(0, "")?.output;
    let last = log.lines().rfind(|line| line.contains(" pause/popular-items: "));
    last.map(str::to_owned).context("there is no record of a pause")
}

async fn pause_and_resume(read_side: &ReadSide, member: &Process) -> anyhow::Result<()> {
    let pause = ["pause", POPULAR_ITEMS, "--reason", "index build"];
    let resume = ["resume", POPULAR_ITEMS];
    for round in 1..=ROUNDS {
        // A resume records nothing without a pause.
        let first = ["pause", POPULAR_ITEMS, "--reason", "before both", "--by", "cleo", "--wait", "60s"];
        cartctl(read_side, &first, &[]).await?.with(0, "is paused")?;
        for ended in both(read_side, &pause, &resume).await? {
            ended.with(0, POPULAR_ITEMS)?;
        }
        let of_ann = logged(read_side, "pause/popular-items: pause, by ann: index build").await?;
        let of_bob = logged(read_side, "pause/popular-items: resume, by bob").await?;
        ensure!((of_ann, of_bob) == (round, round), "the log shows {of_ann} pauses, {of_bob} resumes in round {round}");
        let last = last_of_pause(read_side).await?;
        if last.contains("by ann") {
            let all = u64::from(read_side.installation.partitions());
            wait_until("the pause, which was last, to hold", DEADLINE, async || {
                let paused = metric(member, "cart_partition_paused").await.map_err(|error| format!("{error:#}"))?;
                if paused == all { Ok(()) } else { Err(format!("{paused} are paused")) }
            })
            .await?;
            cartctl(read_side, &["resume", POPULAR_ITEMS, "--by", "cleo", "--wait", "60s"], &[])
                .await?
                .with(0, "goes on")?;
        }
        read_side.progress(&[POPULAR_ITEMS], 20).await.with_context(|| last)?;
    }
    Ok(())
}

async fn two_skips(read_side: &mut ReadSide, members: &[Process]) -> anyhow::Result<()> {
    let topic = read_side.purchases_topic();
    let garbage = Garbage::put(read_side, &topic, PARTITION).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    for (group, process) in TABLES.iter().zip(members) {
        reports(process, group, std::slice::from_ref(&garbage)).await?;
    }
    let expected = format!("sha256:{}", garbage.sha256);
    let skip = ["skip", POPULAR_ITEMS, &garbage.short, "--expect", &expected, "--reason", "garbage"];
    let skips = format!("popular-items skips {}", garbage.short);
    let mut recorded = 0;
    for ended in both(read_side, &skip, &skip).await? {
        match ended.code {
            Some(0) => recorded += usize::from(ended.with(0, &skips)?.output.contains("goes on behind it")),
            // The other one's skip had its effect meanwhile.
            _ => drop(ended.with(1, "has gone on")?),
        }
    }
    let sent = format!("skip/popular-items/{}: skip ", garbage.short);
    ensure!(recorded > 0 && logged(read_side, &sent).await? == recorded, "not {recorded} records of the skip");
    let listed = cartctl(read_side, &["skipped"], &[]).await?.with(0, &skips)?.output;
    ensure!(listed.matches(&skips).count() == 1, "{listed}");
    for group in [VENDOR_BILLING, VENDOR_BILLING_JDBC] {
        garbage.skip(read_side, group).await?;
    }
    read_side.rest(&TABLES).await
}

/// One of the two changes what readers see. The other one finds it done, or is refused.
async fn two_switches(read_side: &ReadSide, model: &'static str, args: &[&str], to: i32) -> anyhow::Result<()> {
    let switch = [&["switch", model][..], args].concat();
    let mut switched = 0;
    for ended in both(read_side, &switch, &switch).await? {
        match ended.code {
            Some(0) => switched += usize::from(ended.output.contains(&format!("readers see generation {to} after "))),
            _ => drop(ended.with(1, "refused: ")?),
        }
    }
    ensure!(switched > 0, "no run has switched {model} to generation {to}");
    let words = |operator: &str| format!(", by {operator}: cartctl switch of {model} to generation {to}, run ");
    let shown = logged(read_side, &words("ann")).await? + logged(read_side, &words("bob")).await?;
    ensure!(shown > 0, "the log does not show who has switched {model}");
    ensure!(read_side.active(model).await?.get() == to, "readers of {model} do not see generation {to}");
    // Nothing is left paused.
    read_side.progress(&[model, &format!("{model}-g2")], 20).await
}

pub(crate) async fn of_two_operators_at_once_one_comes_last_or_is_refused() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("two_operators").await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    let mut members = keep_first(&read_side).await?;
    read_side.rest(&TABLES).await?;
    two_skips(&mut read_side, &members).await?;

    let load = read_side.start_load(read_side.purchases());
    pause_and_resume(&read_side, &members[0]).await?;
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        members.push(rebuild(&read_side, model, "2", &[]).await?);
        two_switches(&read_side, model, &["--to", "2", "--accept-diff", "none"], 2).await?;
        let again = ["switch", model, "--to", "2", "--accept-diff", "none"];
        cartctl(&read_side, &again, &[]).await?.with(0, "already")?;
    }
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    for model in [POPULAR_ITEMS, VENDOR_BILLING_JDBC] {
        let group = format!("{model}-g2");
        read_side.rest(&[group.as_str()]).await?;
        cartctl(&read_side, &["diff", model, "1", "2"], &[]).await?.with(0, "diff none")?;
    }
    read_side.check_tables().await?;
    drop(members);
    read_side.remove().await
}
