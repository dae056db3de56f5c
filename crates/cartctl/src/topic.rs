//! Reading topics whole.

use std::time::Duration;

use kafka::{Admin, Error, KafkaArgs, Message as _, TopicReader};

/// How long a broker may be silent while it is read from.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A record as it stands on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// In which partition.
    pub partition: i32,
    /// Where in it.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Gives each committed record that `topic` (full name) has now to `take`, in order within a partition. Blocks.
///
/// # Errors
/// When the brokers are away, there is no such topic, or `take` fails.
pub fn for_each<E: From<Error>>(
    args: &KafkaArgs,
    topic: &str,
    mut take: impl FnMut(RawRecord) -> Result<(), E>,
) -> Result<(), E> {
    let watermarks = Admin::new(args)?.watermarks(topic)?;
    let mut reader = TopicReader::open(args, topic, (0..).zip(watermarks.into_iter().map(|(start, _)| start)))?;
    while let Some(message) = reader.next(SILENCE_MAX)? {
        take(RawRecord {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
        })?;
    }
    Ok(())
}

/// All committed records that `topic` (full name) has now, in order within a partition.
///
/// # Errors
/// When the brokers are away, or there is no such topic.
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
