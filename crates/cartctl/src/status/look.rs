//! Asks Kafka how far the groups are.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use cart::CartCommand;
use cart::contract::{Contract as _, READ_MODELS};
use chrono::Utc;
use control::Controls;
use kafka::{Admin, FirstRecord, GroupProgress, KafkaArgs};
use tokio::task::block_in_place;

use super::audit::Audit;
use super::generations::{Member, Stores, members};
use super::parked::Carts;
use super::partition::{Partition, State};
use super::text::{DiscardedCommand, SkippedRecord, Status};
use crate::operate::Kafka;

/// Looks at all groups, over connections that stay.
pub(super) struct Looks {
    args: KafkaArgs,
    kafka: Kafka,
    groups: Vec<Group>,
    carts: Carts,
}

struct Group {
    member: Member,
    /// Without the installation's prefix.
    name: String,
    full_name: String,
    full_topic: String,
    progress: GroupProgress,
    partitions: i32,
    /// Where it went on at the last look, and when that was.
    last: Option<(Instant, BTreeMap<i32, i64>)>,
}

/// What one look has found out about a group.
struct Found {
    /// The committed offsets; without one, the first offset of the partition.
    next: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
    first: BTreeMap<i32, FirstRecord>,
    owners: BTreeMap<i32, String>,
    rates: BTreeMap<i32, f64>,
}

impl Looks {
    pub(super) async fn open(args: &KafkaArgs) -> anyhow::Result<Self> {
        let kafka = Kafka::connect(args).await?;
        Ok(Self { args: args.clone(), kafka, groups: Vec::new(), carts: Carts::new(args) })
    }

    /// Notes where the groups are: the first look has the rates since.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        block_in_place(|| {
            self.find_groups()?;
            self.look_at_groups().map(drop)
        })
    }

    /// Looks at all groups that there are now, and at what is parked.
    pub(super) async fn look(&mut self, stores: &Stores) -> anyhow::Result<Status> {
        let mut status = block_in_place(|| {
            self.find_groups()?;
            self.look_at_groups()
        })?;
        self.find_active(stores, &mut status).await;
        match self.carts.read(&self.kafka.admin).await {
            Ok(carts) => status.parked_carts = Some(carts),
            Err(error) => status.unknown.push(format!("the parked carts are not known: {error:#}")),
        }
        status.note_rows(stores.parked_rows(&self.args).await);
        Ok(status)
    }

    /// Marks the generations that readers see.
    async fn find_active(&self, stores: &Stores, status: &mut Status) {
        for model in READ_MODELS {
            let members = self.groups.iter().filter_map(|group| group.member.of).filter(|(of, _)| *of == model);
            let active = if members.count() < 2 {
                // Without another one it is the active one, and its store need not answer.
                Ok(None)
            } else {
                stores.active(model).await.map(Some)
            };
            match active {
                Ok(active) => {
                    let of_model =
                        status.partitions.iter_mut().filter(|partition| partition.model == Some(model.group));
                    let is_active = |of: &Partition| active.is_none_or(|active| of.generation == Some(active.get()));
                    of_model.for_each(|partition| partition.is_active = Some(is_active(partition)));
                }
                Err(error) => {
                    status.unknown.push(format!("the active generation of {} is not known: {error:#}", model.group))
                }
            }
        }
    }

    /// Opens connections for new groups, and drops those of groups that were removed.
    fn find_groups(&mut self) -> anyhow::Result<()> {
        let prefix = self.args.prefixed("");
        let existing = self.kafka.admin.groups()?.into_iter();
        let existing = existing.filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect();
        let mut kept = std::mem::take(&mut self.groups);
        for member in members(&existing) {
            let group = match kept.iter().position(|group| group.member == member) {
                Some(place) => kept.swap_remove(place),
                None => self.open_group(member)?,
            };
            self.groups.push(group);
        }
        Ok(())
    }

    fn open_group(&self, member: Member) -> anyhow::Result<Group> {
        let name = member.name();
        let (full_name, full_topic) = (self.args.prefixed(&name), self.args.prefixed(member.stage.topic));
        let progress = GroupProgress::new(&self.args, &full_name, &full_topic)?;
        let partitions = self.kafka.admin.partitions(&full_topic)?;
        Ok(Group { member, name, full_name, full_topic, progress, partitions, last: None })
    }

    /// Blocks for some tenths of a second: each partition's first record is read.
    fn look_at_groups(&mut self) -> anyhow::Result<Status> {
        let controls = self.kafka.control.controls()?;
        let admin = &self.kafka.admin;
        let found: Vec<anyhow::Result<Vec<Partition>>> = std::thread::scope(|scope| {
            let look = |group| scope.spawn(|| look_at(group, admin, &controls));
            let threads: Vec<_> = self.groups.iter_mut().map(look).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a look panicked"))?).collect()
        });
        let partitions = found.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
        let skipped = controls.skips().map(|skip| SkippedRecord {
            group: skip.group.to_owned(),
            record: format!("{}/{}/{}", skip.topic, skip.partition, skip.offset),
            by: skip.entry.record.by.clone(),
            at: skip.entry.record.at,
            reason: skip.entry.record.reason.clone(),
        });
        let discarded = controls.discards().map(|discard| DiscardedCommand {
            record: format!("{}/{}/{}", CartCommand::TOPIC, discard.partition, discard.position.offset()),
            cart_id: discard.cart_id,
            command_id: discard.command_id,
            by: discard.entry.record.by.clone(),
            at: discard.entry.record.at,
            reason: discard.entry.record.reason.clone(),
        });
        let (skipped, discarded) = (skipped.collect(), discarded.collect());
        Ok(Status {
            at: Utc::now(),
            partitions,
            skipped,
            discarded,
            parked_carts: None,
            parked_rows: None,
            audit: Audit::NotAsked,
            unknown: Vec::new(),
        })
    }
}

fn look_at(group: &mut Group, admin: &Admin, controls: &Controls) -> anyhow::Result<Vec<Partition>> {
    let found = group.look(admin).with_context(|| format!("looking at group {}", group.name))?;
    let (name, of) = (&group.name, group.member.of);
    let now_ms = Utc::now().timestamp_millis();
    let partition = |partition: i32| {
        let first = found.first.get(&partition);
        let end = found.ends.get(&partition).copied().unwrap_or_default();
        let owner = found.owners.get(&partition).cloned();
        let next = found.next.get(&partition).copied().unwrap_or_default();
        Partition {
            group: name.clone(),
            model: of.map(|(model, _)| model.group),
            generation: of.map(|(_, generation)| generation.get()),
            is_active: None,
            topic: group.member.stage.topic,
            partition,
            state: State::of(controls, name, partition, first.map(|first| first.offset), owner.is_some()),
            next,
            behind: first.map_or(0, |first| (end - first.offset).max(1)),
            oldest_waiting_ms: first.map(|first| (now_ms - first.sent_at_ms).max(0)),
            rate: found.rates.get(&partition).copied(),
            owner,
        }
    };
    Ok((0..group.partitions).map(partition).collect())
}

impl Group {
    fn look(&mut self, admin: &Admin) -> anyhow::Result<Found> {
        let progress = &self.progress;
        let committed = progress.committed(0..self.partitions)?;
        let asked_at = Instant::now();
        let mut ends = BTreeMap::new();
        let mut next = BTreeMap::new();
        for partition in 0..self.partitions {
            ends.insert(partition, progress.last_stable_offset(partition)?);
            let goes_on_at = match committed.get(&partition) {
                Some(next) => *next,
                None => progress.bounds(partition)?.0,
            };
            next.insert(partition, goes_on_at);
        }
        // There is nothing behind the end.
        let mut unread = next.clone();
        unread.retain(|partition, start| *start < ends[partition]);
        let first = if unread.is_empty() { BTreeMap::new() } else { progress.first_records(&unread)? };
        let owners = admin.owners(&self.full_name, &self.full_topic)?;
        let rates = self.last.as_ref().map_or_else(BTreeMap::new, |(then, earlier)| {
            let seconds = asked_at.duration_since(*then).as_secs_f64();
            let rate = |(partition, next): (&i32, &i64)| {
                let records = next - earlier.get(partition)?;
                Some((*partition, per_second(records, seconds)))
            };
            next.iter().filter_map(rate).collect()
        });
        self.last = Some((asked_at, next.clone()));
        Ok(Found { next, ends, first, owners, rates })
    }
}

#[expect(clippy::float_arithmetic, reason = "a rate is shown, nothing is computed with it")]
fn per_second(records: i64, seconds: f64) -> f64 {
    (records.max(0) as f64 / seconds.max(f64::EPSILON)).round()
}
