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
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::alloc::System;

    use cap::Cap;
    use cart::{CartCommand, Command, Decision, Item, LogEpoch, Position, RememberedCommand};
    use chrono::DateTime;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

    /// What of a small cart is not its data: its place in the table and in the order of use.
    const OVERHEAD_MAX: usize = 300;

    /// A cart to which items were added.
    fn filled(cart_id: CartId, items: u8) -> Aggregate {
        let mut cart = Aggregate::new(cart_id);
        for number in 1..=items {
            let id = uuid_of(number.into());
            let command = Command::AddItem {
                product_id: id.into(),
                vendor_id: id.into(),
                name: String::from("WHITE HANGING HEART T-LIGHT HOLDER").try_into().unwrap(),
                price: "2.55".parse().unwrap(),
                quantity: 6,
            };
            let issued_at = DateTime::UNIX_EPOCH;
            let command = CartCommand { command_id: id.into(), cart_id, issued_at, command, expected_version: None };
            let position = Position::new(LogEpoch::FIRST, number.into());
            match cart.decide(&command, position) {
                Decision::Accepted(events) => events.iter().for_each(|event| cart.apply(event)),
                other @ (Decision::Repeated(_) | Decision::Rejected(_)) => panic!("{other:?}"),
            }
        }
        cart
    }

    #[test]
    fn a_cart_in_memory_takes_little_more_than_its_data() {
        const CARTS: usize = 20_000;
        for items in 1..=8 {
            let before = ALLOCATOR.allocated();
            let mut partition = Partition::default();
            for number in 0..CARTS {
                partition.insert(filled(CartId::from(uuid_of(number as u128)), items));
            }
            // Other tests have little, and have it for moments.
            let a_cart = ALLOCATOR.allocated().saturating_sub(before) / CARTS;
            let cart = filled(CartId::from(uuid_of(0)), items);
            let lines = cart.cart().items().iter().map(|item| size_of::<Item>() + item.name.as_str().len());
            let commands = usize::from(items) * size_of::<RememberedCommand>();
            let data = size_of::<Aggregate>() + lines.sum::<usize>() + commands;
            let overhead = a_cart.checked_sub(data).unwrap();
            assert!(overhead <= OVERHEAD_MAX, "{items} items: {a_cart} bytes a cart, {data} of them data");
        }
    }

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
