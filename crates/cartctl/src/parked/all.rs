//! The parked carts of all partitions.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{CartCommand, CartId, ParkedCart, Position};
use kafka::{Admin, KafkaArgs, Registry};
use parking::{ParkedCarts, ParkedPartition};
use tokio::runtime::Handle;

/// All parked carts, by partition and cart.
#[derive(Debug, Default, Clone)]
pub(crate) struct AllParked {
    pub(crate) carts: BTreeMap<(i32, CartId), ParkedCart>,
    /// Those that an operator wants to be tried.
    pub(crate) requested: Vec<CartId>,
}

impl AllParked {
    /// As they stand now. If committed offsets of `cart-commands` were read before, a command before them is decided or held.
    pub(crate) async fn read(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let codec = parking::codec(&Registry::new(kafka)?).await?;
        let (kafka, runtime) = (kafka.clone(), Handle::current());
        let read = tokio::task::spawn_blocking(move || {
            let topic = kafka.prefixed(cart::CartParked::TOPIC);
            let partitions = Admin::new(&kafka)?.partitions(&topic)?;
            let mut carts = ParkedCarts::new(&kafka, codec, runtime)?;
            let mut all = Self::default();
            for partition in 0..partitions {
                let ParkedPartition { carts, requested, .. } = &*carts.read(partition)?;
                all.carts.extend(carts.iter().map(|(id, cart)| ((partition, *id), cart.clone())));
                all.requested.extend(requested);
            }
            Ok::<_, kafka::Error>(all)
        });
        read.await?.context("reading the parked carts")
    }

    /// The position before which each cart's commands are decided.
    pub(crate) fn next_positions(&self) -> HashMap<CartId, Position> {
        self.carts.iter().map(|((_, cart_id), cart)| (*cart_id, cart.next_position)).collect()
    }

    pub(crate) fn cart(&self, cart_id: CartId) -> Option<(i32, &ParkedCart)> {
        self.carts.iter().find(|((_, id), _)| *id == cart_id).map(|((partition, _), cart)| (*partition, cart))
    }
}

/// The log of commands, its full name.
pub(super) fn commands(kafka: &KafkaArgs) -> String {
    kafka.prefixed(CartCommand::TOPIC)
}
