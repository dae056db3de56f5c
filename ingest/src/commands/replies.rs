//! Who waits for which command, and the thread that reads the answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::{CartReply, CommandId};
use kafka::{Codec, DecodeError, Follower, Message as _};
use service::Shutdown;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use uuid::Uuid;

const POLL: Duration = Duration::from_millis(100);

/// The partition of `cart-replies` that an instance reads: any, for as long as it runs. A group would hand partitions out
/// one by one, and take them away while replies come, whenever its coordinator or an instance dies. Instances that meet
/// in one read each other's replies too, which nobody waits for there. One is enough: librdkafka sends a request per
/// partition, so replies that are spread over many come in as many requests.
pub(crate) fn any_partition(partitions: i32) -> i32 {
    let random = Uuid::new_v4().as_u128() % u128::from(partitions.max(1).unsigned_abs());
    i32::try_from(random).unwrap_or_default()
}

/// Those who wait. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Waiters {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Several may wait for one command: the same idempotency key, twice at a time.
    waiting: Mutex<HashMap<CommandId, Vec<Waiting>>>,
    /// Of `cart-replies`, where replies are to be sent.
    partition: i32,
    next: AtomicUsize,
}

/// Who waits. Under an idempotency key a command may stand in the log several times, with an outcome each: what was
/// another request under the key is rejected. A waiting request takes the reply with the offset of its own command.
#[derive(Debug)]
struct Waiting {
    /// To be found by.
    ticket: usize,
    /// The command's offset, once the log has confirmed it.
    offset: Option<i64>,
    /// What came before that, which takes the log milliseconds: one of them may be the one.
    early: Vec<CartReply>,
    sender: oneshot::Sender<CartReply>,
}

impl Waiting {
    /// Whether this is the reply that is waited for. One that may be is kept.
    fn takes(&mut self, reply: &CartReply) -> bool {
        if self.offset.is_none() {
            self.early.push(reply.clone());
        }
        self.offset == Some(reply.position.offset())
    }

    fn answer(self, reply: CartReply) {
        // An error means that it has just stopped waiting.
        drop(self.sender.send(reply));
    }
}

/// Waits for one command's reply; stops waiting when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    command_id: CommandId,
    ticket: usize,
    waiters: Waiters,
    pub(crate) reply: oneshot::Receiver<CartReply>,
}

impl Waiters {
    /// Nobody, yet. Replies come to that partition.
    pub(crate) fn at(partition: i32) -> Self {
        Self { inner: Arc::new(Inner { waiting: Mutex::default(), partition, next: AtomicUsize::default() }) }
    }

    /// Starts to wait.
    pub(crate) fn register(&self, command_id: CommandId) -> Waiter {
        let ticket = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let one = Waiting { ticket, offset: None, early: Vec::new(), sender };
        waiting.entry(command_id).or_default().push(one);
        Waiter { command_id, ticket, waiters: self.clone(), reply }
    }

    /// Answers all who wait for this. A reply that nobody waits for is a duplicate, or late.
    fn complete(&self, reply: &CartReply) {
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
    /// Where the reply is to be sent.
    pub(crate) fn partition(&self) -> i32 {
        self.waiters.inner.partition
    }

    /// The command is in the log, there. Its reply may have come already.
    pub(crate) fn delivered(&self, offset: i64) {
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

/// Reads replies until nobody waits for any. Blocks: for a thread of its own.
pub(crate) fn read(follower: &Follower, codec: &Codec<CartReply>, waiters: &Waiters, runtime: &Handle, end: &Shutdown) {
    while !end.is_requested() {
        match follower.poll(POLL) {
            Ok(Some(message)) => {
                metrics::histogram!("ingest_reply_wait_seconds").record(kafka::age_of(&message).unwrap_or_default());
                if let Some(reply) = decode(codec, runtime, message.payload().unwrap_or_default()) {
                    waiters.complete(&reply);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(error = format!("{:#}", anyhow::Error::new(error)), "reading replies"),
        }
    }
}

fn decode(codec: &Codec<CartReply>, runtime: &Handle, bytes: &[u8]) -> Option<CartReply> {
    let result = match codec.decode(bytes) {
        Err(DecodeError::NotLearnt { id }) => {
            if let Err(error) = runtime.block_on(codec.learn(id)) {
                tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "a reply cannot be decoded");
                return None;
            }
            codec.decode(bytes)
        }
        result => result,
    };
    // Whoever waits for it gets 202: the outcome is in the log all the same.
    result.inspect_err(|error| tracing::warn!(%error, "a reply cannot be decoded")).ok()
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
    fn everybody_who_waits_is_answered_once_and_nobody_is_forgotten() {
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
        assert!(second.reply.try_recv().is_err(), "which of them it is can't be told yet");
        second.delivered(11);
        assert_eq!(second.reply.try_recv().unwrap(), reply(command_id, 11));
        drop((first, second));
        assert!(waiters.inner.waiting.lock().unwrap().is_empty());
    }

    #[test]
    fn what_became_of_an_earlier_one_under_the_same_key_is_passed_over() {
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
    fn any_partition_is_one_that_there_is() {
        assert_eq!(any_partition(1), 0);
        let some: std::collections::BTreeSet<_> = (0..1_000).map(|_| any_partition(12)).collect();
        assert_eq!(some, (0..12).collect());
    }
}
