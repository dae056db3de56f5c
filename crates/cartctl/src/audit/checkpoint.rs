//! What an audit without findings leaves for the next one, so that the next reads only what has come since.
//!
//! ```text
//! of each partition of the four topics   the offset of the cut, a rolling SHA-256 up to it, records whose cause comes after it
//! of each cart                           a SHA-256 of its journal up to the cut, and the newest entries
//! of each row of the read tables         the total up to the cut
//! of the skips                           a SHA-256
//! ```
//!
//! A checkpoint is sealed at the cut of an audit: there everything agreed. Records before the cut can be of commands after it, since
//! the services went on; they are read again by the next audit (`left`).

use std::collections::{BTreeMap, HashMap};

use cart::contract::{Contract as _, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, PurchasedItem};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::digest::{CartDigest, Hash, hex};
use super::report::Seal;
use crate::totals::{DayKey, MonthKey};

/// The topics that an audit reads, in the order of their marks.
pub(super) const TOPICS: [&str; 4] = [CartCommand::TOPIC, CartEvent::TOPIC, PurchasedItem::TOPIC, DEAD_LETTER_TOPIC];

/// What a partition had at the cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The first offset after the cut.
    pub next: i64,
    /// The rolling hash of the records before it.
    #[serde(with = "hex")]
    pub hash: Hash,
    /// Offsets before it of records whose commands are after the cut, ascending.
    pub left: Vec<i64>,
}

impl Mark {
    /// The first offset that the next audit reads.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.left.first().copied().unwrap_or(self.next)
    }

    /// Whether the next audit looks at the record at this offset.
    #[must_use]
    pub fn is_open(&self, offset: i64) -> bool {
        offset >= self.next || self.left.binary_search(&offset).is_ok()
    }
}

/// The marks of all partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    pub commands: Vec<Mark>,
    pub events: Vec<Mark>,
    pub purchases: Vec<Mark>,
    pub dead_letters: Vec<Mark>,
}

impl Marks {
    /// In the order of [`TOPICS`].
    pub(super) fn all(&self) -> [&[Mark]; 4] {
        [&self.commands, &self.events, &self.purchases, &self.dead_letters]
    }

    /// One hash over all rolling hashes and their offsets, as text.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut sha = Sha256::new();
        for (topic, marks) in TOPICS.iter().zip(self.all()) {
            for (partition, mark) in (0_u32..).zip(marks) {
                sha.update(topic.as_bytes());
                sha.update(partition.to_be_bytes());
                sha.update(mark.next.to_be_bytes());
                sha.update(mark.hash);
            }
        }
        format!("sha256:{}", hex::text(&sha.finalize().into()))
    }
}

/// The mark of a partition.
pub(crate) fn mark(marks: &[Mark], partition: i32) -> Option<&Mark> {
    marks.get(usize::try_from(partition).ok()?)
}

/// A row of a read table: the total of the purchases up to the cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedTotal<T> {
    /// The partition of `item-purchased`, and the offset of the newest purchase.
    pub partition: i32,
    pub offset: i64,
    pub total: T,
}

/// The rows of the read tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealedTotals {
    pub months: HashMap<MonthKey, SealedTotal<Decimal>>,
    /// Quantity and name.
    pub days: HashMap<DayKey, SealedTotal<(i64, String)>>,
}

/// Identifies the logs and stores that were audited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// The prefix of the topics, and the keyspace.
    pub installation: String,
    /// Cluster, id and partitions of each topic, and the log epochs.
    pub logs: Vec<String>,
}

/// A checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub system: System,
    pub sealed_at: DateTime<Utc>,
    /// Commands before the cut, in all audits.
    pub commands: u64,
    pub marks: Marks,
    /// The digest of the skips. With others everything is read: one may be of a record before the cut.
    pub skips: Hash,
    /// The carts that have something in the journal.
    pub carts: HashMap<Uuid, CartDigest>,
    pub totals: SealedTotals,
    /// Those of each group that skips purchases which can be read, without these.
    pub own_totals: BTreeMap<String, SealedTotals>,
}

impl Checkpoint {
    /// The checkpoint in a report.
    #[must_use]
    pub fn seal(&self) -> Seal {
        Seal { sealed_at: self.sealed_at, commands: self.commands, hash: self.marks.hash() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mark_knows_what_the_next_audit_reads() {
        let mark = Mark { next: 10, left: vec![4, 8], ..Mark::default() };
        assert_eq!((mark.start(), Mark { next: 10, ..Mark::default() }.start()), (4, 10));
        let open: Vec<i64> = (0..13).filter(|offset| mark.is_open(*offset)).collect();
        assert_eq!(open, [4, 8, 10, 11, 12]);
    }

    #[test]
    fn the_hash_depends_on_every_hash_and_offset() {
        let marks = |next, hash| Marks { events: vec![Mark { next, hash, left: vec![] }], ..Marks::default() };
        let hashes: BTreeSet<String> = [
            marks(1, [0; 32]).hash(),
            marks(2, [0; 32]).hash(),
            marks(1, [1; 32]).hash(),
            Marks { commands: marks(1, [0; 32]).events, ..Marks::default() }.hash(),
        ]
        .into();
        assert_eq!(hashes.len(), 4);
        assert_eq!(
            marks(1, [0; 32]).hash(),
            Marks { events: vec![Mark { next: 1, hash: [0; 32], left: vec![0] }], ..Marks::default() }.hash()
        );
    }
}
