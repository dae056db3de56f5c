//! Consuming in a group: what was read, and what this member owns.

mod member;

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rdkafka::consumer::{CommitMode, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

pub use self::member::{AssignmentEvent, LEAVE_TIMEOUT, OffsetReset};
use self::member::{Context, Member, subscribed};
use crate::client_log::PlainConsumer;
use crate::config::Settings;
use crate::membership::is_member;
use crate::reconnect::BootstrapReconnect;
use crate::{Error, Instance, KafkaArgs};

/// Bounds requests to the brokers about offsets. Longer than a transaction may stay open, which they wait for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two heartbeats, unless a short session timeout needs more of them.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A member that has lost its partitions is back in its group long before this, as soon as the brokers answer. One that is not
/// is begun anew.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long [`GroupConsumer::follow`] polls.
const FOLLOW_TIME: Duration = Duration::from_millis(100);

/// How often librdkafka reports what a member waits for.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// How long ago a record was sent, by its producer's clock; zero when that is ahead of ours.
#[must_use]
pub fn record_age(message: &BorrowedMessage<'_>) -> Option<Duration> {
    let sent_at = u64::try_from(message.timestamp().to_millis()?).ok()?;
    Some(fail_points::now().duration_since(UNIX_EPOCH + Duration::from_millis(sent_at)).unwrap_or_default())
}

fn next_offset(offset: Offset) -> Option<i64> {
    if let Offset::Offset(next) = offset { Some(next) } else { None }
}

/// Committed records only, except where a test shows what it is like without.
fn isolation_level() -> &'static str {
    if fail_points::is_off("guard-read-committed") { "read_uncommitted" } else { "read_committed" }
}

/// A member of a consumer group, on one topic. For one thread.
///
/// Dropping it leaves the group, so that the others need not miss this member first. That waits for the brokers, but not for
/// ever.
pub struct GroupConsumer {
    consumer: Member,
    config: Settings,
    topic: String,
    /// Names the same group without being a member, for tests that show the harm when commits are not fenced.
    non_member: Option<PlainConsumer>,
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl GroupConsumer {
    /// Joins the instance's group on `topic` (full name), as one of the instance's workers. A member that does not poll is out
    /// after the session timeout.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn join(
        args: &KafkaArgs,
        instance: &Instance,
        worker: u16,
        topic: &str,
        start_at: OffsetReset,
    ) -> Result<Self, Error> {
        let (group, session_timeout) = (instance.group(), instance.session_timeout());
        let operation = || format!("joining group {group} on {topic}");
        let mut config = args.client();
        config
            .set("group.id", group)
            // Keeps what it can at a rebalance, so that the other partitions go on.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session_timeout.as_millis().to_string())
            // Members learn of a rebalance from the answer to a heartbeat, and moving partitions are not read until all know.
            .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL.min(session_timeout / 4).as_millis().to_string())
            // Longer than any pause of ours; a member that is stuck longer gives its partitions to the others.
            .set("max.poll.interval.ms", "300000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Says when nothing is left: see `lag`.
            .set("enable.partition.eof", "true")
            // What an aborted transaction wrote does not exist.
            .set("isolation.level", isolation_level())
            .set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string())
            .set("auto.offset.reset", if start_at == OffsetReset::Committed { "error" } else { "earliest" })
            // Answer a fetch as soon as there is anything, and ask for more as soon as there is room.
            .set("fetch.min.bytes", "1")
            .set("fetch.queue.backoff.ms", "1")
            // What is fetched ahead per partition bounds memory.
            .set("queued.max.messages.kbytes", "16384")
            // How much of a partition one fetch brings; a record that is larger still comes, alone.
            .set("fetch.message.max.bytes", "1048576")
            // Another one may be given, for the brokers' quotas.
            .set("client.id", instance.client_id(worker).to_string());
        let non_member = fail_points::is_off("guard-group-metadata").then(|| config.create()).transpose();
        let non_member = non_member.map_err(|error| Error::kafka(operation(), error))?;
        let context = Context::new(start_at, BootstrapReconnect::of(args), group, topic);
        let consumer = subscribed(&config, context, topic).map_err(|error| Error::kafka(operation(), error))?;
        Ok(Self { consumer, config, topic: topic.to_owned(), non_member })
    }

    /// Replaces a consumer that does not rejoin its group by itself. Call it about once a second.
    ///
    /// Seen after outages in which no broker answered for a minute: four of eight consumers were never assigned anything again,
    /// the others rejoined at once. The cause is not known.
    ///
    /// # Errors
    /// If a new consumer cannot be created.
    pub fn rejoin_if_lost(&mut self) -> Result<(), Error> {
        let context = self.consumer.context();
        let state = {
            let membership = context.membership();
            if membership.lost_at.is_none_or(|lost_at| lost_at.elapsed() < REJOIN_TIMEOUT) {
                return Ok(());
            }
            membership.state.clone()
        };
        tracing::warn!(topic = self.topic, state, "not back in the group in time; joining it again");
        let new = Context::new(context.start_at, context.reconnect.clone(), context.lag.group(), &self.topic);
        // Should that not help either, another one follows.
        new.membership().lost_at = Some(Instant::now());
        let consumer = subscribed(&self.config, new, &self.topic)
            .map_err(|error| Error::kafka(format!("joining the group on {} again", self.topic), error))?;
        let old = std::mem::replace(&mut self.consumer, consumer);
        old.context().lag.close();
        // It waits for what it has waited for in vain so far, perhaps for ever.
        std::thread::spawn(move || drop(old));
        Ok(())
    }

    /// The group's full name.
    #[must_use]
    pub fn group(&self) -> &str {
        self.consumer.context().lag.group()
    }

    /// The topic's full name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The next record, if one comes within `timeout`.
    ///
    /// # Errors
    /// As librdkafka reports them; after a [`crate::Recovery::Retry`] one, poll again.
    pub fn poll(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, Error> {
        self.consumer.context().reconnect.keep(self.consumer.client());
        let lag = &self.consumer.context().lag;
        let started_at = Instant::now();
        loop {
            let error = match self.consumer.poll(timeout.saturating_sub(started_at.elapsed())) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    lag.read(
                        message.partition(),
                        message.offset(),
                        message.timestamp().to_millis().unwrap_or_default(),
                    );
                    return Ok(Some(message));
                }
                // Other partitions may have records, so this is not the end of a batch.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    lag.at_end(partition);
                    continue;
                }
                Some(Err(error)) => error,
            };
            let is_lost = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset);
            let hint = if is_lost {
                " at the group's committed offsets (if they were lost, `setup` shows what to do)"
            } else {
                ""
            };
            return Err(Error::in_group(self.group(), format!("reading {}{hint}", self.topic), error));
        }
    }

    /// The effects of all records before these offsets are durable: they do not count as behind any more.
    pub fn applied(&self, next_offsets: impl IntoIterator<Item = (i32, i64)>) {
        self.consumer.context().lag.applied(next_offsets);
    }

    /// What came and went since the last call. Ask after every [`GroupConsumer::poll`].
    #[must_use]
    pub fn assignment_events(&self) -> Vec<AssignmentEvent> {
        std::mem::take(&mut *self.consumer.context().events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who we are in the group, for a transaction's offsets. Take it after the last poll whose records are in the
    /// transaction, before the next: it names the generation, not the partitions, so fresher metadata could commit
    /// for partitions that are not ours any more.
    ///
    /// # Errors
    /// [`crate::Recovery::AbortTransaction`] when the group has removed this member; the next poll reports what was lost.
    pub fn group_metadata(&self) -> Result<ConsumerGroupMetadata, Error> {
        let operation = || format!("reading the group metadata of {}", self.topic);
        let metadata = match &self.non_member {
            None => self.consumer.group_metadata(),
            Some(non_member) => non_member.group_metadata(),
        };
        let metadata = metadata.ok_or_else(|| Error::fatal(operation(), "the consumer is closed"))?;
        // After the metadata was taken: a removed member joins again only once it has polled.
        if self.non_member.is_none() && !is_member(self.consumer.client()) {
            return Err(Error::abort(operation(), "the group has removed this member"));
        }
        Ok(metadata)
    }

    /// A list of this topic's partitions with their next offsets, to be committed.
    ///
    /// # Errors
    /// If an offset is invalid.
    pub fn offsets(&self, next: impl IntoIterator<Item = (i32, i64)>) -> Result<TopicPartitionList, Error> {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            offsets.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(|error| {
                Error::kafka(format!("naming offset {offset} of {}/{partition}", self.topic), error)
            })?;
        }
        Ok(offsets)
    }

    /// Commits offsets outside of a transaction and waits for it.
    ///
    /// # Errors
    /// [`crate::Recovery::Retry`] also when a rebalance came between; the records will be read again then.
    pub fn commit(&self, offsets: &TopicPartitionList) -> Result<(), Error> {
        self.consumer
            .commit(offsets, CommitMode::Sync)
            .map_err(|error| Error::retry(format!("committing offsets of {}", self.topic), error))
    }

    /// Takes part in the group for a while and reads nothing: what comes is dropped, so [`GroupConsumer::rewind`] afterwards.
    ///
    /// For the time between two attempts to rewind: while partitions are handed over no rewind succeeds before every member has
    /// taken part in the rebalance, and a member takes part by polling.
    pub fn follow(&self) {
        let end = Instant::now() + FOLLOW_TIME;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // The rewind meets the same errors.
            drop(self.consumer.poll(left));
        }
    }

    /// Seeks to the committed offset of every assigned partition, and returns these partitions. Without a committed offset it
    /// seeks to the beginning, unless the group must start at committed offsets.
    ///
    /// # Errors
    /// If the brokers do not respond, or a committed offset is missing that must be there.
    pub fn rewind(&self) -> Result<Vec<i32>, Error> {
        let operation = || format!("rewinding to the committed offsets of {}", self.topic);
        let failed = |error| Error::retry(operation(), error);
        let assigned = self.consumer.assignment().map_err(failed)?;
        let partitions = assigned.elements().iter().map(|element| element.partition()).collect();
        if assigned.count() == 0 {
            return Ok(partitions);
        }
        let committed = self.consumer.committed_offsets(assigned, REQUEST_TIMEOUT).map_err(failed)?;
        for element in committed.elements() {
            let found = if fail_points::fails("offsets-lost") { None } else { next_offset(element.offset()) };
            self.seek(element.partition(), self.start(element.partition(), found)?)?;
        }
        Ok(partitions)
    }

    /// Where this member goes on in a partition with this committed offset.
    ///
    /// # Errors
    /// [`crate::Recovery::Fatal`] if it has none and must have one.
    pub fn start(&self, partition: i32, committed: Option<i64>) -> Result<Offset, Error> {
        self.consumer.context().start_at.start(&self.topic, partition, committed)
    }

    /// Reads no more of a partition that we own, since it has a record that cannot be processed. Its offset stays where it is.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn stop(&self, partition: i32) -> Result<(), Error> {
        self.consumer.context().lag.stopped(partition, true);
        self.suspend(partition)
    }

    /// Reads no more of a partition that we own, since an operator wants that. Its offset stays where it is.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn pause(&self, partition: i32) -> Result<(), Error> {
        self.consumer.context().lag.paused(partition, true);
        self.suspend(partition)
    }

    fn suspend(&self, partition: i32) -> Result<(), Error> {
        self.consumer
            .pause(&self.one(partition))
            .map_err(|error| Error::retry(format!("pausing {}/{partition}", self.topic), error))
    }

    /// Reads again a partition that was stopped or paused. Seek afterwards: records that were read and dropped meanwhile do
    /// not come again.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn resume(&self, partition: i32) -> Result<(), Error> {
        let lag = &self.consumer.context().lag;
        lag.stopped(partition, false);
        lag.paused(partition, false);
        self.consumer
            .resume(&self.one(partition))
            .map_err(|error| Error::retry(format!("resuming {}/{partition}", self.topic), error))
    }

    fn one(&self, partition: i32) -> TopicPartitionList {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(&self.topic, partition);
        partitions
    }

    /// The group's committed offset in each of these partitions, once no transaction that changes it is open; `None` where it has
    /// committed none.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Error> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        let committed = self
            .consumer
            .committed_offsets(list, REQUEST_TIMEOUT)
            .map_err(|error| Error::retry(format!("reading the committed offsets of {}", self.topic), error))?;
        Ok(committed.elements().iter().map(|element| (element.partition(), next_offset(element.offset()))).collect())
    }

    /// Goes on at `offset` of a partition that we own.
    ///
    /// # Errors
    /// [`crate::Recovery::Retry`] when it is not ours any more, or not yet being read.
    pub fn seek(&self, partition: i32, offset: Offset) -> Result<(), Error> {
        self.consumer
            .seek(&self.topic, partition, offset, Duration::from_secs(10))
            .map_err(|error| Error::retry(format!("seeking to {offset:?} of {}/{partition}", self.topic), error))?;
        self.consumer.context().lag.seek(partition, next_offset(offset));
        Ok(())
    }
}
