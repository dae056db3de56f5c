//! A try of a parked cart: reads its commands from the log and the cart from the journal, while the loop goes on.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use cart::{Aggregate, CartId, LogEpoch, Position};
use control::Follower;
use futures::FutureExt as _;
use journal::Journal;
use kafka::{KafkaArgs, Message as _, TopicReader};
use service::Store;
use tokio::task::{JoinError, JoinHandle};

use super::decide::panic_text;
use super::lots::{Failed, Job};
use super::read::{Unread, read_guarded};
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
    pub(crate) from_log: FromLog,
}

/// The next commands of a cart.
#[derive(Debug)]
pub(crate) struct FromLog {
    pub(crate) commands: Vec<ConsumedCommand>,
    /// There are no others of the cart before this offset.
    pub(crate) read_to: i64,
    /// Why the cart's command at that offset cannot be decoded, if it is newer than this program.
    pub(crate) too_new: Option<String>,
}

/// A try that is reading.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) job: Job,
    task: JoinHandle<Result<Loaded, Failed>>,
}

impl Reading {
    /// What it has read, once it has ended. Not to be called again then.
    pub(crate) fn finished(&mut self) -> Option<Result<Loaded, Failed>> {
        let result = (&mut self.task).now_or_never()?;
        Some(result.unwrap_or_else(|error| {
            tracing::warn!(
                reason = why_lost(error),
                "a parked cart was not tried: its task has ended without a result"
            );
            Err(Failed::Away)
        }))
    }
}

fn why_lost(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", panic_text(&*panic)),
        Err(_) => String::from("the process is shutting down"),
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
    #[error(transparent)]
    Cart(#[from] Unread),
    #[error("the program panics while the cart's commands are read: {0}")]
    Panicked(String),
}

impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::Panicked(panic_text(&*panic)),
            Err(error) => Self::Log(anyhow::Error::new(error)),
        }
    }
}

/// Reads for a try. A panic is one of its errors, so that the try has an end.
async fn guarded<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // What was read so far is dropped.
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(|panic| Err(Error::Panicked(panic_text(&*panic))))
}

/// Why the cart fails. `None` if a server does not respond, which says nothing of the cart.
fn cause(error: Error) -> Option<Cause> {
    match error {
        Error::Cart(unread) => Some(unread.cause()),
        error @ Error::Panicked(_) => {
            let error = error.to_string();
            tracing::warn!(error, "a parked cart was not read");
            Some(Cause::Panicked(error))
        }
        error @ (Error::Log(_) | Error::Journal(_)) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(error, "a parked cart was not tried: a server does not respond");
            None
        }
    }
}

impl Reader {
    /// Begins to read.
    pub(crate) fn begin(&self, job: Job) -> Reading {
        let (reader, of) = (self.clone(), job.clone());
        let read = async move {
            match guarded(reader.load(&of)).await {
                Ok(loaded) => Ok(loaded),
                Err(error) => Err(reader.failed(of.cart_id, error).await),
            }
        };
        let task = self.decoder.runtime.spawn(read);
        Reading { job, task }
    }

    async fn load(&self, job: &Job) -> Result<Loaded, Error> {
        let (reader, of) = (self.clone(), job.clone());
        let read = tokio::task::spawn_blocking(move || reader.commands(&of));
        let from_log = read.await??;
        // An operator may have restored a schema.
        self.journal.codecs().events.forget_unknown_schemas();
        let load = [job.cart_id];
        let loaded = read_guarded(Store::Cassandra.time("journal_load", self.journal.load(&load))).await??;
        let cart = loaded.into_iter().next().unwrap_or_else(|| Aggregate::new(job.cart_id));
        let rows = match rows_from(job, self.decoder.epoch, &cart) {
            Some(from) => {
                let rows = self.journal.between(job.cart_id, from, Position::MAX);
                read_guarded(Store::Cassandra.time("journal_read", rows)).await??
            }
            None => Vec::new(),
        };
        Ok(Loaded { cart, rows: RedeliveredRows::new(rows), from_log })
    }

    /// The cart's next commands. Blocks.
    fn commands(&self, job: &Job) -> anyhow::Result<FromLog> {
        // Which of them are discarded. The discard is recorded before the retry is requested.
        self.decoder.control.as_ref().map_or(Ok(()), Follower::read_to_end)?;
        let key = job.cart_id.to_string();
        let (mut commands, mut read_to) = (Vec::new(), job.from);
        if job.from >= job.until {
            return Ok(FromLog { commands, read_to: job.until, too_new: None });
        }
        let mut log = TopicReader::open(&self.kafka, &self.topic, [(job.partition, job.from)])?;
        for _ in 0..SCANNED_MAX {
            let Some(message) = log.next(SILENCE_MAX)? else {
                anyhow::bail!("{}/{} ends at {read_to}, before {}", self.topic, job.partition, job.until);
            };
            if message.offset() >= job.until {
                return Ok(FromLog { commands, read_to: job.until, too_new: None });
            }
            if message.key() == Some(key.as_bytes()) {
                match self.decoder.read(&message)? {
                    Incoming::Command(command) => commands.push(*command),
                    Incoming::TooNew(command) => {
                        return Ok(FromLog { commands, read_to: message.offset(), too_new: Some(command.reason) });
                    }
                    // The loop has written it.
                    Incoming::DeadLetter { .. } => {}
                }
            }
            read_to = message.offset() + 1;
            if commands.len() >= CHUNK_LEN_MAX || read_to >= job.until {
                break;
            }
        }
        Ok(FromLog { commands, read_to, too_new: None })
    }

    /// What a failure says of the cart.
    async fn failed(&self, cart_id: CartId, error: Error) -> Failed {
        let Some(cause) = cause(error) else { return Failed::Away };
        tracing::debug!(%cart_id, reason = cause.reason(), "a parked cart cannot be read");
        let store_answers = answers(&self.journal).await;
        Failed::Cart { cause, store_answers, next_offset: None }
    }
}

/// The position from which on a try needs the cart's rows, if it has any there. Also without a command in the log before `until`:
/// one that has arrived since may have been journalled by a try that failed.
pub(crate) fn rows_from(job: &Job, epoch: LogEpoch, cart: &Aggregate) -> Option<Position> {
    let from = Position::new(epoch, job.from);
    (from <= cart.position()).then_some(from)
}

/// Whether the journal answers for another cart.
pub(crate) async fn answers(journal: &Journal) -> bool {
    let other = CartId::from(uuid::Uuid::new_v4());
    journal.load(&[other]).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "byte 7 is wrong";

    fn reading(task: JoinHandle<Result<Loaded, Failed>>) -> Reading {
        let cart_id = CartId::from(uuid::Uuid::from_u128(1));
        Reading { job: Job { partition: 0, cart_id, from: 0, until: 1 }, task }
    }

    fn is_cause(error: Error) -> bool {
        matches!(cause(error), Some(Cause::Panicked(text)) if text.contains(MESSAGE))
    }

    #[tokio::test]
    async fn a_panic_while_a_try_reads_is_a_failure_of_the_cart() {
        let commands = tokio::task::spawn_blocking(|| -> u8 { panic!("{MESSAGE}") });
        assert!(commands.await.is_err_and(|error| is_cause(error.into())));
        let load = guarded::<()>(async { panic!("{MESSAGE}") });
        assert!(load.await.is_err_and(is_cause));
        assert_eq!(cause(Error::Log(anyhow::anyhow!("no answer"))), None, "a server does not respond");
    }

    #[tokio::test]
    async fn a_task_that_ends_without_a_result_ends_its_try_and_says_why() {
        let mut tried = reading(tokio::spawn(std::future::pending()));
        assert!(tried.finished().is_none(), "it is reading");
        tried.task.abort();
        while !tried.task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(tried.finished(), Some(Err(Failed::Away))));
        let panics = tokio::task::spawn_blocking(|| -> u8 { panic!("{MESSAGE}") });
        assert_eq!(panics.await.map_err(why_lost), Err(format!("it panicked: {MESSAGE}")));
    }
}
