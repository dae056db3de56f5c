//! Writers of the topics, with transactions as those of the cart-processor and `item-purchased-events`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cart::contract::Contract as _;
use cart::{CartEvent, PurchasedItem};
use kafka::{Codec, KafkaArgs, Record, TransactionalProducer};
use tokio::task::JoinHandle;

use super::shop::Line;

/// The size of a load's transaction, and the pause after it: there is always work, which is soon done after the end.
const CHUNK_LINES: u64 = 20;
const CHUNK_PAUSE: Duration = Duration::from_millis(25);

/// Makes the records of one of the two topics.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// `item-purchased`.
    Purchases(Codec<PurchasedItem>),
    /// `cart-events`.
    Events(Codec<CartEvent>),
    /// `cart-events`, without the purchases.
    OtherEvents(Codec<CartEvent>),
}

impl Target {
    fn topic(&self) -> &'static str {
        match self {
            Self::Purchases(_) => PurchasedItem::TOPIC,
            Self::Events(_) | Self::OtherEvents(_) => CartEvent::TOPIC,
        }
    }

    fn records(&self, line: &Line) -> anyhow::Result<Vec<Record>> {
        let record = |key: String, value| Record {
            partition: None,
            key: Some(key.into_bytes()),
            value: Some(value),
            headers: None,
        };
        match self {
            Self::Purchases(codec) => {
                let purchase = line.purchase()?;
                Ok(vec![record(purchase.vendor_id.to_string(), codec.encode(&purchase)?)])
            }
            Self::Events(codec) | Self::OtherEvents(codec) => {
                let (events, others_only) = (line.events()?, matches!(self, Self::OtherEvents(_)));
                let events = events.iter().filter(|event| !others_only || !event.is_purchase());
                events.map(|event| Ok(record(event.cart_id.to_string(), codec.encode(event)?))).collect()
            }
        }
    }
}

/// Writes lines. Blocks.
pub(crate) struct Writer {
    kafka: KafkaArgs,
    transactional_id: String,
    target: Target,
    topic: String,
    producer: TransactionalProducer,
}

impl Writer {
    /// `name` must be unique among the installation's writers.
    pub(crate) fn connect(kafka: &KafkaArgs, name: &str, target: Target) -> anyhow::Result<Self> {
        let transactional_id = kafka.prefixed(&format!("test-{name}"));
        let topic = kafka.prefixed(target.topic());
        let producer = TransactionalProducer::connect(kafka, &transactional_id)?;
        Ok(Self { kafka: kafka.clone(), transactional_id, target, topic, producer })
    }

    /// Writes all lines in one transaction.
    pub(crate) fn commit(&mut self, lines: &[Line]) -> anyhow::Result<()> {
        let mut transaction = self.producer.begin()?;
        for line in lines {
            for record in self.target.records(line)? {
                transaction.send(&self.topic, &record)?;
            }
        }
        Ok(transaction.commit_records()?)
    }

    /// Writes all lines in one transaction, and aborts it after their delivery.
    pub(crate) fn abort(&mut self, lines: &[Line]) -> anyhow::Result<()> {
        let mut transaction = self.producer.begin()?;
        for line in lines {
            for record in self.target.records(line)? {
                transaction.send(&self.topic, &record)?;
            }
        }
        transaction.deliver()?;
        // A producer with the same id aborts the open transaction of its predecessor.
        self.producer = TransactionalProducer::connect(&self.kafka, &self.transactional_id)?;
        Ok(())
    }
}

/// A continuous load, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Line>>>,
}

impl Load {
    /// Starts with line `first`.
    pub(crate) fn start(kafka: &KafkaArgs, target: Target, first: u64) -> Self {
        let (kafka, stop) = (kafka.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let mut writer = Writer::connect(&kafka, "load", target)?;
            let mut lines = Vec::new();
            let mut next = first;
            while !stopped.load(Ordering::Relaxed) {
                let chunk: Vec<_> = (next..next + CHUNK_LINES).map(Line::of).collect();
                writer.commit(&chunk)?;
                lines.extend(chunk);
                next += CHUNK_LINES;
                std::thread::sleep(CHUNK_PAUSE);
            }
            Ok(lines)
        });
        Self { stop, thread }
    }

    /// Stops it. Returns the written lines.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Vec<Line>> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.thread).await?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
