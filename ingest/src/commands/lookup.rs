//! Looking up a command's status at any time after it was sent.
//!
//! No state is kept for this. A command's position in the log determines its outcome: find the command in the log, then read
//! the journal at that position, or decide the command against the journal before it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cart::contract::group;
use cart::{CartCommand, CartId, CommandId, LogEpoch, Outcome, Position};
use control::Follower;
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
    /// Has the discards.
    control: Follower,
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
    /// An operator has given the command up: its record was not decided, and there is no later one with its id.
    Discarded,
}

/// Where a search begins.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// At the first record of that time (milliseconds since 1970) or later.
    Time(u64),
    Offset(i64),
}

/// A command in the log.
#[derive(Debug, Clone)]
struct Found {
    partition: i32,
    offset: i64,
    command: CartCommand,
    /// The hash of its record.
    sha256: String,
}

/// What a search has come to.
#[derive(Debug)]
enum Searched {
    Found(Found),
    /// The log has no such record.
    AtEnd,
    /// Not in [`SEARCHED_MAX`] records.
    AtLimit,
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
        (parked, control): (Parked, Follower),
    ) -> Self {
        let lookup_permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        Self { kafka, topic, partitions, epoch, codec, journal, parked, control, lookup_permits }
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
        let mut from = Start::Time(since);
        loop {
            let (lookup, runtime) = (self.clone(), Handle::current());
            let search = move || lookup.search(cart_id, command_id, from, &runtime);
            let searched = tokio::task::spawn_blocking(search).await??;
            let (status, behind) = match (searched, from) {
                (Searched::Found(found), _) => (self.status_of(&found).await?, found.offset + 1),
                // Only what was discarded is searched for again.
                (Searched::AtEnd, Start::Offset(_)) => return Ok(Some(Status::Discarded)),
                // A repeat that was accepted may be further on.
                (Searched::AtLimit, Start::Offset(_)) => return Ok(None),
                (Searched::AtEnd | Searched::AtLimit, Start::Time(_)) => return Ok(Self::arriving(since)),
            };
            // A repeat of the request has the same id, and may be decided.
            if !matches!(status, Status::Discarded) {
                return Ok(Some(status));
            }
            from = Start::Offset(behind);
        }
    }

    /// What is known of a command that is not in the log.
    fn arriving(since: u64) -> Option<Status> {
        let now = fail_points::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let may_arrive = now < Duration::from_millis(since).saturating_add(ARRIVAL_MAX);
        may_arrive.then_some(Status::Pending)
    }

    async fn status_of(&self, found: &Found) -> anyhow::Result<Status> {
        let (cart_id, partition, offset) = (found.command.cart_id, found.partition, found.offset);
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
            return Ok(Status::Pending);
        }
        if row.is_none()
            && let Some(reason) = parked
        {
            return Ok(Status::Parked(reason));
        }
        // Behind the marker: it is read when the command is discarded by now.
        if row.is_none() && self.is_discarded(found, position).await? {
            return Ok(Status::Discarded);
        }
        let outcome = self.journal.outcome(&found.command, position, row).await?;
        Ok(outcome.map_or(Status::RejectedBefore, |outcome| Status::Settled(outcome, position)))
    }

    async fn is_discarded(&self, found: &Found, position: Position) -> anyhow::Result<bool> {
        let (control, Found { partition, command, sha256, .. }) = (self.control.clone(), found.clone());
        let read = tokio::task::spawn_blocking(move || {
            control.read_to_end()?;
            Ok::<_, kafka::Error>(control.discarded(partition, position, &command, || sha256).is_some())
        });
        Ok(read.await??)
    }

    /// The offset before which the cart-processors have decided every command. Blocks.
    ///
    /// Does not wait for an open transaction that moves the offset: a processor that died in one leaves it open until its
    /// timeout.
    fn decided(&self, partition: i32) -> Result<i64, kafka::Error> {
        let group = GroupProgress::new(&self.kafka, &self.kafka.prefixed(group::CART_PROCESSOR), &self.topic)?;
        Ok(group.committed([partition])?.get(&partition).copied().unwrap_or(0))
    }

    /// Finds the first record of the command in the log from there on. Blocks.
    fn search(
        &self,
        cart_id: CartId,
        command_id: CommandId,
        from: Start,
        runtime: &Handle,
    ) -> anyhow::Result<Searched> {
        let key = cart_id.to_string();
        let partition = partition_of(key.as_bytes(), self.partitions);
        let mut reader = match from {
            Start::Time(since) => {
                let since = i64::try_from(since).unwrap_or(i64::MAX);
                TopicReader::open_at_time(&self.kafka, &self.topic, partition, since, SEARCH_TIMEOUT)?
            }
            Start::Offset(offset) => TopicReader::open(&self.kafka, &self.topic, [(partition, offset)])?,
        };
        for _ in 0..SEARCHED_MAX {
            let Some(message) = reader.next(SEARCH_TIMEOUT)? else { return Ok(Searched::AtEnd) };
            if message.key() != Some(key.as_bytes()) {
                continue;
            }
            let bytes = message.payload().unwrap_or_default();
            let command = self.codec.decode_or_fetch_blocking(bytes, runtime)?;
            // A record that cannot be decoded, or is of another cart, is not the command: it is a dead letter, or newer than this
            // program, which has not appended it then.
            if let Ok(command) = command
                && (command.cart_id, command.command_id) == (cart_id, command_id)
            {
                let (offset, sha256) = (message.offset(), control::sha256(message.payload()));
                return Ok(Searched::Found(Found { partition, offset, command, sha256 }));
            }
        }
        Ok(Searched::AtLimit)
    }
}
