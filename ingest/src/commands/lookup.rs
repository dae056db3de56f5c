//! Looking up a command's status at any time after it was sent.
//!
//! No state is kept for this. A command's position in the log determines its outcome: find the command in the log, then read
//! the journal at that position, or decide the command against the journal before it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cart::contract::group;
use cart::{CartCommand, CartId, CommandId, LogEpoch, Outcome, Position};
use journal::Journal;
use kafka::{Codec, GroupProgress, KafkaArgs, Message as _, Producer, TopicReader, partition_of};
use service::{LogLimit, Store};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::parked::Parked;
use crate::problem::Problem;

/// Maximum number of lookups at a time: each reads the log and queries the brokers with connections of its own.
const LOOKUPS_MAX: usize = 16;

/// Maximum number of records of a partition that are searched, from the time at which the command was sent. More than arrive
/// while its producer tries to deliver it.
const SEARCHED_MAX: usize = 200_000;

/// Maximum wait of the search for the brokers.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Until this long after it was sent a command may still be appended. It waits for the records before it at most as long as
/// the producer tries to deliver them, then for its own delivery. The rest is for the request that sent it.
const ARRIVAL_MAX: Duration = Producer::DELIVERY_TIMEOUT.saturating_mul(2).saturating_add(Duration::from_secs(20));

/// Looks commands up. Clones share the permits.
#[derive(Debug, Clone)]
pub(crate) struct CommandLookup {
    kafka: KafkaArgs,
    topic: String,
    partitions: i32,
    epoch: LogEpoch,
    codec: Codec<CartCommand>,
    journal: Journal,
    parked: Parked,
    lookup_permits: Arc<Semaphore>,
}

#[derive(Debug)]
pub(crate) enum Status {
    /// The command is not decided yet.
    Pending,
    /// The command is not decided yet: its cart is parked, for this reason.
    Parked(String),
    /// The command is decided: the outcome that was, or would have been, replied, and its position in the log.
    Settled(Outcome, Position),
    /// The command was rejected by a rule that this version does not have any more: the reason is not known.
    RejectedBefore,
}

impl CommandLookup {
    /// `topic` is the log of commands, of the identity `epoch`.
    pub(crate) fn new(
        kafka: &KafkaArgs,
        topic: &str,
        partitions: i32,
        epoch: LogEpoch,
        codec: Codec<CartCommand>,
        journal: Journal,
        parked: Parked,
    ) -> Self {
        let lookup_permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        Self { kafka, topic, partitions, epoch, codec, journal, parked, lookup_permits }
    }

    /// The status of a command that was appended at `since` (milliseconds since 1970) or soon after.
    pub(crate) async fn status(&self, cart_id: CartId, command_id: CommandId, since: u64) -> Result<Status, Problem> {
        let Ok(_permit) = self.lookup_permits.try_acquire() else {
            return Err(Problem::unavailable("too many commands are being looked up; retry later"));
        };
        let found = self.found(cart_id, command_id, since).await.map_err(|error| {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(%command_id, error = format!("{error:#}"), left_out, "looking up a command failed");
            }
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
        // The offset before the journal: a command that is decided by now is in the journal when it is read.
        let lookup = self.clone();
        let decided = tokio::task::spawn_blocking(move || {
            let decided = lookup.decided(partition)?;
            // Behind the offset: a command that is before it is decided, or its cart's marker is there.
            let is_passed = offset < decided;
            let parked = if is_passed { lookup.parked.reason(partition, offset, cart_id)? } else { None };
            Ok::<_, kafka::Error>((decided, parked))
        });
        let (decided, parked) = decided.await??;
        let position = Position::new(self.epoch, offset);
        let rows = self.journal.between(cart_id, position, position);
        let rows = Store::Cassandra.time("journal_read", rows).await?;
        let row = rows.first();
        if row.is_none() && offset >= decided {
            return Ok(Some(Status::Pending));
        }
        if row.is_none()
            && let Some(reason) = parked
        {
            return Ok(Some(Status::Parked(reason)));
        }
        let outcome = self.journal.outcome(&command, position, row).await?;
        Ok(Some(outcome.map_or(Status::RejectedBefore, |outcome| Status::Settled(outcome, position))))
    }

    /// The offset before which the cart-processors have decided every command. Blocks.
    ///
    /// Does not wait for an open transaction that moves the offset: a processor that died in one leaves it open until its
    /// timeout.
    fn decided(&self, partition: i32) -> Result<i64, kafka::Error> {
        let group = GroupProgress::new(&self.kafka, &self.kafka.prefixed(group::CART_PROCESSOR), &self.topic)?;
        Ok(group.committed([partition])?.get(&partition).copied().unwrap_or(0))
    }

    /// Finds the command in the log. Blocks.
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
            let command = self.codec.decode_or_fetch_blocking(bytes, runtime)?;
            // A record that cannot be decoded is a dead letter, and not the command.
            if let Ok(command) = command
                && command.command_id == command_id
            {
                return Ok(Some((partition, message.offset(), command)));
            }
        }
        Ok(None)
    }
}
