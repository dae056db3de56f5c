//! The expected results of the sent commands: a second, plain implementation of the documented rules.
//!
//! The model checks the answers, and adds up the purchases that follow from them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::totals::{Labels, Purchase, Totals};
use crate::{product_id, vendor_id};

const QUANTITY_MAX: i64 = 1_000_000;
const NAME_CHARS_MAX: usize = 200;
const PRICE_PLACES_MAX: u32 = 4;
const LINES_MAX: usize = 1_000;

/// A command that was sent, with its answer.
#[derive(Debug, Clone)]
pub struct SentCommand {
    /// Its line in the file.
    pub line: u64,
    /// Its time.
    pub at: DateTime<Utc>,
    /// The label of the cart's member.
    pub member: String,
    pub action: Action,
    /// `accepted`, `unanswered`, or the problem's code.
    pub outcome: String,
}

/// A command, with labels in place of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Add a product to the cart.
    Add {
        /// The product's label.
        product: String,
        /// The vendor's label.
        vendor: String,
        name: String,
        /// The price of one piece.
        price: Decimal,
        /// How many pieces.
        quantity: i64,
    },
    /// Change the quantity.
    Adjust {
        /// The product's label.
        product: String,
        /// The change; negative for fewer pieces.
        by: i64,
    },
    /// Remove a product from the cart.
    Remove {
        /// The product's label.
        product: String,
    },
    /// Buy everything in the cart.
    Checkout,
}

/// An answer that differs from the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongOutcome {
    /// Its line in the file.
    pub line: u64,
    /// The label of the cart's member.
    pub member: String,
    /// The expected answer: `accepted`, or the broken rules.
    pub expected: String,
    /// The answer.
    pub found: String,
}

#[derive(Debug)]
struct Line {
    vendor: String,
    name: String,
    price: Decimal,
    quantity: i64,
}

/// The carts and sums after the commands so far.
#[derive(Debug)]
pub struct Model {
    carts: HashMap<String, HashMap<String, Line>>,
    totals: Totals,
    labels: Labels,
    wrong: Vec<WrongOutcome>,
    unanswered: Vec<u64>,
    commands: u64,
}

/// The result of a model.
#[derive(Debug)]
pub struct Outcome {
    /// The sums.
    pub totals: Totals,
    /// The labels of the ids.
    pub labels: Labels,
    /// Answers that differ from the rules.
    pub wrong: Vec<WrongOutcome>,
    /// Lines of commands without an answer. They may have been executed.
    pub unanswered: Vec<u64>,
    /// The number of commands.
    pub commands: u64,
    /// The number of lines in carts that were not bought.
    pub lines_left: usize,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            carts: HashMap::new(),
            totals: Totals { purchases: Some(0), ..Totals::default() },
            labels: Labels::default(),
            wrong: Vec::new(),
            unanswered: Vec::new(),
            commands: 0,
        }
    }
}

impl Model {
    /// Applies the next command of its member.
    pub fn send(&mut self, command: SentCommand) {
        self.commands += 1;
        if command.outcome == "unanswered" {
            self.unanswered.push(command.line);
            return;
        }
        let broken = self.broken_rules(&command);
        let is_right = match broken.as_slice() {
            [] => command.outcome == "accepted",
            // If a command breaks several rules, the answer may name any of them.
            broken => broken.contains(&command.outcome.as_str()),
        };
        if !is_right {
            self.wrong.push(WrongOutcome {
                line: command.line,
                member: command.member.clone(),
                expected: if broken.is_empty() { "accepted".to_owned() } else { broken.join(" or ") },
                found: command.outcome.clone(),
            });
        }
        if broken.is_empty() {
            self.happen(command);
        }
    }

    /// The result, after the last command.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let Self { carts, totals, labels, wrong, unanswered, commands, .. } = self;
        let lines_left = carts.values().map(HashMap::len).sum();
        Outcome { totals, labels, wrong, unanswered, commands, lines_left }
    }

    fn broken_rules(&self, command: &SentCommand) -> Vec<&'static str> {
        let cart = self.carts.get(&command.member);
        let line = |product| cart.and_then(|cart| cart.get(product));
        let lines = cart.map_or(0, HashMap::len);
        let mut broken = Vec::new();
        let mut rule = |is_broken, code| {
            if is_broken {
                broken.push(code);
            }
        };
        match &command.action {
            Action::Add { product, name, price, quantity, .. } => {
                rule(line(product).is_some(), "item-already-in-cart");
                rule(lines >= LINES_MAX && line(product).is_none(), "cart-full");
                rule(*quantity < 1, "negative-quantity");
                rule(*quantity > QUANTITY_MAX, "quantity-too-large");
                // A quantity beyond 32 bits is rejected before the rules are applied.
                rule(i32::try_from(*quantity).is_err(), "invalid-field");
                rule(name.chars().count() > NAME_CHARS_MAX, "invalid-field");
                // The list of invisible characters is not duplicated.
                rule(cart::ItemName::new(name.clone()).is_err(), "invalid-field");
                rule(price.is_sign_negative() && !price.is_zero(), "invalid-field");
                rule(price.normalize().scale() > PRICE_PLACES_MAX, "invalid-field");
            }
            Action::Adjust { product, by } => {
                let quantity = line(product).map(|line| line.quantity.saturating_add(*by));
                rule(quantity.is_none(), "item-not-in-cart");
                rule(quantity.is_some_and(|quantity| quantity < 1), "negative-quantity");
                rule(quantity.is_some_and(|quantity| quantity > QUANTITY_MAX), "quantity-too-large");
                rule(*by == 0 || i32::try_from(*by).is_err(), "invalid-field");
            }
            Action::Remove { product } => rule(line(product).is_none(), "item-not-in-cart"),
            Action::Checkout => rule(lines == 0, "empty-cart-checkout"),
        }
        broken
    }

    fn happen(&mut self, command: SentCommand) {
        let cart = self.carts.entry(command.member).or_default();
        match command.action {
            Action::Add { product, vendor, name, price, quantity } => {
                cart.insert(product, Line { vendor, name, price, quantity });
            }
            Action::Adjust { product, by } => {
                if let Some(line) = cart.get_mut(&product) {
                    line.quantity += by;
                }
            }
            Action::Remove { product } => {
                cart.remove(&product);
            }
            Action::Checkout => {
                for (product, Line { vendor, name, price, quantity }) in cart.drain() {
                    let (vendor_id, product_id) = (vendor_id(&vendor), product_id(&product));
                    self.labels.insert(vendor_id, &vendor);
                    self.labels.insert(product_id, &product);
                    let (vendor, product) = (vendor_id, product_id);
                    self.totals.add(&Purchase { vendor, product, name: &name, price, quantity, at: command.at });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(product: &str, quantity: i64) -> Action {
        let (vendor, name) = ("V".to_owned(), format!("name of {product}"));
        Action::Add { product: product.to_owned(), vendor, name, price: Decimal::new(1001, 3), quantity }
    }

    fn lines(count: usize) -> Vec<Action> {
        (0..count).map(|number| add(&format!("P{number}"), 1)).collect()
    }

    fn adjust(product: &str, by: i64) -> Action {
        Action::Adjust { product: product.to_owned(), by }
    }

    fn remove(product: &str) -> Action {
        Action::Remove { product: product.to_owned() }
    }

    /// Sends `given`, each accepted, then `when` with `outcome`. Returns the answers that differ from the rules.
    fn check(given: &[Action], when: Action, outcome: &str) -> Vec<(String, String)> {
        let mut model = Model::default();
        let answered = given.iter().cloned().map(|action| (action, "accepted")).chain([(when, outcome)]);
        for (line, (action, outcome)) in (2..).zip(answered) {
            let (at, member) = (DateTime::UNIX_EPOCH, "M".to_owned());
            model.send(SentCommand { line, at, member, action, outcome: outcome.to_owned() });
        }
        model.finish().wrong.into_iter().map(|wrong| (wrong.expected, wrong.found)).collect()
    }

    #[test]
    fn knows_each_rule() {
        let a = || vec![add("A", 3)];
        let long = Action::Add {
            product: "B".into(),
            vendor: "V".into(),
            name: "x".repeat(201),
            price: Decimal::ONE,
            quantity: 1,
        };
        for (given, when, outcome) in [
            (vec![], add("A", 1), "accepted"),
            (a(), add("A", 1), "item-already-in-cart"),
            (lines(999), add("A", 1), "accepted"),
            (lines(1_000), add("A", 1), "cart-full"),
            (vec![], add("A", 0), "negative-quantity"),
            (vec![], add("A", 1_000_000), "accepted"),
            (vec![], add("A", 1_000_001), "quantity-too-large"),
            (vec![], long, "invalid-field"),
            (a(), adjust("A", -2), "accepted"),
            (a(), adjust("A", -3), "negative-quantity"),
            (a(), adjust("A", 999_998), "quantity-too-large"),
            (a(), adjust("B", 1), "item-not-in-cart"),
            (a(), remove("A"), "accepted"),
            (vec![add("A", 1), remove("A")], remove("A"), "item-not-in-cart"),
            (vec![add("A", 1), remove("A")], add("A", 1), "accepted"),
            (a(), Action::Checkout, "accepted"),
            (vec![], Action::Checkout, "empty-cart-checkout"),
            (vec![add("A", 1), Action::Checkout], Action::Checkout, "empty-cart-checkout"),
            (vec![add("A", 1), Action::Checkout], add("A", 1), "accepted"),
        ] {
            assert_eq!(check(&given, when.clone(), outcome), [], "{given:?} then {when:?} is {outcome}");
        }
    }

    #[test]
    fn reports_a_wrong_answer() {
        let wrong = |given: &[Action], when, outcome| check(given, when, outcome);
        let pair = |expected: &str, found: &str| vec![(expected.to_owned(), found.to_owned())];
        assert_eq!(wrong(&[], Action::Checkout, "accepted"), pair("empty-cart-checkout", "accepted"));
        assert_eq!(wrong(&[], add("A", 1), "cart-full"), pair("accepted", "cart-full"));
        assert_eq!(
            wrong(&[add("A", 1)], add("A", 0), "cart-full"),
            pair("item-already-in-cart or negative-quantity", "cart-full")
        );
        assert_eq!(
            wrong(&[], remove("A"), "idempotency-key-reused"),
            pair("item-not-in-cart", "idempotency-key-reused")
        );
    }

    #[test]
    fn adds_up_what_was_in_the_cart() {
        let mut model = Model::default();
        let actions = [add("A", 3), add("B", 1), adjust("A", -1), remove("B"), Action::Checkout, add("C", 1)];
        for (line, action) in (2..).zip(actions) {
            let (at, member, outcome) = (DateTime::UNIX_EPOCH, "M".to_owned(), "accepted".to_owned());
            model.send(SentCommand { line, at, member, action, outcome });
        }
        let outcome = model.finish();
        assert_eq!(outcome.totals.balance().to_string(), "2.002");
        assert_eq!((outcome.totals.quantity(), outcome.totals.purchases, outcome.lines_left), (2, Some(1), 1));
    }

    #[test]
    fn counts_unanswered_commands_apart() {
        let mut model = Model::default();
        let (at, member, outcome) = (DateTime::UNIX_EPOCH, "M".to_owned(), "unanswered".to_owned());
        model.send(SentCommand { line: 7, at, member, action: Action::Checkout, outcome });
        let outcome = model.finish();
        assert_eq!((outcome.unanswered, outcome.wrong), (vec![7], vec![]));
    }
}
