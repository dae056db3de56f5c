//! The shoppers: carts are filled, changed and bought in the proportions of a real shop, the same in every run.
//!
//! The proportions are those of the real commands that the demo replays: 19 lines per checkout, an adjustment in every
//! second cart, a removal in every seventh.

use std::io::Write as _;

use anyhow::bail;
use cart::{
    CartCommand, CartEvent, CartId, Command, CommandId, Event, EventId, Item, ItemName, LogEpoch, Position, Price,
    ProductId, Quantity, SequenceNumber, SessionId, VendorId,
};
use chrono::{DateTime, Utc};
use uuid::{Builder, Uuid, Variant, Version};

/// The lines of a cart at its checkout.
pub(crate) const LINES: u32 = 19;

/// The number of products in the real shop.
pub(crate) const PRODUCTS: u32 = 3_337;
pub(crate) const VENDORS: u32 = 113;

/// The lines and requests of a session.
const SESSION_LINES: u32 = 3;
const SESSION_STEPS: u32 = 6;

/// The prefixes of ids by kind, so that ids of different kinds never collide.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Cart = 1,
    Product,
    Vendor,
    Command,
}

fn id(kind: Kind, high: u32, low: u64) -> Uuid {
    // Version and variant are in bits 76 to 79 and 62 to 63.
    let number = ((kind as u128) << 120) | (u128::from(high) << 80) | u128::from(low);
    Builder::from_u128(number).with_variant(Variant::RFC4122).with_version(Version::Custom).into_uuid()
}

pub(crate) fn product_id(product: u32) -> Uuid {
    id(Kind::Product, 0, product.into())
}

pub(crate) fn vendor_id(product: u32) -> Uuid {
    Mix::RealShop.vendor_id(product)
}

pub(crate) fn name(product: u32) -> String {
    format!("PRODUCT {product} OF THE BENCH")
}

/// The price in hundredths.
pub(crate) fn price_cents(product: u32) -> u32 {
    85 + product % 1_900
}

pub(crate) fn cart_id(shopper: u32, cart: u64) -> Uuid {
    id(Kind::Cart, shopper, cart)
}

/// A shopper's next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Add(u32),
    Adjust(u32),
    Remove(u32),
    /// A GET of the cart.
    Show,
    Checkout,
}

/// The kind of shoppers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mix {
    /// They use carts in the proportions of a real shop.
    #[default]
    RealShop,
    /// Short sessions: three adds, a remove of the first, a GET, a checkout. Each has a new cart.
    Sessions,
}

impl Mix {
    fn products(self) -> u32 {
        match self {
            Self::RealShop => PRODUCTS,
            Self::Sessions => 1_000,
        }
    }

    fn vendors(self) -> u32 {
        match self {
            Self::RealShop => VENDORS,
            Self::Sessions => 100,
        }
    }

    fn vendor_id(self, product: u32) -> Uuid {
        id(Kind::Vendor, 0, u64::from(product % self.vendors()))
    }
}

/// A shopper, who fills one cart after the other and returns to the first. Sends one command at a time.
#[derive(Debug, Clone)]
pub(crate) struct Shopper {
    mix: Mix,
    number: u32,
    carts: u64,
    lines: u32,
    /// The carts that were abandoned after an answer without an outcome.
    spoilt: u64,
    visit: u64,
    step: u32,
}

impl Shopper {
    pub(crate) fn new(number: u32, carts: u64) -> Self {
        let mix = Mix::RealShop;
        Self { mix, number, carts: carts.max(1), lines: LINES, spoilt: 0, visit: 0, step: 0 }
    }

    /// A shopper who never returns to a cart ([`Mix::Sessions`]).
    pub(crate) fn with_sessions(number: u32) -> Self {
        Self { mix: Mix::Sessions, lines: SESSION_LINES, ..Self::new(number, u64::MAX) }
    }

    /// A shopper with this many lines per cart.
    pub(crate) fn with_lines(self, lines: u32) -> Self {
        Self { lines, ..self }
    }

    pub(crate) fn cart(&self) -> Uuid {
        cart_id(self.number, self.visit % self.carts + (self.spoilt << 32))
    }

    /// The first carts are bought after fewer lines (in sessions after more), so that shoppers do not all check out at the
    /// same time.
    fn lines(&self) -> u32 {
        match (self.visit, self.mix) {
            (0, Mix::RealShop) => 1 + self.number % self.lines,
            (0, Mix::Sessions) => self.lines + self.number % SESSION_STEPS,
            _ => self.lines,
        }
    }

    fn product(&self, line: u32) -> u32 {
        let visit = u32::try_from(self.visit % 1_000_003).unwrap_or_default();
        (self.number.wrapping_mul(131) ^ visit.wrapping_mul(29)).wrapping_add(line) % self.mix.products()
    }

    pub(crate) fn next(&self) -> Step {
        match self.mix {
            Mix::RealShop => self.next_in_shop(),
            Mix::Sessions => self.next_in_session(),
        }
    }

    fn next_in_session(&self) -> Step {
        let lines = self.lines();
        match self.step {
            step if step < lines => Step::Add(self.product(step)),
            step if step == lines => Step::Remove(self.product(0)),
            step if step == lines + 1 => Step::Show,
            _ => Step::Checkout,
        }
    }

    fn next_in_shop(&self) -> Step {
        let lines = self.lines();
        let adjusts = self.visit.is_multiple_of(2);
        let removes = self.visit.is_multiple_of(7) && lines > 1;
        match self.step {
            step if step < lines => Step::Add(self.product(step)),
            step if step == lines && adjusts => Step::Adjust(self.product(0)),
            step if step == lines + u32::from(adjusts) && removes => Step::Remove(self.product(lines - 1)),
            _ => Step::Checkout,
        }
    }

    /// Applies the step, which was executed.
    pub(crate) fn done(&mut self) {
        if self.next() == Step::Checkout {
            self.visit += 1;
            self.step = 0;
        } else {
            self.step += 1;
        }
    }

    /// Abandons the cart, whose contents are unknown.
    pub(crate) fn give_up_cart(&mut self) {
        self.spoilt += 1;
        self.step = 0;
    }

    /// The next step as an HTTP/1.1 request.
    pub(crate) fn write_request(&self, request: &mut Vec<u8>) {
        request.clear();
        let cart = self.cart();
        let product = |product| product_id(product).hyphenated();
        let written = match self.next() {
            Step::Add(number) => {
                let cents = price_cents(number);
                let body = format!(
                    r#"{{"productId":"{}","vendorId":"{}","name":"{}","price":"{}.{:02}","quantity":{}}}"#,
                    product(number),
                    self.mix.vendor_id(number).hyphenated(),
                    name(number),
                    cents / 100,
                    cents % 100,
                    1 + number % 12,
                );
                with_body(request, "POST", format_args!("/cart/{cart}"), &body)
            }
            Step::Adjust(number) => with_body(
                request,
                "PATCH",
                format_args!("/cart/{cart}/productId/{}", product(number)),
                r#"{"adjustBy":1}"#,
            ),
            Step::Remove(number) => without_body(
                request,
                format_args!("DELETE /cart/{cart}/productId/{} HTTP/1.1\r\nhost: bench\r\n\r\n", product(number)),
            ),
            Step::Show => without_body(request, format_args!("GET /cart/{cart} HTTP/1.1\r\nhost: bench\r\n\r\n")),
            Step::Checkout => without_body(
                request,
                format_args!("POST /cart/{cart}/checkout HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n"),
            ),
        };
        // Writing to memory can't fail.
        written.unwrap_or_default();
    }

    /// The next command as a record of the topic.
    pub(crate) fn command(&self, number: u64, at: DateTime<Utc>) -> anyhow::Result<CartCommand> {
        let product = |number: u32| ProductId::from(product_id(number));
        let command = match self.next() {
            Step::Add(number) => add_item(number)?,
            Step::Adjust(number) => Command::AdjustQuantity { product_id: product(number), adjust_by: 1.try_into()? },
            Step::Remove(number) => Command::RemoveItem { product_id: product(number) },
            Step::Show => bail!("a GET is not a command"),
            Step::Checkout => Command::Checkout {},
        };
        Ok(command_of(CartId::from(self.cart()), number, at, command))
    }
}

/// A command with an id that follows from `number`.
pub(crate) fn command_of(cart_id: CartId, number: u64, issued_at: DateTime<Utc>, command: Command) -> CartCommand {
    let command_id = CommandId::from(id(Kind::Command, 0, number));
    CartCommand { command_id, cart_id, issued_at, command, expected_version: None, keyed: Some(false) }
}

pub(crate) fn add_item(number: u32) -> anyhow::Result<Command> {
    Ok(Command::AddItem {
        product_id: product_id(number).into(),
        vendor_id: VendorId::from(vendor_id(number)),
        name: ItemName::try_from(name(number))?,
        price: price(number)?,
        quantity: quantity(number)?.get(),
    })
}

/// A line of a checkout, as an event of `cart-events`: each cart buys [`LINES`] products.
pub(crate) fn purchase(index: u64, at: DateTime<Utc>) -> anyhow::Result<CartEvent> {
    let (cart, line) = (index / u64::from(LINES), index % u64::from(LINES));
    let product = u32::try_from((cart * 29 + line * 131) % u64::from(PRODUCTS))?;
    let cart_id = CartId::from(cart_id(0, cart));
    let sequence_number = SequenceNumber::from(i64::try_from(line)? + 1);
    let item = Item {
        product_id: product_id(product).into(),
        vendor_id: VendorId::from(vendor_id(product)),
        name: ItemName::try_from(name(product))?,
        price: price(product)?,
        quantity: quantity(product)?,
    };
    Ok(CartEvent {
        event_id: EventId::of(cart_id, sequence_number),
        cart_id,
        session_id: SessionId::of(cart_id, 0),
        sequence_number,
        position: Position::new(LogEpoch::FIRST, i64::try_from(cart)?),
        command_id: CommandId::from(id(Kind::Command, 1, cart)),
        command_digest: Command::Checkout {}.digest(),
        occurred_at: at,
        event: Event::ItemPurchased { item },
    })
}

pub(crate) fn price(product: u32) -> anyhow::Result<Price> {
    Ok(Price::try_from(rust_decimal::Decimal::new(price_cents(product).into(), 2))?)
}

pub(crate) fn quantity(product: u32) -> anyhow::Result<Quantity> {
    Ok(Quantity::try_from(i64::from(1 + product % 12))?)
}

fn with_body(request: &mut Vec<u8>, method: &str, path: std::fmt::Arguments<'_>, body: &str) -> std::io::Result<()> {
    let len = body.len();
    write!(
        request,
        "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

fn without_body(request: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    request.write_fmt(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_no_command_that_is_rejected() {
        let mut shopper = Shopper::new(7, 3);
        let mut lines = Vec::new();
        let mut visits = 0;
        for _ in 0..2_000 {
            match shopper.next() {
                Step::Add(product) => {
                    assert!(!lines.contains(&product));
                    lines.push(product);
                }
                Step::Adjust(product) => assert!(lines.contains(&product)),
                Step::Remove(product) => lines.retain(|line| *line != product),
                Step::Show => panic!("a real shop's mix has none"),
                Step::Checkout => {
                    assert!(!lines.is_empty());
                    lines.clear();
                    visits += 1;
                }
            }
            shopper.done();
        }
        assert!(visits > 90, "{visits} carts were bought");
    }

    #[test]
    fn sessions_keep_their_order_and_use_each_cart_once() {
        let mut shopper = Shopper::with_sessions(7);
        let mut carts = std::collections::HashSet::new();
        // The first session is longer than the others.
        while shopper.visit == 0 {
            shopper.done();
        }
        for session in 0..500 {
            assert!(carts.insert(shopper.cart()));
            let steps: [Step; SESSION_STEPS as usize] = std::array::from_fn(|_| {
                let step = shopper.next();
                shopper.done();
                step
            });
            let [Step::Add(first), Step::Add(second), Step::Add(third), rest @ ..] = steps else { panic!("{steps:?}") };
            assert!(first != second && second != third && third != first);
            assert_eq!(rest, [Step::Remove(first), Step::Show, Step::Checkout]);
            if session % 100 == 99 {
                assert!(carts.insert(shopper.cart()));
                shopper.give_up_cart();
            }
        }
    }

    #[test]
    fn shoppers_share_no_cart() {
        let carts: std::collections::HashSet<_> =
            (0..1_024).flat_map(|shopper| (0..40).map(move |cart| cart_id(shopper, cart))).collect();
        assert_eq!(carts.len(), 1_024 * 40);
    }

    #[test]
    fn requests_have_a_content_length() {
        let shopper = Shopper::new(0, 1);
        let mut request = Vec::new();
        shopper.write_request(&mut request);
        let text = String::from_utf8(request).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
    }
}
