//! The parked carts of all partitions.

use std::collections::{BTreeMap, HashMap};

use cart::contract::Contract as _;
use cart::{CartId, CartParked, ParkedCart, Position};
use kafka::{Admin, Codec, Error, KafkaArgs, Registry};
use tokio::runtime::Handle;

use crate::{ParkedCarts, ParkedPartition};

/// All parked carts, by partition and cart.
#[derive(Debug, Default, Clone)]
pub struct AllParked {
    pub carts: BTreeMap<(i32, CartId), ParkedCart>,
    /// Those that an operator wants to be tried.
    pub requested: Vec<CartId>,
}

impl AllParked {
    /// As they stand now. If committed offsets of `cart-commands` were read before, a command before them is decided or held.
    ///
    /// # Errors
    /// As [`ParkedCarts::read`].
    pub async fn read(kafka: &KafkaArgs) -> Result<Self, Error> {
        Self::read_with(kafka, crate::codec(&Registry::new(kafka)?).await?).await
    }

    /// As [`AllParked::read`], with this codec of the topic's values.
    ///
    /// # Errors
    /// As [`ParkedCarts::read`].
    pub async fn read_with(kafka: &KafkaArgs, codec: Codec<CartParked>) -> Result<Self, Error> {
        let (kafka, runtime) = (kafka.clone(), Handle::current());
        let read = tokio::task::spawn_blocking(move || {
            let topic = kafka.prefixed(CartParked::TOPIC);
            let partitions = Admin::new(&kafka)?.partitions(&topic)?;
            let mut carts = ParkedCarts::new(&kafka, codec, runtime)?;
            let mut all = Self::default();
            for partition in 0..partitions {
                let ParkedPartition { carts, requested, .. } = &*carts.read(partition)?;
                all.carts.extend(carts.iter().map(|(id, cart)| ((partition, *id), cart.clone())));
                all.requested.extend(requested);
            }
            Ok::<_, Error>(all)
        });
        read.await.map_err(|error| Error::fatal("reading the parked carts", error))?
    }

    /// The position before which each cart's commands are decided.
    #[must_use]
    pub fn next_positions(&self) -> HashMap<CartId, Position> {
        self.carts.iter().map(|((_, cart_id), cart)| (*cart_id, cart.next_position)).collect()
    }

    /// A parked cart, with its partition.
    #[must_use]
    pub fn cart(&self, cart_id: CartId) -> Option<(i32, &ParkedCart)> {
        self.carts.iter().find(|((_, id), _)| *id == cart_id).map(|((partition, _), cart)| (*partition, cart))
    }
}
