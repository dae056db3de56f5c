//! Requests that wait for replies, and the thread that reads the replies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::{CartReply, CommandId};
use kafka::{Codec, Message as _, TailConsumer};
use service::Shutdown;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use trace::Place;
use uuid::Uuid;

use crate::metrics::REPLY_WAIT_SECONDS;

const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Chooses the partition of `cart-replies` that this instance reads for as long as it runs.
///
/// A consumer group would reassign partitions while replies arrive, whenever its coordinator or an instance dies. Instances
/// that choose the same partition also read each other's replies and ignore them. One partition is enough: librdkafka sends
/// one request per partition, so replies that are spread over many partitions cause as many requests.
pub(crate) fn random_partition(partitions: i32) -> i32 {
    let random = Uuid::new_v4().as_u128() % u128::from(partitions.max(1).unsigned_abs());
    i32::try_from(random).unwrap_or_default()
}

/// The requests that wait for replies. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Waiters {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Several requests may wait for one command: two at a time with the same idempotency key.
    waiting: Mutex<HashMap<CommandId, Vec<Waiting>>>,
    /// The partition of `cart-replies` to which replies are sent.
    partition: i32,
    next: AtomicUsize,
}

/// One waiting request. Under an idempotency key a command may be in the log several times, with an outcome each: another
/// request under the same key is rejected. A waiting request takes the reply with the offset of its own command.
#[derive(Debug)]
struct Waiting {
    /// Identifies the request among those that wait for one command.
    ticket: usize,
    /// The command's offset, once the log has confirmed it.
    offset: Option<i64>,
    /// Replies that arrived before the confirmation, which takes milliseconds: one of them may be the right one.
    early: Vec<CartReply>,
    sender: oneshot::Sender<CartReply>,
}

impl Waiting {
    /// Whether this is the reply to the request. A reply that may be is kept.
    fn takes(&mut self, reply: &CartReply) -> bool {
        if self.offset.is_none() {
            self.early.push(reply.clone());
        }
        self.offset == Some(reply.position.offset())
    }

    fn answer(self, reply: CartReply) {
        // An error means that the request has just stopped waiting.
        drop(self.sender.send(reply));
    }
}

/// Waits for one command's reply; stops waiting when it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    command_id: CommandId,
    ticket: usize,
    waiters: Waiters,
    pub(super) reply: oneshot::Receiver<CartReply>,
}

impl Waiters {
    pub(crate) fn at(partition: i32) -> Self {
        Self { inner: Arc::new(Inner { waiting: Mutex::default(), partition, next: AtomicUsize::default() }) }
    }

    pub(super) fn register(&self, command_id: CommandId) -> Waiter {
        let ticket = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let one = Waiting { ticket, offset: None, early: Vec::new(), sender };
        waiting.entry(command_id).or_default().push(one);
        Waiter { command_id, ticket, waiters: self.clone(), reply }
    }

    /// Passes a reply to the requests that wait for it. Without one the reply is a duplicate, or late.
    pub(super) fn complete(&self, reply: &CartReply) {
        let answered: Vec<_> = {
            let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let all = waiting.get_mut(&reply.command_id);
            all.map(|all| all.extract_if(.., |one| one.takes(reply)).collect()).unwrap_or_default()
        };
        for one in answered {
            one.answer(reply.clone());
        }
    }
}

impl Waiter {
    /// The partition to which the reply is sent.
    pub(super) fn partition(&self) -> i32 {
        self.waiters.inner.partition
    }

    /// The log has confirmed the command at this offset. Its reply may have arrived before.
    pub(super) fn delivered(&self, offset: i64) {
        let mut waiting = self.waiters.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = waiting.get_mut(&self.command_id) else { return };
        let Some(index) = all.iter().position(|one| one.ticket == self.ticket) else { return };
        all[index].offset = Some(offset);
        let early = std::mem::take(&mut all[index].early);
        if let Some(reply) = early.into_iter().find(|reply| reply.position.offset() == offset) {
            all.swap_remove(index).answer(reply);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = waiting.get_mut(&self.command_id) {
            all.retain(|one| one.ticket != self.ticket);
            if all.is_empty() {
                waiting.remove(&self.command_id);
            }
        }
    }
}

/// Reads replies until the shutdown. Blocks, so it needs a thread of its own.
pub(crate) fn read_replies(
    follower: &TailConsumer,
    codec: &Codec<CartReply>,
    waiters: &Waiters,
    runtime: &Handle,
    end: &Shutdown,
) {
    let wait = REPLY_WAIT_SECONDS.with(&[]);
    while !end.is_requested() {
        match follower.poll(POLL_TIMEOUT) {
            Ok(Some(message)) => {
                wait.record(kafka::record_age(&message).unwrap_or_default());
                let place = Place { topic: message.topic(), partition: message.partition(), offset: message.offset() };
                if let Some(reply) = decode(codec, runtime, message.payload().unwrap_or_default(), place) {
                    waiters.complete(&reply);
                }
            }
            Ok(None) => {}
            // librdkafka reports it once: the user lacks a grant, for example.
            Err(error) if error.recovery() == kafka::Recovery::Fatal => {
                tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "reading replies failed");
            }
            Err(error) => tracing::debug!(error = format!("{:#}", anyhow::Error::new(error)), "reading replies"),
        }
    }
}

fn decode(codec: &Codec<CartReply>, runtime: &Handle, bytes: &[u8], place: Place<'_>) -> Option<CartReply> {
    let decoded = codec.decode_or_fetch_blocking(bytes, runtime).map_err(anyhow::Error::new);
    // The waiting client gets 202; the outcome can still be computed from the log.
    let decoded = decoded.and_then(|decoded| decoded.map_err(anyhow::Error::new));
    let report = |error: &anyhow::Error| {
        tracing::warn!(position = %place, error = format!("{error:#}"), "a reply cannot be decoded");
    };
    decoded.inspect_err(report).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn reply(command_id: CommandId, offset: i64) -> CartReply {
        let rejection = cart::Rejection::EmptyCartCheckout;
        let outcome = cart::Outcome::Rejected { rejection, index: None };
        let position = cart::Position::new(cart::LogEpoch::FIRST, offset);
        CartReply { command_id, cart_id: Uuid::nil().into(), position, outcome }
    }

    #[test]
    fn each_waiting_request_gets_the_reply_to_its_command() {
        let waiters = Waiters::at(7);
        let command_id = CommandId::from(Uuid::from_u128(1));
        let (mut first, mut second) = (waiters.register(command_id), waiters.register(command_id));
        let gone = waiters.register(command_id);
        assert_eq!(first.partition(), 7);
        drop(gone);
        // The first is confirmed before its reply comes, the second after it.
        first.delivered(10);
        for offset in [10, 10, 11, 12] {
            waiters.complete(&reply(command_id, offset));
        }
        assert_eq!(first.reply.try_recv().unwrap(), reply(command_id, 10));
        assert!(second.reply.try_recv().is_err(), "it is not known yet which reply is its own");
        second.delivered(11);
        assert_eq!(second.reply.try_recv().unwrap(), reply(command_id, 11));
        drop((first, second));
        assert!(waiters.inner.waiting.lock().unwrap().is_empty());
    }

    #[test]
    fn replies_to_earlier_commands_with_the_same_id_are_ignored() {
        let waiters = Waiters::at(7);
        let command_id = CommandId::from(Uuid::from_u128(1));
        let mut waiter = waiters.register(command_id);
        waiters.complete(&reply(command_id, 3));
        waiter.delivered(5);
        waiters.complete(&reply(command_id, 4));
        assert!(waiter.reply.try_recv().is_err());
        waiters.complete(&reply(command_id, 5));
        assert_eq!(waiter.reply.try_recv().unwrap(), reply(command_id, 5));
    }

    #[test]
    fn random_partition_is_in_range() {
        assert_eq!(random_partition(1), 0);
        let some: std::collections::BTreeSet<_> = (0..1_000).map(|_| random_partition(12)).collect();
        assert_eq!(some, (0..12).collect());
    }
}
