//! `cartctl resume`.

use std::fmt;
use std::time::Instant;

use cart::Control;
use control::{ResumeRequest, signed};
use serde::Serialize;
use tokio::task::block_in_place;

use super::args::ResumeArgs;
use super::pause::LOOK_PAUSE;
use super::{Kafka, Outcome, partitions};

/// What was recorded, and which members have followed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    group: String,
    /// The pauses that ended, by their keys.
    ended: Vec<String>,
    is_dry_run: bool,
    /// Partitions whose members have not gone on yet.
    waiting: Vec<i32>,
}

impl fmt::Display for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ended.is_empty() {
            return write!(f, "{} is not paused", self.group);
        }
        if self.is_dry_run {
            return write!(f, "{} would go on; nothing was recorded (--dry-run)", self.group);
        }
        write!(f, "{} goes on", self.group)?;
        if !self.waiting.is_empty() {
            write!(f, "\n  not gone on in time: {}", partitions(self.waiting.iter().copied()))?;
        }
        Ok(())
    }
}

/// Resumes a group or one of its partitions.
///
/// # Errors
/// Kafka or the registry does not respond.
pub async fn resume(args: &ResumeArgs) -> anyhow::Result<Outcome<Resumed>> {
    let kafka = Kafka::connect(&args.kafka).await?;
    let name = &args.group.name;
    let controls = block_in_place(|| kafka.control.controls())?;
    let ended = match (ResumeRequest { group: &args.group, partition: args.partition }).ended(&controls) {
        Ok(ended) => ended,
        Err(reason) => return Ok(Outcome::Refused(reason)),
    };
    for key in ended.iter().filter(|_| !args.dry_run) {
        kafka.control.send(key, Some(&signed(&args.by, &args.reason, Control::Resume {}))).await?;
    }
    let ended: Vec<String> = ended.iter().map(ToString::to_string).collect();
    let mut done = Resumed { group: name.clone(), ended, is_dry_run: args.dry_run, waiting: Vec::new() };
    let Some(timeout) = args.wait.filter(|_| !args.dry_run) else { return Ok(Outcome::Done(done)) };
    let count = block_in_place(|| args.group.partitions(&kafka.control))?;
    let deadline = Instant::now() + timeout;
    loop {
        done.waiting = block_in_place(|| {
            let controls = kafka.control.controls()?;
            let named = (0..count).filter(|partition| args.partition.is_none_or(|named| named == *partition));
            let is_paused = |partition: &i32| controls.ack(name, *partition).is_some();
            let is_running = kafka.admin.has_members(&args.kafka.prefixed(name))?;
            // Without members nothing is paused any more: the next ones just start.
            anyhow::Ok(named.filter(|partition| is_running && is_paused(partition)).collect())
        })?;
        if done.waiting.is_empty() {
            return Ok(Outcome::Done(done));
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::Waiting(done));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
