//! `cartctl pause`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cart::Control;
use control::{Group, PauseRequest, signed};
use serde::Serialize;
use tokio::task::block_in_place;

use super::args::PauseArgs;
use super::{Kafka, Outcome, partitions};

/// Between two looks whether the members follow.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What was recorded, and which members have followed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    group: String,
    /// Whether nothing was recorded (`--dry-run`).
    is_dry_run: bool,
    /// The offsets before which partitions are paused, if any were named.
    before: BTreeMap<i32, i64>,
    /// The committed offsets of the partitions whose members have paused.
    paused: BTreeMap<i32, i64>,
    /// Partitions whose members have not paused yet.
    waiting: Vec<i32>,
    /// Partitions without a member: their next one is paused.
    without_member: Vec<i32>,
    is_waited_for: bool,
}

impl fmt::Display for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dry_run {
            return write!(f, "{} would be paused; nothing was recorded (--dry-run)", self.group);
        }
        if !self.is_waited_for {
            return write!(f, "{} is to pause; `cartctl status` shows when its members have", self.group);
        }
        write!(f, "{} is paused", self.group)?;
        for (partition, next) in &self.paused {
            write!(f, "\n  partition {partition}: next offset {next}")?;
        }
        if !self.without_member.is_empty() {
            write!(f, "\n  no member has {}: the next one is paused", partitions(self.without_member.iter().copied()))?;
        }
        if !self.waiting.is_empty() {
            write!(f, "\n  not paused in time: {}", partitions(self.waiting.iter().copied()))?;
        }
        Ok(())
    }
}

/// Pauses a group or its partitions.
///
/// # Errors
/// Kafka or the registry does not respond.
pub async fn pause(args: &PauseArgs) -> anyhow::Result<Outcome<Paused>> {
    let kafka = Kafka::connect(&args.kafka).await?;
    let request = PauseRequest { group: &args.group, partition: args.partition, cuts: &args.at_offset };
    let count = block_in_place(|| args.group.partitions(&kafka.control))?;
    let controls = block_in_place(|| kafka.control.controls())?;
    if let Some(reason) = block_in_place(|| request.refusal(&kafka.control, &controls, count))? {
        return Ok(Outcome::Refused(reason));
    }
    let mut pauses = BTreeMap::new();
    for wanted in request.wanted(count) {
        let control = Control::Pause { before_offset: wanted.before };
        let record = signed(&args.signed.by, &args.signed.reason, control);
        let pause = if args.dry_run { 0 } else { kafka.control.send(&wanted.key, Some(&record)).await? };
        pauses.extend(wanted.partitions.into_iter().map(|partition| (partition, pause)));
    }
    let mut done = Paused {
        group: args.group.name.clone(),
        is_dry_run: args.dry_run,
        before: args.at_offset.iter().map(|cut| (cut.partition, cut.offset)).collect(),
        paused: BTreeMap::new(),
        waiting: pauses.keys().copied().collect(),
        without_member: Vec::new(),
        is_waited_for: false,
    };
    let Some(timeout) = args.wait.filter(|_| !args.dry_run) else { return Ok(Outcome::Done(done)) };
    done.is_waited_for = true;
    let deadline = Instant::now() + timeout;
    loop {
        block_in_place(|| look(&kafka, &args.group, &pauses, &mut done))?;
        if done.waiting.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::Waiting(done));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let past = done.paused.iter().find_map(|(partition, next)| {
        done.before.get(partition).filter(|before| next > before).map(|before| (*partition, *next, *before))
    });
    Ok(match past {
        None => Outcome::Done(done),
        Some((partition, next, before)) => Outcome::Refused(format!(
            "partition {partition} had applied offset {before} before it learnt of the pause, and is paused at {next}: resume it, \
             and name an offset further ahead"
        )),
    })
}

/// Notes which members have paused for these pauses, by partition.
fn look(kafka: &Kafka, of: &Group, pauses: &BTreeMap<i32, i64>, done: &mut Paused) -> anyhow::Result<()> {
    let Group { name, stage } = of;
    let group = kafka.args.prefixed(name);
    let controls = kafka.control.controls()?;
    for (partition, pause) in pauses {
        if let Some(ack) = controls.ack(name, *partition).filter(|ack| ack.pause == *pause) {
            done.paused.insert(*partition, ack.next_offset);
        }
    }
    let owners = kafka.admin.owners(&group, &kafka.args.prefixed(stage.topic)).context("listing the members")?;
    // While a group rebalances its members have no partitions, and will.
    let is_running = kafka.admin.has_members(&group)?;
    let missing = pauses.keys().filter(|partition| !done.paused.contains_key(partition)).copied();
    let (waiting, without) = missing.partition(|partition| is_running || owners.contains_key(partition));
    (done.waiting, done.without_member) = (waiting, without);
    Ok(())
}
