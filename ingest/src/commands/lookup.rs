//! What has become of a command, long after.
//!
//! Nothing is kept for this. A command's outcome is settled by where it stands in the log, so it can be had again at any
//! time: find the command in the log, then see what the journal has from that position, or decide it against the journal
//! before it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cart::{CartCommand, CartId, CommandId, LogEpoch, Outcome, Position};
use journal::Journal;
use kafka::{Codec, DecodeError, GroupProgress, KafkaArgs, Message as _, Producer, TopicReader, partition_of};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::problem::Problem;

/// The consumer group of the cart-processors, without the installation's prefix.
pub(crate) const PROCESSORS: &str = "cart-processor";

/// Each look reads the log and asks the brokers with connections of its own.
const LOOKS_MAX: usize = 16;

/// How many records of a partition are searched from the time on at which the command was sent: more than come in while
/// its producer tries to deliver it.
const SEARCHED_MAX: usize = 200_000;

/// How long the search may wait for the brokers.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// So long after it was sent a command may still come into the log: it waits for those before it at most as long as the
/// producer tries to deliver them, then for its own delivery, and some more for a request that was under way then.
const ARRIVAL_MAX: Duration = Producer::DELIVERY_TIMEOUT.saturating_mul(2).saturating_add(Duration::from_secs(20));

/// Looks commands up. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) kafka: KafkaArgs,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) epoch: LogEpoch,
    pub(crate) codec: Codec<CartCommand>,
    pub(crate) journal: Journal,
    pub(crate) looks: Arc<Semaphore>,
}

/// What is known of a command.
#[derive(Debug)]
pub(crate) enum Status {
    /// It has not been decided yet.
    Pending,
    /// It has: this is what was, or would have been, replied, and where the command stands.
    Settled(Outcome, Position),
    /// It was rejected by rules that are no longer those of this version: the reason is not known any more.
    RejectedBefore,
}

impl Lookup {
    /// As many looks at a time as are good for the brokers.
    pub(crate) fn semaphore() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(LOOKS_MAX))
    }

    /// What has become of a command that came into the log at `since` (milliseconds since 1970) or soon after.
    pub(crate) async fn status(&self, cart_id: CartId, command_id: CommandId, since: u64) -> Result<Status, Problem> {
        let Ok(_permit) = self.looks.try_acquire() else {
            return Err(Problem::unavailable("too many commands are being looked up; retry later"));
        };
        let found = self.found(cart_id, command_id, since).await.map_err(|error| {
            tracing::warn!(%command_id, error = format!("{error:#}"), "looking up a command failed");
            Problem::unavailable("the log or the journal is unavailable; retry later")
        })?;
        found.ok_or_else(|| Problem::command_not_found(command_id, SEARCHED_MAX))
    }

    async fn found(&self, cart_id: CartId, command_id: CommandId, since: u64) -> anyhow::Result<Option<Status>> {
        let search = {
            let (lookup, runtime) = (self.clone(), Handle::current());
            move || lookup.search(cart_id, command_id, since, &runtime)
        };
        let Some((partition, offset, command)) = tokio::task::spawn_blocking(search).await?? else {
            let now = fail_points::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let may_arrive = now < Duration::from_millis(since).saturating_add(ARRIVAL_MAX);
            return Ok(may_arrive.then_some(Status::Pending));
        };
        // This before the journal: what was decided by now is there then.
        let lookup = self.clone();
        let decided = tokio::task::spawn_blocking(move || lookup.decided(partition)).await??;
        let position = Position::new(self.epoch, offset);
        let rows = self.journal.between(cart_id, position, position).await?;
        let row = rows.first();
        if row.is_none() && offset >= decided {
            return Ok(Some(Status::Pending));
        }
        let outcome = self.journal.outcome(&command, position, row).await?;
        Ok(Some(outcome.map_or(Status::RejectedBefore, |outcome| Status::Settled(outcome, position))))
    }

    /// The cart-processors have settled everything before this offset. Blocks.
    ///
    /// It does not wait for a transaction that is about to move it: a processor that died in one leaves it open for its
    /// time-out.
    fn decided(&self, partition: i32) -> Result<i64, kafka::Error> {
        let group = GroupProgress::new(&self.kafka, &self.kafka.prefixed(PROCESSORS), &self.topic)?;
        Ok(group.committed([partition])?.get(&partition).copied().unwrap_or(0))
    }

    /// Where the command stands. Blocks.
    fn search(
        &self,
        cart_id: CartId,
        command_id: CommandId,
        since: u64,
        runtime: &Handle,
    ) -> anyhow::Result<Option<(i32, i64, CartCommand)>> {
        let key = cart_id.to_string();
        let partition = partition_of(key.as_bytes(), self.partitions);
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        let mut reader = TopicReader::open_at_time(&self.kafka, &self.topic, partition, since, SEARCH_TIMEOUT)?;
        for _ in 0..SEARCHED_MAX {
            let Some(message) = reader.next(SEARCH_TIMEOUT)? else { return Ok(None) };
            if message.key() != Some(key.as_bytes()) {
                continue;
            }
            let bytes = message.payload().unwrap_or_default();
            let command = match self.codec.decode(bytes) {
                Err(DecodeError::NotLearnt { id }) => {
                    runtime.block_on(self.codec.learn(id))?;
                    self.codec.decode(bytes)
                }
                result => result,
            };
            // What can't be read is a dead letter, and not the command.
            if let Ok(command) = command
                && command.command_id == command_id
            {
                return Ok(Some((partition, message.offset(), command)));
            }
        }
        Ok(None)
    }
}
