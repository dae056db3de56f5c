//! The carts in memory for one assigned partition.

use cart::{Aggregate, CartId};
use lru::LruCache;

/// A bounded share of the partition's carts: those that were used last. Dropped when the partition goes.
#[derive(Debug)]
pub(crate) struct Partition {
    // Unbounded here, since a bounded one allocates all its room at once; `trim` bounds it.
    carts: LruCache<CartId, Aggregate>,
}

impl Default for Partition {
    fn default() -> Self {
        Self { carts: LruCache::unbounded() }
    }
}

impl Partition {
    pub(crate) fn contains(&self, cart_id: CartId) -> bool {
        self.carts.contains(&cart_id)
    }

    pub(crate) fn insert(&mut self, cart: Aggregate) {
        self.carts.put(cart.cart_id(), cart);
    }

    /// The cart, which becomes the most recently used.
    pub(crate) fn cart(&mut self, cart_id: CartId) -> Option<&mut Aggregate> {
        self.carts.get_mut(&cart_id)
    }

    /// Forgets the least recently used carts above `carts_max`. Between batches, so that none of a batch is missing.
    pub(crate) fn trim(&mut self, carts_max: usize) {
        while self.carts.len() > carts_max {
            self.carts.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_cart_goes_first() {
        let id = |n: u128| CartId::from(uuid_of(n));
        let mut partition = Partition::default();
        for n in 1..=3 {
            partition.insert(Aggregate::new(id(n)));
        }
        partition.cart(id(1));
        partition.trim(2);
        assert!(partition.contains(id(1)) && !partition.contains(id(2)) && partition.contains(id(3)));
    }

    fn uuid_of(n: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(n)
    }
}
