//! The products of the made-up shop: each name, price and vendor follow from the product's number and the seed.

use rust_decimal::Decimal;

use super::command::Action;
use crate::bits::mix_bits;

const COLOURS: [&str; 8] = ["Red", "Blue", "Ivory", "Rosé", "Mint", "Silver", "\"Antique\"", "Pink, spotted"];
const THINGS: [&str; 8] = ["teapot", "lantern", "cake stand", "doormat", "cushion", "alarm clock", "bunting", "mug"];

/// The products by number.
#[derive(Debug)]
pub(crate) struct Assortment {
    seed: u64,
    vendors: u32,
}

impl Assortment {
    pub(crate) fn new(seed: u64, vendors: u32) -> Self {
        Self { seed, vendors }
    }

    /// A product's label.
    pub(crate) fn product(product: u32) -> String {
        format!("p{product}")
    }

    /// The command that adds a product.
    pub(crate) fn add(&self, product: u32, quantity: i64) -> Action {
        let bits = mix_bits(self.seed ^ u64::from(product).rotate_left(32));
        let pick = |shift: u32| (bits >> shift & 7) as usize;
        Action::Add {
            product: Self::product(product),
            vendor: format!("v{}", product % self.vendors),
            name: format!("{} {} {product}", COLOURS[pick(0)], THINGS[pick(3)]),
            price: price(bits >> 6),
            quantity,
        }
    }
}

/// A price from 0.01 to 100.00. One in sixteen has four decimal places, so that any rounding shows.
fn price(bits: u64) -> Decimal {
    let amount = i64::try_from(1 + (bits >> 4) % 10_000).unwrap_or(1);
    let places = if bits & 15 == 0 { 4 } else { 2 };
    Decimal::new(amount, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_positive_with_at_most_four_places() {
        let assortment = Assortment::new(7, 3);
        let mut fine = 0;
        for product in 0..2_000 {
            let Action::Add { price, .. } = assortment.add(product, 1) else { panic!("an add") };
            assert!(price > Decimal::ZERO && price.scale() <= 4, "{price}");
            fine += u32::from(price.scale() == 4);
        }
        assert!((60..200).contains(&fine), "{fine} of 2,000 prices have four places");
    }
}
