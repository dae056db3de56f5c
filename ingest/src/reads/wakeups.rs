//! Wakes the event streams of a cart when `cart-events` has a record of that cart.
//!
//! One thread follows all partitions of the topic, from the first stream until there has been none for a while. It looks at
//! keys only. A record is a hint: events are read from the journal, which has them before the topic does. A hint that is lost
//! costs time, because a stream also reads the journal before each of its heartbeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cart::CartId;
use kafka::{KafkaArgs, Message as _, TailConsumer};
use service::Shutdown;
use tokio::sync::Notify;
use uuid::Uuid;

/// Maximum number of streams of one cart, so that one cart's page left open many times does not take all.
const CART_STREAMS_MAX: usize = 16;

const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum wait of each query for the end of a partition.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after the topic could not be followed: the brokers are unreachable.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long the topic is followed after the last stream: its client may be about to reconnect.
const LINGER: Duration = Duration::from_secs(30);

/// The streams that wait for events. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Wakeups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kafka: KafkaArgs,
    /// The full name of `cart-events`.
    topic: String,
    partitions: i32,
    state: Mutex<State>,
    end: Shutdown,
}

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<CartId, Vec<Arc<Notify>>>,
    is_following: bool,
}

/// One stream's place among the listeners, until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    cart_id: CartId,
    bell: Arc<Notify>,
    shared: Arc<Shared>,
}

/// Why a cart gets no further listener.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoListener {
    #[error("the cart has {CART_STREAMS_MAX} event streams, which is the maximum")]
    TooMany,
    #[error("the thread that follows the events cannot be started")]
    Thread(#[source] std::io::Error),
}

impl Wakeups {
    /// Connects when the first stream comes.
    pub(super) fn new(kafka: &KafkaArgs, topic: String, partitions: i32, end: Shutdown) -> Self {
        Self(Arc::new(Shared { kafka: kafka.clone(), topic, partitions, state: Mutex::default(), end }))
    }

    /// Registers a stream. It is woken once the topic is followed, and then by each record of its cart.
    pub(super) fn listen(&self, cart_id: CartId) -> Result<Listener, NoListener> {
        let bell = Arc::new(Notify::new());
        let mut state = self.0.state();
        if state.listeners.get(&cart_id).is_some_and(|listeners| listeners.len() >= CART_STREAMS_MAX) {
            return Err(NoListener::TooMany);
        }
        if !state.is_following {
            let shared = self.0.clone();
            let thread = std::thread::Builder::new().name(String::from("event-streams"));
            thread.spawn(move || shared.follow()).map_err(NoListener::Thread)?;
            state.is_following = true;
        }
        state.listeners.entry(cart_id).or_default().push(bell.clone());
        Ok(Listener { cart_id, bell, shared: self.0.clone() })
    }
}

impl Listener {
    /// Completes when the cart may have new events since the last call.
    pub(super) async fn woken(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(listeners) = state.listeners.get_mut(&self.cart_id) {
            listeners.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if listeners.is_empty() {
                state.listeners.remove(&self.cart_id);
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn follow(&self) {
        let mut tail: Option<TailConsumer> = None;
        let mut has_failed = false;
        let mut used_at = Instant::now();
        while !self.has_ended(&mut used_at) {
            let Some(tail) = &tail else {
                match TailConsumer::open(&self.kafka, &self.topic, 0..self.partitions, END_TIMEOUT) {
                    Ok(opened) => {
                        tail = Some(opened);
                        has_failed = false;
                        // Earlier records are not seen, but the journal has their events.
                        self.wake_all();
                    }
                    Err(error) => {
                        // Logged once per outage, not per attempt.
                        if !has_failed {
                            let error = format!("{:#}", anyhow::Error::new(error));
                            tracing::warn!(
                                error,
                                "event streams are delayed: new events are unknown until the next try"
                            );
                        }
                        has_failed = true;
                        std::thread::sleep(FAILURE_PAUSE);
                    }
                }
                continue;
            };
            match tail.poll(POLL_TIMEOUT) {
                Ok(Some(message)) => self.wake(message.key().unwrap_or_default()),
                Ok(None) => {}
                // librdkafka reports it once: the user lacks a grant, for example.
                Err(error) if error.recovery() == kafka::Recovery::Fatal => {
                    tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "event streams are delayed");
                }
                Err(error) => tracing::debug!(error = format!("{:#}", anyhow::Error::new(error)), "following events"),
            }
        }
    }

    /// Whether the thread ends: at the shutdown, or when there has been no stream for a while.
    fn has_ended(&self, used_at: &mut Instant) -> bool {
        let mut state = self.state();
        if !state.listeners.is_empty() {
            *used_at = Instant::now();
        }
        // Under the lock, so that the next listener starts another thread.
        state.is_following = !self.end.is_requested() && used_at.elapsed() < LINGER;
        !state.is_following
    }

    fn wake(&self, key: &[u8]) {
        let Ok(cart_id) = Uuid::try_parse_ascii(key) else { return };
        for bell in self.state().listeners.get(&CartId::from(cart_id)).into_iter().flatten() {
            bell.notify_one();
        }
    }

    fn wake_all(&self) {
        for bell in self.state().listeners.values().flatten() {
            bell.notify_one();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::Parser as _;
    use futures::FutureExt as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        kafka: KafkaArgs,
    }

    #[test]
    fn only_the_streams_of_a_records_cart_are_woken() {
        let (_sender, end) = Shutdown::channel();
        // No broker is at this address, so the thread wakes none.
        let args = Args::parse_from(["test", "--kafka-bootstrap-servers", "127.0.0.1:1"]);
        let wakeups = Wakeups::new(&args.kafka, String::from("cart-events"), 1, end);
        let [one, other] = [1, 2].map(|number| CartId::from(Uuid::from_u128(number)));
        let listeners: Vec<_> = (0..CART_STREAMS_MAX).map(|_| wakeups.listen(one).unwrap()).collect();
        assert!(matches!(wakeups.listen(one), Err(NoListener::TooMany)));
        let of_other = wakeups.listen(other).unwrap();

        wakeups.0.wake(one.to_string().as_bytes());
        wakeups.0.wake(b"no cart");
        assert!(listeners.iter().all(|listener| listener.woken().now_or_never().is_some()));
        assert!(listeners.iter().all(|listener| listener.woken().now_or_never().is_none()), "one wake-up, one call");
        assert!(of_other.woken().now_or_never().is_none());
        drop((listeners, of_other));
        assert!(wakeups.0.state().listeners.is_empty());
    }
}
