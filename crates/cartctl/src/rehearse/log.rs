//! Reads the commands of a partition.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cart::{CartCommand, CartId, LogEpoch, Position};
use kafka::{Codec, KafkaArgs, TopicReader};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::difference::{Asked, Difference, Part};
use crate::intake::{Intake, Received};
use crate::topic::{RawRecord, SILENCE_MAX};

/// Records that are compared at a time: about 1 MB in memory. The journal is asked once for each of their carts.
pub(super) const CHUNK_LEN: usize = 2_000;

/// The records of a partition from `start` up to, but without, `end`.
pub(super) struct Records {
    pub(super) commands: Codec<CartCommand>,
    /// The records that are dead letters, by partition and offset.
    pub(super) letters: Arc<HashSet<(i32, i64)>>,
    /// Those of them that operators have discarded.
    pub(super) discarded: Arc<HashSet<(i32, i64)>>,
    /// The parked carts, each with the position before which its commands are decided.
    pub(super) parked: Arc<HashMap<CartId, Position>>,
    pub(super) epoch: LogEpoch,
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
        let intake = Intake {
            codec: &self.commands,
            runtime,
            partitions: self.partitions,
            letters: &self.letters,
            parked: &self.parked,
            epoch: self.epoch,
        };
        let mut reader = TopicReader::open(kafka, topic, [(self.partition, self.start)])?;
        while let Some(message) = reader.next(SILENCE_MAX)? {
            let record = RawRecord::of(&message);
            if record.offset >= self.end {
                break;
            }
            let place = (record.partition, record.offset);
            let is_letter = self.letters.contains(&place);
            let of_key = || std::str::from_utf8(record.key.as_deref()?).ok()?.parse::<CartId>().ok();
            let (cart_id, content) = match intake.command(&record)? {
                // It is not to be decided: a rule may panic for it.
                Received::Command(command) if is_letter && self.discarded.contains(&place) => {
                    (Some(command.cart_id), Err(String::from("it is discarded")))
                }
                Received::Command(command) => (Some(command.cart_id), Ok(*command)),
                Received::Undecidable(reason) => (of_key(), Err(reason)),
                // Its cart is parked, so it is left out.
                Received::TooNew { cart_id, reason } => (Some(cart_id), Err(reason)),
            };
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
