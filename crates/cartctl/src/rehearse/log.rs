//! Reads the commands of a partition.

use std::collections::HashSet;
use std::sync::Arc;

use cart::{CartCommand, CartId};
use kafka::{Codec, KafkaArgs, TopicReader};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::difference::{Asked, Difference, Part};
use crate::intake::Intake;
use crate::topic::{RawRecord, SILENCE_MAX};

/// Records that are compared at a time: about 1 MB in memory. The journal is asked once for each of their carts.
pub(super) const CHUNK_LEN: usize = 2_000;

/// The records of a partition from `start` up to, but without, `end`.
pub(super) struct Records {
    pub(super) commands: Codec<CartCommand>,
    /// The records that are dead letters, by partition and offset.
    pub(super) letters: Arc<HashSet<(i32, i64)>>,
    pub(super) partitions: i32,
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Records {
    /// Starts to read `topic` (full name) on a thread. The records come until the end, or until reading fails.
    pub(super) fn read(
        self,
        kafka: KafkaArgs,
        topic: String,
    ) -> (JoinHandle<anyhow::Result<()>>, mpsc::Receiver<Asked>) {
        let (sender, records) = mpsc::channel(CHUNK_LEN);
        let runtime = Handle::current();
        let reading = tokio::task::spawn_blocking(move || self.send(&kafka, &topic, &runtime, &sender));
        (reading, records)
    }

    fn send(
        &self,
        kafka: &KafkaArgs,
        topic: &str,
        runtime: &Handle,
        sender: &mpsc::Sender<Asked>,
    ) -> anyhow::Result<()> {
        let intake =
            Intake { codec: &self.commands, runtime, partitions: self.partitions, letters: self.letters.as_ref() };
        let mut reader = TopicReader::open(kafka, topic, [(self.partition, self.start)])?;
        while let Some(message) = reader.next(SILENCE_MAX)? {
            let record = RawRecord::of(&message);
            if record.offset >= self.end {
                break;
            }
            let content = intake.command(&record)?;
            let is_letter = self.letters.contains(&(record.partition, record.offset));
            let of_key = || std::str::from_utf8(record.key.as_deref()?).ok()?.parse::<CartId>().ok();
            let cart_id = content.as_ref().map_or_else(|_| of_key(), |command| Some(command.cart_id));
            let (partition, offset) = (record.partition, record.offset);
            if sender.blocking_send(Asked { partition, offset, cart_id, content, is_letter }).is_err() {
                break; // the comparison has failed, and says why
            }
        }
        Ok(())
    }
}

/// A record of no cart that cannot be decided, and is no dead letter.
pub(super) fn undecidable(asked: &Asked) -> Difference {
    let reason = asked.content.as_ref().err().map_or("it has no cart", String::as_str);
    Difference::of(asked, Part::Outcome, "no dead letter".to_owned(), format!("a dead letter: {reason}"))
}
