//! `item-purchased-events`: purchases out of the carts' events, keyed by vendor for those who read them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cart::{CartEvent, PurchasedItem};
use kafka::{Codec, GroupConsumer, Header, KafkaArgs, OwnedHeaders, Record, TransactionalProducer};

use crate::error::Error;
use crate::runner::{Batch, Projector};

/// Offsets alone, without a purchase, are worth a transaction this often.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Fenced this often without one commit between: another process runs under our name.
const FENCED_MAX: u32 = 5;

/// Reads `cart-events`, writes `item-purchased`.
#[derive(Debug)]
pub(crate) struct ItemPurchasedEvents {
    kafka: KafkaArgs,
    transactional_id: String,
    topic: String,
    codec: Codec<PurchasedItem>,
    // None after a failure: the next batch gets a new one, which settles what the old one left open.
    producer: Option<TransactionalProducer>,
    /// Consumed, but not worth a transaction yet.
    next_offsets: BTreeMap<i32, i64>,
    committed_at: Instant,
    fenced: u32,
}

impl ItemPurchasedEvents {
    /// Connects, which settles what a predecessor under the same id left open. Blocks.
    pub(crate) fn connect(
        kafka: &KafkaArgs,
        transactional_id: String,
        topic: String,
        codec: Codec<PurchasedItem>,
    ) -> Result<Self, kafka::Error> {
        let producer = Some(TransactionalProducer::connect(kafka, &transactional_id)?);
        let (next_offsets, committed_at) = (BTreeMap::new(), Instant::now());
        Ok(Self {
            kafka: kafka.clone(),
            transactional_id,
            topic,
            codec,
            producer,
            next_offsets,
            committed_at,
            fenced: 0,
        })
    }

    fn publish(&mut self, purchases: &[Record], consumer: &GroupConsumer) -> Result<(), kafka::Error> {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => TransactionalProducer::connect(&self.kafka, &self.transactional_id)?,
        };
        // After the last poll of the batch, before the next: see `group_metadata`.
        let group = consumer.group_metadata()?;
        let offsets = consumer.offsets(self.next_offsets.iter().map(|(partition, offset)| (*partition, *offset)))?;
        fail_points::crash_point("purchases-before-transaction");
        let mut transaction = producer.begin()?;
        for purchase in purchases {
            transaction.send(&self.topic, purchase)?;
        }
        fail_points::crash_point("purchases-in-transaction");
        // A crash before this leaves an open transaction, which is aborted; the events are read again. A crash after it
        // leaves nothing to do. Committed readers see each purchase once.
        transaction.commit(offsets, group)?;
        fail_points::crash_point("purchases-after-commit");
        self.producer = Some(producer);
        Ok(())
    }
}

/// A purchase as it is published: keyed by its vendor.
pub(crate) fn record(codec: &Codec<PurchasedItem>, purchase: &PurchasedItem) -> Result<Record, kafka::Error> {
    let header = Header { key: "content-type", value: Some("avro/binary") };
    Ok(Record {
        partition: None,
        key: Some(purchase.vendor_id.to_string().into_bytes()),
        value: Some(codec.encode(purchase)?),
        headers: Some(OwnedHeaders::new_with_capacity(1).insert(header)),
    })
}

impl Projector for ItemPurchasedEvents {
    type Event = CartEvent;

    fn apply(&mut self, batch: Batch<CartEvent>, consumer: &GroupConsumer) -> Result<(), Error> {
        let mut purchases = Vec::new();
        for received in batch.records {
            if let Some(purchase) = PurchasedItem::of(received.event) {
                purchases.push(record(&self.codec, &purchase)?);
            }
        }
        self.next_offsets.extend(batch.next_offsets);
        let is_due = !self.next_offsets.is_empty() && self.committed_at.elapsed() >= IDLE_COMMIT_INTERVAL;
        if purchases.is_empty() && !is_due {
            return Ok(());
        }
        if let Err(error) = self.publish(&purchases, consumer) {
            self.fenced = if error.is_fenced() { self.fenced + 1 } else { self.fenced };
            if self.fenced >= FENCED_MAX {
                let operation = format!(
                    "publishing as {} (another process with the same --instance keeps fencing this one; give each \
                     its own name)",
                    self.transactional_id
                );
                return Err(kafka::Error::fatal(operation, error).into());
            }
            // Settles the outcome before the committed offsets are asked for.
            self.producer = Some(TransactionalProducer::connect(&self.kafka, &self.transactional_id)?);
            return Err(error.into());
        }
        self.fenced = 0;
        self.next_offsets.clear();
        self.committed_at = Instant::now();
        Ok(())
    }

    fn start_offsets(&mut self, _: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
        Ok(Vec::new())
    }

    fn forget(&mut self) {
        self.next_offsets.clear();
    }

    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.next_offsets.retain(|partition, _| !partitions.contains(partition));
    }
}
