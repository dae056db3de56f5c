//! What an operator does after a loss: the journal can be made again from `cart-events`, and `cart-events` from the
//! journal, since they hold the same bytes. Each may be done again when it was interrupted.
//!
//! Shown by crates/e2e/tests/e2e/recovery.rs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, CartId, LogEpoch, Position};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use journal::{Append, Codecs, Entry, Journal};
use kafka::{Admin, Codec, DecodeError, KafkaArgs, Message as _, Registry, TopicReader, TransactionalProducer};
use tokio::sync::mpsc;

use crate::GROUP;
use crate::args::RecoveryArgs;
use crate::outbox::Outbox;

/// Requests to Cassandra under way at the same time.
const CONCURRENCY: usize = 128;

/// Events that are journalled, or published in one transaction, together: bounds memory and transactions.
const CHUNK_LEN: usize = 5_000;

/// How long a topic may say nothing before we give up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Makes `cart-events` again from the journal. Into an empty topic only, while no processor runs.
///
/// Each cart's events come in their order; those of different carts are not in the order that they had. What was
/// journalled, but whose command is not committed, is left to the processor: it publishes it when it reads that command
/// again.
pub(crate) async fn republish(args: &RecoveryArgs) -> anyhow::Result<()> {
    let RecoveryArgs { kafka, cassandra, .. } = args;
    let admin = Admin::new(kafka)?;
    let (commands, topic) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartEvent::TOPIC));
    let (log, committed) = tokio::task::block_in_place(|| {
        let group = kafka.prefixed(GROUP);
        admin.ensure_idle(&group)?;
        let is_empty = admin.watermarks(&topic)?.iter().all(|(start, end)| start == end);
        ensure!(
            is_empty,
            "{topic} has records: republishing would double them. Delete the topic, run `setup`, then this"
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
        let next = next.context("the topic has changed its partitions meanwhile")?;
        for entry in entries {
            if entry.position < *next {
                events += 1;
                outbox.push_event(partition, key.as_bytes(), entry, None);
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
        for event in outbox.shares().flat_map(|share| &share.events) {
            transaction.send(topic, event)?;
        }
        transaction.commit_records()
    })
}

/// Makes the journal again from `cart-events`, and writes down which log it is of. While no processor runs.
///
/// What was journalled but not yet published is not lost: its commands are not committed, and will be decided again.
pub(crate) async fn restore_journal(args: &RecoveryArgs) -> anyhow::Result<()> {
    let RecoveryArgs { kafka, cassandra, .. } = args;
    let admin = Admin::new(kafka)?;
    tokio::task::block_in_place(|| admin.ensure_idle(&kafka.prefixed(GROUP)))?;
    cassandra::ensure_keyspace(cassandra).await?;
    let session = Arc::new(cassandra::connect(&cassandra.patient()).await?);
    Journal::setup(&session).await?;
    let journal = Journal::open(session.clone(), Codecs::register(&Registry::new(kafka)?).await?).await?;

    let (sender, mut events) = mpsc::channel(CHUNK_LEN);
    let reading = tokio::task::spawn_blocking({
        let (kafka, topic) = (kafka.clone(), kafka.prefixed(CartEvent::TOPIC));
        move || read(&kafka, &topic, &sender)
    });
    let (mut chunk, mut count, mut newest) = (Vec::new(), 0_u64, HashMap::<i32, Position>::new());
    let mut open = OpenCommands::default();
    loop {
        let is_end = events.recv_many(&mut chunk, CHUNK_LEN).await == 0;
        let mut carts: HashMap<CartId, Vec<Entry>> = HashMap::new();
        for (partition, bytes) in chunk.drain(..) {
            let event = decode(&journal.codecs().events, &bytes).await?;
            let CartEvent { cart_id, sequence_number, position, command_id, .. } = event;
            let newest = newest.entry(partition).or_insert(position);
            *newest = position.max(*newest);
            let entry = Entry { sequence_number, position, command_id, bytes };
            if let Some((cart_id, entries)) = open.push(partition, cart_id, entry) {
                carts.entry(cart_id).or_default().extend(entries);
            }
            count += 1;
        }
        if is_end {
            for (cart_id, entries) in std::mem::take(&mut open).0.into_values() {
                carts.entry(cart_id).or_default().extend(entries);
            }
        }
        let groups = journal.groups(carts, append);
        stream::iter(groups)
            .map(|group| {
                let journal = &journal;
                async move { journal.append(&group.iter().map(append).collect::<Vec<_>>()).await }
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        tracing::info!(events = count, "restoring the journal");
        if is_end {
            break;
        }
    }
    reading.await.context("the reader of cart-events panicked")??;
    let epoch = record_log(&admin, args, &session, &newest).await?;
    tracing::info!(events = count, epoch = epoch.get(), "restored the journal; run `setup` now");
    Ok(())
}

/// The newest command of each partition, which may have more events than have been read: a command is a row of the journal.
#[derive(Debug, Default)]
struct OpenCommands(HashMap<i32, (CartId, Vec<Entry>)>);

impl OpenCommands {
    /// Takes the next event of a partition. The one before it comes back, whole, if this is another command's: the events of a
    /// command follow each other.
    fn push(&mut self, partition: i32, cart_id: CartId, entry: Entry) -> Option<(CartId, Vec<Entry>)> {
        if let Some((open, entries)) = self.0.get_mut(&partition)
            && *open == cart_id
            && entries[0].position == entry.position
        {
            entries.push(entry);
            return None;
        }
        self.0.insert(partition, (cart_id, vec![entry]))
    }
}

fn append((cart_id, entries): &(CartId, Vec<Entry>)) -> Append<'_> {
    Append { cart_id: *cart_id, entries, snapshot: None }
}

/// All events, each with its partition, which is that of its command too.
fn read(kafka: &KafkaArgs, topic: &str, events: &mpsc::Sender<(i32, Vec<u8>)>) -> Result<(), kafka::Error> {
    let mut reader = TopicReader::open_at_beginning(kafka, topic)?;
    while let Some(message) = reader.next(SILENCE_MAX)? {
        let bytes = message.payload().unwrap_or_default().to_vec();
        if events.blocking_send((message.partition(), bytes)).is_err() {
            break; // the writer has failed, and tells why
        }
    }
    Ok(())
}

async fn decode(codec: &Codec<CartEvent>, bytes: &[u8]) -> anyhow::Result<CartEvent> {
    match codec.decode(bytes) {
        Err(DecodeError::NotLearnt { id }) => {
            codec.learn(id).await?;
            Ok(codec.decode(bytes)?)
        }
        result => Ok(result?),
    }
}

/// The log is that of the newest events, unless it ends before them: then it is a later one.
async fn record_log(
    admin: &Admin,
    args: &RecoveryArgs,
    session: &scylla::client::session::Session,
    newest: &HashMap<i32, Position>,
) -> anyhow::Result<LogEpoch> {
    let topic = args.kafka.prefixed(CartCommand::TOPIC);
    let (identity, ends) =
        tokio::task::block_in_place(|| Ok::<_, kafka::Error>((admin.identity(&topic)?, admin.watermarks(&topic)?)))?;
    let epoch = newest.values().filter_map(|position| position.epoch()).max().unwrap_or(LogEpoch::FIRST);
    let is_past = |(partition, (_, end)): (i32, (i64, i64))| {
        newest.get(&partition).is_some_and(|position| position.epoch() == Some(epoch) && position.offset() >= end)
    };
    if (0..).zip(ends).any(is_past) {
        let epoch = LogEpoch::new(epoch.get() + 1).context("all log epochs are used up")?;
        tracing::warn!(topic, epoch = epoch.get(), "the log ends before its events: it is a new one");
        tokio::task::block_in_place(|| admin.start_new_log(&args.kafka.prefixed(GROUP), &topic))?;
        return Ok(cassandra::restore_log(session, &topic, &identity, epoch).await?);
    }
    Ok(cassandra::restore_log(session, &topic, &identity, epoch).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_back_whole_when_its_partition_goes_on() {
        let (one, other) = (CartId::from(uuid::Uuid::from_u128(1)), CartId::from(uuid::Uuid::from_u128(2)));
        let entry = |sequence_number: i64, position: i64| Entry {
            sequence_number: sequence_number.into(),
            position: position.into(),
            command_id: uuid::Uuid::from_u128(7).into(),
            bytes: vec![],
        };
        let mut open = OpenCommands::default();
        let mut closed = Vec::new();
        for (partition, cart_id, event) in [
            (0, one, entry(1, 10)),
            (0, one, entry(2, 11)),
            (1, other, entry(1, 11)),
            (0, one, entry(3, 11)),
            (1, other, entry(2, 12)),
            (0, other, entry(3, 11)),
        ] {
            closed.extend(open.push(partition, cart_id, event));
        }
        assert_eq!(
            closed,
            [(one, vec![entry(1, 10)]), (other, vec![entry(1, 11)]), (one, vec![entry(2, 11), entry(3, 11)])]
        );
        assert_eq!(open.0, HashMap::from([(1, (other, vec![entry(2, 12)])), (0, (other, vec![entry(3, 11)]))]));
    }
}
