//! The commands of a cart, in the order of the log, decided again beside the journal.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{Aggregate, CartCommand, CartId, Decided, Decision, Item, LogEpoch, Position};
use chrono::{DateTime, SecondsFormat, Utc};
use journal::{Codecs, Journal};
use kafka::{Admin, Codec, DecodeError, Message as _, Registry, TopicReader};
use parking::AllParked;
use rust_decimal::Decimal;
use serde::Serialize;
use tokio::runtime::Handle;

use super::args::{Finding, System};
use crate::discards::{self, DiscardedCommand};
use crate::line::{InWords as _, outcome};
use crate::topic::SILENCE_MAX;

/// A cart, command by command.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    cart_id: CartId,
    /// The topic's full name, and the partition that has all commands of the cart.
    topic: String,
    partition: i32,
    /// The cart before the first command. Not empty if it has commands in an earlier log.
    before: State,
    commands: Vec<Step>,
    /// Requests in the journal without a command in the log, by position.
    without_command: Vec<i64>,
}

/// A command, and what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    offset: i64,
    issued_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// The command in words.
    command: String,
    outcome: String,
    events: Vec<String>,
    journal: InJournal,
    after: State,
}

/// What the journal has of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum InJournal {
    /// The same that this program decides.
    Equal,
    /// Nothing, as it should be: the command changes nothing and cannot be repeated, or is a repeat.
    NotKept,
    /// Nothing yet: no later request is there.
    Pending,
    /// Nothing, though a later request is there.
    Missing,
    /// Something else, in words.
    Different(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    version: i64,
    lines: usize,
    pieces: i64,
    total: Decimal,
}

impl State {
    fn of(cart: &Aggregate) -> Self {
        let items = cart.cart().items();
        Self {
            version: cart.sequence_number().get(),
            lines: items.len(),
            pieces: items.iter().map(|item| i64::from(item.quantity.get())).sum(),
            total: items.iter().map(Item::amount).sum::<Decimal>().normalize(),
        }
    }
}

/// A record of the cart.
struct Record {
    offset: i64,
    trace_id: Option<String>,
    command: Result<CartCommand, DecodeError>,
}

pub(super) async fn explain(system: &System, cart_id: CartId) -> anyhow::Result<Explained> {
    let topic = system.kafka.prefixed(CartCommand::TOPIC);
    let identity = tokio::task::block_in_place(|| Admin::new(&system.kafka)?.identity(&topic))?;
    let partition = kafka::partition_of(cart_id.to_string().as_bytes(), identity.partitions);
    let session = cassandra::connect(&system.cassandra).await?;
    let epoch = cassandra::log_epoch(&session, &topic, &identity).await?;
    let registry = Registry::new(&system.kafka)?;
    let journal = Journal::open(Arc::new(session), Codecs::register(&registry).await?).await?;
    // Before the journal: a command that waits then, and has a row, was decided meanwhile.
    let parked = AllParked::read(&system.kafka).await.context("reading the parked carts")?;
    let waits_from = parked.cart(cart_id).map(|(_, cart)| cart.next_position);
    // Before the records: what is journalled is in the log by then.
    let start = Position::new(epoch, 0);
    let cart = journal.load_before(cart_id, start).await?;
    let rows = journal.between(cart_id, start, Position::MAX).await?;
    let mut requests = BTreeMap::new();
    for row in rows {
        requests.insert(row.position, journal.decided(cart_id, &row).await?);
    }
    let codec = Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let discards = discards::load_of_cart(&system.kafka, epoch, cart_id).await?;
    let holding = discards.into_iter().filter(DiscardedCommand::holds);
    let discarded = holding.map(|discard| (discard.offset, format!("discarded by {}: {}", discard.by, discard.reason)));
    let discarded = discarded.collect();
    let records = tokio::task::block_in_place(|| records(system, &topic, partition, cart_id, &codec))?;
    let (before, mut steps) = (State::of(&cart), Steps { cart, epoch, requests, discarded, waits_from });
    let commands = records.into_iter().map(|record| steps.next(record)).collect();
    let without_command = steps.requests.keys().map(|position| position.get()).collect();
    Ok(Explained { cart_id, topic, partition, before, commands, without_command })
}

/// The cart's records in its partition. Blocks.
fn records(
    system: &System,
    topic: &str,
    partition: i32,
    cart_id: CartId,
    codec: &Codec<CartCommand>,
) -> anyhow::Result<Vec<Record>> {
    let starts = Admin::new(&system.kafka)?.watermarks(topic)?;
    let start = starts.get(usize::try_from(partition)?).context("the partition is gone")?.0;
    let mut reader = TopicReader::open(&system.kafka, topic, [(partition, start)])?;
    let (key, runtime) = (cart_id.to_string(), Handle::current());
    let mut records = Vec::new();
    while let Some(message) = reader.next(SILENCE_MAX)? {
        if message.key() == Some(key.as_bytes()) {
            let command = codec.decode_or_fetch_blocking(message.payload().unwrap_or_default(), &runtime)?;
            records.push(Record {
                offset: message.offset(),
                trace_id: kafka::trace_headers(message.headers()).trace_id().map(str::to_owned),
                command,
            });
        }
    }
    Ok(records)
}

/// The cart as it is before the next record.
struct Steps {
    cart: Aggregate,
    epoch: LogEpoch,
    /// The journalled requests whose records are still to come.
    requests: BTreeMap<Position, Decided>,
    /// Why commands are discarded, by their offsets.
    discarded: BTreeMap<i64, String>,
    /// The position from which on the cart's commands wait, if it is parked.
    waits_from: Option<Position>,
}

impl Steps {
    fn next(&mut self, record: Record) -> Step {
        let Record { offset, trace_id, command } = record;
        let position = Position::new(self.epoch, offset);
        let kept = self.requests.remove(&position);
        let mut step = Step {
            offset,
            issued_at: None,
            trace_id,
            command: String::new(),
            outcome: String::new(),
            events: Vec::new(),
            journal: InJournal::NotKept,
            after: State::of(&self.cart),
        };
        let waits = kept.is_none() && self.waits_from.is_some_and(|from| position >= from);
        let command = match command {
            Err(newer @ DecodeError::Newer { .. }) if waits => return step.waits(&newer.to_string()),
            Ok(command) if command.cart_id == self.cart.cart_id() => command,
            Ok(command) => return step.dead_letter(format!("it is a command of cart {}", command.cart_id)),
            Err(error) => return step.dead_letter(error.to_string()),
        };
        let line = command.line();
        (step.command, step.issued_at) = (line.what, line.at);
        if let (Err(reason), None) = (command.check(), &kept) {
            return step.dead_letter(reason.to_string());
        }
        let discarded = self.discarded.remove(&offset);
        // It is not decided here either: a rule may panic for it.
        if waits {
            return step.waits(discarded.as_deref().unwrap_or_default());
        }
        if let (Some(reason), None) = (discarded, &kept) {
            return step.dead_letter(reason);
        }
        let decided = match self.cart.decide(&command, position) {
            Decision::Decided(decided) => decided,
            Decision::Repeated(earlier) => {
                step.outcome = format!("a repeat of the request at {}", earlier.position);
                return self.not_decided(step, kept);
            }
            Decision::KeyReused => {
                step.outcome = "rejected: its id is that of another request".to_owned();
                return self.not_decided(step, kept);
            }
        };
        step.outcome = decided
            .outcome_with(|_| None)
            .map_or_else(|| "commands of it were executed before version 0.2".to_owned(), |of| outcome(&of));
        step.events = decided.events.iter().map(|event| event.line()).map(in_words).collect();
        step.journal = match &kept {
            Some(stored) if *stored == decided => InJournal::Equal,
            Some(stored) => InJournal::Different(stored_in_words(stored)),
            None if !decided.is_journalled() => InJournal::NotKept,
            None if self.requests.is_empty() => InJournal::Pending,
            None => InJournal::Missing,
        };
        // What is stored is what came next.
        if let Some(stored) = kept {
            self.cart.apply(&stored);
        } else if step.journal == InJournal::Pending {
            self.cart.apply(&decided);
        }
        step.after = State::of(&self.cart);
        step
    }

    fn not_decided(&mut self, mut step: Step, kept: Option<Decided>) -> Step {
        if let Some(stored) = kept {
            step.journal = InJournal::Different(stored_in_words(&stored));
            self.cart.apply(&stored);
            step.after = State::of(&self.cart);
        }
        step
    }
}

impl Step {
    fn dead_letter(self, reason: String) -> Self {
        Self { outcome: format!("dead letter: {reason}"), ..self }
    }

    /// A command of a parked cart.
    fn waits(self, reason: &str) -> Self {
        let outcome = if reason.is_empty() { "waits (parked)".to_owned() } else { format!("waits (parked): {reason}") };
        Self { outcome, journal: InJournal::Pending, ..self }
    }
}

fn in_words(line: crate::line::Line) -> String {
    let version = line.version.map(|version| format!("{version} ")).unwrap_or_default();
    format!("{version}{}", line.what)
}

fn stored_in_words(stored: &Decided) -> String {
    let events: Vec<_> = stored.events.iter().map(|event| in_words(event.line())).collect();
    let of_outcome = stored.outcome.as_ref().map(|of| format!("{of:?}"));
    [of_outcome, Some(events.join("; "))]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

impl Explained {
    pub(super) fn finding(&self) -> Finding {
        let is_wrong = |step: &Step| matches!(step.journal, InJournal::Missing | InJournal::Different(_));
        if self.commands.iter().any(is_wrong) || !self.without_command.is_empty() {
            Finding::Differs
        } else {
            Finding::Follows
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, lines, pieces, total } = self;
        write!(f, "version {version}: {lines} lines, {pieces} pieces, {total}")
    }
}

impl fmt::Display for InJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => write!(f, "equal"),
            Self::NotKept => write!(f, "not kept"),
            Self::Pending => write!(f, "not decided yet"),
            Self::Missing => write!(f, "WRONG: it is missing, a later request is there"),
            Self::Different(stored) => write!(f, "WRONG: it has {stored}"),
        }
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cart_id, topic, partition, before, commands, without_command } = self;
        writeln!(f, "Cart {cart_id}: {} commands in partition {partition} of {topic}", commands.len())?;
        writeln!(f, "before  {before}")?;
        for step in commands {
            let at = step.issued_at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            let trace = step.trace_id.as_ref().map(|id| format!("  trace {id}")).unwrap_or_default();
            writeln!(f, "\n{}  {}  {}{trace}", step.offset, at.as_deref().unwrap_or("-"), step.command)?;
            writeln!(f, "    outcome {}", step.outcome)?;
            step.events.iter().try_for_each(|event| writeln!(f, "    event   {event}"))?;
            writeln!(f, "    journal {}", step.journal)?;
            writeln!(f, "    cart    {}", step.after)?;
        }
        for position in without_command {
            writeln!(
                f,
                "\nWRONG: the journal has a request at {}, which is not in the log",
                Position::from(*position)
            )?;
        }
        Ok(())
    }
}
