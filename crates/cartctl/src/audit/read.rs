//! Reads everything, or what has come since a checkpoint.
//!
//! Everything: the tables first, then the topics that they are made from, and the commands last. So the cause of each row or
//! record is read after it. With a checkpoint the journals of the touched carts are read last, when these are known; what they
//! have of commands that were not read is left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use cart::contract::Contract;
use cart::{CartCommand, CartEvent, CartId, LogEpoch, Position, PurchasedItem};
use kafka::{Admin, Codec, KafkaArgs, Registry};
use scylla::client::session::Session;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Mark, Marks};
use super::cut::Cut;
use super::digest::{Chains, Hash};
use super::evidence::{Content, Evidence, LogRecord, Record};
use super::stores;
use super::touched::touched;
use crate::intake::{DeadLetter, Intake, Received, dead_letters, decode};
use crate::journal::{Events, Newest, Requests, read_carts, read_newest, read_tables};
use crate::topic::{RawRecord, for_each, for_each_from};

/// What is read.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// Everything. With a checkpoint the records before it must still be those that were audited.
    All(Option<Arc<Checkpoint>>),
    /// What has come since the checkpoint.
    Since(Arc<Checkpoint>),
}

/// The epochs of `cart-commands` and `item-purchased`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epochs {
    pub(super) commands: LogEpoch,
    pub(super) purchases: LogEpoch,
}

impl Epochs {
    /// Fails if a topic is not the recorded log.
    pub(super) async fn read(kafka: &KafkaArgs, session: &Session) -> anyhow::Result<Self> {
        let commands = epoch(kafka, session, CartCommand::TOPIC).await?;
        Ok(Self { commands, purchases: epoch(kafka, session, PurchasedItem::TOPIC).await? })
    }
}

async fn epoch(kafka: &KafkaArgs, session: &Session, topic: &str) -> anyhow::Result<LogEpoch> {
    let full = kafka.prefixed(topic);
    let (args, name) = (kafka.clone(), full.clone());
    let identity = tokio::task::spawn_blocking(move || Admin::new(&args)?.identity(&name)).await??;
    Ok(cassandra::log_epoch(session, &full, &identity).await?)
}

/// Reads, when all consumers have reached the cut. `parked` are the parked carts behind the offsets of the cut, each with the position
/// before which its commands are decided.
///
/// # Errors
/// Something can't be read.
pub(super) async fn collect(
    kafka: &KafkaArgs,
    (session, database): (&Session, &PgPool),
    cut: Cut,
    parked: HashMap<CartId, Position>,
    epochs: Epochs,
    scope: Scope,
) -> anyhow::Result<Evidence> {
    let registry = Registry::new(kafka)?;
    let codecs = Codecs {
        purchases: Codec::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?,
        events: Codec::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?,
        commands: Codec::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?,
    };
    let tables = stores::read(session, database, &kafka.prefixed(PurchasedItem::TOPIC), epochs.purchases).await?;
    let journal = match &scope {
        Scope::All(_) => Journal::All(read_tables(session).await.context("reading the journal")?),
        Scope::Since(_) => {
            Journal::Newest(read_newest(session).await.context("reading the newest entries of the journal")?)
        }
    };
    let (kafka, runtime, epoch) = (kafka.clone(), Handle::current(), epochs.commands);
    let mut topics = Topics { kafka, runtime, cut, parked, epoch, scope, changed: Vec::new() };
    let events_codec = codecs.events.clone();
    let (mut evidence, scope) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let evidence = topics.read(&codecs)?;
        let Topics { cut, parked, scope, changed, .. } = topics;
        Ok((Evidence { cut, parked, changed, ..evidence }, scope))
    })
    .await??;
    evidence.commands_epoch = epochs.commands.get();
    evidence.tables = tables;
    match (journal, scope) {
        (Journal::All((journal, requests)), _) => (evidence.journal, evidence.requests) = (journal, requests),
        (Journal::Newest(newest), Scope::Since(checkpoint)) => {
            let carts = touched(&checkpoint, &evidence.commands, &evidence.events, &evidence.purchases, &newest);
            let read = read_carts(session, &carts).await.context("reading the journal of the touched carts")?;
            evidence.checkpoint = Some(checkpoint);
            add_journal(&mut evidence, read, &events_codec).await?;
        }
        (Journal::Newest(_), Scope::All(_)) => {}
    }
    Ok(evidence)
}

/// What was read of the journal before the topics.
enum Journal {
    All((Events, Requests)),
    Newest(HashMap<Uuid, Newest>),
}

/// Adds the journals of touched carts, without what comes after the commands that were read.
async fn add_journal(
    evidence: &mut Evidence,
    (mut journal, mut requests): (Events, Requests),
    codec: &Codec<CartEvent>,
) -> anyhow::Result<()> {
    let epoch = LogEpoch::new(evidence.commands_epoch).unwrap_or(LogEpoch::FIRST);
    let mut ends: Vec<i64> = evidence.cut.commands.clone();
    for record in &evidence.commands {
        if let Some(end) = usize::try_from(record.partition).ok().and_then(|partition| ends.get_mut(partition)) {
            *end = (*end).max(record.offset + 1);
        }
    }
    let end = |partition: i32| {
        let end = usize::try_from(partition).ok().and_then(|partition| ends.get(partition)).copied();
        end.map_or(Position::MAX, |end| Position::new(epoch, end))
    };
    for (cart_id, rows) in &mut journal {
        let (partition, mut events) = (evidence.partition(*cart_id), Ok(Vec::new()));
        let end = end(partition);
        rows.retain(|row| Position::from(row.position) < end);
        for row in rows.iter().filter(|row| evidence.is_sealed(partition, row.position.into())) {
            let event = codec.decode_or_fetch(&row.event).await?;
            events = match (events, event) {
                (Ok(mut events), Ok(event)) => {
                    events.push(event);
                    Ok(events)
                }
                (Ok(_), Err(error)) => Err(format!("event {} cannot be decoded: {error}", row.sequence_number)),
                (Err(reason), _) => Err(reason),
            };
        }
        evidence.sealed.insert(*cart_id, events);
    }
    for (cart_id, requests) in &mut requests {
        let end = end(evidence.partition(*cart_id));
        requests.retain(|position, _| *position < end);
    }
    (evidence.journal, evidence.requests) = (journal, requests);
    Ok(())
}

struct Codecs {
    purchases: Codec<PurchasedItem>,
    events: Codec<CartEvent>,
    commands: Codec<CartCommand>,
}

struct Topics {
    kafka: KafkaArgs,
    runtime: Handle,
    cut: Cut,
    /// As [`Evidence::parked`].
    parked: HashMap<CartId, Position>,
    /// Of `cart-commands`.
    epoch: LogEpoch,
    scope: Scope,
    /// As [`Evidence::changed`].
    changed: Vec<String>,
}

impl Topics {
    /// Reads the topics. Blocks.
    fn read(&mut self, codecs: &Codecs) -> anyhow::Result<Evidence> {
        let partitions = i32::try_from(self.cut.commands.len())?;
        let cut = self.cut.clone();
        let (purchases, purchase_marks) = self.records(&codecs.purchases, &cut.purchases, |marks| &marks.purchases)?;
        let (events, event_marks) = self.records(&codecs.events, &cut.events, |marks| &marks.events)?;
        let (dead_letters, letter_marks) = self.dead_letters(&cut.dead_letters)?;
        let letters = dead_letters.iter().filter_map(|letter| letter.origin).collect();
        let (commands, command_marks) = self.commands(&codecs.commands, &cut.commands, &letters)?;
        let marks = Marks {
            commands: command_marks,
            events: event_marks,
            purchases: purchase_marks,
            dead_letters: letter_marks,
        };
        let purchase_partitions = i32::try_from(self.cut.purchases.len())?;
        Ok(Evidence {
            partitions,
            purchase_partitions,
            commands,
            dead_letters,
            events,
            purchases,
            marks,
            journal: BTreeMap::new(),
            ..Evidence::default()
        })
    }

    fn reading(&self, cut: &[i64], of: fn(&Marks) -> &Vec<Mark>) -> Reading {
        let since = |checkpoint: &Checkpoint| of(&checkpoint.marks).clone();
        let hashed = |marks: &[Mark]| marks.iter().map(|mark| (mark.next, mark.hash)).collect::<Vec<_>>();
        let all = || std::iter::repeat_n((0, Hash::default()), cut.len());
        match &self.scope {
            Scope::All(former) => Reading {
                cut: cut.to_vec(),
                since: None,
                chains: Chains::new(all(), cut.iter().copied()),
                former: former.as_deref().map(|checkpoint| {
                    let marks = since(checkpoint);
                    (Chains::new(all(), marks.iter().map(|mark| mark.next)), marks)
                }),
            },
            Scope::Since(checkpoint) => {
                let marks = since(checkpoint);
                let chains = Chains::new(hashed(&marks), cut.iter().copied());
                Reading { cut: cut.to_vec(), since: Some(marks), chains, former: None }
            }
        }
    }

    /// Passes the records to `take` that this audit looks at.
    fn for_each(
        &self,
        topic: &str,
        reading: &mut Reading,
        mut take: impl FnMut(RawRecord) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let full = self.kafka.prefixed(topic);
        let starts = reading.starts();
        let take = |record: RawRecord| {
            let place = (record.partition, record.offset);
            if reading.take(place, record.key.as_deref(), record.value.as_deref(), None) {
                take(record)
            } else {
                Ok(())
            }
        };
        match starts {
            Some(starts) => for_each_from::<anyhow::Error>(&self.kafka, &full, starts, take),
            None => for_each::<anyhow::Error>(&self.kafka, &full, take),
        }
        .with_context(|| format!("reading topic {topic}"))
    }

    fn records<T: Contract + Serialize + DeserializeOwned>(
        &mut self,
        codec: &Codec<T>,
        cut: &[i64],
        of: fn(&Marks) -> &Vec<Mark>,
    ) -> anyhow::Result<(Vec<Record<T>>, Vec<Mark>)> {
        let mut reading = self.reading(cut, of);
        // Only the bytes of events are compared.
        let keep_bytes = T::TOPIC == CartEvent::TOPIC;
        let mut records = Vec::new();
        self.for_each(T::TOPIC, &mut reading, |RawRecord { partition, offset, key, value }| {
            let bytes = value.unwrap_or_default();
            let value = decode(codec, &bytes, &self.runtime)?.map_err(|error| error.to_string());
            let key = String::from_utf8_lossy(&key.unwrap_or_default()).into_owned();
            let bytes = if keep_bytes { bytes } else { Vec::new() };
            records.push(Record { partition, offset, key, bytes, value });
            Ok(())
        })?;
        Ok((records, reading.finish(T::TOPIC, &mut self.changed)))
    }

    fn commands(
        &mut self,
        codec: &Codec<CartCommand>,
        cut: &[i64],
        letters: &HashSet<(i32, i64)>,
    ) -> anyhow::Result<(Vec<LogRecord>, Vec<Mark>)> {
        let mut reading = self.reading(cut, |marks| &marks.commands);
        let (runtime, partitions) = (&self.runtime, i32::try_from(cut.len())?);
        let intake = Intake { codec, runtime, partitions, letters, parked: &self.parked, epoch: self.epoch };
        let mut commands = Vec::new();
        self.for_each(CartCommand::TOPIC, &mut reading, |record| {
            let received = intake.command(&record)?;
            let RawRecord { partition, offset, key, value } = record;
            let content = match received {
                Received::Command(command) => Content::Command(command),
                Received::Undecidable(reason) => Content::Undecidable { reason, key, value },
                Received::TooNew { cart_id, .. } => Content::TooNew { cart_id },
            };
            commands.push(LogRecord { partition, offset, content });
            Ok(())
        })?;
        Ok((commands, reading.finish(CartCommand::TOPIC, &mut self.changed)))
    }

    fn dead_letters(&mut self, cut: &[i64]) -> anyhow::Result<(Vec<DeadLetter>, Vec<Mark>)> {
        let mut reading = self.reading(cut, |marks| &marks.dead_letters);
        let mut letters = dead_letters(&self.kafka, reading.starts().as_deref())?;
        letters.retain(|letter| {
            let place = (letter.partition, letter.offset);
            reading.take(place, letter.key.as_deref(), letter.value.as_deref(), letter.origin)
        });
        Ok((letters, reading.finish(cart::contract::DEAD_LETTER_TOPIC, &mut self.changed)))
    }
}

/// A topic that is being read.
struct Reading {
    cut: Vec<i64>,
    /// The marks of the checkpoint that it is read from.
    since: Option<Vec<Mark>>,
    chains: Chains,
    /// In a full audit: the marks of the last checkpoint, and the hashes up to them.
    former: Option<(Chains, Vec<Mark>)>,
}

impl Reading {
    fn starts(&self) -> Option<Vec<i64>> {
        Some(self.since.as_ref()?.iter().map(Mark::start).collect())
    }

    /// Takes the next record of a partition. Returns whether this audit looks at it.
    fn take(
        &mut self,
        place: (i32, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        origin: Option<(i32, i64)>,
    ) -> bool {
        self.chains.take(place, key, value, origin);
        if let Some((chains, _)) = &mut self.former {
            chains.take(place, key, value, origin);
        }
        let mark = |marks: &Vec<Mark>| super::checkpoint::mark(marks, place.0).is_none_or(|mark| mark.is_open(place.1));
        self.since.as_ref().is_none_or(mark)
    }

    /// The marks at the cut. Adds the partitions that were changed since the last checkpoint.
    fn finish(self, topic: &str, changed: &mut Vec<String>) -> Vec<Mark> {
        if let Some((chains, marks)) = self.former {
            let differ =
                (0..).zip(chains.hashes().into_iter().zip(marks)).filter(|(_, (hash, mark))| *hash != mark.hash);
            changed.extend(differ.map(|(partition, (_, mark)): (i32, _)| {
                format!("{topic}, partition {partition} before offset {}", mark.next)
            }));
        }
        let hashes = self.chains.hashes();
        self.cut.into_iter().zip(hashes).map(|(next, hash)| Mark { next, hash, left: Vec::new() }).collect()
    }
}
