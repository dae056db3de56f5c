//! Which commands wait because their carts are parked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::{CartId, CartParked, LogEpoch, ParkedCart, Position};
use kafka::{Codec, KafkaArgs, Message as _, TopicReader};
use parking::{ParkedCarts, ParkedPartition};
use tokio::runtime::Handle;

/// Maximum wait for the record of a command.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// What waits of the commands up to one.
#[derive(Debug)]
pub(crate) enum Waiting {
    None,
    /// Others, and not this one.
    Others,
    /// This one: its cart, and why.
    This(CartId, String),
}

/// Asks the topic `cart-parked`. Clones share what was read.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    kafka: KafkaArgs,
    /// The log of commands, its full name.
    commands: String,
    epoch: LogEpoch,
    carts: Arc<Mutex<ParkedCarts>>,
}

impl Parked {
    /// Does not wait for the brokers. `commands` is the log of commands, of the identity `epoch`.
    pub(crate) fn new(
        kafka: &KafkaArgs,
        commands: &str,
        epoch: LogEpoch,
        codec: Codec<CartParked>,
        runtime: Handle,
    ) -> Result<Self, kafka::Error> {
        let carts = Arc::new(Mutex::new(ParkedCarts::new(kafka, codec, runtime)?));
        Ok(Self { kafka: kafka.clone(), commands: commands.to_owned(), epoch, carts })
    }

    /// Why the command at an offset waits; `None` if it does not. Call it after the committed offset was read that is behind the
    /// command. Blocks.
    pub(crate) fn reason(&self, partition: i32, offset: i64, cart_id: CartId) -> Result<Option<String>, kafka::Error> {
        let parked = self.read(partition)?;
        let position = Position::new(self.epoch, offset);
        let holds = |cart: &&ParkedCart| cart.holds(position);
        Ok(parked.carts.get(&cart_id).filter(holds).map(|cart| cart.reason_code().to_owned()))
    }

    /// What waits of the commands up to an offset. As [`Parked::reason`]. Blocks.
    pub(crate) fn up_to(&self, partition: i32, offset: i64) -> Result<Waiting, kafka::Error> {
        let parked = self.read(partition)?;
        let position = Position::new(self.epoch, offset);
        // Mostly none is parked, and the record is not needed.
        if !parked.carts.values().any(|cart| cart.holds(position)) {
            return Ok(Waiting::None);
        }
        let mut log = TopicReader::open(&self.kafka, &self.commands, [(partition, offset)])?;
        let Some(message) = log.next(RECORD_TIMEOUT)?.filter(|message| message.offset() == offset) else {
            return Ok(Waiting::Others);
        };
        let key = std::str::from_utf8(message.key().unwrap_or_default()).unwrap_or_default();
        let Ok(cart_id) = key.parse::<CartId>() else { return Ok(Waiting::Others) };
        let cart = parked.carts.get(&cart_id).filter(|cart| cart.holds(position));
        Ok(cart.map_or(Waiting::Others, |cart| Waiting::This(cart_id, cart.reason_code().to_owned())))
    }

    fn read(&self, partition: i32) -> Result<Arc<ParkedPartition>, kafka::Error> {
        self.carts.lock().unwrap_or_else(PoisonError::into_inner).read(partition)
    }
}
