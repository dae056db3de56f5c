//! Who waits for which command, and the thread that reads the answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::{CartReply, CommandId};
use kafka::{AssignmentEvent, Codec, DecodeError, GroupConsumer, Message as _};
use service::{Readiness, Shutdown};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The consumer group of the ingest instances, without the installation's prefix.
pub(crate) const GROUP: &str = "ingest-replies";

const POLL: Duration = Duration::from_millis(100);
const CONDITION: &str = "replies";

/// Those who wait. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    // Several may wait for one command: the same idempotency key, twice at a time.
    waiting: Mutex<HashMap<CommandId, Vec<Waiting>>>,
    /// The partitions of `cart-replies` that are ours, where replies can be sent to us. One is used: librdkafka sends a
    /// request per partition, so replies that are spread over many come in as many requests.
    partitions: Mutex<Vec<i32>>,
    next: AtomicUsize,
}

/// Who waits: a ticket, to be found by, and the way back.
type Waiting = (usize, oneshot::Sender<CartReply>);

/// Waits for one command's reply; stops waiting when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    command_id: CommandId,
    ticket: usize,
    waiters: Waiters,
    pub(crate) reply: oneshot::Receiver<CartReply>,
    /// Where the reply is to be sent.
    pub(crate) partition: i32,
}

impl Waiters {
    /// Starts to wait. `None` while no partition is ours.
    pub(crate) fn register(&self, command_id: CommandId) -> Option<Waiter> {
        let ticket = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let partition = {
            let partitions = self.inner.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            *partitions.first()?
        };
        let (sender, reply) = oneshot::channel();
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(command_id).or_default().push((ticket, sender));
        Some(Waiter { command_id, ticket, waiters: self.clone(), reply, partition })
    }

    /// Answers all who wait for this command. A reply that nobody waits for is a duplicate, or late.
    fn complete(&self, reply: &CartReply) {
        let senders = {
            let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.remove(&reply.command_id).unwrap_or_default()
        };
        for (_, sender) in senders {
            // An error means that it has just stopped waiting.
            drop(sender.send(reply.clone()));
        }
    }

    fn own(&self, change: impl FnOnce(&mut Vec<i32>)) -> bool {
        let mut partitions = self.inner.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut partitions);
        !partitions.is_empty()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(senders) = waiting.get_mut(&self.command_id) {
            senders.retain(|(ticket, _)| *ticket != self.ticket);
            if senders.is_empty() {
                waiting.remove(&self.command_id);
            }
        }
    }
}

/// Reads replies until the shutdown. Blocks: for a thread of its own.
pub(crate) fn read(
    consumer: &GroupConsumer,
    codec: &Codec<CartReply>,
    waiters: &Waiters,
    runtime: &Handle,
    readiness: &Readiness,
    shutdown: &Shutdown,
) {
    while !shutdown.is_requested() {
        let reply = match consumer.poll(POLL) {
            Ok(message) => message.and_then(|message| decode(codec, runtime, message.payload().unwrap_or_default())),
            Err(error) => {
                tracing::debug!(error = format!("{:#}", anyhow::Error::new(error)), "reading replies");
                None
            }
        };
        for event in consumer.assignment_events() {
            let is_ready = waiters.own(|owned| match event {
                AssignmentEvent::Assigned(partitions) => owned.extend(partitions),
                AssignmentEvent::Revoked(partitions) => owned.retain(|partition| !partitions.contains(partition)),
            });
            if is_ready {
                readiness.up(CONDITION);
            } else {
                readiness.down(CONDITION, "no partition of cart-replies is ours at the moment");
            }
        }
        if let Some(reply) = reply {
            waiters.complete(&reply);
        }
    }
}

fn decode(codec: &Codec<CartReply>, runtime: &Handle, bytes: &[u8]) -> Option<CartReply> {
    let result = match codec.decode(bytes) {
        Err(DecodeError::NotLearnt { id }) => {
            if let Err(error) = runtime.block_on(codec.learn(id)) {
                tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "a reply can't be read");
                return None;
            }
            codec.decode(bytes)
        }
        result => result,
    };
    // Whoever waits for it gets 202: the outcome is in the log all the same.
    result.inspect_err(|error| tracing::warn!(%error, "a reply can't be read")).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_waits_is_answered_once_and_nobody_is_forgotten() {
        let waiters = Waiters::default();
        let command_id = CommandId::from(uuid::Uuid::from_u128(1));
        assert!(waiters.register(command_id).is_none(), "no partition is ours yet");
        waiters.own(|owned| owned.push(7));
        let (mut first, mut second) = (waiters.register(command_id).unwrap(), waiters.register(command_id).unwrap());
        let gone = waiters.register(command_id).unwrap();
        assert_eq!(first.partition, 7);
        drop(gone);
        let rejection = cart::Rejection::EmptyCartCheckout;
        let outcome = cart::Outcome::Rejected { rejection, index: None };
        let cart_id = uuid::Uuid::nil().into();
        let reply = CartReply { command_id, cart_id, position: cart::Position::NONE, outcome };
        waiters.complete(&reply);
        waiters.complete(&reply);
        assert_eq!(first.reply.try_recv().unwrap(), reply);
        assert_eq!(second.reply.try_recv().unwrap(), reply);
        drop((first, second));
        assert!(waiters.inner.waiting.lock().unwrap().is_empty());
    }
}
