//! The cost of a command without servers: deciding it, and its Avro encoding, by the number of lines in the cart.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use cart::contract::Contract;
use cart::{
    Aggregate, CartCommand, CartEvent, CartId, Command, CommandId, Decision, ItemName, LogEpoch, Position, Price,
    ProductId, VendorId,
};
use chrono::DateTime;
use clap::Parser;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use kafka::{Codec, KafkaArgs, Registry};
use uuid::Uuid;

const LINES: [u32; 4] = [1, 10, 100, 1_000];

const CART: Uuid = Uuid::from_u128(1);

fn add(number: u32) -> CartCommand {
    let command = Command::AddItem {
        product_id: ProductId::from(Uuid::from_u128(number.into())),
        vendor_id: VendorId::from(Uuid::from_u128(7)),
        name: ItemName::try_from(format!("PRODUCT {number} OF THE BENCH")).unwrap(),
        price: Price::try_from("3.50".parse::<rust_decimal::Decimal>().unwrap()).unwrap(),
        quantity: 2,
    };
    command_of(number, command)
}

fn command_of(number: u32, command: Command) -> CartCommand {
    CartCommand {
        command_id: CommandId::from(Uuid::from_u128((1 << 64) | u128::from(number))),
        cart_id: CartId::from(CART),
        issued_at: DateTime::UNIX_EPOCH,
        command,
        expected_version: None,
        keyed: Some(true),
    }
}

fn position(number: u32) -> Position {
    Position::new(LogEpoch::FIRST, number.into())
}

fn carry_out(cart: &mut Aggregate, command: &CartCommand, number: u32) {
    match cart.decide(command, position(number)) {
        Decision::Decided(decided) if !decided.events.is_empty() => cart.apply(&decided),
        refused @ (Decision::Decided(_) | Decision::Repeated(_) | Decision::KeyReused) => panic!("{refused:?}"),
    }
}

/// A cart with this many lines, at most one below its limit.
fn cart_with(lines: u32) -> Aggregate {
    let mut cart = Aggregate::new(CartId::from(CART));
    for number in 1..=lines {
        carry_out(&mut cart, &add(number), number);
    }
    cart
}

fn deciding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide and apply an add");
    for lines in LINES {
        let (cart, command) = (cart_with(lines - 1), add(lines));
        group.bench_function(BenchmarkId::from_parameter(lines), |bencher| {
            bencher.iter_batched_ref(|| cart.clone(), |cart| carry_out(cart, &command, lines), BatchSize::SmallInput);
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("decide and apply a checkout");
    for lines in LINES {
        let (cart, command) = (cart_with(lines), command_of(lines + 1, Command::Checkout {}));
        group.bench_function(BenchmarkId::from_parameter(lines), |bencher| {
            bencher.iter_batched_ref(
                || cart.clone(),
                |cart| carry_out(cart, &command, lines + 1),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// The schemas are compiled in, so no registry is needed.
fn codec<T: Contract + serde::Serialize + serde::de::DeserializeOwned>() -> Codec<T> {
    Codec::registered(&Registry::new(&Arguments::parse_from(["bench"]).kafka).unwrap(), T::TOPIC, T::SCHEMA, 1).unwrap()
}

fn avro(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Avro");
    let (commands, events) = (codec::<CartCommand>(), codec::<CartEvent>());
    let command = add(1);
    let Decision::Decided(decided) = Aggregate::new(CartId::from(CART)).decide(&command, position(1)) else { panic!() };
    let event = &decided.events[0];
    let (command_bytes, event_bytes) = (commands.encode(&command).unwrap(), events.encode(event).unwrap());
    group.bench_function("encode a command", |bencher| bencher.iter(|| commands.encode(&command).unwrap()));
    group.bench_function("decode a command", |bencher| bencher.iter(|| commands.decode(&command_bytes).unwrap()));
    group.bench_function("encode an event", |bencher| bencher.iter(|| events.encode(event).unwrap()));
    group.bench_function("decode an event", |bencher| bencher.iter(|| events.decode(&event_bytes).unwrap()));
    let snapshots = codec::<Aggregate>();
    for lines in LINES {
        let cart = cart_with(lines);
        group.bench_function(BenchmarkId::new("encode a snapshot", lines), |bencher| {
            bencher.iter(|| snapshots.encode(&cart).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, deciding, avro);
criterion_main!(benches);
