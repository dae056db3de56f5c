//! A try of a parked cart: reads its commands from the log and the cart from the journal, while the loop goes on.

use std::time::Duration;

use cart::{Aggregate, CartId, Position};
use journal::Journal;
use kafka::{KafkaArgs, Message as _, TopicReader};
use service::Store;
use tokio::sync::oneshot;

use super::lots::{Failed, Job};
use super::trial::Cause;
use crate::intake::{CommandDecoder, ConsumedCommand, Incoming};
use crate::redelivery::RedeliveredRows;

/// Commands that are decided together, in one transaction with their progress: bounds the time that the loop takes for them.
const CHUNK_LEN_MAX: usize = 200;

/// Records of other carts that are passed in one try: bounds what a crash repeats.
const SCANNED_MAX: usize = 500_000;

/// How long the log may go without a record.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a try has read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) cart: Aggregate,
    pub(crate) rows: RedeliveredRows,
    pub(crate) commands: Vec<ConsumedCommand>,
    /// There are no others of the cart before this offset.
    pub(crate) read_to: i64,
}

/// A try that is reading.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) job: Job,
    result: oneshot::Receiver<Result<Loaded, Failed>>,
}

impl Reading {
    /// What it has read, once it has ended.
    pub(crate) fn finished(&mut self) -> Option<Result<Loaded, Failed>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(oneshot::error::TryRecvError::Empty) => None,
            // It has panicked: the rules do, on what the journal has of the cart.
            Err(oneshot::error::TryRecvError::Closed) => {
                let cause = Cause::Panicked(String::from("while the cart was loaded"));
                Some(Err(Failed::Cart { cause, store_answers: true, next_offset: None }))
            }
        }
    }
}

/// Reads for tries. Clones share the journal.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) kafka: KafkaArgs,
    /// `cart-commands`, its full name.
    pub(crate) topic: String,
    pub(crate) decoder: CommandDecoder,
    pub(crate) journal: Journal,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Log(#[from] anyhow::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

impl Reader {
    /// Begins to read.
    pub(crate) fn begin(&self, job: Job) -> Reading {
        let (sender, result) = oneshot::channel();
        let (reader, of) = (self.clone(), job.clone());
        let read = async move {
            let loaded = match reader.load(&of).await {
                Ok(loaded) => Ok(loaded),
                Err(error) => Err(reader.failed(of.cart_id, error).await),
            };
            // It fails if the partition is gone meanwhile.
            drop(sender.send(loaded));
        };
        self.decoder.runtime.spawn(read);
        Reading { job, result }
    }

    async fn load(&self, job: &Job) -> Result<Loaded, Error> {
        let (reader, of) = (self.clone(), job.clone());
        let read = tokio::task::spawn_blocking(move || reader.commands(&of));
        let (commands, read_to) = read.await.map_err(anyhow::Error::new)??;
        // An operator may have restored a schema.
        self.journal.codecs().events.forget_unknown_schemas();
        let loaded = Store::Cassandra.time("journal_load", self.journal.load(&[job.cart_id])).await?;
        let cart = loaded.into_iter().next().unwrap_or_else(|| Aggregate::new(job.cart_id));
        // Also without a command in the log before `until`: one that has arrived since may have been journalled by a try that failed.
        let from = Position::new(self.decoder.epoch, job.from);
        let rows = if from <= cart.position() {
            let rows = self.journal.between(job.cart_id, from, Position::MAX);
            Store::Cassandra.time("journal_read", rows).await?
        } else {
            Vec::new()
        };
        Ok(Loaded { cart, rows: RedeliveredRows::new(rows), commands, read_to })
    }

    /// The cart's next commands, and the offset before which there are no others. Blocks.
    fn commands(&self, job: &Job) -> anyhow::Result<(Vec<ConsumedCommand>, i64)> {
        let key = job.cart_id.to_string();
        let (mut commands, mut read_to) = (Vec::new(), job.from);
        if job.from >= job.until {
            return Ok((commands, job.until));
        }
        let mut log = TopicReader::open(&self.kafka, &self.topic, [(job.partition, job.from)])?;
        for _ in 0..SCANNED_MAX {
            let Some(message) = log.next(SILENCE_MAX)? else {
                anyhow::bail!("{}/{} ends at {read_to}, before {}", self.topic, job.partition, job.until);
            };
            if message.offset() >= job.until {
                return Ok((commands, job.until));
            }
            read_to = message.offset() + 1;
            // The loop has written the dead letters.
            if message.key() == Some(key.as_bytes())
                && let Incoming::Command(command) = self.decoder.read(&message)?
            {
                commands.push(*command);
            }
            if commands.len() >= CHUNK_LEN_MAX || read_to >= job.until {
                break;
            }
        }
        Ok((commands, read_to))
    }

    /// What a failure says of the cart.
    async fn failed(&self, cart_id: CartId, error: Error) -> Failed {
        let is_of_cart = matches!(&error, Error::Journal(error) if error.is_of_rows());
        let error = format!("{:#}", anyhow::Error::new(error));
        if !is_of_cart {
            tracing::warn!(error, "a parked cart was not tried: a server does not respond");
            return Failed::Away;
        }
        tracing::debug!(%cart_id, error, "a parked cart cannot be read");
        let store_answers = answers(&self.journal).await;
        Failed::Cart { cause: Cause::Unreadable(error), store_answers, next_offset: None }
    }
}

/// Whether the journal answers for another cart.
pub(crate) async fn answers(journal: &Journal) -> bool {
    let other = CartId::from(uuid::Uuid::new_v4());
    journal.load(&[other]).await.is_ok()
}
