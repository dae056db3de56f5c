//! Read models are built anew beside the generation that readers see, compared, and switched, on a system that is written to all
//! the time.
//!
//! * [`miscount`]: a generation that counts one vendor twice is named row by row, and not switched to.
//! * [`switches`]: readers on every row see no fall while generations are switched.
//! * [`kills`]: killed builders and killed switches go on.

pub(crate) mod kills;
pub(crate) mod miscount;
mod readers;
pub(crate) mod switches;

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use cart::Generation;
use e2e::harness::{Process, Service};
use serde_json::Value;

use super::projectors::read_side::{DEADLINE, ReadSide, TABLES};

const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

type Environment<'a> = &'a [(&'static str, String)];

/// What an operator's command has ended with.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    output: String,
}

impl Ended {
    fn with(self, code: i32, word: &str) -> anyhow::Result<Self> {
        ensure!(self.code == Some(code) && self.output.contains(word), "not {code} with '{word}': {self:?}");
        Ok(self)
    }

    fn json(&self) -> anyhow::Result<Value> {
        let json = self.output.find('{').and_then(|start| self.output.get(start..));
        serde_json::from_str(json.with_context(|| self.output.clone())?).with_context(|| self.output.clone())
    }
}

fn generation(number: i32) -> anyhow::Result<Generation> {
    Generation::new(number).context("a generation")
}

/// Starts `cartctl`; each run has a log of its own.
fn start_cartctl(read_side: &ReadSide, args: &[&str], environment: Environment<'_>) -> anyhow::Result<Process> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", args[0], RUNS.fetch_add(1, Ordering::Relaxed));
    read_side.installation.spawn_as(&name, "cartctl", args, environment, None)
}

async fn cartctl(read_side: &ReadSide, args: &[&str], environment: Environment<'_>) -> anyhow::Result<Ended> {
    let mut process = start_cartctl(read_side, args, environment)?;
    let code = process.ended(DEADLINE).await?.code();
    Ok(Ended { code, output: process.log() })
}

/// Starts the projectors of the first generations. Their batches are of the usual length: after a switch they are to catch up soon.
async fn keep_first(read_side: &ReadSide) -> anyhow::Result<Vec<Process>> {
    let services = TABLES.map(|projector| (Service::Projector(projector), "a", &SESSION[..]));
    read_side.installation.start_all(&services).await
}

/// Builds the next generation, then starts the projector that keeps it.
async fn rebuild(
    read_side: &ReadSide,
    model: &'static str,
    number: &str,
    environment: Environment<'_>,
) -> anyhow::Result<Process> {
    let args = [&["rebuild", model][..], &SESSION].concat();
    cartctl(read_side, &args, environment).await?.with(0, "had caught up")?;
    keep(read_side, model, number).await
}

async fn keep(read_side: &ReadSide, model: &'static str, number: &str) -> anyhow::Result<Process> {
    let args = [&["--generation", number][..], &SESSION].concat();
    let instance = format!("g{number}");
    let processes =
        read_side.installation.start_all(&[(Service::Projector(model), instance.as_str(), args.as_slice())]).await?;
    processes.into_iter().next().context("one was started")
}

/// Switches, or finds it done.
async fn switch(read_side: &ReadSide, args: &[&str]) -> anyhow::Result<Ended> {
    cartctl(read_side, &[&["switch"], args].concat(), &[]).await?.with(0, "readers see generation")
}
