//! A reader may go by an answer from before a switch for the time of its lease. Meanwhile both generations must have the same rows, so a
//! switch keeps both paused. Without that wait a reader sees less than another one has seen.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use cart::Generation;
use cart::contract::ReadTable;
use cart::contract::group::POPULAR_ITEMS;
use cassandra::read_models::{LEASE, active};
use e2e::harness::Process;
use scylla::client::session::Session;

use super::{ended, generation, keep_first, rebuild, stopped, switch};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};

const SECOND: &str = "popular-items-g2";

const STOP: &str = "switch-frozen=return(stop)";
const GUARD_OFF: &str = "guard-switch-settles=return;switch-frozen=return(stop)";

/// Switches with the guard, none of which may show less, and at most as many without it: the second projector is not quick enough in each.
const ROUNDS: usize = 4;

const TO_SECOND: [&str; 6] = ["switch", POPULAR_ITEMS, "--to", "2", "--accept-diff", "none"];

/// All pieces that a generation shows.
async fn pieces(session: &Session, of: Generation) -> anyhow::Result<i64> {
    let table = ReadTable::ItemQuantityByDay.model().table_name(of);
    let rows = session.query_unpaged(format!("SELECT sum(quantity) FROM {table}"), ()).await?.into_rows_result()?;
    let (total,) = rows.maybe_first_row::<(Option<i64>,)>()?.context("a sum")?;
    Ok(total.unwrap_or_default())
}

/// Switches, and returns whether a reader that goes by its last answer from before saw less than one who knows of the switch. The
/// projector of the first generation stands still from the cut on, as in a long pause of its machine, so that its table shows the cut.
async fn a_reader_saw_less(
    read_side: &ReadSide,
    session: &Session,
    first: &Process,
    fail_points: &str,
) -> anyhow::Result<bool> {
    let model = ReadTable::ItemQuantityByDay.model();
    let switching = stopped(read_side, fail_points, &TO_SECOND).await?;
    first.pause()?;
    switching.resume()?;
    let (started_at, mut asked_at) = (Instant::now(), Instant::now());
    loop {
        ensure!(started_at.elapsed() < DEADLINE, "it does not switch: {}", switching.log());
        let now = Instant::now();
        if active(session, model).await? == generation(2)? {
            break;
        }
        asked_at = now;
    }
    let mut saw_less = false;
    while asked_at.elapsed() < LEASE {
        let by_the_new_answer = pieces(session, generation(2)?).await?;
        // A read that begins within the lease may go by the old answer.
        if asked_at.elapsed() < LEASE {
            saw_less |= pieces(session, generation(1)?).await? < by_the_new_answer;
        }
    }
    first.resume()?;
    ended(switching).await?.with(0, "readers see generation 2 after 1")?;
    Ok(saw_less)
}

pub(crate) async fn without_the_wait_for_readers_one_sees_less_than_another() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("settling").await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    let load = read_side.start_load(read_side.purchases());
    let first = keep_first(&read_side).await?;
    let popular = TABLES.iter().position(|table| *table == POPULAR_ITEMS).unwrap_or_default();
    let second = rebuild(&read_side, POPULAR_ITEMS, "2", &[]).await?;
    let session = cassandra::connect(read_side.installation.cassandra()).await?;
    for (fail_points, is_seen) in [(STOP, false), (GUARD_OFF, true)] {
        let mut saw_less = false;
        for _ in 0..ROUNDS {
            saw_less |= a_reader_saw_less(&read_side, &session, &first[popular], fail_points).await?;
            read_side.progress(&[POPULAR_ITEMS, SECOND], 20).await?;
            switch(&read_side, &[POPULAR_ITEMS, "--back"]).await?;
            if saw_less {
                break;
            }
        }
        ensure!(saw_less == is_seen, "with {fail_points} a reader saw less: {saw_less}");
    }
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    drop((first, second, session));
    read_side.remove().await
}
