//! `cartctl pause`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cart::{Control, ControlKey};
use control::Controls;
use kafka::GroupProgress;
use serde::Serialize;
use tokio::task::block_in_place;

use super::args::PauseArgs;
use super::group::{Cut, Group};
use super::{Kafka, Outcome, partitions, record};

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
    let Group { name, stage } = &args.group;
    let count = block_in_place(|| kafka.admin.partitions(&args.kafka.prefixed(stage.topic)))?;
    let controls = block_in_place(|| kafka.control.controls())?;
    if let Some(reason) = block_in_place(|| refusal(args, &kafka, &controls, count))? {
        return Ok(Outcome::Refused(reason));
    }
    let group = || name.clone();
    let of = |partition| ControlKey::PausePartition { group: group(), partition };
    let wanted: Vec<(ControlKey, Option<i64>, Vec<i32>)> = match args.partition {
        Some(partition) => vec![(of(partition), None, vec![partition])],
        None if args.at_offset.is_empty() => {
            vec![(ControlKey::PauseGroup { group: group() }, None, (0..count).collect())]
        }
        None => {
            let cut = |Cut { partition, offset }: &Cut| (of(*partition), Some(*offset), vec![*partition]);
            args.at_offset.iter().map(cut).collect()
        }
    };
    let mut pauses = BTreeMap::new();
    for (key, before_offset, partitions) in wanted {
        let record = record(&args.signed.by, &args.signed.reason, Control::Pause { before_offset });
        let pause = if args.dry_run { 0 } else { kafka.control.send(&key, Some(&record)).await? };
        pauses.extend(partitions.into_iter().map(|partition| (partition, pause)));
    }
    let mut done = Paused {
        group: name.clone(),
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

fn refusal(args: &PauseArgs, kafka: &Kafka, controls: &Controls, count: i32) -> anyhow::Result<Option<String>> {
    let Group { name, stage } = &args.group;
    let named = args.at_offset.iter().map(|cut| cut.partition).chain(args.partition);
    if let Some(partition) = named.clone().find(|partition| *partition >= count) {
        return Ok(Some(format!("topic {} has partitions 0 to {}, not {partition}", stage.topic, count - 1)));
    }
    if named.clone().next().is_none() {
        return Ok(None);
    }
    if let Some(pause) = controls.pause_of_group(name) {
        let by = &pause.entry.record.by;
        return Ok(Some(format!("{name} is paused as a whole by {by}: resume it first")));
    }
    if args.at_offset.is_empty() {
        return Ok(None);
    }
    let (group, topic) = (args.kafka.prefixed(name), args.kafka.prefixed(stage.topic));
    let committed = GroupProgress::new(&kafka.args, &group, &topic)?.committed(named)?;
    let past = args.at_offset.iter().find_map(|Cut { partition, offset }| {
        committed.get(partition).filter(|next| *next > offset).map(|next| (partition, offset, next))
    });
    Ok(past.map(|(partition, offset, next)| {
        format!("partition {partition} of {name} has applied offset {offset}: it goes on at {next}")
    }))
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
