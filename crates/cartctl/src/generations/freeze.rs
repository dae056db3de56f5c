//! Stops two groups at one offset a partition, and lets them go on.
//!
//! Both are paused where they are. The further one of each partition gives the offset at which both are to stand: the other goes
//! on up to it. No member can come past it, since its pause names that offset before the first pause ends.
//!
//! A pause of an operator is never ended: one that came before, since the groups were looked at, or that comes meanwhile. It is found
//! in the control topic, fails what is not done yet, and holds in the end.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use cart::contract::Contract as _;
use cart::{Control, ControlKey, ControlRecord, Generation, PurchasedItem};
use control::{Controls, Pause, Temporary, signed};
use kafka::GroupProgress;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::operate::Kafka;

/// Members pause between two batches, and the group that is behind has at most seconds to catch up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks whether the members follow.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Rounds in which pauses are ended and the topic is read again. Each but the first two is for an operator who has paused a group in the
/// moment between.
const THAW_ROUNDS: u32 = 5;

/// Digits and hyphens of a run.
const RUN_LEN: usize = 36;

/// The reason of each pause begins with it. Pauses of a switch that has died are known by it.
const REASON: &str = "cartctl switch";

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

/// The run whose pause has this reason.
pub(super) fn run_of(reason: &str) -> Option<Uuid> {
    let (_, run) = reason.strip_prefix(REASON)?.split_once(Target::RUN)?;
    run.get(..RUN_LEN)?.parse().ok()
}

/// An operator has paused one of the groups.
#[derive(Debug, thiserror::Error)]
#[error("{group} is paused by {by} ({reason}): run `cartctl resume {group}` first")]
pub(super) struct PausedByOther {
    group: String,
    by: String,
    reason: String,
}

/// Stops and resumes groups in the name of an operator.
pub(super) struct Freezer<'a> {
    pub(super) kafka: &'a Kafka,
    pub(super) partitions: i32,
    pub(super) by: &'a str,
    /// Why, for the log: see [`Target::reason`].
    pub(super) reason: String,
    /// The runs whose pauses are its own: its run, and those that it has taken over.
    pub(super) runs: BTreeSet<Uuid>,
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
    ///
    /// # Errors
    /// [`PausedByOther`], and if the members do not follow.
    pub(super) async fn freeze(&self, groups: [&str; 2]) -> anyhow::Result<Frozen> {
        // A pause that was recorded since the groups were looked at is not to be replaced, even for a moment.
        self.look(groups)?;
        let mut reached = [BTreeMap::new(), BTreeMap::new()];
        let mut pauses = [Pauses::new(), Pauses::new()];
        for (group, pauses) in groups.iter().zip(&mut pauses) {
            let key = ControlKey::PauseGroup { group: (*group).to_owned() };
            let pause = self.send(&key, Control::Pause { before_offset: None }).await?;
            *pauses = (0..self.partitions).map(|partition| (partition, pause)).collect();
        }
        for ((index, pauses), reached) in (0..).zip(&pauses).zip(&mut reached) {
            *reached = self.followed(groups, index, pauses, |_| false).await?;
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
        let look = self.look(groups)?;
        let standing: Vec<i32> = cut
            .iter()
            .filter(|(partition, before)| {
                let is_stopped = look.all().stop(groups[0], **partition).is_some_and(|stop| stop.offset < **before);
                first[partition] < **before && is_stopped
            })
            .map(|(partition, _)| *partition)
            .collect();
        let mut behind = Vec::new();
        for (index, (group, pauses)) in groups.iter().zip(&pauses).enumerate() {
            let may_stand = |partition| index == 0 && standing.contains(&partition);
            let reached = self.followed(groups, index, pauses, may_stand).await?;
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
    ///
    /// # Errors
    /// [`PausedByOther`], and if Kafka does not respond.
    pub(super) fn still_holds(&self, groups: [&str; 2], frozen: &Frozen) -> anyhow::Result<bool> {
        let look = self.look(groups)?;
        Ok(groups.iter().zip(&frozen.pauses).all(|(group, pauses)| lost(look.all(), group, pauses).is_none()))
    }

    /// What holds, unless an operator has paused one of the groups.
    fn look(&self, groups: [&str; 2]) -> anyhow::Result<Temporary> {
        let look = self.controls()?;
        match paused_by_other(look.others(), groups, self.partitions) {
            Some(pause) => Err(pause.into()),
            None => Ok(look),
        }
    }

    fn controls(&self) -> anyhow::Result<Temporary> {
        Ok(block_in_place(|| self.kafka.control.temporary(|record| is_of(record, &self.runs)))?)
    }

    /// Waits until each partition's member has paused, and returns where. Without members a group stands where it has committed.
    async fn followed(
        &self,
        groups: [&str; 2],
        index: usize,
        pauses: &Pauses,
        may_stand: impl Fn(i32) -> bool,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let group = groups[index];
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let has_members = block_in_place(|| self.kafka.admin.has_members(&self.kafka.args.prefixed(group)))?;
            let look = self.look(groups)?;
            if let Some(partition) = lost(look.all(), group, pauses) {
                bail!("the pause of partition {partition} of {group} was ended by others");
            }
            let reached = acknowledged(look.all(), group, pauses);
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

    /// Ends the pauses of its runs. Returns what others have paused of these groups, which holds.
    ///
    /// # Errors
    /// If Kafka does not respond, or operators pause and pause again: then some pauses may be left.
    pub(super) async fn thaw(&self, groups: &[&str]) -> anyhow::Result<Vec<String>> {
        for _ in 0..THAW_ROUNDS {
            let look = self.controls()?;
            let left = look.to_restore();
            if left.is_empty() {
                return Ok(paused(look.others(), groups));
            }
            for (key, pause) in left {
                match pause {
                    Some(pause) => self.kafka.control.send(&key, Some(&pause)).await?,
                    None => self.send(&key, Control::Resume {}).await?,
                };
            }
        }
        bail!("pauses were recorded by others while these were ended, {THAW_ROUNDS} times in a row")
    }

    async fn send(&self, key: &ControlKey, control: Control) -> Result<i64, kafka::Error> {
        self.kafka.control.send(key, Some(&signed(self.by, &self.reason, control))).await
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

/// A partition whose pause was ended or replaced: these are not the last records of their keys any more.
fn lost(controls: &Controls, group: &str, pauses: &Pauses) -> Option<i32> {
    let holds = |(partition, pause): &(&i32, &i64)| {
        controls.pause(group, **partition).is_some_and(|found| found.entry.offset == **pause)
    };
    pauses.iter().find(|pause| !holds(pause)).map(|(partition, _)| *partition)
}

/// Whether a record was written by one of these runs.
fn is_of(record: &ControlRecord, runs: &BTreeSet<Uuid>) -> bool {
    run_of(&record.reason).is_some_and(|run| runs.contains(&run))
}

/// The first pause of one of these groups.
fn paused_by_other(others: &Controls, groups: [&str; 2], partitions: i32) -> Option<PausedByOther> {
    groups.into_iter().find_map(|group| {
        let ControlRecord { by, reason, .. } =
            &(0..partitions).find_map(|partition| others.pause(group, partition))?.entry.record;
        Some(PausedByOther { group: group.to_owned(), by: by.clone(), reason: reason.clone() })
    })
}

/// The pauses of these groups, with who and why.
fn paused(others: &Controls, groups: &[&str]) -> Vec<String> {
    let of_groups = others.pauses().filter(|(group, ..)| groups.contains(group));
    let text = |(group, partition, pause): (&str, Option<i32>, Pause<'_>)| {
        let ControlRecord { by, reason, .. } = &pause.entry.record;
        let partition = partition.map(|partition| format!(", partition {partition},")).unwrap_or_default();
        format!("{group}{partition} by {by} ({reason})")
    };
    of_groups.map(text).collect()
}

/// The reasons of the pauses of these groups that are of a switch.
pub(super) fn pauses(kafka: &Kafka, groups: &[&str]) -> anyhow::Result<Vec<String>> {
    let controls = block_in_place(|| kafka.control.controls())?;
    Ok(groups.iter().flat_map(|group| pauses_of_switch(&controls, group)).collect())
}

fn pauses_of_switch(controls: &Controls, group: &str) -> Vec<String> {
    let of_partitions = controls.paused_partitions(group).into_iter();
    let of_partitions = of_partitions.filter_map(|partition| controls.pause_of_partition(group, partition));
    let all = controls.pause_of_group(group).into_iter().chain(of_partitions);
    let reasons = all.map(|pause| &pause.entry.record.reason);
    reasons.filter(|reason| run_of(reason).is_some()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_of_a_switch_and_of_a_run_are_known_by_their_reason() {
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
            let pause = signed("ops", reason, Control::Pause { before_offset: None });
            controls.apply(offset, key.parse().expect("a key"), Some(pause));
        }
        assert_eq!(pauses_of_switch(&controls, "a"), [of_switch.clone(), of_other.clone()]);
        assert_eq!(pauses_of_switch(&controls, "c"), [] as [String; 0]);
        let is_own = |reason: &str, runs: &[Uuid]| {
            let runs = runs.iter().copied().collect();
            is_of(&signed("ops", reason, Control::Resume {}), &runs)
        };
        assert!(is_own(&of_switch, &[run]) && is_own(&of_other, &[run, other]) && !is_own(&of_other, &[run]));
        assert!(!is_own("index build", &[run, other]) && !is_own("cartctl switch", &[run]));
    }

    #[test]
    fn a_pause_by_an_operator_is_named() {
        let mut controls = Controls::default();
        assert!(paused_by_other(&controls, ["a", "b"], 3).is_none());
        let pause = signed("ops", "index build", Control::Pause { before_offset: None });
        controls.apply(0, "pause/b/2".parse().expect("a key"), Some(pause));
        let found = paused_by_other(&controls, ["a", "b"], 3).map(|pause| pause.to_string());
        assert_eq!(found.as_deref(), Some("b is paused by ops (index build): run `cartctl resume b` first"));
        let both = signed("ann", "load", Control::Pause { before_offset: None });
        controls.apply(1, "pause/b".parse().expect("a key"), Some(both));
        assert_eq!(paused(&controls, &["a", "b"]), ["b by ann (load)", "b, partition 2, by ops (index build)"]);
        assert_eq!(paused(&controls, &["a"]), [] as [String; 0]);
    }

    #[test]
    fn a_pause_that_was_replaced_or_ended_is_lost() {
        let mut controls = Controls::default();
        let record = |control| Some(signed("ops", "", control));
        let key = |text: &str| -> ControlKey { text.parse().expect("a key") };
        controls.apply(3, key("pause/a"), record(Control::Pause { before_offset: None }));
        let of_group = BTreeMap::from([(0, 3), (1, 3)]);
        assert_eq!(lost(&controls, "a", &of_group), None);
        controls.apply(4, key("pause/a/1"), record(Control::Pause { before_offset: Some(7) }));
        controls.apply(5, key("pause/a"), record(Control::Resume {}));
        assert_eq!(lost(&controls, "a", &of_group), Some(0), "ended");
        assert_eq!(lost(&controls, "a", &BTreeMap::from([(1, 4)])), None);
        controls.apply(6, key("pause/a/1"), record(Control::Pause { before_offset: Some(9) }));
        assert_eq!(lost(&controls, "a", &BTreeMap::from([(1, 4)])), Some(1), "replaced");
    }

    #[test]
    fn an_answer_to_an_earlier_pause_does_not_count() {
        let mut controls = Controls::default();
        for (partition, pause, next_offset) in [(0, 7, 100), (1, 6, 50)] {
            let ack = signed("member", "", Control::Paused { pause, next_offset });
            controls.apply(partition + 10, format!("ack/a/{partition}").parse().expect("a key"), Some(ack));
        }
        let found = acknowledged(&controls, "a", &BTreeMap::from([(0, 7), (1, 7), (2, 7)]));
        assert_eq!(found, BTreeMap::from([(0, 100)]));
    }
}
