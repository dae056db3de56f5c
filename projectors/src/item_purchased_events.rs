//! `item-purchased-events`: purchases out of the carts' events, keyed by vendor for those who read them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cart::contract::header;
use cart::{CartEvent, PurchasedItem};
use kafka::{
    Codec, FencedGuard, GroupConsumer, Header, KafkaArgs, OwnedHeaders, Record, Recovery, TransactionalProducer,
};

use trace::{Place, Span, TraceHeaders, Work};

use crate::error::Error;
use crate::pace::Pace;
use crate::runner::{Batch, Projector};

/// From one transaction to the next: each costs Kafka about twenty requests, however many purchases it has.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// How long the first purchase waits for others: all cart-processors publish at the same time (`commit_pacing.rs` there),
/// and the transactions of some end a little later.
const GATHER: Duration = Duration::from_millis(20);

/// From so many purchases on a transaction does not wait: a backlog is limited by memory, not by the interval.
const PENDING_MAX: usize = 10_000;

/// Offsets alone, without a purchase, wait for so long: a purchase that follows does not have to wait for their transaction.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Reads `cart-events`, writes `item-purchased`.
#[derive(Debug)]
pub(crate) struct ItemPurchasedEvents {
    kafka: KafkaArgs,
    transactional_id: String,
    topic: String,
    codec: Codec<PurchasedItem>,
    // None after a failure: the next batch gets a new one, which settles what the old one left open.
    producer: Option<TransactionalProducer>,
    pending: Pending,
    pace: Pace,
    fenced: FencedGuard,
}

/// What the next transaction commits, by partition of `cart-events`: a partition's purchases and its offset come and go
/// together.
#[derive(Debug, Default)]
struct Pending {
    partitions: BTreeMap<i32, Consumed>,
    /// When the first event of it was consumed.
    since: Option<Instant>,
    /// When the first purchase of it was consumed.
    purchase_since: Option<Instant>,
}

/// What was consumed of one partition.
#[derive(Debug, Default)]
struct Consumed {
    purchases: Vec<Record>,
    /// The spans of purchases that are recorded, by their indexes in `purchases`, in order.
    sends: Vec<(usize, Span)>,
    next_offset: i64,
}

impl Pending {
    fn add(&mut self, partition: i32, purchase: Record, span: Option<Span>) {
        self.purchase_since.get_or_insert_with(Instant::now);
        let consumed = self.partitions.entry(partition).or_default();
        consumed.sends.extend(span.map(|span| (consumed.purchases.len(), span)));
        consumed.purchases.push(purchase);
    }

    /// Notes that everything before these offsets is in here.
    fn advance(&mut self, next_offsets: BTreeMap<i32, i64>) {
        for (partition, next_offset) in next_offsets {
            self.since.get_or_insert_with(Instant::now);
            self.partitions.entry(partition).or_default().next_offset = next_offset;
        }
    }

    /// Drops what comes from revoked partitions: their next owner reads it again.
    fn forget(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        self.since = self.since.filter(|_| !self.partitions.is_empty());
        self.purchase_since = self.purchase_since.filter(|_| self.len() > 0);
    }

    /// How many purchases wait.
    fn len(&self) -> usize {
        self.partitions.values().map(|consumed| consumed.purchases.len()).sum()
    }

    fn next_offsets(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().map(|(partition, consumed)| (*partition, consumed.next_offset))
    }

    /// The purchases, those that are recorded with their spans.
    fn purchases(&self) -> impl Iterator<Item = (&Record, Option<&Span>)> {
        self.partitions.values().flat_map(|consumed| {
            let mut sends = consumed.sends.iter().peekable();
            let with_span =
                move |(index, purchase)| (purchase, sends.next_if(|(sent, _)| *sent == index).map(|(_, span)| span));
            consumed.purchases.iter().enumerate().map(with_span)
        })
    }

    fn spans(&self) -> impl Iterator<Item = &Span> + Clone {
        self.partitions.values().flat_map(|consumed| consumed.sends.iter().map(|(_, span)| span))
    }
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
        let fenced = FencedGuard::new(&transactional_id);
        Ok(Self {
            kafka: kafka.clone(),
            transactional_id,
            topic,
            codec,
            producer,
            pending: Pending::default(),
            pace: Pace::every(PUBLISH_INTERVAL),
            fenced,
        })
    }

    /// Publishes what waits, in one transaction with its offsets.
    fn publish(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        self.pace.start();
        let pending = std::mem::take(&mut self.pending);
        if let Err(error) = self.transact(&pending, consumer) {
            let error = self.fenced.failed(error);
            if error.recovery() == Recovery::Fatal {
                return Err(error.into());
            }
            // Settles the outcome before the committed offsets are asked for.
            self.producer = Some(TransactionalProducer::connect(&self.kafka, &self.transactional_id)?);
            return Err(error.into());
        }
        self.fenced.committed();
        Ok(())
    }

    fn transact(&mut self, pending: &Pending, consumer: &GroupConsumer) -> Result<(), kafka::Error> {
        let started_at = Instant::now();
        let result = self.try_transact(pending, consumer);
        kafka::count_transaction(consumer.group(), started_at, &result);
        if result.is_ok() {
            consumer.applied(pending.next_offsets());
        }
        result
    }

    fn try_transact(&mut self, pending: &Pending, consumer: &GroupConsumer) -> Result<(), kafka::Error> {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => TransactionalProducer::connect(&self.kafka, &self.transactional_id)?,
        };
        // After the last poll of what is pending, before the next: see `group_metadata`.
        let group = consumer.group_metadata()?;
        let offsets = consumer.offsets(pending.next_offsets())?;
        fail_points::crash_point("purchases-before-transaction");
        let mut work = Work::begin("commit", &self.topic, pending.len(), pending.spans());
        let mut transaction = producer.begin()?;
        let mut watched = Vec::new();
        for (purchase, span) in pending.purchases() {
            match span {
                None => transaction.send(&self.topic, purchase)?,
                Some(span) => {
                    watched.push(span);
                    transaction.send_watched(&self.topic, purchase, watched.len())?;
                }
            }
        }
        // The commit waits for it otherwise.
        if !watched.is_empty() {
            transaction.deliver()?;
        }
        work.step("deliver the records");
        let places = transaction.watched();
        fail_points::crash_point("purchases-in-transaction");
        // A crash before this leaves an open transaction, which is aborted; the events are read again. A crash after it
        // leaves nothing to do. Committed readers see each purchase once.
        transaction.commit(offsets, group)?;
        fail_points::crash_point("purchases-after-commit");
        work.step("commit the transaction");
        work.end();
        for place in places {
            if let Some(span) = watched.get(place.number - 1) {
                span.sent(Place { topic: &self.topic, partition: place.partition, offset: place.offset }, 1);
            }
        }
        self.producer = Some(producer);
        Ok(())
    }
}

/// A purchase as it is published: keyed by its vendor.
pub(crate) fn record(
    codec: &Codec<PurchasedItem>,
    purchase: &PurchasedItem,
    trace: TraceHeaders<'_>,
) -> Result<Record, kafka::Error> {
    let content_type = Header { key: header::CONTENT_TYPE, value: Some(header::AVRO) };
    Ok(Record {
        partition: None,
        key: Some(purchase.vendor_id.to_string().into_bytes()),
        value: Some(codec.encode(purchase)?),
        headers: Some(kafka::with_trace(OwnedHeaders::new_with_capacity(2).insert(content_type), trace)),
    })
}

impl Projector for ItemPurchasedEvents {
    type Event = CartEvent;

    const CARRIES_TRACES: bool = true;

    fn apply(&mut self, batch: Batch<CartEvent>, consumer: &GroupConsumer) -> Result<(), Error> {
        for received in batch.records {
            if let Some(purchase) = PurchasedItem::of(received.event) {
                let trace = received.trace.send(&self.topic);
                let record = record(&self.codec, &purchase, trace.headers())?;
                self.pending.add(received.partition, record, trace.span().cloned());
            }
        }
        self.pending.advance(batch.next_offsets);
        let is_due = self.due_in().is_some_and(|wait| wait.is_zero());
        if is_due || self.pending.len() >= PENDING_MAX {
            self.publish(consumer)?;
        }
        Ok(())
    }

    fn due_in(&self) -> Option<Duration> {
        let left = |interval: Duration, since: Instant| interval.saturating_sub(since.elapsed());
        match self.pending.purchase_since {
            Some(since) => Some(left(GATHER, since).max(self.pace.due_in())),
            None => self.pending.since.map(|since| left(IDLE_COMMIT_INTERVAL, since)),
        }
    }

    fn flush(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        if self.pending.since.is_some() { self.publish(consumer) } else { Ok(()) }
    }

    fn finish(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        // A failed producer is not replaced: the broker aborts what it left open, or its successor does.
        let pending = std::mem::take(&mut self.pending);
        if pending.since.is_some() { Ok(self.transact(&pending, consumer)?) } else { Ok(()) }
    }

    fn start_offsets(&mut self, _: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
        Ok(Vec::new())
    }

    fn forget(&mut self) {
        self.pending = Pending::default();
    }

    fn forget_partitions(&mut self, partitions: &[i32]) {
        self.pending.forget(partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purchase() -> Record {
        Record { partition: None, key: None, value: None, headers: None }
    }

    #[test]
    fn a_revocation_drops_a_partitions_purchases_and_offset_together() {
        let mut pending = Pending::default();
        pending.add(1, purchase(), None);
        pending.add(2, purchase(), None);
        pending.advance(BTreeMap::from([(1, 10), (2, 20), (3, 30)]));
        pending.forget(&[1]);
        assert_eq!((pending.len(), pending.next_offsets().collect::<Vec<_>>()), (1, vec![(2, 20), (3, 30)]));
        pending.forget(&[2]);
        assert!(pending.purchase_since.is_none() && pending.since.is_some(), "an offset is left");
        pending.forget(&[3]);
        assert!(pending.since.is_none());
    }
}
