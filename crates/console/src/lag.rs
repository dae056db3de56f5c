//! The thread that asks Kafka once a second how far the groups are, and more seldom who their members are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use cart::contract::{Contract as _, READ_MODELS, ReadModel, STAGES, Stage, Store};
use cart::{CartCommand, PurchasedItem};
use kafka::{Admin, GroupProgress};

use crate::clock::now_ms;
use crate::follow::Context;
use crate::health::Server;

const INTERVAL: Duration = Duration::from_secs(1);

/// How often the members are listed: they change with a rebalance only.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(5);

/// Clients that have failed so often in a row are replaced: they may have lost every broker for good.
const FAILURES_MAX: u32 = 10;

/// Starts the thread.
pub(crate) fn start(mut context: Context) -> std::io::Result<()> {
    let run = move || {
        let mut clients: Option<Clients> = None;
        let mut failures = 0;
        while context.wait() {
            let started_at = Instant::now();
            let asked = match &mut clients {
                Some(clients) => clients.ask(&context),
                None => Clients::new(&context).and_then(|new| clients.insert(new).ask(&context)),
            };
            match asked {
                Ok(()) => {
                    failures = 0;
                    context.board.health.up(Server::Kafka);
                }
                Err(error) => {
                    failures += 1;
                    if failures % FAILURES_MAX == 0 {
                        clients = None;
                    }
                    context.board.health.away(Server::Kafka, error);
                    forget(&context);
                }
            }
            std::thread::sleep(INTERVAL.saturating_sub(started_at.elapsed()));
        }
    };
    std::thread::Builder::new().name("lag".to_owned()).spawn(run)?;
    Ok(())
}

struct Clients {
    partitions: i32,
    /// One for each of `STAGES` whose offsets are in Kafka, with the group's name.
    groups: Vec<(usize, String, GroupProgress)>,
    /// The other groups that keep generations of read tables in Cassandra, by name.
    generations: BTreeMap<String, GroupProgress>,
    log: Admin,
    members_listed_at: Option<Instant>,
}

impl Clients {
    fn new(context: &Context) -> Result<Self, kafka::Error> {
        let log = Admin::new(&context.kafka)?;
        let mut groups = Vec::new();
        let mut partitions = 0;
        for (index, stage) in STAGES.iter().enumerate().filter(|(_, stage)| !stage.has_offsets_in_postgres()) {
            partitions = log.partitions(&context.kafka.prefixed(stage.topic))?;
            let group = context.board.group(stage);
            let progress = open(context, stage, &group)?;
            groups.push((index, group, progress));
        }
        Ok(Self { partitions, groups, generations: BTreeMap::new(), log, members_listed_at: None })
    }

    fn ask(&mut self, context: &Context) -> Result<(), kafka::Error> {
        let ends = self.log.watermarks(&context.kafka.prefixed(CartCommand::TOPIC))?;
        // Nothing but commands is in this topic, neither transactions nor deletions: its offsets count them.
        *context.board.log_len() = Some(ends.into_iter().map(|(_, end)| end).sum());
        for (index, name, group) in &mut self.groups {
            let active = context.board.group(&STAGES[*index]);
            if *name != active {
                *group = open(context, &STAGES[*index], &active)?;
                *name = active;
            }
            // Noted before the next group is asked: the lag is that of this moment.
            note(context, *index, name, group.committed(0..self.partitions)?);
        }
        self.ask_generations(context)?;
        if self.members_listed_at.is_none_or(|listed_at| listed_at.elapsed() >= MEMBERS_INTERVAL) {
            self.members_listed_at = Some(Instant::now());
            for (index, stage) in STAGES.iter().enumerate() {
                let group = context.kafka.prefixed(&context.board.group(stage));
                let topic = context.kafka.prefixed(stage.topic);
                // The lag is shown also while one broker does not list its groups.
                let owners = self.log.owners(&group, &topic).unwrap_or_else(|error| {
                    tracing::debug!(%error, "the members of a group are not known");
                    BTreeMap::new()
                });
                context.board.groups().note_owners(index, owners);
            }
        }
        Ok(())
    }

    /// How far the generations are that readers do not see. The offsets of those in PostgreSQL are there.
    fn ask_generations(&mut self, context: &Context) -> Result<(), kafka::Error> {
        let known = context.board.read_models().clone();
        let in_cassandra = known.iter().filter(|known| known.model.store == Store::Cassandra);
        let mut names: Vec<_> = in_cassandra.flat_map(|known| known.groups()).collect();
        names.retain(|name| self.groups.iter().all(|(_, active, _)| active != name));
        self.generations.retain(|name, _| names.contains(name));
        for name in names {
            let progress = match self.generations.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let topic = context.kafka.prefixed(PurchasedItem::TOPIC);
                    entry.insert(GroupProgress::new(&context.kafka, &context.kafka.prefixed(&name), &topic)?)
                }
            };
            let committed = progress.committed(0..self.partitions)?;
            context.board.groups().note_generation(name, Some(committed));
        }
        Ok(())
    }
}

/// Does not ask yet.
fn open(context: &Context, stage: &Stage, group: &str) -> Result<GroupProgress, kafka::Error> {
    GroupProgress::new(&context.kafka, &context.kafka.prefixed(group), &context.kafka.prefixed(stage.topic))
}

fn note(context: &Context, index: usize, group: &str, committed: BTreeMap<i32, i64>) {
    if let Some(table) = READ_MODELS.iter().position(|model| model.group == STAGES[index].group) {
        context.board.journeys().committed(table, &committed, now_ms());
        context.board.groups().note_generation(group.to_owned(), Some(committed.clone()));
    }
    context.board.groups().note(index, Some(committed), now_ms());
}

/// Whether a group keeps a generation whose offsets are in PostgreSQL.
fn is_in_postgres(model: &ReadModel, group: &str) -> bool {
    model.store == Store::Postgres && model.generation_of_group(group).is_some()
}

/// What is not known any more is not shown.
fn forget(context: &Context) {
    let mut groups = context.board.groups();
    groups.retain_generations(|group| READ_MODELS.iter().any(|model| is_in_postgres(model, group)));
    for (index, stage) in STAGES.iter().enumerate() {
        groups.note_owners(index, BTreeMap::new());
        if !stage.has_offsets_in_postgres() {
            groups.note(index, None, now_ms());
        }
    }
}
