//! What the readers have found out, for the frames. Each part has its own lock, and a thread holds one
//! at a time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cart::contract::{Contract as _, READ_MODELS, ReadTable, STAGES, Stage};
use cart::{CartCommand, CartEvent, Generation, PurchasedItem};
use serde::Serialize;

use crate::backlog::{Backlog, Behind, Lag};
use crate::health::Health;
use crate::journeys::Journeys;
use crate::ledger::Ledger;
use crate::operations::Operations;
use crate::parked_rows::ParkedRows;
use crate::read_models::KnownModel;
use crate::sales::Sales;
use crate::times::Times;
use crate::traffic::Traffic;

/// The steps whose time is measured.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// From the command's record to its reply.
    pub(crate) outcome: Times,
    /// From the command's record to each of its events.
    pub(crate) event: Times,
    /// From a purchase's event to its record for the vendors.
    pub(crate) purchase: Times,
}

/// What was found out about consumer groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The records of each topic of `STAGES`.
    pub(crate) topics: BTreeMap<&'static str, Backlog>,
    /// The next offsets of each group by partition, in the order of `STAGES`; none if they could not be read.
    committed: [Option<BTreeMap<i32, i64>>; STAGES.len()],
    /// How far each group was behind when its offsets were read.
    pub(crate) lags: [Option<Lag>; STAGES.len()],
    /// How many of the records that this process has read each group had processed then: its growth is the group's rate.
    pub(crate) processed: [Option<usize>; STAGES.len()],
    /// The client ids of each group's members by partition, as they were last listed.
    owners: [BTreeMap<i32, String>; STAGES.len()],
    /// The groups that keep generations of read tables, by name.
    generations: BTreeMap<String, GenerationProgress>,
}

/// How far the group of a generation is.
#[derive(Debug)]
struct GenerationProgress {
    /// The next offsets by partition.
    committed: BTreeMap<i32, i64>,
    /// As it was when the offsets were read; unknown while the topic is still being read.
    behind: Option<Behind>,
}

/// How far a group is in a partition, and the member that has it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionState {
    partition: i32,
    /// Unknown where the group has committed none.
    next_offset: Option<i64>,
    lag: Lag,
    owner: Option<String>,
}

impl Groups {
    /// Notes what a group has committed now, and how far it is behind with that.
    pub(crate) fn note(&mut self, index: usize, committed: Option<BTreeMap<i32, i64>>, now_ms: i64) {
        let backlog = self.topics.get(STAGES[index].topic);
        let lag = backlog.and_then(|backlog| backlog.lag(committed.as_ref()?, now_ms));
        self.processed[index] = backlog.zip(lag).map(|(backlog, lag)| backlog.read().saturating_sub(lag.behind));
        self.lags[index] = lag;
        self.committed[index] = committed;
        self.trim();
    }

    /// Notes what the group of a generation has committed now; `None`: it is not known.
    pub(crate) fn note_generation(&mut self, group: String, committed: Option<BTreeMap<i32, i64>>) {
        let Some(committed) = committed else {
            self.generations.remove(&group);
            return;
        };
        let behind = self.topics.get(PurchasedItem::TOPIC).and_then(|backlog| backlog.behind(&committed));
        self.generations.insert(group, GenerationProgress { committed, behind });
    }

    /// Forgets the other groups of generations: they were dropped, or nothing is known of them any more.
    pub(crate) fn retain_generations(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.generations.retain(|group, _| is_kept(group));
    }

    /// How far the group of a generation is behind.
    pub(crate) fn behind(&self, group: &str) -> Option<Behind> {
        self.generations.get(group)?.behind
    }

    /// Notes which members a group has.
    pub(crate) fn note_owners(&mut self, index: usize, owners: BTreeMap<i32, String>) {
        self.owners[index] = owners;
    }

    /// A group's partitions; `None` while its offsets or its lag are not known.
    pub(crate) fn partitions(&self, index: usize, now_ms: i64) -> Option<Vec<PartitionState>> {
        let committed = self.committed[index].as_ref()?;
        let lags = self.topics.get(STAGES[index].topic)?.lags(committed, now_ms)?;
        let state = |(partition, lag)| PartitionState {
            partition,
            next_offset: committed.get(&partition).copied(),
            lag,
            owner: self.owners[index].get(&partition).cloned(),
        };
        Some(lags.map(state).collect())
    }

    /// Drops the records that all groups of a topic have processed, of all generations.
    fn trim(&mut self) {
        for (topic, backlog) in &mut self.topics {
            let groups = STAGES.iter().zip(&self.committed).filter(|(stage, _)| stage.topic == *topic);
            let committed: Option<Vec<&BTreeMap<i32, i64>>> = groups.map(|(_, next)| next.as_ref()).collect();
            if let Some(mut committed) = committed {
                if *topic == PurchasedItem::TOPIC {
                    committed.extend(self.generations.values().map(|generation| &generation.committed));
                }
                backlog.trim(committed.into_iter());
            }
        }
    }
}

/// What a table says of a vendor's balance.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cell {
    pub(crate) balance: Option<rust_decimal::Decimal>,
    #[serde(flatten)]
    pub(crate) compared: crate::ledger::Compared,
}

/// A vendor's balance of a month, three times.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BalanceLine {
    pub(crate) vendor_id: cart::VendorId,
    pub(crate) month: String,
    pub(crate) counted: rust_decimal::Decimal,
    pub(crate) cassandra: Option<Cell>,
    pub(crate) postgres: Option<Cell>,
}

/// What the last audit said.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastAudit {
    pub(crate) audits: u64,
    pub(crate) failures: u64,
    pub(crate) findings: u64,
    pub(crate) commands: u64,
    /// `None` before the first has ended.
    pub(crate) completed_at_ms: Option<u64>,
}

/// How far the reading of a topic's past has come, in records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CatchingUp {
    pub(crate) done: i64,
    pub(crate) of: i64,
}

/// All parts.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) health: Health,
    traffic: Mutex<Traffic>,
    steps: Mutex<Steps>,
    sales: Mutex<Sales>,
    ledger: Mutex<Ledger>,
    journeys: Mutex<Journeys>,
    groups: Mutex<Groups>,
    balances: Mutex<Vec<BalanceLine>>,
    audit: Mutex<Option<LastAudit>>,
    /// Pauses, skips and parked carts; nothing before the first look.
    operations: Mutex<Option<Operations>>,
    /// Parked rows; nothing before the first look.
    parked_rows: Mutex<Option<ParkedRows>>,
    /// What is known of each read model's generations; none before the first look.
    read_models: Mutex<Vec<KnownModel>>,
    /// The generations that readers see; the first one where nothing is known yet.
    generations: Mutex<BTreeMap<ReadTable, Generation>>,
    /// The topics whose past is being read.
    reading: Mutex<BTreeMap<&'static str, CatchingUp>>,
    /// The commands in the log.
    log_len: Mutex<Option<i64>>,
}

macro_rules! parts {
    ($($name:ident: $part:ty),+ $(,)?) => {
        impl Board {
            $(pub(crate) fn $name(&self) -> MutexGuard<'_, $part> {
                self.$name.lock().unwrap_or_else(PoisonError::into_inner)
            })+
        }
    };
}

parts! {
    traffic: Traffic,
    steps: Steps,
    sales: Sales,
    ledger: Ledger,
    journeys: Journeys,
    groups: Groups,
    balances: Vec<BalanceLine>,
    audit: Option<LastAudit>,
    operations: Option<Operations>,
    parked_rows: Option<ParkedRows>,
    read_models: Vec<KnownModel>,
    generations: BTreeMap<ReadTable, Generation>,
    reading: BTreeMap<&'static str, CatchingUp>,
    log_len: Option<i64>,
}

impl Board {
    /// The generation of a table that readers see.
    pub(crate) fn generation(&self, table: ReadTable) -> Generation {
        self.generations().get(&table).copied().unwrap_or(Generation::FIRST)
    }

    /// The generation that a stage keeps, if it keeps a read table.
    pub(crate) fn generation_of(&self, stage: &Stage) -> Option<Generation> {
        let model = READ_MODELS.iter().find(|model| model.group == stage.group)?;
        Some(self.generation(model.table))
    }

    /// The group of a stage, without the installation's prefix: of a read table the one whose generation readers see.
    pub(crate) fn group(&self, stage: &Stage) -> String {
        let model = READ_MODELS.iter().find(|model| model.group == stage.group);
        model.map_or_else(|| stage.group.to_owned(), |model| model.group_name(self.generation(model.table)))
    }
}

/// The topics that groups read.
pub(crate) const GROUP_TOPICS: [&str; 3] = [CartCommand::TOPIC, CartEvent::TOPIC, PurchasedItem::TOPIC];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_offsets_lag_and_owners() {
        let mut groups = Groups::default();
        assert_eq!(groups.partitions(0, 0), None, "nothing is known yet");
        let mut backlog = Backlog::default();
        backlog.start(&BTreeMap::from([(0, 0), (1, 0)]));
        backlog.add(0, 0, 1_000);
        backlog.add(0, 1, 3_000);
        backlog.complete();
        groups.topics.insert(STAGES[0].topic, backlog);
        groups.note(0, Some(BTreeMap::from([(0, 1)])), 5_000);
        groups.note_owners(0, BTreeMap::from([(1, "0-0@host:7".to_owned())]));
        let waiting = Lag { behind: 1, oldest_waiting_ms: 2_000, is_least: false };
        let expected = [
            PartitionState { partition: 0, next_offset: Some(1), lag: waiting, owner: None },
            PartitionState {
                partition: 1,
                next_offset: None,
                lag: Lag::default(),
                owner: Some("0-0@host:7".to_owned()),
            },
        ];
        assert_eq!(groups.partitions(0, 5_000).as_deref(), Some(&expected[..]));
    }

    #[test]
    fn a_generation_that_is_behind_keeps_its_records_until_it_is_dropped() {
        let mut groups = Groups::default();
        let mut backlog = Backlog::default();
        backlog.start(&BTreeMap::from([(0, 0)]));
        for offset in 0..4 {
            backlog.add(0, offset, 1_000);
        }
        backlog.complete();
        groups.topics.insert(PurchasedItem::TOPIC, backlog);
        let next = |offset| Some(BTreeMap::from([(0, offset)]));
        let readers: Vec<_> = (0..STAGES.len()).filter(|index| STAGES[*index].topic == PurchasedItem::TOPIC).collect();
        let note_readers = |groups: &mut Groups| readers.iter().for_each(|index| groups.note(*index, next(4), 0));
        groups.note_generation(String::from("vendor-billing-g2"), next(1));
        note_readers(&mut groups);
        groups.note_generation(String::from("vendor-billing-g2"), next(2));
        let behind = |groups: &Groups| groups.behind("vendor-billing-g2");
        assert_eq!(behind(&groups), Some(Behind { records: 2, is_most: false }));
        groups.retain_generations(|group| group != "vendor-billing-g2");
        assert_eq!(behind(&groups), None);
        note_readers(&mut groups);
        groups.note_generation(String::from("vendor-billing-g3"), next(0));
        let behind = groups.behind("vendor-billing-g3");
        assert_eq!(behind, Some(Behind { records: 4, is_most: true }), "no record is kept any more");
    }

    #[test]
    fn the_group_of_a_stage_is_that_of_the_generation_that_readers_see() {
        let board = Board::default();
        let groups = || STAGES.iter().map(|stage| board.group(stage)).collect::<Vec<_>>();
        assert_eq!(groups(), STAGES.map(|stage| stage.group.to_owned()));
        let second = Generation::new(2).expect("a generation");
        board.generations().insert(ReadTable::BalanceByVendor, second);
        let changed: Vec<_> = groups().into_iter().filter(|group| group.ends_with("-g2")).collect();
        assert_eq!(changed, ["vendor-billing-g2"]);
        let generations: Vec<_> = STAGES.iter().map(|stage| board.generation_of(stage).map(Generation::get)).collect();
        assert_eq!(generations, [None, None, Some(1), Some(2), Some(1)]);
    }
}
