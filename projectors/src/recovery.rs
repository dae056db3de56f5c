//! `cartctl rebuild` and `cartctl resume-purchases`: a read table is built again from `item-purchased`, and
//! `item-purchased-events` continues after its offsets or its input were lost. Each can be repeated after an interruption.
//!
//! They are here because they create tables and publish purchases as the projectors do. Shown by crates/e2e/tests/e2e/recovery.rs.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract, group};
use cart::{CartEvent, EventId, PurchasedItem};
use cassandra::CassandraArgs;
use kafka::{Admin, Codec, KafkaArgs, Message as _, Registry, TopicReader, TransactionalProducer};
use postgres::DatabaseArgs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::LogArgs;
use sqlx::AssertSqlSafe;
use tokio::runtime::Handle;
use trace::TraceHeaders;

use crate::item_purchased_events::record;
use crate::{popular_items, vendor_billing};

/// Purchases that are published in one transaction.
const CHUNK_LEN: usize = 5_000;

/// How long a topic may say nothing before we give up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A table that can be built again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RebuildTarget {
    /// Cassandra item_quantity_by_day
    PopularItems,
    /// Cassandra balance_by_vendor
    VendorBilling,
    /// PostgreSQL vendor_billing
    VendorBillingJdbc,
}

/// Empty a read table and reset its projector to the beginning
///
/// Stop all instances of the projector first: the command fails while the group has a member. Start the projector afterwards: it
/// reads item-purchased from the beginning. Until it has reached the end, readers see an empty table, then totals that are too
/// low. A read with Read-After waits for its command, and gets 504 while the table is behind it.
///
/// Exit code 0: done. 1: it failed, and can be repeated.
#[derive(Debug, Clone, clap::Args)]
pub struct RebuildArgs {
    /// The read table, by the name of its projector
    #[arg(value_enum)]
    table: RebuildTarget,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,

    #[command(flatten)]
    database: DatabaseArgs,
    /// The log of this run.
    #[command(flatten)]
    pub log: LogArgs,
}

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

/// Empties a read table and lets its projector begin at the beginning.
///
/// # Errors
/// When the projector runs, or a server does not respond.
pub async fn rebuild(args: &RebuildArgs) -> anyhow::Result<()> {
    let kafka = &args.kafka;
    let admin = Admin::new(kafka)?;
    let topic = kafka.prefixed(PurchasedItem::TOPIC);
    let name = match args.table {
        RebuildTarget::PopularItems => group::POPULAR_ITEMS,
        RebuildTarget::VendorBilling => group::VENDOR_BILLING,
        RebuildTarget::VendorBillingJdbc => group::VENDOR_BILLING_JDBC,
    };
    // The offsets first: if we die in between, the rows' positions make the second time harmless.
    tokio::task::block_in_place(|| {
        let group = kafka.prefixed(name);
        admin.ensure_idle(&group)?;
        let starts: Vec<_> = admin.watermarks(&topic)?.into_iter().map(|(start, _)| start).collect();
        admin.set_offsets(&group, &topic, starts)
    })?;
    match args.table {
        RebuildTarget::PopularItems => empty(args, popular_items::CREATE, "item_quantity_by_day").await?,
        RebuildTarget::VendorBilling => empty(args, vendor_billing::CREATE, "balance_by_vendor").await?,
        RebuildTarget::VendorBillingJdbc => empty_database(args, &topic).await?,
    }
    tracing::info!(projector = name, topic, "the table is empty; start its projector, which reads the topic anew");
    Ok(())
}

async fn empty(args: &RebuildArgs, create: &str, table: &str) -> anyhow::Result<()> {
    let session = cassandra::connect(&args.cassandra.patient()).await?;
    session.query_unpaged(create, ()).await.with_context(|| format!("creating {table}"))?;
    // No deletes: their timestamps would be newer than every position, and hide all that is written afterwards.
    session.query_unpaged(format!("TRUNCATE {table}"), ()).await.with_context(|| format!("emptying {table}"))?;
    Ok(())
}

/// The balances and their offsets in one transaction.
async fn empty_database(args: &RebuildArgs, topic: &str) -> anyhow::Result<()> {
    let pool = args.database.connect().await?;
    let failed = "emptying vendor_billing (`projectors setup` creates it)";
    let mut transaction = pool.begin().await.context(failed)?;
    sqlx::query(AssertSqlSafe("TRUNCATE vendor_billing")).execute(&mut *transaction).await.context(failed)?;
    sqlx::query("DELETE FROM projection_offset WHERE projection = $1 AND topic = $2")
        .bind(group::VENDOR_BILLING_JDBC)
        .bind(topic)
        .execute(&mut *transaction)
        .await
        .context(failed)?;
    transaction.commit().await.context(failed)
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
