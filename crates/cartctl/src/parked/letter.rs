//! Whether a command is a dead letter.

use std::time::Instant;

use anyhow::ensure;
use cart::contract::DEAD_LETTER_TOPIC;
use kafka::{Admin, GroupProgress, KafkaArgs};
use parking::{OPEN_TRANSACTION, SETTLE_TIMEOUT};

use super::retry::INTERVAL;
use crate::intake::dead_letters;

/// Whether the record at a partition and offset of `cart-commands` has become a dead letter. All dead letters are read: their times are
/// those of the processors' clocks, which may be wrong. Blocks.
///
/// # Errors
/// Kafka is unavailable, or a transaction stays open for longer than [`SETTLE_TIMEOUT`].
pub(super) fn is_dead_letter(kafka: &KafkaArgs, origin: (i32, i64), sha256: &str) -> anyhow::Result<bool> {
    let topic = kafka.prefixed(DEAD_LETTER_TOPIC);
    settle(kafka, &topic, Admin::new(kafka)?.partitions(&topic)?)?;
    let letters = dead_letters(kafka, None)?;
    let is_it = |value: Option<&[u8]>| control::sha256(value) == sha256;
    Ok(letters.iter().any(|letter| letter.origin == Some(origin) && is_it(letter.value.as_deref())))
}

/// Waits until no transaction before the ends is open: it would hide the dead letters behind it.
fn settle(kafka: &KafkaArgs, topic: &str, partitions: i32) -> anyhow::Result<()> {
    // No offsets are committed under the name.
    let progress = GroupProgress::new(kafka, &format!("{topic}-reader"), topic)?;
    let started_at = Instant::now();
    for partition in 0..partitions {
        let (_, end) = progress.bounds(partition)?;
        while progress.last_stable_offset(partition)? < end {
            let is_late = started_at.elapsed() > SETTLE_TIMEOUT;
            ensure!(!is_late, "a transaction on {topic}/{partition} stays open; {OPEN_TRANSACTION}");
            std::thread::sleep(INTERVAL);
        }
    }
    Ok(())
}
