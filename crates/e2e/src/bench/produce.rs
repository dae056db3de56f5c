//! Fills topics before a measurement.

use std::time::Duration;

use kafka::{KafkaArgs, Producer, Record};

/// The timeout of the delivery of all queued records.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends records with keys to `topic` (full name); returns when all are delivered. Blocks.
pub(crate) fn produce(
    kafka: &KafkaArgs,
    topic: &str,
    records: impl Iterator<Item = anyhow::Result<(String, Vec<u8>)>>,
) -> anyhow::Result<()> {
    let producer = Producer::durable(kafka, topic)?;
    for record in records {
        let (key, value) = record?;
        let record = Record { partition: None, key: Some(key.into_bytes()), value: Some(value), headers: None };
        loop {
            match producer.send(&record) {
                Ok(delivery) => break drop(delivery),
                Err(error) if error.recovery() == kafka::Recovery::Retry => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(producer.flush(FLUSH_TIMEOUT)?)
}
