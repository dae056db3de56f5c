//! Which carts are parked: the topic `cart-parked`, read as it stands; and an operator's request to try them again.
//!
//! ```text
//! cart-parked   compacted; partitions and partitioner as cart-commands
//!   CART        the marker of a parked cart: its commands from `nextPosition` on wait in cart-commands
//!   retry/CART  an operator's request to try it again; no state
//! ```
//!
//! A marker and the offsets that pass the cart's commands are of one transaction. So who reads the committed offset of a partition
//! of `cart-commands` first, and then this partition to an end behind which no transaction is open, finds the marker of every
//! command that was passed over.

mod all;
mod retry;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cart::contract::Contract as _;
use cart::{CartId, CartParked, LogEpoch, ParkedCart, ParkedEntry, is_retry_key};
use kafka::{Codec, DecodeError, Error, GroupProgress, KafkaArgs, Message as _, Registry, TopicReader};
use tokio::runtime::Handle;

pub use all::AllParked;
pub use retry::request_retry;

/// How long an open transaction is waited for: longer than the brokers leave one open.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do about a transaction that stays open for longer.
pub const OPEN_TRANSACTION: &str = "`kafka-transactions.sh find-hanging --broker-id N` shows whose, and its `abort` ends it; else wait for \
    its transaction.timeout.ms";

/// Between two looks whether it has ended.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

/// How long a read may go without a record.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A partition of the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedPartition {
    /// The parked carts.
    pub carts: HashMap<CartId, ParkedCart>,
    /// Those that an operator wants to be tried again. A request without a parked cart means nothing.
    pub requested: BTreeSet<CartId>,
    /// The offset behind what was read.
    pub end: i64,
}

impl ParkedPartition {
    /// Whether a marker is of another log: the commands of its cart are not in this one.
    #[must_use]
    pub fn is_of_another_log(&self, epoch: LogEpoch) -> bool {
        self.carts.values().any(|cart| cart.next_position.epoch() != Some(epoch))
    }
}

/// Reads the topic. Keeps what it has read of a partition until that has more. For one thread at a time; its calls block.
pub struct ParkedCarts {
    kafka: KafkaArgs,
    topic: String,
    codec: Codec<CartParked>,
    progress: GroupProgress,
    runtime: Handle,
    settle_timeout: Duration,
    known: HashMap<i32, Arc<ParkedPartition>>,
}

impl std::fmt::Debug for ParkedCarts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkedCarts").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Whether a record of the topic cannot be decoded: reading it again says the same, unlike with a server that does not respond.
#[must_use]
pub fn is_undecodable(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<DecodeError>())
}

/// The codec of the topic's values.
///
/// # Errors
/// If the registry does not respond, or refuses the schema.
pub async fn codec(registry: &Registry) -> Result<Codec<CartParked>, Error> {
    Codec::register(registry, CartParked::TOPIC, CartParked::SCHEMA).await
}

impl ParkedCarts {
    /// Does not wait for the brokers.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn new(kafka: &KafkaArgs, codec: Codec<CartParked>, runtime: Handle) -> Result<Self, Error> {
        let topic = kafka.prefixed(CartParked::TOPIC);
        // No offsets are committed under the name.
        let progress = GroupProgress::new(kafka, &format!("{topic}-reader"), &topic)?;
        let (settle_timeout, known) = (SETTLE_TIMEOUT, HashMap::new());
        Ok(Self { kafka: kafka.clone(), topic, codec, progress, runtime, settle_timeout, known })
    }

    /// The same, which waits for an open transaction for so long only, instead of [`SETTLE_TIMEOUT`].
    #[must_use]
    pub fn with_settle_timeout(self, settle_timeout: Duration) -> Self {
        Self { settle_timeout, ..self }
    }

    /// The partition as it stands, including every transaction that is open now.
    ///
    /// # Errors
    /// If the brokers do not respond, a transaction stays open for longer than [`SETTLE_TIMEOUT`], or than what was set
    /// instead, or a record cannot be decoded. What is known of other partitions stays.
    pub fn read(&mut self, partition: i32) -> Result<Arc<ParkedPartition>, Error> {
        let (start, end) = self.progress.bounds(partition)?;
        if let Some(known) = self.known.get(&partition)
            && known.end == end
        {
            return Ok(known.clone());
        }
        self.settle(partition, end)?;
        let mut read = ParkedPartition { end, ..ParkedPartition::default() };
        if start < end {
            let mut reader = TopicReader::open(&self.kafka, &self.topic, [(partition, start)])?;
            while let Some(message) = reader.next(SILENCE_MAX)? {
                read.end = read.end.max(message.offset() + 1);
                self.take(&mut read, message.key().unwrap_or_default(), message.payload())?;
            }
        }
        let read = Arc::new(read);
        self.known.insert(partition, read.clone());
        Ok(read)
    }

    /// Waits until no transaction before `end` is open.
    fn settle(&self, partition: i32, end: i64) -> Result<(), Error> {
        if settles(end, self.settle_timeout, || self.progress.last_stable_offset(partition))? {
            return Ok(());
        }
        let operation = format!("waiting for the open transactions of {}/{partition}", self.topic);
        Err(Error::retry(operation, format!("one stays open; {OPEN_TRANSACTION}")))
    }

    fn take(&self, read: &mut ParkedPartition, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        let Some(value) = value else {
            // Which of both the key is does not matter: nothing else has it.
            let id = std::str::from_utf8(key).unwrap_or_default();
            if let Ok(cart_id) = id.rsplit('/').next().unwrap_or_default().parse() {
                if is_retry_key(key) {
                    read.requested.remove(&cart_id);
                } else {
                    read.carts.remove(&cart_id);
                }
            }
            return Ok(());
        };
        match self.decode(value)? {
            CartParked {
                cart_id,
                entry: ParkedEntry::Parked { first_position, next_position, state, reason, since },
            } => {
                let cart = ParkedCart { first_position, next_position, state, reason, since };
                read.carts.insert(cart_id, cart);
            }
            CartParked { cart_id, entry: ParkedEntry::RetryRequested { .. } } => {
                read.requested.insert(cart_id);
            }
        }
        Ok(())
    }

    /// A value of the topic.
    ///
    /// # Errors
    /// As [`ParkedCarts::read`].
    pub fn decode(&self, value: &[u8]) -> Result<CartParked, Error> {
        let decoded = self.codec.decode_or_fetch_blocking(value, &self.runtime)?;
        // Without it, it would not be known whose commands wait.
        decoded.map_err(|error| Error::retry(format!("reading a record of {}", self.topic), error))
    }
}

/// Whether no transaction before `end` is open, perhaps after a while. `stable` is the offset before which none is.
fn settles(end: i64, within: Duration, stable: impl Fn() -> Result<i64, Error>) -> Result<bool, Error> {
    let started_at = Instant::now();
    while stable()? < end {
        if started_at.elapsed() > within {
            return Ok(false);
        }
        std::thread::sleep(SETTLE_PAUSE);
    }
    Ok(true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_open_transaction_is_waited_for_no_longer_than_is_said() {
        let started_at = Instant::now();
        assert!(!settles(8, Duration::from_millis(20), || Ok(7)).unwrap());
        assert!(started_at.elapsed() < SETTLE_TIMEOUT);
        let looks = Cell::new(6);
        let stable = || {
            looks.set(looks.get() + 1);
            Ok(looks.get())
        };
        assert!(settles(8, SETTLE_TIMEOUT, stable).unwrap());
        assert_eq!(looks.get(), 8, "it has ended at the second look");
    }
}
