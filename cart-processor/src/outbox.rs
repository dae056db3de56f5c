//! What the next transaction will make visible: events, dead letters, and the offsets of the commands that they come from.
//!
//! The outbox's life: the worker adds what a batch produced (`Worker::enqueue_events`) and the batch's offsets. When a
//! transaction is due, `Worker::publish` passes it on whole and begins an empty one. The publisher commits it in one Kafka
//! transaction. After a failure, and for a revoked partition, it is dropped: the next owner reads the commands again.

use std::collections::BTreeMap;

use cart::contract::header;
use kafka::{Header, OwnedHeaders, Record};
use trace::{Span, Trace};

const CONTENT_TYPE: Header<'static, &'static str> = Header { key: header::CONTENT_TYPE, value: Some(header::AVRO) };

/// Collected by the worker, in the order in which it is to be published.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    partitions: BTreeMap<i32, PartitionOutbox>,
}

/// What comes from one partition of `cart-commands`; dropped when the partition is revoked.
#[derive(Debug, Default)]
pub(crate) struct PartitionOutbox {
    pub(crate) events: Vec<Record>,
    /// The spans of events whose commands are recorded, in order.
    pub(crate) sends: Vec<SendSpan>,
    pub(crate) dead_letters: Vec<Record>,
    /// Of `cart-parked`.
    pub(crate) parked: Vec<Record>,
    pub(crate) next_offset: i64,
}

/// The span of the events of one command.
#[derive(Debug)]
pub(crate) struct SendSpan {
    /// The index of the first event in its [`PartitionOutbox`].
    pub(crate) first: usize,
    /// How many events.
    pub(crate) len: usize,
    pub(crate) span: Span,
}

impl Outbox {
    /// Adds the events of a cart's command, as they are journalled; they keep their order.
    pub(crate) fn push_events(&mut self, partition: i32, key: &[u8], events: Vec<Vec<u8>>, trace: &Trace) {
        let outbox = self.partitions.entry(partition).or_default();
        if let Some(span) = trace.span() {
            outbox.sends.push(SendSpan { first: outbox.events.len(), len: events.len(), span: span.clone() });
        }
        outbox.events.extend(events.into_iter().map(|event| {
            let headers = OwnedHeaders::new_with_capacity(2).insert(CONTENT_TYPE);
            let headers = kafka::with_trace(headers, trace.headers());
            // The topics have the same number of partitions and the same partitioner, so the key belongs there.
            let (partition, key) = (Some(partition), Some(key.to_vec()));
            Record { partition, key, value: Some(event), headers: Some(headers) }
        }));
    }

    pub(crate) fn push_dead_letter(&mut self, partition: i32, letter: Record) {
        self.partitions.entry(partition).or_default().dead_letters.push(letter);
    }

    /// Adds a record of `cart-parked`. [`Outbox::advance`] must follow.
    pub(crate) fn push_parked(&mut self, partition: i32, record: Record) {
        self.partitions.entry(partition).or_default().parked.push(record);
    }

    /// Sets the offset that the transaction commits for a partition: everything before it is in here.
    pub(crate) fn advance(&mut self, partition: i32, next_offset: i64) {
        self.partitions.entry(partition).or_default().next_offset = next_offset;
    }

    /// Drops what comes from a revoked partition.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// How many records wait.
    pub(crate) fn len(&self) -> usize {
        let len = |one: &PartitionOutbox| one.events.len() + one.dead_letters.len() + one.parked.len();
        self.partitions.values().map(len).sum()
    }

    pub(crate) fn next_offsets(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().map(|(number, partition)| (*number, partition.next_offset))
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &PartitionOutbox> {
        self.partitions.values()
    }
}
