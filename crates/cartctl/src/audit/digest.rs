//! Hashes of records, of journals and of skips, by which a later audit knows that they are what was audited.

use std::collections::BTreeMap;

use cart::Position;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::rules::Kept;
use crate::SkippedRecord;
use crate::journal::{JournalRow, Newest};

/// A SHA-256.
pub type Hash = [u8; 32];

/// What a cart has in the journal up to a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartDigest {
    #[serde(with = "hex")]
    pub hash: Hash,
    pub newest: Newest,
}

impl CartDigest {
    /// The digest of what is sealed. `None` where that is nothing.
    #[must_use]
    pub fn of(
        rows: &[JournalRow],
        requests: &BTreeMap<Position, Kept>,
        is_sealed: impl Fn(Position) -> bool,
    ) -> Option<Self> {
        let (mut sha, mut newest) = (Sha256::new(), Newest::default());
        for row in rows.iter().filter(|row| is_sealed(row.position.into())) {
            newest.sequence_number = row.sequence_number;
            sha.update(b"event");
            sha.update(row.sequence_number.to_be_bytes());
            sha.update(row.position.to_be_bytes());
            sha.update(row.command_id);
            update(&mut sha, Some(&row.event));
        }
        for (position, kept) in requests.iter().filter(|(position, _)| is_sealed(**position)) {
            sha.update(b"request");
            sha.update(position.get().to_be_bytes());
            sha.update(kept.command_id);
            sha.update([kept.keyed.map_or(2, u8::from)]);
            update(&mut sha, kept.outcome.as_ref().map(String::as_bytes));
            sha.update(kept.sequence_number.to_be_bytes());
            if let Some((digest, issued_at)) = kept.unchanged {
                newest.unchanged = position.get();
                sha.update(digest.to_be_bytes());
                sha.update(issued_at.timestamp_micros().to_be_bytes());
            }
        }
        (newest != Newest::default()).then(|| Self { hash: sha.finalize().into(), newest })
    }
}

/// The digest of all that skips change: their records and groups, and whether these records are garbage. A skip of another record than
/// the one that is there changes nothing.
pub(super) fn of_skips(skips: &[SkippedRecord]) -> Hash {
    let mut holding: Vec<_> = skips.iter().filter(|skip| skip.holds()).collect();
    holding.sort_unstable_by_key(|skip| (&skip.topic, skip.partition, skip.offset, &skip.group));
    let mut sha = Sha256::new();
    for SkippedRecord { group, topic, partition, offset, sha256, is_readable, .. } in holding {
        update(&mut sha, Some(topic.as_bytes()));
        sha.update(partition.to_be_bytes());
        sha.update(offset.to_be_bytes());
        update(&mut sha, Some(group.as_bytes()));
        update(&mut sha, Some(sha256.as_bytes()));
        sha.update([u8::from(*is_readable)]);
    }
    sha.finalize().into()
}

/// The rolling hashes of a topic's partitions: each is the hash of the one before and a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Chains {
    /// By partition: the first offset that counts, the first that does not, and the hash so far.
    partitions: Vec<(i64, i64, Hash)>,
}

impl Chains {
    /// From these offsets and hashes up to the cut.
    pub(super) fn new(from: impl IntoIterator<Item = (i64, Hash)>, to: impl IntoIterator<Item = i64>) -> Self {
        Self { partitions: from.into_iter().zip(to).map(|((from, hash), to)| (from, to, hash)).collect() }
    }

    /// Takes the next record of a partition. `origin`: of a dead letter, partition and offset of the command.
    pub(super) fn take(
        &mut self,
        (partition, offset): (i32, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        origin: Option<(i32, i64)>,
    ) {
        let chain = usize::try_from(partition).ok().and_then(|partition| self.partitions.get_mut(partition));
        let Some((from, to, hash)) = chain else { return };
        if !(*from..*to).contains(&offset) {
            return;
        }
        let mut sha = Sha256::new();
        sha.update(*hash);
        sha.update(offset.to_be_bytes());
        update(&mut sha, key);
        update(&mut sha, value);
        if let Some((partition, offset)) = origin {
            sha.update(partition.to_be_bytes());
            sha.update(offset.to_be_bytes());
        }
        *hash = sha.finalize().into();
    }

    pub(super) fn hashes(self) -> Vec<Hash> {
        self.partitions.into_iter().map(|(_, _, hash)| hash).collect()
    }
}

/// With its length, so that nothing moves between two fields.
fn update(sha: &mut Sha256, bytes: Option<&[u8]>) {
    let len = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    sha.update(len.to_be_bytes());
    sha.update(bytes.unwrap_or_default());
}

/// Hashes as text.
pub(super) mod hex {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Hash;

    pub(in crate::audit) fn text(hash: &Hash) -> String {
        hash.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
    }

    pub(in crate::audit) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(hash))
    }

    pub(in crate::audit) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = Hash::default();
        let digits = text.as_bytes();
        if digits.len() != 2 * hash.len() {
            return Err(D::Error::custom("a hash has 64 digits"));
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(D::Error::custom)?;
            *byte = u8::from_str_radix(pair, 16).map_err(D::Error::custom)?;
        }
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Offset, key and value.
    type Record<'a> = (i64, &'a [u8], &'a [u8]);

    fn chained(records: &[Record<'_>], from: (i64, Hash), to: i64) -> Hash {
        let mut chains = Chains::new([from], [to]);
        for (offset, key, value) in records {
            chains.take((0, *offset), Some(key), Some(value), None);
        }
        chains.hashes()[0]
    }

    #[test]
    fn a_chain_that_goes_on_is_the_chain_from_the_beginning() {
        let records: [Record<'_>; 3] = [(0, b"k", b"1"), (2, b"k", b"2"), (3, b"j", b"3")];
        let start = (0, Hash::default());
        let half = chained(&records, start, 3);
        assert_eq!(half, chained(&records[..2], start, 3));
        assert_eq!(chained(&records, (3, half), 10), chained(&records, start, 10));
        assert_ne!(half, chained(&records, start, 4));
        let others: [&[Record<'_>]; 4] =
            [&[(1, b"k", b"1")], &[(0, b"k1", b"")], &[(0, b"", b"k1")], &[(0, b"k", b"2")]];
        for other in others {
            assert_ne!(chained(&records[..1], start, 9), chained(other, start, 9), "{other:?}");
        }
    }

    #[test]
    fn the_digest_of_skips_has_what_they_change_and_nothing_else() {
        let skip = |group: &str, offset| SkippedRecord {
            group: group.to_owned(),
            topic: String::from("item-purchased"),
            partition: 1,
            offset,
            sha256: String::from("ab"),
            found: Some(String::from("ab")),
            is_readable: false,
            by: String::from("ops"),
            at: chrono::DateTime::UNIX_EPOCH,
            reason: String::from("a test"),
        };
        let both = [skip("popular-items", 3), skip("vendor-billing", 3)];
        let digest = of_skips(&both);
        let [first, second] = both.clone();
        assert_eq!(of_skips(&[second.clone(), first.clone()]), digest);
        let again = SkippedRecord { reason: String::from("another"), by: String::from("dev"), ..second.clone() };
        assert_eq!(of_skips(&[first.clone(), again]), digest);
        let of_another = SkippedRecord { found: None, ..skip("vendor-billing", 4) };
        assert_eq!(of_skips(&[first.clone(), second.clone(), of_another]), digest);
        for other in [
            SkippedRecord { group: String::from("vendor-billing-jdbc"), ..second.clone() },
            SkippedRecord { topic: String::from("cart-events"), ..second.clone() },
            SkippedRecord { partition: 2, ..second.clone() },
            SkippedRecord { offset: 4, ..second.clone() },
            SkippedRecord { sha256: String::from("cd"), found: Some(String::from("cd")), ..second.clone() },
            SkippedRecord { is_readable: true, ..second.clone() },
            SkippedRecord { found: None, ..second.clone() },
        ] {
            assert_ne!(of_skips(&[first.clone(), other.clone()]), digest, "{other:?}");
        }
        assert_ne!(of_skips(&[first]), digest);
    }

    #[test]
    fn the_digest_of_a_cart_has_all_that_is_sealed_and_nothing_else() {
        let row = |number: i64, event: &[u8]| JournalRow {
            sequence_number: number,
            position: number * 10,
            command_id: Uuid::from_u128(7),
            event: event.to_vec(),
        };
        let kept = |outcome: &str| Kept {
            command_id: Uuid::from_u128(8),
            keyed: Some(true),
            outcome: Some(outcome.to_owned()),
            sequence_number: 2,
            unchanged: Some((5, chrono::DateTime::UNIX_EPOCH)),
        };
        let of = |rows: &[JournalRow], outcome: &str, to: i64| {
            let requests = BTreeMap::from([(Position::from(25), kept(outcome))]);
            CartDigest::of(rows, &requests, |position| position.get() < to)
        };
        let rows = [row(1, b"a"), row(2, b"b"), row(3, b"c")];
        let sealed = of(&rows, "rejected", 30).expect("something is sealed");
        assert_eq!(sealed.newest, Newest { sequence_number: 2, unchanged: 25 });
        assert_eq!(of(&rows[..2], "rejected", 30), Some(sealed));
        assert_eq!(of(&rows, "rejected", 5), None);
        for other in [
            of(&rows, "made 1", 30),
            of(&rows, "rejected", 31),
            of(&rows, "rejected", 25),
            of(&rows[1..], "rejected", 30),
            of(&[row(1, b"a"), row(2, b"x")], "rejected", 30),
        ] {
            assert_ne!(other, Some(sealed));
        }
    }
}
