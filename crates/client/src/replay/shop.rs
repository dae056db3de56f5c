//! A made-up shop: random commands that follow from a seed and the settings.
//!
//! The shop keeps the carts that result from its commands, so it knows which commands the rules accept, and breaks the rules
//! only on purpose. Its memory grows with the members (at most `cart_lines_max` lines each), not with the commands.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::assortment::Assortment;
use super::command::{Action, ActionKind, Command, Intended};
use super::shop_args::{Fault, ShopArgs};

/// A quantity above this is only decreased. It is far below the service's limit of a million.
const QUANTITY_MAX: i64 = 1_000;

/// How often a random product is drawn that must not be in the cart; after that, the next product that is not in it is used.
const FRESH_DRAWS_MAX: usize = 8;

/// An iterator over the commands; its settings limit their number.
#[derive(Debug)]
pub struct Shop {
    args: ShopArgs,
    assortment: Assortment,
    random: StdRng,
    members: Zipf<f64>,
    products: Zipf<f64>,
    carts: HashMap<u32, Vec<Line>>,
    made: u64,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    product: u32,
    quantity: i64,
}

/// A way to break a rule.
#[derive(Debug, Clone, Copy)]
enum Offence {
    DuplicateAdd,
    AdjustAbsent,
    RemoveAbsent,
    EmptyCheckout,
    AddBelowOne,
    AdjustBelowOne,
}

impl Shop {
    /// Makes a shop without carts.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn new(args: &ShopArgs) -> Result<Self, Fault> {
        args.check()?;
        let ordinary = args.members - args.hot_carts;
        Ok(Self {
            assortment: Assortment::new(args.seed, args.vendors),
            random: StdRng::seed_from_u64(args.seed),
            members: Zipf::new(f64::from(ordinary), args.member_skew).map_err(Fault::Skew)?,
            products: Zipf::new(f64::from(args.products), args.product_skew).map_err(Fault::Skew)?,
            carts: HashMap::new(),
            made: 0,
            args: args.clone(),
        })
    }

    #[cfg(test)]
    pub(super) fn lines_held(&self) -> usize {
        self.carts.values().map(Vec::len).sum()
    }

    fn command(&mut self) -> Command {
        let member = self.member();
        let cart = self.carts.remove(&member).unwrap_or_default();
        let refused = self.random.random_bool(self.args.refused_share);
        let (action, intended, cart) = if refused { self.refused(cart) } else { self.accepted(cart) };
        if !cart.is_empty() {
            self.carts.insert(member, cart);
        }
        let member = Arc::from(format!("{}{member}", self.args.member_prefix));
        Command { at: self.args.start + self.since_start(), member, action, intended, reason: None }
    }

    /// The time of the next command; the commands are evenly distributed over the days.
    fn since_start(&self) -> TimeDelta {
        let span_ms = u128::from(self.args.days) * 86_400_000;
        let ms = span_ms * u128::from(self.made) / u128::from(self.args.commands.max(1));
        TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX / 2))
    }

    /// Members 0 to N-1 are the hot ones.
    fn member(&mut self) -> u32 {
        let hot = self.args.hot_carts;
        if hot > 0 && self.random.random_bool(self.args.hot_share) {
            return self.random.random_range(0..hot);
        }
        hot + rank(self.members.sample(&mut self.random))
    }

    fn accepted(&mut self, mut cart: Vec<Line>) -> (Action, Intended, Vec<Line>) {
        let lines_max = self.args.cart_lines_max.min(self.args.products) as usize;
        let drawn = self.args.mix.draw(&mut self.random);
        let kind = if cart.is_empty() {
            ActionKind::Add
        } else if drawn == ActionKind::Add && cart.len() >= lines_max {
            ActionKind::Checkout
        } else {
            drawn
        };
        let action = match kind {
            ActionKind::Add => {
                let product = self.fresh_product(&cart);
                let quantity = self.random.random_range(1..=12);
                cart.push(Line { product, quantity });
                self.assortment.add(product, quantity)
            }
            ActionKind::Adjust => {
                let place = self.random.random_range(0..cart.len());
                let by = self.difference(cart[place].quantity);
                cart[place].quantity += by;
                Action::Adjust { product: Assortment::product(cart[place].product), by }
            }
            ActionKind::Remove => {
                let place = self.random.random_range(0..cart.len());
                Action::Remove { product: Assortment::product(cart.swap_remove(place).product) }
            }
            ActionKind::Checkout => {
                cart.clear();
                Action::Checkout
            }
        };
        (action, Intended::Accepted, cart)
    }

    /// A change that leaves at least one piece.
    fn difference(&mut self, quantity: i64) -> i64 {
        let fewer = quantity > QUANTITY_MAX || (quantity > 1 && self.random.random_bool(0.5));
        if fewer { -self.random.random_range(1..quantity) } else { self.random.random_range(1..=5) }
    }

    fn refused(&mut self, cart: Vec<Line>) -> (Action, Intended, Vec<Line>) {
        let offence = self.offence(&cart);
        let (action, code) = match offence {
            Offence::DuplicateAdd => {
                let product = self.any_line(&cart).product;
                (self.assortment.add(product, 1), "item-already-in-cart")
            }
            Offence::AdjustAbsent => {
                let product = Assortment::product(self.fresh_product(&cart));
                (Action::Adjust { product, by: 1 }, "item-not-in-cart")
            }
            Offence::RemoveAbsent => {
                let product = Assortment::product(self.fresh_product(&cart));
                (Action::Remove { product }, "item-not-in-cart")
            }
            Offence::EmptyCheckout => (Action::Checkout, "empty-cart-checkout"),
            Offence::AddBelowOne => {
                let product = self.fresh_product(&cart);
                (self.assortment.add(product, -self.random.random_range(0..3)), "negative-quantity")
            }
            Offence::AdjustBelowOne => {
                let line = self.any_line(&cart);
                let by = -line.quantity - self.random.random_range(0..3);
                (Action::Adjust { product: Assortment::product(line.product), by }, "negative-quantity")
            }
        };
        (action, Intended::Refused(code), cart)
    }

    /// One of the offences that are possible with this cart; there are always at least two.
    fn offence(&mut self, cart: &[Line]) -> Offence {
        let everything_inside = cart.len() >= self.args.products as usize;
        let possible: &[Offence] = if cart.is_empty() {
            &[Offence::AdjustAbsent, Offence::RemoveAbsent, Offence::EmptyCheckout, Offence::AddBelowOne]
        } else if everything_inside {
            &[Offence::DuplicateAdd, Offence::AdjustBelowOne]
        } else {
            &[
                Offence::DuplicateAdd,
                Offence::AdjustAbsent,
                Offence::RemoveAbsent,
                Offence::AddBelowOne,
                Offence::AdjustBelowOne,
            ]
        };
        possible[self.random.random_range(0..possible.len())]
    }

    fn any_line(&mut self, cart: &[Line]) -> Line {
        cart[self.random.random_range(0..cart.len())]
    }

    /// A product that is not in the cart. There must be one.
    fn fresh_product(&mut self, cart: &[Line]) -> u32 {
        let inside = |product| cart.iter().any(|line| line.product == product);
        let mut product = 0;
        for _ in 0..FRESH_DRAWS_MAX {
            product = rank(self.products.sample(&mut self.random));
            if !inside(product) {
                return product;
            }
        }
        while inside(product) {
            product = (product + 1) % self.args.products;
        }
        product
    }
}

impl Iterator for Shop {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        if self.made >= self.args.commands {
            return None;
        }
        let command = self.command();
        self.made += 1;
        Some(command)
    }
}

/// Converts a draw of Zipf, a whole number from 1 to n as a float, to an index from 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and n, a u32")]
fn rank(draw: f64) -> u32 {
    (draw as u32).saturating_sub(1)
}
