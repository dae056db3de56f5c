//! Purchases of a parked row that arrive while it is tried again, under load: each counts once.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them).

use anyhow::ensure;
use e2e::harness::{Process, wait_until};

use super::parked_rows::{all_live, bad, overflows, start, terminate};
use super::read_side::{DEADLINE, ReadSide, TABLES};
use super::shop::Line;

/// Lines of all vendors, two of each.
const LINES: usize = 48;

/// A try has read its log, and waits: the loop passes over what arrives meanwhile.
const WAITS: &str = "parked-row-read=1*sleep(30000)->off";

/// The thread of a try that reads (`projectors::parking`).
const THREAD: &str = "parked row";

/// New lines of one day and product: a vendor has one row in each table.
fn lines(read_side: &ReadSide) -> Vec<Line> {
    let Line { product, at, .. } = Line::of(0);
    read_side.lines(LINES).into_iter().map(|line| Line { product, at, ..line }).collect()
}

/// Whether an instance is reading for a try. The log up to which it reads is settled then.
fn is_reading(process: &Process) -> anyhow::Result<bool> {
    let threads = procfs::process::Process::new(process.id().cast_signed())?.tasks()?;
    // One may have ended meanwhile.
    Ok(threads.flatten().filter_map(|thread| thread.stat().ok()).any(|stat| stat.comm == THREAD))
}

/// Starts an instance of each projector of a table, and waits until each of them reads for a try.
async fn start_tries(read_side: &ReadSide) -> anyhow::Result<Vec<Process>> {
    let start = |projector| read_side.start_with(projector, "tries", WAITS);
    let processes = TABLES.into_iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    for process in &processes {
        wait_until("an instance to read for a try", DEADLINE, async || match is_reading(process) {
            Ok(true) => Ok(()),
            Ok(false) => Err(String::from("it does not read")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await?;
    }
    Ok(processes)
}

pub(crate) async fn purchases_that_arrive_during_a_try_count_once() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("rowsarrive").await?;
    let before = lines(&read_side);
    read_side.send(read_side.purchases(), before)?;
    let processes = start(&read_side, "parks", &overflows()).await?;
    read_side.rest(&TABLES).await?;
    for projector in TABLES {
        read_side.installation.rows_become_parked(projector, 1, DEADLINE).await?;
    }
    terminate(processes).await?;

    let retry = ["parked", "rows", "retry", "--all", "--wait-s", "0"];
    read_side.installation.cartctl(&retry, &[], DEADLINE).await?.with(0, "requested another try")?;
    let processes = start_tries(&read_side).await?;
    let during = lines(&read_side);
    ensure!(during.iter().any(|line| line.vendor == bad()), "none of these lines is of the parked row");
    read_side.send(read_side.purchases(), during)?;
    let load = read_side.start_load(read_side.purchases());
    read_side.rest(&TABLES).await?;
    for process in &processes {
        ensure!(is_reading(process)?, "a try has ended before all that arrives during it was passed over");
    }
    all_live(&read_side).await?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    terminate(processes).await?;
    read_side.remove().await
}
