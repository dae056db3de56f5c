//! Read models are built anew beside the generation that readers see, compared, and switched, on a system that is written to all
//! the time.
//!
//! * [`miscount`]: a generation that counts one vendor twice is named row by row, and not switched to.
//! * [`switches`]: readers on every row see no fall while generations are switched.
//! * [`kills`]: killed builders, switches, drops and rebuilds in place go on.
//! * [`settling`]: without the wait for readers two of them see different totals.
//! * [`in_place`]: a table that other programs know by name gets the rows of another generation, also after runs that are killed. Its
//!   readers see each row as it was or as it is. Of two runs that empty the table at once one is refused.
//! * [`parked_rows`]: parked rows count as a difference, and are not switched to.
//! * [`operators`]: what comes in the middle of a switch is seen, and a second operator is refused.

pub(crate) mod in_place;
pub(crate) mod kills;
pub(crate) mod miscount;
mod old_or_new;
pub(crate) mod operators;
pub(crate) mod parked_rows;
mod readers;
pub(crate) mod settling;
pub(crate) mod switches;

use anyhow::Context as _;
use cart::Generation;
use e2e::harness::{Ended, Process, Service, wait_until};

use super::projectors::read_side::{DEADLINE, ReadSide, TABLES};

pub(crate) const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

type Environment<'a> = &'a [(&'static str, String)];

fn generation(number: i32) -> anyhow::Result<Generation> {
    Generation::new(number).context("a generation")
}

/// Starts `cartctl`.
pub(crate) fn start_cartctl(
    read_side: &ReadSide,
    args: &[&str],
    environment: Environment<'_>,
) -> anyhow::Result<Process> {
    read_side.installation.start_cartctl(args, environment)
}

pub(crate) async fn cartctl(
    read_side: &ReadSide,
    args: &[&str],
    environment: Environment<'_>,
) -> anyhow::Result<Ended> {
    read_side.installation.cartctl(args, environment, DEADLINE).await
}

/// How often `cartctl log` has these words.
pub(crate) async fn logged(read_side: &ReadSide, words: &str) -> anyhow::Result<usize> {
    Ok(cartctl(read_side, &["log"], &[]).await?.with(0, "")?.output.matches(words).count())
}

/// Starts a command that one of its fail points stops (SIGSTOP), and waits until it has stopped. Others take it for dead after 10 s.
async fn stopped(read_side: &ReadSide, fail_points: &str, args: &[&str]) -> anyhow::Result<Process> {
    let process = start_cartctl(read_side, args, &[("FAILPOINTS", fail_points.to_owned())])?;
    wait_until(&format!("{} to stop ({fail_points})", args[0]), DEADLINE, async || match process.state() {
        Some('T') => Ok(()),
        state => Err(format!("its state is {state:?}: {}", process.log())),
    })
    .await?;
    Ok(process)
}

async fn ended(process: Process) -> anyhow::Result<Ended> {
    Ended::of(process, DEADLINE).await
}

/// Starts the projectors of the first generations. Their batches are of the usual length: after a switch they are to catch up soon.
pub(crate) async fn keep_first(read_side: &ReadSide) -> anyhow::Result<Vec<Process>> {
    let services = TABLES.map(|projector| (Service::Projector(projector), "a", &SESSION[..]));
    read_side.installation.start_all(&services).await
}

/// Builds the next generation, then starts the projector that keeps it.
pub(crate) async fn rebuild(
    read_side: &ReadSide,
    model: &'static str,
    number: &str,
    environment: Environment<'_>,
) -> anyhow::Result<Process> {
    let args = [&["rebuild", model][..], &SESSION].concat();
    cartctl(read_side, &args, environment).await?.with(0, "had caught up")?;
    keep(read_side, model, number).await
}

pub(crate) async fn keep(read_side: &ReadSide, model: &'static str, number: &str) -> anyhow::Result<Process> {
    let args = [&["--generation", number][..], &SESSION].concat();
    let instance = format!("g{number}");
    let processes =
        read_side.installation.start_all(&[(Service::Projector(model), instance.as_str(), args.as_slice())]).await?;
    processes.into_iter().next().context("one was started")
}

/// Switches, or finds it done.
pub(crate) async fn switch(read_side: &ReadSide, args: &[&str]) -> anyhow::Result<Ended> {
    cartctl(read_side, &[&["switch"], args].concat(), &[]).await?.with(0, "readers see generation")
}
