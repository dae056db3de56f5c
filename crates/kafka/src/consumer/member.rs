//! librdkafka's end of a member: its callbacks, what is known of its place in the group, and its end.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::Error;
use crate::client_log;
use crate::config::Settings;
use crate::lag::MemberLag;
use crate::reconnect::BootstrapReconnect;

/// How long a member may take to leave its group. The others miss it after its session in any case.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a member starts in a partition that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the group's committed offset; without one the consumer fails rather than repeat or skip everything.
    Committed,
    /// At the group's committed offset, or at the beginning.
    CommittedOrBeginning,
}

impl OffsetReset {
    /// Where a member goes on in a partition of `topic` with this committed offset.
    pub(super) fn start(self, topic: &str, partition: i32, committed: Option<i64>) -> Result<Offset, Error> {
        match (committed, self) {
            (Some(next), _) => Ok(Offset::Offset(next)),
            (None, Self::CommittedOrBeginning) => Ok(Offset::Beginning),
            (None, Self::Committed) => {
                let reason = format!("partition {partition} no longer has any; `setup` shows what to do");
                Err(Error::fatal(format!("going on at the committed offsets of {topic}"), reason))
            }
        }
    }
}

/// Partitions came or went. In order, on the polling thread, before anything is read from what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentEvent {
    /// These are ours now.
    Assigned(Vec<i32>),
    /// These are not ours any more: forget what belongs to them.
    Revoked(Vec<i32>),
}

/// librdkafka's end of it: closing one may take for ever.
pub(super) struct Member(Option<BaseConsumer<Context>>);

impl std::ops::Deref for Member {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let (left, end) = sync_channel::<()>(1);
        let consumer = self.0.take();
        std::thread::spawn(move || {
            drop(consumer);
            drop(left);
        });
        if end.recv_timeout(LEAVE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("leaving the group timed out; the brokers remove this member when its session times out");
        }
    }
}

pub(super) struct Context {
    pub(super) events: Mutex<Vec<AssignmentEvent>>,
    pub(super) start_at: OffsetReset,
    pub(super) reconnect: BootstrapReconnect,
    membership: Mutex<Membership>,
    pub(super) lag: Arc<MemberLag>,
}

/// What is known of a member's place in its group.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// When the assignment was lost, or when the brokers were last seen unreachable, whichever is later.
    pub(super) lost_at: Option<Instant>,
    /// What it waits for, in librdkafka's words.
    pub(super) state: String,
}

impl Context {
    pub(super) fn new(start_at: OffsetReset, reconnect: BootstrapReconnect, group: &str, topic: &str) -> Self {
        Self {
            events: Mutex::default(),
            start_at,
            reconnect,
            membership: Mutex::default(),
            lag: MemberLag::new(group, topic),
        }
    }

    pub(super) fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            // No member can rejoin meanwhile. librdkafka repeats this error until a broker responds.
            let mut membership = self.membership();
            membership.lost_at = membership.lost_at.map(|_| Instant::now());
        }
        self.reconnect.error(error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.reconnect.generate_oauth_token(None)
    }

    fn stats(&self, statistics: Statistics) {
        let Statistics { cgrp: Some(group), topics, .. } = statistics else { return };
        for topic in topics.values() {
            self.lag.report(topic);
        }
        for read in topics.values().flat_map(|topic| topic.partitions.values()).filter(|read| read.desired) {
            tracing::debug!(
                partition = read.partition,
                state = read.fetch_state,
                next = read.next_offset,
                polled = read.app_offset,
                fetched = read.fetchq_cnt,
                end = read.ls_offset,
                "reading"
            );
        }
        self.membership().state = format!("{}, {}", group.state, group.join_state);
    }
}

impl ConsumerContext for Context {
    // Replaces the default to say what came and went. Runs inside poll, on the polling thread: nothing here may wait for
    // another task of the worker.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers: Vec<i32> = partitions.elements().iter().map(|element| element.partition()).collect();
        let assign = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        self.membership().lost_at = consumer.assignment_lost().then(Instant::now);
        let result = if assign {
            consumer.incremental_assign(partitions)
        } else if consumer.assignment_lost() && fail_points::is_off("guard-unassign") {
            Ok(())
        } else {
            consumer.incremental_unassign(partitions)
        };
        if let Err(error) = result {
            // librdkafka reports the same to the next poll, which is where it is handled.
            tracing::warn!(%error, assign, "taking part in a rebalance failed");
        }
        if assign {
            self.lag.assigned(&numbers);
        } else {
            self.lag.revoked(&numbers);
        }
        if assign {
            tracing::info!(partitions = ?numbers, "partitions assigned");
        } else {
            tracing::info!(partitions = ?numbers, "partitions revoked");
        }
        let event = if assign { AssignmentEvent::Assigned(numbers) } else { AssignmentEvent::Revoked(numbers) };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

pub(super) fn subscribed(config: &Settings, context: Context, topic: &str) -> Result<Member, KafkaError> {
    let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
    consumer.subscribe(&[topic])?;
    Ok(Member(Some(consumer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recovery;

    #[test]
    fn without_a_committed_offset_a_member_starts_at_the_beginning_only_if_it_may() {
        let start = |reset: OffsetReset, committed| reset.start("cart-commands", 3, committed);
        for reset in [OffsetReset::Committed, OffsetReset::CommittedOrBeginning] {
            assert!(matches!(start(reset, Some(7)), Ok(Offset::Offset(7))));
        }
        assert!(matches!(start(OffsetReset::CommittedOrBeginning, None), Ok(Offset::Beginning)));
        let lost = start(OffsetReset::Committed, None);
        assert!(lost.is_err_and(|error| error.recovery() == Recovery::Fatal));
    }
}
