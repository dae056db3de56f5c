//! The carts in memory for one assigned partition.

use cart::{Aggregate, CartId};
use lru::LruCache;

/// A bounded share of the partition's carts: those that were used last. Dropped when the partition goes.
#[derive(Debug)]
pub(crate) struct CartCache {
    // Unbounded here, since a bounded one allocates all its room at once; `trim` bounds it.
    carts: LruCache<CartId, Kept>,
    /// Bytes of all carts.
    size: usize,
}

#[derive(Debug)]
struct Kept {
    cart: Aggregate,
    /// Its bytes, as they are counted in [`CartCache::size`].
    size: usize,
}

/// What a cart takes beside its own bytes: its place in the table and in the order of use.
const PLACE_LEN: usize = 100;

impl Default for CartCache {
    fn default() -> Self {
        Self { carts: LruCache::unbounded(), size: 0 }
    }
}

impl CartCache {
    pub(crate) fn contains(&self, cart_id: CartId) -> bool {
        self.carts.contains(&cart_id)
    }

    pub(crate) fn insert(&mut self, cart: Aggregate) {
        let size = PLACE_LEN + cart.size();
        self.size += size;
        if let Some(replaced) = self.carts.put(cart.cart_id(), Kept { cart, size }) {
            self.size -= replaced.size;
        }
    }

    /// The cart, which becomes the most recently used.
    pub(crate) fn cart(&mut self, cart_id: CartId) -> Option<&Aggregate> {
        self.carts.get(&cart_id).map(|kept| &kept.cart)
    }

    /// Takes the cart out.
    pub(crate) fn take(&mut self, cart_id: CartId) -> Option<Aggregate> {
        let taken = self.carts.pop(&cart_id)?;
        self.size -= taken.size;
        Some(taken.cart)
    }

    /// Changes the cart, which becomes the most recently used.
    pub(crate) fn change<T>(&mut self, cart_id: CartId, change: impl FnOnce(&mut Aggregate) -> T) -> Option<T> {
        let kept = self.carts.get_mut(&cart_id)?;
        let result = change(&mut kept.cart);
        let size = PLACE_LEN + kept.cart.size();
        self.size = self.size - kept.size + size;
        kept.size = size;
        Some(result)
    }

    /// Evicts the least recently used carts until the others take at most this many bytes. Between batches, so that none of
    /// a batch is missing.
    pub(crate) fn trim(&mut self, size_max: usize) {
        while self.size > size_max
            && let Some((_, evicted)) = self.carts.pop_lru()
        {
            self.size -= evicted.size;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::alloc::System;

    use cap::Cap;
    use cart::{CartCommand, Command, Decision, Item, LogEpoch, Position, RememberedRequest};
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
            let command_id = id.into();
            let command =
                CartCommand { command_id, cart_id, issued_at, command, expected_version: None, keyed: Some(true) };
            let position = Position::new(LogEpoch::FIRST, number.into());
            match cart.decide(&command, position) {
                Decision::Decided(decided) => cart.apply(&decided),
                other @ (Decision::Repeated(_) | Decision::KeyReused) => panic!("{other:?}"),
            }
        }
        cart
    }

    const ALONE: &str = "TEST_ALONE";

    /// The allocator counts for the whole process, so this test runs in one of its own: again, with [`ALONE`] set.
    #[test]
    fn a_cart_in_memory_takes_little_more_than_its_data() {
        if std::env::var_os(ALONE).is_some() {
            return measure();
        }
        let name = "cart_cache::tests::a_cart_in_memory_takes_little_more_than_its_data";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args([name, "--exact"]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{name} is not the test's name");
    }

    fn measure() {
        const CARTS: usize = 20_000;
        for items in 1..=8 {
            let before = ALLOCATOR.allocated();
            let mut partition = CartCache::default();
            for number in 0..CARTS {
                partition.insert(filled(CartId::from(uuid_of(number as u128)), items));
            }
            let a_cart = ALLOCATOR.allocated().saturating_sub(before) / CARTS;
            let cart = filled(CartId::from(uuid_of(0)), items);
            let lines = cart.cart().items().iter().map(|item| size_of::<Item>() + item.name.as_str().len());
            let commands = usize::from(items) * size_of::<RememberedRequest>();
            let data = size_of::<Aggregate>() + lines.sum::<usize>() + commands;
            let overhead = a_cart.checked_sub(data).unwrap();
            assert!(overhead <= OVERHEAD_MAX, "{items} items: {a_cart} bytes a cart, {data} of them data");
            let counted = partition.size / CARTS;
            assert!(
                (a_cart * 3 / 4..a_cart * 5 / 4).contains(&counted),
                "{items} items: {a_cart} bytes a cart, counted as {counted}"
            );
        }
    }

    #[test]
    fn the_least_recently_used_cart_goes_first() {
        let id = |n: u128| CartId::from(uuid_of(n));
        let mut partition = CartCache::default();
        for n in 1..=3 {
            partition.insert(Aggregate::new(id(n)));
        }
        partition.cart(id(1));
        partition.trim(partition.size - 1);
        assert!(partition.contains(id(1)) && !partition.contains(id(2)) && partition.contains(id(3)));
    }

    #[test]
    fn counts_bytes_as_carts_change() {
        let id = |n: u128| CartId::from(uuid_of(n));
        let mut partition = CartCache::default();
        partition.insert(filled(id(1), 2));
        let small = partition.size;
        partition.change(id(1), |cart| *cart = filled(id(1), 8)).unwrap();
        assert!(partition.size > small);
        partition.insert(filled(id(1), 2));
        assert_eq!(partition.size, small);
        partition.trim(0);
        assert_eq!((partition.size, partition.contains(id(1))), (0, false));
    }

    fn uuid_of(n: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(n)
    }
}
