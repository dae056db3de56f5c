//! Stops two groups at one offset a partition, and lets them go on.
//!
//! Both are paused where they are. The further one of each partition gives the offset at which both are to stand: the other goes
//! on up to it. No member can come past it, since its pause names that offset before the first pause ends.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use cart::contract::Contract as _;
use cart::{Control, ControlKey, ControlRecord, Generation, PurchasedItem};
use control::Controls;
use kafka::GroupProgress;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::operate::{Kafka, record};

/// Members pause between two batches, and the group that is behind has at most seconds to catch up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks whether the members follow.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The reason of each pause begins with it. Pauses of a switch that has died are known by it.
const REASON: &str = "cartctl switch";

/// Whether a pause is one of a switch.
pub(super) fn is_of_switch(reason: &str) -> bool {
    reason.starts_with(REASON)
}

/// A switch, as the reason of its pauses names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) model: &'static str,
    pub(super) to: Generation,
    pub(super) is_back: bool,
}

impl Target {
    const RUN: &str = ", run ";

    /// What a run gives as the reason of its pauses.
    pub(super) fn reason(&self, run: Uuid, why: &str) -> String {
        let reason = format!("{self}{}{run}", Self::RUN);
        if why.is_empty() { reason } else { format!("{reason}: {why}") }
    }

    /// Whether a pause is one of a switch to this generation, in the same direction.
    pub(super) fn is_of(&self, reason: &str) -> bool {
        reason.strip_prefix(&self.to_string()).is_some_and(|rest| rest.starts_with(Self::RUN))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, to, is_back } = self;
        write!(f, "{REASON} of {model}{} to generation {to}", if *is_back { " back" } else { "" })
    }
}

/// Whose pauses are meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Run {
    /// Those of all runs: those that have died, and this one.
    All,
    Only(Uuid),
}

impl Run {
    fn has_made(self, reason: &str) -> bool {
        is_of_switch(reason)
            && match self {
                Self::All => true,
                Self::Only(run) => reason.contains(&format!("{}{run}", Target::RUN)),
            }
    }
}

/// Stops and resumes groups in the name of an operator.
pub(super) struct Freezer<'a> {
    pub(super) kafka: &'a Kafka,
    pub(super) partitions: i32,
    pub(super) by: &'a str,
    /// Why, for the log: see [`Target::reason`].
    pub(super) reason: String,
}

/// The offset of a pause on the control topic, by partition.
type Pauses = BTreeMap<i32, i64>;

/// Two groups that stand still.
#[derive(Debug)]
pub(super) struct Frozen {
    pauses: [Pauses; 2],
    /// Partitions in which the first group does not run and stands further back.
    pub(super) behind: Vec<i32>,
}

impl Freezer<'_> {
    /// Stops both groups at one offset a partition. Where the first one does not run, since it has no member or is stopped at a
    /// record, it may stand further back; what a member that has died wrote without committing it, is in its rows nevertheless. The
    /// second one must run.
    pub(super) async fn freeze(&self, groups: [&str; 2]) -> anyhow::Result<Frozen> {
        let mut reached = [BTreeMap::new(), BTreeMap::new()];
        let mut pauses = [Pauses::new(), Pauses::new()];
        for (group, pauses) in groups.iter().zip(&mut pauses) {
            let key = ControlKey::PauseGroup { group: (*group).to_owned() };
            let pause = self.send(&key, Control::Pause { before_offset: None }).await?;
            *pauses = (0..self.partitions).map(|partition| (partition, pause)).collect();
        }
        for ((group, pauses), reached) in groups.iter().zip(&pauses).zip(&mut reached) {
            *reached = self.followed(group, pauses, |_| false).await?;
        }
        let [first, second] = &reached;
        let cut: BTreeMap<i32, i64> =
            first.iter().map(|(partition, next)| (*partition, (*next).max(second[partition]))).collect();
        for (group, pauses) in groups.iter().zip(&mut pauses) {
            for (partition, before) in &cut {
                let key = ControlKey::PausePartition { group: (*group).to_owned(), partition: *partition };
                pauses.insert(*partition, self.send(&key, Control::Pause { before_offset: Some(*before) }).await?);
            }
            self.send(&ControlKey::PauseGroup { group: (*group).to_owned() }, Control::Resume {}).await?;
        }
        let controls = block_in_place(|| self.kafka.control.controls())?;
        let standing: Vec<i32> = cut
            .iter()
            .filter(|(partition, before)| {
                let is_stopped = controls.stop(groups[0], **partition).is_some_and(|stop| stop.offset < **before);
                first[partition] < **before && is_stopped
            })
            .map(|(partition, _)| *partition)
            .collect();
        let mut behind = Vec::new();
        for (index, (group, pauses)) in groups.iter().zip(&pauses).enumerate() {
            let may_stand = |partition| index == 0 && standing.contains(&partition);
            let reached = self.followed(group, pauses, may_stand).await?;
            let past = reached.iter().find(|(partition, next)| **next > cut[partition]);
            if let Some((partition, next)) = past {
                bail!("partition {partition} of {group} is at {next}, past {}", cut[partition]);
            }
            let has_members = block_in_place(|| self.kafka.admin.has_members(&self.kafka.args.prefixed(group)))?;
            ensure!(index == 0 || has_members, "{group} does not run any more");
            if !has_members {
                behind.extend(reached.iter().filter(|(partition, next)| **next < cut[partition]).map(|(p, _)| *p));
            }
        }
        behind.extend(standing);
        Ok(Frozen { pauses, behind })
    }

    /// Whether no other process has ended or replaced the pauses since.
    pub(super) fn still_holds(&self, groups: [&str; 2], frozen: &Frozen) -> anyhow::Result<bool> {
        let controls = block_in_place(|| self.kafka.control.controls())?;
        Ok(groups.iter().zip(&frozen.pauses).all(|(group, pauses)| {
            pauses.iter().all(|(partition, pause)| {
                controls.pause(group, *partition).is_some_and(|found| found.entry.offset == *pause)
            })
        }))
    }

    /// Waits until each partition's member has paused, and returns where. Without members a group stands where it has committed.
    async fn followed(
        &self,
        group: &str,
        pauses: &Pauses,
        may_stand: impl Fn(i32) -> bool,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (controls, has_members) = block_in_place(|| {
                let has_members = self.kafka.admin.has_members(&self.kafka.args.prefixed(group))?;
                anyhow::Ok((self.kafka.control.controls()?, has_members))
            })?;
            let reached = acknowledged(&controls, group, pauses);
            let is_missing = |partition: &&i32| !reached.contains_key(partition) && !may_stand(**partition);
            let missing: Vec<_> = pauses.keys().filter(is_missing).collect();
            if missing.is_empty() {
                return Ok(reached);
            }
            if !has_members {
                let mut committed = block_in_place(|| self.committed(group))?;
                committed.extend(reached);
                return Ok(committed);
            }
            ensure!(
                Instant::now() < deadline,
                "partitions {missing:?} of {group} have not paused within {} s: `cartctl status` shows what they do",
                TIMEOUT.as_secs()
            );
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    fn committed(&self, group: &str) -> Result<BTreeMap<i32, i64>, kafka::Error> {
        let (group, topic) = (self.kafka.args.prefixed(group), self.kafka.args.prefixed(PurchasedItem::TOPIC));
        let progress = GroupProgress::new(&self.kafka.args, &group, &topic)?;
        let mut committed = progress.committed(0..self.partitions)?;
        for partition in 0..self.partitions {
            if let Entry::Vacant(entry) = committed.entry(partition) {
                entry.insert(progress.bounds(partition)?.0);
            }
        }
        Ok(committed)
    }

    /// Ends the pauses that switches have made of these groups.
    pub(super) async fn thaw(&self, groups: &[&str], of: Run) -> anyhow::Result<()> {
        for (key, _) in pauses(self.kafka, groups, of)? {
            self.send(&key, Control::Resume {}).await?;
        }
        Ok(())
    }

    async fn send(&self, key: &ControlKey, control: Control) -> Result<i64, kafka::Error> {
        self.kafka.control.send(key, Some(&record(self.by, &self.reason, control))).await
    }
}

/// Where each partition's member stands that has answered these pauses.
fn acknowledged(controls: &Controls, group: &str, pauses: &Pauses) -> BTreeMap<i32, i64> {
    let ack = |(partition, pause): (&i32, &i64)| {
        let ack = controls.ack(group, *partition).filter(|ack| ack.pause == *pause)?;
        Some((*partition, ack.next_offset))
    };
    pauses.iter().filter_map(ack).collect()
}

/// The pauses of these groups that are of a switch.
pub(super) fn pauses(kafka: &Kafka, groups: &[&str], of: Run) -> anyhow::Result<Vec<(ControlKey, ControlRecord)>> {
    let controls = block_in_place(|| kafka.control.controls())?;
    Ok(groups.iter().flat_map(|group| pauses_of_switch(&controls, group, of)).collect())
}

fn pauses_of_switch(controls: &Controls, group: &str, of: Run) -> Vec<(ControlKey, ControlRecord)> {
    let of_group =
        controls.pause_of_group(group).map(|pause| (ControlKey::PauseGroup { group: group.to_owned() }, pause));
    let of_partitions = controls.paused_partitions(group).into_iter().filter_map(|partition| {
        let key = ControlKey::PausePartition { group: group.to_owned(), partition };
        controls.pause_of_partition(group, partition).map(|pause| (key, pause))
    });
    let all = of_group.into_iter().chain(of_partitions);
    let all = all.map(|(key, pause)| (key, pause.entry.record.clone()));
    all.filter(|(_, record)| of.has_made(&record.reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pauses_of_a_switch_are_ended() {
        let mut controls = Controls::default();
        let [second, twentieth] = [2, 20].map(|number| Generation::new(number).expect("a generation"));
        let to = |to| Target { model: "popular-items", to, is_back: false };
        let (run, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of_switch = to(twentieth).reason(run, "a new rule");
        assert!(to(twentieth).is_of(&of_switch) && !to(second).is_of(&of_switch));
        assert!(!Target { is_back: true, ..to(twentieth) }.is_of(&of_switch));
        let of_other = to(second).reason(other, "");
        assert!(to(second).is_of(&of_other));
        let pauses =
            [("pause/a", &*of_switch), ("pause/a/1", "index build"), ("pause/a/2", &of_other), ("pause/b", &of_switch)];
        for (offset, (key, reason)) in (0..).zip(pauses) {
            let pause = record("ops", reason, Control::Pause { before_offset: None });
            controls.apply(offset, key.parse().expect("a key"), Some(pause));
        }
        let keys = |group, of| -> Vec<String> {
            pauses_of_switch(&controls, group, of).iter().map(|(key, _)| key.to_string()).collect()
        };
        assert_eq!(keys("a", Run::All), ["pause/a", "pause/a/2"]);
        assert_eq!(keys("a", Run::Only(run)), ["pause/a"]);
        assert_eq!(keys("c", Run::All), [] as [String; 0]);
    }

    #[test]
    fn an_answer_to_an_earlier_pause_does_not_count() {
        let mut controls = Controls::default();
        for (partition, pause, next_offset) in [(0, 7, 100), (1, 6, 50)] {
            let ack = record("member", "", Control::Paused { pause, next_offset });
            controls.apply(partition + 10, format!("ack/a/{partition}").parse().expect("a key"), Some(ack));
        }
        let found = acknowledged(&controls, "a", &BTreeMap::from([(0, 7), (1, 7), (2, 7)]));
        assert_eq!(found, BTreeMap::from([(0, 100)]));
    }
}
