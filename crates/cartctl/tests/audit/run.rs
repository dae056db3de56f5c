//! A small correct run in memory: commands are decided by the rules of `crates/cart`, and everything else follows. So the tests
//! also compare these rules with those of the audit.

use std::collections::BTreeMap;

use cart::{
    Aggregate, CartCommand, CartEvent, CartId, Command, CommandId, Decision, Item, LogEpoch, Position, PurchasedItem,
    Rejection, RequestOutcome,
};
use cartctl::audit::{
    AnsweredItem, Attempt, Content, Cut, DeadLetter, Evidence, LogRecord, Record, Row, SentCommand, Tables,
};
use cartctl::journal::JournalRow;
use cartctl::totals::{DayKey, MonthKey};
use cartctl::{cart_id, product_id, vendor_id};
use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::outcomes::kept;

pub(crate) const PARTITIONS: i32 = 3;
const CARTS: u64 = 5;
const COMMANDS: u64 = 400;
const PRODUCTS: u64 = 6;
const VENDORS: u64 = 3;

/// Reproducible random numbers: a linear congruential generator with Knuth's constants.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The evidence of a correct run.
pub(crate) fn correct() -> Evidence {
    let mut evidence = Evidence {
        partitions: PARTITIONS,
        purchase_partitions: PARTITIONS,
        commands_epoch: 1,
        cut: Cut::default(),
        ..Evidence::default()
    };
    let mut run = Run { carts: BTreeMap::new(), next: [0; 3], events: [0; 3] };
    let mut dice = Dice(7);
    let mut sent: Vec<CartCommand> = Vec::new();
    for number in 0..COMMANDS {
        // With an earlier id: a repeat, or another command. Never the id of a command that is declared unique.
        let roll = dice.roll(12);
        let earlier = sent.len().saturating_sub(1 + usize::try_from(dice.roll(8)).unwrap_or(0));
        let earlier = sent.get(earlier).filter(|command| roll < 2 && command.keyed != Some(false)).cloned();
        let command = match earlier {
            Some(command) if roll == 0 => command,
            Some(command) => CartCommand { command: Command::Checkout {}, ..command },
            None => command(number, &mut dice),
        };
        sent.push(command.clone());
        run.take(command, &mut evidence);
        if number % 50 == 0 {
            run.garbage(&mut evidence);
        }
    }
    buy(&mut evidence);
    evidence
}

fn command(number: u64, dice: &mut Dice) -> CartCommand {
    let cart_id = CartId::from(cart_id(&format!("M{}", dice.roll(CARTS))));
    let one = |dice: &mut Dice| {
        let product = dice.roll(PRODUCTS);
        let product_id = product_id(&format!("P{product}")).into();
        match dice.roll(8) {
            0..=3 => Command::AddItem {
                product_id,
                vendor_id: vendor_id(&format!("V{}", product % VENDORS)).into(),
                name: format!("PRODUCT {product}").try_into().expect("a name"),
                price: Decimal::new(i64::try_from(1 + dice.roll(100_000)).unwrap_or(1), 4).try_into().expect("a price"),
                quantity: i32::try_from(dice.roll(12)).unwrap_or(0),
            },
            4 => Command::RemoveItem { product_id },
            5 | 6 => {
                let by = i32::try_from(dice.roll(7)).unwrap_or(0) - 3;
                Command::AdjustQuantity { product_id, adjust_by: by.try_into().unwrap_or(std::num::NonZeroI32::MAX) }
            }
            _ => Command::Checkout {},
        }
    };
    let command = match dice.roll(7) {
        6 => Command::IndependentBatch { commands: (0..1 + dice.roll(4)).map(|_| one(dice)).collect() },
        0 => Command::Batch { commands: (0..1 + dice.roll(4)).map(|_| one(dice)).collect() },
        _ => one(dice),
    };
    CartCommand {
        command_id: CommandId::from(Uuid::from_u128(number.into())),
        cart_id,
        issued_at: start() + TimeDelta::hours(i64::try_from(number * 3).unwrap_or(0)),
        command,
        expected_version: (dice.roll(10) == 0).then(|| i64::try_from(dice.roll(30)).unwrap_or(0).into()),
        keyed: [Some(true), Some(true), Some(false), None][usize::try_from(dice.roll(4)).unwrap_or(0)],
    }
}

fn start() -> DateTime<Utc> {
    // 28 December 2025, 20:00 UTC: shortly before the end of a month and a year.
    DateTime::from_timestamp(1_766_952_000, 0).unwrap_or_default()
}

struct Run {
    carts: BTreeMap<CartId, Aggregate>,
    next: [i64; 3],
    events: [i64; 3],
}

pub(crate) fn partition(key: &str) -> i32 {
    kafka::partition_of(key.as_bytes(), PARTITIONS)
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).unwrap_or_default()
}

impl Run {
    fn take(&mut self, command: CartCommand, evidence: &mut Evidence) {
        let cart_id = command.cart_id;
        let partition = partition(&cart_id.to_string());
        let offset = self.next[index(partition)];
        self.next[index(partition)] += 1;
        let cart = self.carts.entry(cart_id).or_insert_with(|| Aggregate::new(cart_id));
        let decision = cart.decide(&command, Position::new(LogEpoch::FIRST, offset));
        if let Decision::Decided(decided) = &decision
            && decided.is_journalled()
        {
            cart.apply(decided);
            let kept = kept(decided, cart);
            evidence.requests.entry(cart_id.as_uuid()).or_default().insert(decided.position, kept);
            for event in &decided.events {
                self.publish(partition, event, evidence);
            }
        }
        answer(&command, &decision, evidence);
        evidence.commands.push(LogRecord { partition, offset, content: Content::Command(Box::new(command)) });
    }

    fn publish(&mut self, partition: i32, event: &CartEvent, evidence: &mut Evidence) {
        let bytes = serde_json::to_vec(event).expect("an event");
        let row = JournalRow {
            sequence_number: event.sequence_number.get(),
            position: event.position.get(),
            command_id: event.command_id.as_uuid(),
            event: bytes.clone(),
        };
        evidence.journal.entry(event.cart_id.as_uuid()).or_default().push(row);
        let offset = self.events[index(partition)];
        // Every other offset is a transaction's marker.
        self.events[index(partition)] += 2;
        let (key, value) = (event.cart_id.to_string(), Ok(event.clone()));
        evidence.events.push(Record { partition, offset, key, bytes, value });
    }

    fn garbage(&mut self, evidence: &mut Evidence) {
        let offset = self.next[0];
        self.next[0] += 1;
        let (key, value) = (Some(b"key".to_vec()), Some(vec![0xff; 3]));
        let content = Content::Undecidable { reason: "garbage".to_owned(), key: key.clone(), value: value.clone() };
        evidence.commands.push(LogRecord { partition: 0, offset, content });
        let place = i64::try_from(evidence.dead_letters.len()).unwrap_or_default();
        evidence.dead_letters.push(DeadLetter { partition: 1, offset: place, origin: Some((0, offset)), key, value });
    }
}

/// Records the answer that the client got, after an attempt without one.
fn answer(command: &CartCommand, decision: &Decision, evidence: &mut Evidence) {
    let (cart_id, command_id) = (command.cart_id.as_uuid(), command.command_id.as_uuid());
    let Decision::Decided(decided) = decision else { return };
    let answer = match (&decided.outcome, decided.events.as_slice()) {
        // Batches, whose answers have another form, and repeats are left out.
        (None, [first, ..]) if !matches!(command.command, Command::Batch { .. }) => Attempt::Accepted {
            command_id,
            session_id: first.session_id.as_uuid(),
            version: decided.sequence_number().get(),
            items: decided.events.iter().map(|event| answered_item(event.event.item())).collect(),
        },
        (Some(RequestOutcome::Rejected { rejection: Rejection::ItemNotInCart, .. }), _) => {
            Attempt::Rejected { problem: "item-not-in-cart".to_owned(), command_id: Some(command_id) }
        }
        _ => return,
    };
    let attempts = vec![Attempt::Unknown { reason: "timeout".to_owned() }, answer];
    // A rejected command may be accepted when it is sent again; only the last answer is kept.
    evidence.sent.retain(|sent| (sent.cart_id, sent.command_id) != (cart_id, command_id));
    evidence.sent.push(SentCommand { cart_id, command_id, attempts });
}

fn answered_item(item: &Item) -> AnsweredItem {
    AnsweredItem {
        product_id: item.product_id.as_uuid(),
        vendor_id: item.vendor_id.as_uuid(),
        name: item.name.as_str().to_owned(),
        price: item.price.get(),
        quantity: item.quantity.get().into(),
    }
}

/// Adds the purchases on their topic, and the tables.
fn buy(evidence: &mut Evidence) {
    let mut next = [0; 3];
    for record in &evidence.events {
        let Ok(event) = &record.value else { continue };
        let Some(purchase) = PurchasedItem::of(event.clone()) else { continue };
        let key = purchase.vendor_id.to_string();
        let partition = partition(&key);
        let offset = next[index(partition)];
        next[index(partition)] += 1;
        add(&mut evidence.tables, &purchase, offset);
        evidence.purchases.push(Record { partition, offset, key, bytes: vec![], value: Ok(purchase) });
    }
    evidence.tables.postgres_next = (0..).zip(next).collect();
}

fn add(tables: &mut Tables, purchase: &PurchasedItem, offset: i64) {
    let (vendor, product) = (purchase.vendor_id.as_uuid(), purchase.product_id.as_uuid());
    let at = purchase.purchased_at;
    let (year, month, day) = (at.year(), at.month().cast_signed(), at.day().cast_signed());
    let key = MonthKey { vendor, year, month };
    let row = tables.cassandra_months.entry(key).or_insert(Row { total: Decimal::ZERO, offset });
    (row.total, row.offset) = (row.total + purchase.amount(), offset);
    *tables.postgres_months.entry(key).or_default() += purchase.amount();
    let key = DayKey { vendor, product, year, month, day };
    let row = tables.cassandra_days.entry(key).or_insert(Row { total: (0, String::new()), offset });
    let pieces = row.total.0 + i64::from(purchase.quantity.get());
    *row = Row { total: (pieces, purchase.name.as_str().to_owned()), offset };
}
