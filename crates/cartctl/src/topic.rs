//! Reads whole topics.

use std::time::Duration;

use kafka::{Admin, BorrowedMessage, Error, KafkaArgs, Message as _, TopicReader};

/// How long a read may go without a record.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl RawRecord {
    /// Copies a record.
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }
}

/// Passes each committed record that `topic` (full name) has now to `take`, in order within a partition. Blocks.
///
/// # Errors
/// The brokers are unavailable, the topic does not exist, or `take` fails.
pub fn for_each<E: From<Error>>(
    args: &KafkaArgs,
    topic: &str,
    take: impl FnMut(RawRecord) -> Result<(), E>,
) -> Result<(), E> {
    let watermarks = Admin::new(args)?.watermarks(topic)?;
    for_each_from(args, topic, watermarks.into_iter().map(|(start, _)| start), take)
}

/// As [`for_each`], from these offsets of the partitions on.
pub(crate) fn for_each_from<E: From<Error>>(
    args: &KafkaArgs,
    topic: &str,
    starts: impl IntoIterator<Item = i64>,
    mut take: impl FnMut(RawRecord) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = TopicReader::open(args, topic, (0..).zip(starts))?;
    while let Some(message) = reader.next(SILENCE_MAX)? {
        take(RawRecord::of(&message))?;
    }
    Ok(())
}

/// Reads all committed records that `topic` (full name) has now, in order within a partition.
///
/// # Errors
/// The brokers are unavailable, or the topic does not exist.
pub async fn read_all(args: &KafkaArgs, topic: &str) -> anyhow::Result<Vec<RawRecord>> {
    let (args, topic) = (args.clone(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        for_each::<anyhow::Error>(&args, &topic, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok(records)
    })
    .await?
}
