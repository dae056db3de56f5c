//! What the next transaction will make visible: events, dead letters, and the offsets of what they come from.

use std::collections::BTreeMap;

use kafka::{Header, OwnedHeaders, Record};

/// Names the encoding of a value, for readers that go by headers.
const CONTENT_TYPE: Header<'static, &'static str> = Header { key: "content-type", value: Some("avro/binary") };

/// Collected by the worker, in the order in which it is to be published.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    partitions: BTreeMap<i32, Share>,
}

/// What comes from one partition of `cart-commands`: it goes when the partition goes.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) events: Vec<Record>,
    pub(crate) dead_letters: Vec<Record>,
    pub(crate) next_offset: i64,
}

impl Outbox {
    /// Adds an event of a cart, as it is journalled; they keep their order.
    pub(crate) fn push_event(&mut self, partition: i32, key: &[u8], event: Vec<u8>, trace_parent: Option<&[u8]>) {
        let headers = OwnedHeaders::new_with_capacity(2).insert(CONTENT_TYPE);
        let headers = match trace_parent {
            Some(value) => headers.insert(Header { key: "traceparent", value: Some(value) }),
            None => headers,
        };
        // The topics have the same number of partitions and the same partitioner, so the key belongs there.
        let record =
            Record { partition: Some(partition), key: Some(key.to_vec()), value: Some(event), headers: Some(headers) };
        self.partitions.entry(partition).or_default().events.push(record);
    }

    pub(crate) fn push_dead_letter(&mut self, partition: i32, letter: Record) {
        self.partitions.entry(partition).or_default().dead_letters.push(letter);
    }

    /// Notes that everything before `next_offset` is in here.
    pub(crate) fn advance(&mut self, partition: i32, next_offset: i64) {
        self.partitions.entry(partition).or_default().next_offset = next_offset;
    }

    /// Forgets what comes from a partition that is not ours any more.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// How many records wait.
    pub(crate) fn len(&self) -> usize {
        self.partitions.values().map(|share| share.events.len() + share.dead_letters.len()).sum()
    }

    pub(crate) fn next_offsets(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().map(|(partition, share)| (*partition, share.next_offset))
    }

    pub(crate) fn shares(&self) -> impl Iterator<Item = &Share> {
        self.partitions.values()
    }
}
