//! The records that operators have skipped (`cartctl skip`), read from the control topic with code of its own.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{Control, ControlKey, ControlRecord};
use chrono::{DateTime, Utc};
use kafka::{Codec, KafkaArgs, Message as _, Registry, TopicReader};
use serde::Serialize;
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
    pub by: String,
    pub at: DateTime<Utc>,
    pub reason: String,
}

impl SkippedRecord {
    /// Whether it is the record that the operator meant: only that one is skipped.
    pub(crate) fn holds(&self) -> bool {
        self.found.as_ref() == Some(&self.sha256)
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

/// Reads the newest record of each skip, and the hashes of the records that they are for.
pub(crate) async fn load(kafka: &KafkaArgs) -> anyhow::Result<Vec<SkippedRecord>> {
    let codec =
        Codec::<ControlRecord>::register(&Registry::new(kafka)?, ControlRecord::TOPIC, ControlRecord::SCHEMA).await?;
    let (kafka, runtime) = (kafka.clone(), Handle::current());
    let read = tokio::task::spawn_blocking(move || read(&kafka, &codec, &runtime));
    read.await?.context("reading topic cart-control")
}

fn read(kafka: &KafkaArgs, codec: &Codec<ControlRecord>, runtime: &Handle) -> anyhow::Result<Vec<SkippedRecord>> {
    let mut newest: BTreeMap<ControlKey, Option<ControlRecord>> = BTreeMap::new();
    for_each::<anyhow::Error>(kafka, &kafka.prefixed(ControlRecord::TOPIC), |record| {
        let key = record.key.and_then(|key| String::from_utf8(key).ok()).and_then(|key| key.parse().ok());
        let value = record.value.map(|value| codec.decode_or_fetch_blocking(&value, runtime)).transpose()?;
        // Members go past a control record that they cannot read, too.
        if let (Some(key), Ok(value)) = (key, value.transpose()) {
            newest.insert(key, value);
        }
        Ok(())
    })?;
    let mut skips = Vec::new();
    for (key, record) in newest {
        let ControlKey::Skip { group, topic, partition, offset } = key else { continue };
        let Some(ControlRecord { by, at, reason, control: Control::Skip { sha256 } }) = record else { continue };
        let found = hash(kafka, &topic, partition, offset)?;
        skips.push(SkippedRecord { group, topic, partition, offset, sha256, found, by, at, reason });
    }
    Ok(skips)
}

/// The hash of the record at an offset.
fn hash(kafka: &KafkaArgs, topic: &str, partition: i32, offset: i64) -> Result<Option<String>, kafka::Error> {
    let mut reader = TopicReader::open(kafka, &kafka.prefixed(topic), [(partition, offset)])?;
    let found = reader.next(SILENCE_MAX)?.filter(|message| message.offset() == offset);
    Ok(found.map(|message| format!("{:x}", Sha256::digest(message.payload().unwrap_or_default()))))
}
