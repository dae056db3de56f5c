//! `cartctl republish` and `cartctl restore-journal`: the journal is restored from `cart-events` and `cart-commands`, and
//! `cart-events` from the journal, since they hold the same bytes. Each can be repeated after an interruption.
//!
//! They are here because they read commands and decide as the processor does. Shown by crates/e2e/tests/e2e/recovery.rs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cart::contract::{Contract as _, group};
use cart::{Aggregate, CartCommand, CartEvent, CartId, CartParked, ControlRecord, Decision, LogEpoch, Position};
use cassandra::{CassandraArgs, KeyspaceArgs};
use control::{ControlTopic, Follower};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use journal::{Append, Codecs, Content, Journal, Row};
use kafka::{Admin, Codec, KafkaArgs, Message as _, Registry, TopicReader, TransactionalProducer};
use parking::ParkedCarts;
use service::LogArgs;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use trace::Trace;

use crate::args::TooNew;
use crate::batch::by_cart;
use crate::cart_cache::CartCache;
use crate::intake::{CommandDecoder, ConsumedCommand, Incoming, TooNewCommand};
use crate::metrics::COMMAND_WAIT_SECONDS;
use crate::outbox::Outbox;
use crate::redelivery::RedeliveredRows;

/// Concurrent requests to Cassandra.
const CONCURRENCY: usize = 128;

/// Events that are journalled, or published in one transaction, together: bounds memory and transactions.
const CHUNK_LEN: usize = 5_000;

/// Bytes of carts that are kept while commands are decided again.
const CACHE_LEN: usize = 256 << 20;

/// How long a topic may say nothing before we give up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Republish the journal to an empty cart-events topic, after that topic was lost
///
/// Stop all cart-processors first: the command fails while the group has a member. It fails too if the topic has records.
/// Events of one cart keep their order; those of different carts do not.
///
/// Exit code 0: done. 1: it failed, and can be repeated.
#[derive(Debug, Clone, clap::Args)]
pub struct RepublishArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
    /// The log of this run.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Restore the journal from cart-commands and cart-events, after the keyspace was lost
///
/// Stop all cart-processors first: the command fails while the group has a member. It creates the keyspace and the tables, and
/// records which log they belong to. Run `cart-processor setup` afterwards.
///
/// Exit code 0: done. 1: it failed, and can be repeated.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
    /// The log of this run.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Makes `cart-events` again from the journal. Into an empty topic only, while no processor runs.
///
/// Each cart's events come in their order; those of different carts are not in the order that they had. What was
/// journalled, but whose command is not committed, is left to the processor: it publishes it when it reads that command
/// again.
///
/// # Errors
/// When a processor runs, the topic has records, or a server does not respond.
pub async fn republish(args: &RepublishArgs) -> anyhow::Result<()> {
    let RepublishArgs { kafka, cassandra, .. } = args;
    let admin = Admin::new(kafka)?;
    let (commands, topic) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartEvent::TOPIC));
    let (log, committed) = tokio::task::block_in_place(|| {
        let group = kafka.prefixed(group::CART_PROCESSOR);
        admin.ensure_idle(&group)?;
        let is_empty = admin.watermarks(&topic)?.iter().all(|(start, end)| start == end);
        ensure!(
            is_empty,
            "{topic} has records: republishing would duplicate them. Delete the topic, run `setup`, then repeat this \
             command"
        );
        Ok((admin.identity(&commands)?, admin.committed(&group, &commands)?))
    })?;
    let session = Arc::new(cassandra::connect(cassandra).await?);
    let epoch = cassandra::log_epoch(&session, &commands, &log).await.context("run `cart-processor setup` first")?;
    let next: Vec<_> = committed
        .into_iter()
        .map(|next| Some(Position::new(epoch, next?)))
        .collect::<Option<_>>()
        .with_context(|| format!("the group has no offsets in {commands}: run `cart-processor setup` first"))?;
    let journal = Journal::open(session, Codecs::register(&Registry::new(kafka)?).await?).await?;
    let parked = parked_positions(kafka, log.partitions).await?;
    let transactional_id = kafka.prefixed("cart-processor-republish");
    let mut producer = tokio::task::block_in_place(|| TransactionalProducer::connect(kafka, &transactional_id))?;
    let carts = journal.cart_ids().await?;
    let mut journals = carts
        .map(|cart_id| async {
            let cart_id = cart_id?;
            Ok::<_, journal::Error>((cart_id, journal.all(cart_id).await?))
        })
        .buffer_unordered(CONCURRENCY);
    let (mut outbox, mut carts, mut events, mut uncommitted) = (Outbox::default(), 0_u64, 0_u64, 0_u64);
    while let Some((cart_id, entries)) = journals.try_next().await? {
        carts += 1;
        let key = cart_id.to_string();
        let partition = kafka::partition_of(key.as_bytes(), log.partitions);
        let next = partition.try_into().ok().and_then(|partition: usize| next.get(partition));
        let next = next.context("the partitions of the topic have changed during this run")?;
        // What is journalled of a parked cart's waiting commands is published when they are tried again.
        let next = parked.get(&cart_id).map_or(next, |waiting| waiting.min(next));
        for entry in entries {
            if entry.position < *next {
                events += 1;
                outbox.push_events(partition, key.as_bytes(), vec![entry.bytes], &Trace::None);
            } else {
                uncommitted += 1;
            }
        }
        if outbox.len() >= CHUNK_LEN {
            publish(&mut producer, &topic, std::mem::take(&mut outbox))?;
            tracing::info!(carts, events, "republishing");
        }
    }
    publish(&mut producer, &topic, outbox)?;
    tracing::info!(carts, events, uncommitted, topic, "republished the journal");
    Ok(())
}

fn publish(producer: &mut TransactionalProducer, topic: &str, outbox: Outbox) -> Result<(), kafka::Error> {
    tokio::task::block_in_place(|| {
        let mut transaction = producer.begin()?;
        for event in outbox.partitions().flat_map(|partition| &partition.events) {
            transaction.send(topic, event)?;
        }
        transaction.commit_records()
    })
}

/// Makes the journal again from `cart-events` and `cart-commands`, and writes down which log it is of. While no processor runs.
///
/// What was journalled but not yet published is not lost: its commands are not committed, and will be decided again.
///
/// # Errors
/// When a processor runs, or a server does not respond.
pub async fn restore_journal(args: &RestoreArgs) -> anyhow::Result<()> {
    let RestoreArgs { kafka, cassandra, keyspace, .. } = args;
    let admin = Admin::new(kafka)?;
    tokio::task::block_in_place(|| admin.ensure_idle(&kafka.prefixed(group::CART_PROCESSOR)))?;
    cassandra::ensure_keyspace(cassandra, keyspace).await?;
    let session = Arc::new(cassandra::connect(&cassandra.patient()).await?);
    Journal::setup(&session).await?;
    let journal = Journal::open(session.clone(), Codecs::register(&Registry::new(kafka)?).await?).await?;
    let newest = restore_events(kafka, &journal).await?;
    let (log, epoch) = log_of(&admin, kafka, &newest)?;
    match log {
        Log::OfEvents => restore_requests(&admin, kafka, &journal, epoch).await?,
        Log::Later => tracing::warn!(
            "the commands of these events no longer exist: rejected requests with an idempotency key are decided \
             again when they are retried"
        ),
    }
    // Last: without it no service starts on a journal of which a part is missing.
    record_log(&admin, kafka, &session, log, epoch).await?;
    tracing::info!(epoch = epoch.get(), "restored the journal; run `setup` now");
    Ok(())
}

/// Writes the rows of all events. Gives the position of each partition's newest.
async fn restore_events(kafka: &KafkaArgs, journal: &Journal) -> anyhow::Result<HashMap<i32, Position>> {
    let (sender, mut events) = mpsc::channel(CHUNK_LEN);
    let reading = tokio::task::spawn_blocking({
        let (kafka, topic) = (kafka.clone(), kafka.prefixed(CartEvent::TOPIC));
        move || read(&kafka, &topic, &sender)
    });
    let (mut chunk, mut count, mut newest) = (Vec::new(), 0_u64, HashMap::<i32, Position>::new());
    let mut open = OpenRequests::default();
    loop {
        let is_end = events.recv_many(&mut chunk, CHUNK_LEN).await == 0;
        let mut carts: HashMap<CartId, Vec<Row>> = HashMap::new();
        for (partition, bytes) in chunk.drain(..) {
            let event = journal.codecs().events.decode_or_fetch(&bytes).await??;
            let CartEvent { cart_id, sequence_number, position, command_id, .. } = event;
            let newest = newest.entry(partition).or_insert(position);
            *newest = position.max(*newest);
            let content = Content::Events(vec![bytes]);
            let row = Row { sequence_number, position, command_id, keyed: None, outcome: None, content };
            if let Some((cart_id, row)) = open.push(partition, cart_id, row) {
                carts.entry(cart_id).or_default().push(row);
            }
            count += 1;
        }
        if is_end {
            for (cart_id, row) in std::mem::take(&mut open).0.into_values() {
                carts.entry(cart_id).or_default().push(row);
            }
        }
        append(journal, &carts).await?;
        tracing::info!(events = count, "restoring the journal from cart-events");
        if is_end {
            break;
        }
    }
    reading.await.context("the reader of cart-events panicked")??;
    Ok(newest)
}

/// The newest request of each partition, which may have more events than have been read: a request is a row of the journal.
#[derive(Debug, Default)]
struct OpenRequests(HashMap<i32, (CartId, Row)>);

impl OpenRequests {
    /// Takes the row of the next event of a partition. The one before it comes back, whole, if this is another request's: the
    /// events of a request follow each other.
    fn push(&mut self, partition: i32, cart_id: CartId, row: Row) -> Option<(CartId, Row)> {
        if let Some((open, whole)) = self.0.get_mut(&partition)
            && *open == cart_id
            && whole.position == row.position
            && let (Content::Events(events), Content::Events(next)) = (&mut whole.content, &row.content)
        {
            events.extend_from_slice(next);
            whole.sequence_number = row.sequence_number;
            return None;
        }
        self.0.insert(partition, (cart_id, row))
    }
}

/// What the events do not say, from the commands: which requests are keyed, what was rejected and why. Each decided command is
/// decided again on what was before it; where the journal has events of it, those hold.
async fn restore_requests(admin: &Admin, kafka: &KafkaArgs, journal: &Journal, epoch: LogEpoch) -> anyhow::Result<()> {
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let decided: HashMap<i32, i64> = tokio::task::block_in_place(|| {
        let committed = admin.committed(&kafka.prefixed(group::CART_PROCESSOR), &topic)?;
        Ok::<_, kafka::Error>((0..).zip(committed).map(|(partition, next)| (partition, next.unwrap_or(0))).collect())
    })?;
    let registry = Registry::new(kafka)?;
    let codec = Codec::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let partitions = i32::try_from(decided.len())?;
    let reader = CommandDecoder {
        group: String::new(),
        commands: codec,
        epoch,
        partitions,
        reply_partitions: 0,
        runtime: Handle::current(),
        command_wait: COMMAND_WAIT_SECONDS.with(&[]),
        // Those of parked carts are passed over.
        too_new: TooNew::Park,
        control: discards(kafka, &registry).await?,
    };
    let parked = parked_positions(kafka, partitions).await?;
    let (sender, mut commands) = mpsc::channel(CHUNK_LEN);
    let reading = tokio::task::spawn_blocking({
        let kafka = kafka.clone();
        move || read_commands(&kafka, &topic, &reader, &decided, &parked, &sender)
    });
    let (mut chunk, mut count, mut cache) = (Vec::new(), 0_u64, CartCache::default());
    while commands.recv_many(&mut chunk, CHUNK_LEN).await > 0 {
        count += chunk.len() as u64;
        let carts: Vec<_> = by_cart(std::mem::take(&mut chunk))
            .into_iter()
            .map(|(cart_id, commands)| (cache.take(cart_id), cart_id, commands))
            .collect();
        let restored: Vec<(Aggregate, Vec<Row>)> = stream::iter(carts)
            .map(|(cart, cart_id, commands)| async move {
                let first = commands[0].position;
                let mut cart = match cart {
                    Some(cart) => cart,
                    None => journal.load_before(cart_id, first).await?,
                };
                let last = commands.last().map_or(first, |received| received.position);
                let history = RedeliveredRows::new(journal.following(&cart, last).await?);
                let rows = restored_rows(journal, &mut cart, &commands, &history).await?;
                Ok::<_, anyhow::Error>((cart, rows))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        let rows = restored.iter().map(|(cart, rows)| (cart.cart_id(), rows.clone())).collect();
        append(journal, &rows).await?;
        restored.into_iter().for_each(|(cart, _)| cache.insert(cart));
        cache.trim(CACHE_LEN);
        tracing::info!(commands = count, "restoring the journal from cart-commands");
    }
    reading.await.context("the reader of cart-commands panicked")??;
    Ok(())
}

/// Which commands operators have discarded: these were not decided, and must not be now.
async fn discards(kafka: &KafkaArgs, registry: &Registry) -> anyhow::Result<Option<Follower>> {
    let (admin, topic) = (Arc::new(Admin::new(kafka)?), kafka.prefixed(ControlRecord::TOPIC));
    if !tokio::task::block_in_place(|| admin.copies())?.iter().any(|copy| copy.topic == topic) {
        tracing::warn!(topic, "there is no such topic, so no command counts as discarded");
        return Ok(None);
    }
    let control = ControlTopic::open(kafka, registry, admin).await?;
    let follower = tokio::task::block_in_place(|| Follower::open(control)).context("reading the discarded commands")?;
    Ok(Some(follower))
}

/// The rows of a cart's commands as they were before the loss, and the cart after them.
async fn restored_rows(
    journal: &Journal,
    cart: &mut Aggregate,
    commands: &[ConsumedCommand],
    history: &RedeliveredRows,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for ConsumedCommand { position, command, letter, .. } in commands {
        let row = history.of(command, *position)?;
        if row.is_none() && letter.is_some() {
            continue;
        }
        let decision = cart.decide(command, *position);
        let Some(row) = row else {
            match decision {
                Decision::Decided(decided) if decided.events.is_empty() && decided.is_journalled() => {
                    rows.push(Row::new(&decided, cart.sequence_number(), &journal.codecs().events)?);
                    cart.apply(&decided);
                }
                Decision::Decided(decided) if !decided.events.is_empty() => {
                    let command_id = command.command_id;
                    tracing::warn!(%position, %command_id, "an earlier rule rejected this command; it would be \
                        accepted now");
                }
                Decision::Decided(_) | Decision::Repeated(_) | Decision::KeyReused => {}
            }
            continue;
        };
        let mut row = row.clone();
        row.keyed = command.keyed;
        let mut decided = journal.decided(command.cart_id, &row).await?;
        if let Decision::Decided(again) = decision
            && again.events == decided.events
        {
            // The events stay the bytes that were published.
            row.outcome = again.outcome.as_ref().map(serde_json::to_string).transpose()?;
            decided.outcome = again.outcome;
        }
        cart.apply(&decided);
        // Another row stays as its events made it.
        if row.keyed.is_some() || row.outcome.is_some() {
            rows.push(row);
        }
    }
    Ok(rows)
}

async fn append(journal: &Journal, carts: &HashMap<CartId, Vec<Row>>) -> Result<(), journal::Error> {
    journal.append(carts.iter().map(|(cart_id, rows)| Append { cart_id: *cart_id, rows, snapshot: None })).await
}

/// The position of each parked cart from which on its commands wait. After the committed offsets were read.
async fn parked_positions(kafka: &KafkaArgs, partitions: i32) -> anyhow::Result<HashMap<CartId, Position>> {
    let topic = kafka.prefixed(CartParked::TOPIC);
    let copies = tokio::task::block_in_place(|| Admin::new(kafka)?.copies())?;
    if !copies.iter().any(|copy| copy.topic == topic) {
        tracing::warn!(topic, "there is no such topic, so no cart counts as parked");
        return Ok(HashMap::new());
    }
    let codec = parking::codec(&Registry::new(kafka)?).await?;
    let mut parked = ParkedCarts::new(kafka, codec, Handle::current())?;
    tokio::task::block_in_place(|| {
        let mut positions = HashMap::new();
        for partition in 0..partitions {
            let read = parked.read(partition)?;
            positions.extend(read.carts.iter().map(|(cart_id, cart)| (*cart_id, cart.next_position)));
        }
        Ok::<_, kafka::Error>(positions)
    })
    .context("reading the parked carts")
}

/// The commands before the offsets that each partition has decided, without those of parked carts that wait.
fn read_commands(
    kafka: &KafkaArgs,
    topic: &str,
    reader: &CommandDecoder,
    decided: &HashMap<i32, i64>,
    parked: &HashMap<CartId, Position>,
    commands: &mpsc::Sender<ConsumedCommand>,
) -> anyhow::Result<()> {
    let mut log = TopicReader::open_at_beginning(kafka, topic)?;
    while let Some(message) = log.next(SILENCE_MAX)? {
        if decided.get(&message.partition()).is_none_or(|next| message.offset() >= *next) {
            continue;
        }
        let is_decided =
            |cart_id: CartId, position: Position| parked.get(&cart_id).is_none_or(|waiting| position < *waiting);
        match reader.read(&message)? {
            Incoming::Command(received) if is_decided(received.command.cart_id, received.position) => {
                if commands.blocking_send(*received).is_err() {
                    break; // the writer has failed, and says why
                }
            }
            Incoming::TooNew(TooNewCommand { position, cart_id, reason, .. }) if is_decided(cart_id, position) => {
                bail!("the command at {position} was decided by a newer version ({reason}): upgrade this program");
            }
            Incoming::Command(_) | Incoming::TooNew(_) | Incoming::DeadLetter { .. } => {}
        }
    }
    Ok(())
}

/// All events, each with its partition, which is that of its command too.
fn read(kafka: &KafkaArgs, topic: &str, events: &mpsc::Sender<(i32, Vec<u8>)>) -> Result<(), kafka::Error> {
    let mut reader = TopicReader::open_at_beginning(kafka, topic)?;
    while let Some(message) = reader.next(SILENCE_MAX)? {
        let bytes = message.payload().unwrap_or_default().to_vec();
        if events.blocking_send((message.partition(), bytes)).is_err() {
            break; // the writer has failed, and says why
        }
    }
    Ok(())
}

/// The log is that of the newest events, unless it ends before them: then it is a later one.
fn log_of(admin: &Admin, kafka: &KafkaArgs, newest: &HashMap<i32, Position>) -> anyhow::Result<(Log, LogEpoch)> {
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let ends = tokio::task::block_in_place(|| admin.watermarks(&topic))?;
    let epoch = newest.values().filter_map(|position| position.epoch()).max().unwrap_or(LogEpoch::FIRST);
    let is_past = |(partition, (_, end)): (i32, (i64, i64))| {
        newest.get(&partition).is_some_and(|position| position.epoch() == Some(epoch) && position.offset() >= end)
    };
    if (0..).zip(ends).any(is_past) {
        let epoch = LogEpoch::new(epoch.get() + 1).context("all log epochs are used up")?;
        tracing::warn!(topic, epoch = epoch.get(), "the log ends before its events, so it is a new log");
        return Ok((Log::Later, epoch));
    }
    Ok((Log::OfEvents, epoch))
}

async fn record_log(
    admin: &Admin,
    kafka: &KafkaArgs,
    session: &scylla::client::session::Session,
    log: Log,
    epoch: LogEpoch,
) -> anyhow::Result<()> {
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let identity = tokio::task::block_in_place(|| admin.identity(&topic))?;
    if matches!(log, Log::Later) {
        tokio::task::block_in_place(|| admin.start_new_log(&kafka.prefixed(group::CART_PROCESSOR), &topic))?;
    }
    cassandra::restore_log(session, &topic, &identity, epoch).await?;
    Ok(())
}

/// Which log `cart-commands` is.
#[derive(Debug, Clone, Copy)]
enum Log {
    /// The one that the newest events come from.
    OfEvents,
    /// A later one.
    Later,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_all_events_of_a_request_as_one_row() {
        let (one, other) = (CartId::from(uuid::Uuid::from_u128(1)), CartId::from(uuid::Uuid::from_u128(2)));
        let row = |sequence_number: i64, position: i64, events: &[u8]| Row {
            sequence_number: sequence_number.into(),
            position: position.into(),
            command_id: uuid::Uuid::from_u128(7).into(),
            keyed: None,
            outcome: None,
            content: Content::Events(events.iter().map(|event| vec![*event]).collect()),
        };
        let mut open = OpenRequests::default();
        let mut closed = Vec::new();
        for (partition, cart_id, event) in [
            (0, one, row(1, 10, b"a")),
            (0, one, row(2, 11, b"b")),
            (1, other, row(1, 11, b"x")),
            (0, one, row(3, 11, b"c")),
            (1, other, row(2, 12, b"y")),
            (0, other, row(3, 11, b"z")),
        ] {
            closed.extend(open.push(partition, cart_id, event));
        }
        assert_eq!(closed, [(one, row(1, 10, b"a")), (other, row(1, 11, b"x")), (one, row(3, 11, b"bc"))]);
        assert_eq!(open.0, HashMap::from([(1, (other, row(2, 12, b"y"))), (0, (other, row(3, 11, b"z")))]));
    }
}
