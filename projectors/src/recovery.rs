//! `cartctl resume-purchases`: `item-purchased-events` continues after its offsets or its input were lost. It can be repeated
//! after an interruption.
//!
//! It is here because it publishes purchases as the projector does. Shown by crates/e2e/tests/e2e/recovery.rs.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract, group};
use cart::{CartEvent, EventId, PurchasedItem};
use kafka::{Admin, Codec, KafkaArgs, Message as _, Registry, TopicReader, TransactionalProducer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::LogArgs;
use tokio::runtime::Handle;
use trace::TraceHeaders;

use crate::item_purchased_events::record;

/// Purchases that are published in one transaction.
const CHUNK_LEN: usize = 5_000;

/// How long a topic may say nothing before we give up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Publish the purchases that item-purchased lacks, after cart-events or the offsets on it were lost
///
/// Stop all instances of item-purchased-events first: the command fails while the group has a member.
///
/// Exit code 0: done. 1: it failed, and can be repeated.
#[derive(Debug, Clone, clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// The log of this run.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Compares `cart-events` with `item-purchased`, publishes the purchases that are missing there, and commits that all of
/// `cart-events` is done. Needs some 50 bytes of memory for each purchase.
///
/// # Errors
/// When the projector runs, a record cannot be read, or a server does not respond.
pub async fn resume_purchases(args: &ResumeArgs) -> anyhow::Result<()> {
    let kafka = args.kafka.clone();
    let registry = Registry::new(&kafka)?;
    let events = Codec::<CartEvent>::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    let purchases = Codec::<PurchasedItem>::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
    let runtime = Handle::current();
    let work = move || resume(&kafka, &events, &purchases, &runtime);
    tokio::task::spawn_blocking(work).await.context("comparing the topics panicked")?
}

fn resume(
    kafka: &KafkaArgs,
    events: &Codec<CartEvent>,
    purchases: &Codec<PurchasedItem>,
    runtime: &Handle,
) -> anyhow::Result<()> {
    let admin = Admin::new(kafka)?;
    let group = kafka.prefixed(group::ITEM_PURCHASED_EVENTS);
    let (source, target) = (kafka.prefixed(CartEvent::TOPIC), kafka.prefixed(PurchasedItem::TOPIC));
    admin.ensure_idle(&group)?;
    // Also ends what a killed instance left open under this name.
    let transactional_id = kafka.prefixed(&format!("{}-resume", group::ITEM_PURCHASED_EVENTS));
    let mut producer = TransactionalProducer::connect(kafka, &transactional_id)?;

    let mut published: HashSet<EventId> = HashSet::new();
    for_each(kafka, purchases, runtime, |_, purchase| {
        published.insert(purchase.event_id);
        Ok(())
    })?;
    let mut next: Vec<i64> = admin.watermarks(&source)?.into_iter().map(|(start, _)| start).collect();
    let mut missing = Vec::new();
    let mut added = 0;
    for_each(kafka, events, runtime, |(partition, offset), event: CartEvent| {
        if let Some(next) = usize::try_from(partition).ok().and_then(|partition| next.get_mut(partition)) {
            *next = offset + 1;
        }
        if let Some(purchase) = PurchasedItem::of(event).filter(|purchase| published.insert(purchase.event_id)) {
            missing.push(record(purchases, &purchase, TraceHeaders::default())?);
        }
        if missing.len() >= CHUNK_LEN {
            added += missing.len();
            publish(&mut producer, &target, &std::mem::take(&mut missing))?;
        }
        Ok(())
    })?;
    added += missing.len();
    publish(&mut producer, &target, &missing)?;
    admin.set_offsets(&group, &source, next)?;
    tracing::info!(found = published.len() - added, added, source, target, "every purchase is published once");
    Ok(())
}

/// Calls `f` with each value of a topic and where it stands.
fn for_each<T: Contract + Serialize + DeserializeOwned>(
    kafka: &KafkaArgs,
    codec: &Codec<T>,
    runtime: &Handle,
    mut f: impl FnMut((i32, i64), T) -> Result<(), kafka::Error>,
) -> anyhow::Result<()> {
    let topic = kafka.prefixed(T::TOPIC);
    let mut reader = TopicReader::open_at_beginning(kafka, &topic)?;
    while let Some(message) = reader.next(SILENCE_MAX)? {
        let place = (message.partition(), message.offset());
        let bytes = message.payload().unwrap_or_default();
        let value = codec.decode_or_fetch_blocking(bytes, runtime)?;
        f(place, value.with_context(|| format!("reading {topic}/{}/{}", place.0, place.1))?)?;
    }
    Ok(())
}

fn publish(producer: &mut TransactionalProducer, topic: &str, purchases: &[kafka::Record]) -> Result<(), kafka::Error> {
    let mut transaction = producer.begin()?;
    for purchase in purchases {
        transaction.send(topic, purchase)?;
    }
    transaction.commit_records()
}
