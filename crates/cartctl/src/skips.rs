//! The records that operators have skipped (`cartctl skip`), read from the control topic with code of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::Context as _;
use cart::contract::Contract;
use cart::{CartEvent, Control, ControlKey, ControlRecord, PurchasedItem};
use chrono::{DateTime, Utc};
use kafka::{Admin, Codec, DecodeError, KafkaArgs, Message as _, Registry, TopicReader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::topic::{SILENCE_MAX, for_each};

/// A record that a group goes past without applying it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedRecord {
    pub group: String,
    /// Without the installation's prefix.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The hash of the record that the operator meant.
    pub sha256: String,
    /// The hash of the record that is there; `None` without a record.
    pub found: Option<String>,
    /// Whether the record that is there can be decoded, by this program or a newer one: it is no garbage.
    pub is_readable: bool,
    pub by: String,
    pub at: DateTime<Utc>,
    pub reason: String,
}

impl SkippedRecord {
    /// Whether it is the record that the operator meant: only that one is skipped.
    pub(crate) fn holds(&self) -> bool {
        self.found.as_ref() == Some(&self.sha256)
    }

    /// Whether the group's tables lack a purchase that other tables may have. Garbage adds nothing to any table.
    #[must_use]
    pub fn leaves_out_purchase(&self) -> bool {
        self.holds() && self.is_readable && self.topic == PurchasedItem::TOPIC
    }

    fn is(&self, topic: &str, partition: i32, offset: i64) -> bool {
        self.holds() && (&*self.topic, self.partition, self.offset) == (topic, partition, offset)
    }

    /// Whether it is for this record and group.
    pub(crate) fn is_of(&self, group: &str, topic: &str, partition: i32, offset: i64) -> bool {
        self.group == group && self.is(topic, partition, offset)
    }
}

/// Whether any group skips a record.
pub(crate) fn is_skipped(skips: &[SkippedRecord], topic: &str, partition: i32, offset: i64) -> bool {
    skips.iter().any(|skip| skip.is(topic, partition, offset))
}

impl fmt::Display for SkippedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, topic, partition, offset, by, at, reason, .. } = self;
        write!(f, "{topic} {partition}/{offset} by {group} ({by}, {at:?}, {reason:?})")
    }
}

/// Reads the newest record of each skip, and the records that they are for.
pub(crate) async fn load(kafka: &KafkaArgs) -> anyhow::Result<Vec<SkippedRecord>> {
    let runtime = Handle::current();
    read_newest(kafka, codec(kafka).await?, move |kafka, newest| skips(kafka, newest, &runtime)).await
}

/// The codec of the control topic's values. Registers the schema.
pub(crate) async fn codec(kafka: &KafkaArgs) -> anyhow::Result<Codec<ControlRecord>> {
    Ok(Codec::register(&Registry::new(kafka)?, ControlRecord::TOPIC, ControlRecord::SCHEMA).await?)
}

/// Passes the newest control record of each key. Those without a value are left out.
pub(crate) async fn read_newest<T: Send + 'static>(
    kafka: &KafkaArgs,
    codec: Codec<ControlRecord>,
    of: impl FnOnce(&KafkaArgs, BTreeMap<ControlKey, ControlRecord>) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (kafka, runtime) = (kafka.clone(), Handle::current());
    let read = tokio::task::spawn_blocking(move || of(&kafka, newest(&kafka, &codec, &runtime)?));
    read.await?.context("reading topic cart-control")
}

fn newest(
    kafka: &KafkaArgs,
    codec: &Codec<ControlRecord>,
    runtime: &Handle,
) -> anyhow::Result<BTreeMap<ControlKey, ControlRecord>> {
    let mut newest: BTreeMap<ControlKey, Option<ControlRecord>> = BTreeMap::new();
    for_each::<anyhow::Error>(kafka, &kafka.prefixed(ControlRecord::TOPIC), |record| {
        let key: Option<ControlKey> =
            record.key.and_then(|key| String::from_utf8(key).ok()).and_then(|key| key.parse().ok());
        let value = record.value.map(|value| codec.decode_or_fetch_blocking(&value, runtime)).transpose()?;
        // Members go past a control record that they cannot read, or that does not fit its key, too.
        if let (Some(key), Ok(value)) = (key, value.transpose())
            && value.as_ref().is_none_or(|record| control::fits(&key, &record.control))
        {
            newest.insert(key, value);
        }
        Ok(())
    })?;
    Ok(newest.into_iter().filter_map(|(key, record)| Some((key, record?))).collect())
}

fn skips(
    kafka: &KafkaArgs,
    newest: BTreeMap<ControlKey, ControlRecord>,
    runtime: &Handle,
) -> anyhow::Result<Vec<SkippedRecord>> {
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for (key, record) in &newest {
        if let (ControlKey::Skip { topic, partition, offset, .. }, Control::Skip { .. }) = (key, &record.control) {
            wanted.entry(topic.clone()).or_default().insert((*partition, *offset));
        }
    }
    let mut found = BTreeMap::new();
    for (topic, wanted) in wanted {
        let of_topic = records(kafka, &topic, &wanted, runtime)?;
        found.insert(topic, of_topic);
    }
    let mut skips = Vec::new();
    for (key, record) in newest {
        let ControlKey::Skip { group, topic, partition, offset } = key else { continue };
        let ControlRecord { by, at, reason, control: Control::Skip { sha256 } } = record else { continue };
        let record = found.get(&topic).and_then(|of_topic| of_topic.get(&(partition, offset)));
        let is_readable = record.is_some_and(|record| record.is_readable);
        let found = record.map(|record| record.sha256.clone());
        skips.push(SkippedRecord { group, topic, partition, offset, sha256, found, is_readable, by, at, reason });
    }
    Ok(skips)
}

/// A record that a skip is for.
struct Found {
    sha256: String,
    /// As in [`SkippedRecord`].
    is_readable: bool,
}

/// The records at these offsets of a topic, as far as there are such records.
fn records(
    kafka: &KafkaArgs,
    topic: &str,
    wanted: &Wanted,
    runtime: &Handle,
) -> anyhow::Result<HashMap<(i32, i64), Found>> {
    if topic == CartEvent::TOPIC {
        records_of::<CartEvent>(kafka, wanted, runtime)
    } else if topic == PurchasedItem::TOPIC {
        records_of::<PurchasedItem>(kafka, wanted, runtime)
    } else {
        // Groups skip nothing of another topic, so its schema is not known here.
        Ok(read_at(kafka, topic, wanted, |value| Ok(Found { sha256: sha256(value), is_readable: true }))?)
    }
}

fn records_of<T: Contract + Serialize + DeserializeOwned>(
    kafka: &KafkaArgs,
    wanted: &Wanted,
    runtime: &Handle,
) -> anyhow::Result<HashMap<(i32, i64), Found>> {
    let registry = Registry::new(kafka)?;
    let codec = runtime.block_on(Codec::<T>::register(&registry, T::TOPIC, T::SCHEMA))?;
    let found = read_at(kafka, T::TOPIC, wanted, |value| {
        let is_readable = is_readable(&codec.decode_or_fetch_blocking(value, runtime)?);
        Ok(Found { sha256: sha256(value), is_readable })
    })?;
    Ok(found)
}

/// A record that is newer than this program may have been applied by a newer one.
fn is_readable<T>(decoded: &Result<T, DecodeError>) -> bool {
    matches!(decoded, Ok(_) | Err(DecodeError::Newer { .. }))
}

/// Partitions and offsets of a topic.
pub(crate) type Wanted = BTreeSet<(i32, i64)>;

/// Up to this many records are read through to the next offset; beyond it a new reader begins there, which costs about as much.
const GAP_MAX: i64 = 10_000;

/// The hashes of the records at these offsets of a topic, as far as there are such records.
pub(crate) fn hashes(
    kafka: &KafkaArgs,
    topic: &str,
    wanted: &Wanted,
) -> Result<HashMap<(i32, i64), String>, kafka::Error> {
    read_at(kafka, topic, wanted, |value| Ok(sha256(value)))
}

/// What `of` makes of the values of the records at these offsets of a topic, as far as there are such records.
fn read_at<T>(
    kafka: &KafkaArgs,
    topic: &str,
    wanted: &Wanted,
    of: impl Fn(&[u8]) -> Result<T, kafka::Error>,
) -> Result<HashMap<(i32, i64), T>, kafka::Error> {
    let mut found = HashMap::with_capacity(wanted.len());
    if wanted.is_empty() {
        return Ok(found);
    }
    let topic = kafka.prefixed(topic);
    let bounds = Admin::new(kafka)?.watermarks(&topic)?;
    // Reading fails at an offset that the log does not have.
    let is_there = |(partition, offset): &&(i32, i64)| {
        let bounds = usize::try_from(*partition).ok().and_then(|partition| bounds.get(partition));
        bounds.is_some_and(|(start, end)| (*start..*end).contains(offset))
    };
    for (partition, offsets) in runs(&wanted.iter().filter(is_there).copied().collect()) {
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { continue };
        let mut reader = TopicReader::open(kafka, &topic, [(partition, *first)])?;
        while let Some(message) = reader.next(SILENCE_MAX)?.filter(|message| message.offset() <= *last) {
            let offset = message.offset();
            if offsets.contains(&offset) {
                found.insert((partition, offset), of(message.payload().unwrap_or_default())?);
            }
            if offset == *last {
                break;
            }
        }
    }
    Ok(found)
}

/// Offsets of a partition that one reader reads.
fn runs(wanted: &Wanted) -> Vec<(i32, Vec<i64>)> {
    let mut runs: Vec<(i32, Vec<i64>)> = Vec::new();
    for (partition, offset) in wanted {
        match runs.last_mut() {
            Some((of, offsets)) if *of == *partition && offsets.last().is_some_and(|last| offset - last <= GAP_MAX) => {
                offsets.push(*offset);
            }
            _ => runs.push((*partition, vec![*offset])),
        }
    }
    runs
}

/// SHA-256 of a record's value.
pub(crate) fn sha256(value: &[u8]) -> String {
    format!("{:x}", Sha256::digest(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_offsets_of_a_partition_are_read_together() {
        let wanted = Wanted::from([(0, 5), (0, 5 + GAP_MAX), (0, 6 + 2 * GAP_MAX), (1, 7)]);
        let expected = [(0, vec![5, 5 + GAP_MAX]), (0, vec![6 + 2 * GAP_MAX]), (1, vec![7])];
        assert_eq!(runs(&wanted), expected);
    }

    #[test]
    fn what_a_newer_program_can_read_is_no_garbage() {
        let reason = || String::from("branch 6");
        assert!(is_readable(&Ok(())) && is_readable::<()>(&Err(DecodeError::Newer { id: 7, reason: reason() })));
        for garbage in [
            DecodeError::TooShort { len: 2 },
            DecodeError::NotFramed { byte: 0x67 },
            DecodeError::UnknownSchema { id: 7 },
            DecodeError::Malformed { id: 7, reason: reason() },
            DecodeError::TrailingBytes { len: 1 },
        ] {
            assert!(!is_readable::<()>(&Err(garbage)));
        }
    }

    #[test]
    fn only_a_readable_purchase_that_is_there_is_left_out() {
        let skip = |topic: &str, found: &str, is_readable| SkippedRecord {
            group: String::from("popular-items"),
            topic: topic.to_owned(),
            partition: 0,
            offset: 3,
            sha256: String::from("ab"),
            found: Some(found.to_owned()),
            is_readable,
            by: String::from("ops"),
            at: DateTime::UNIX_EPOCH,
            reason: String::from("a test"),
        };
        assert!(skip(PurchasedItem::TOPIC, "ab", true).leaves_out_purchase());
        assert!(!skip(PurchasedItem::TOPIC, "ab", false).leaves_out_purchase(), "garbage");
        assert!(!skip(PurchasedItem::TOPIC, "cd", true).leaves_out_purchase(), "another record, which is applied");
        assert!(!skip(CartEvent::TOPIC, "ab", true).leaves_out_purchase(), "no table has a purchase of it");
    }
}
