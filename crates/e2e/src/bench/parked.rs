//! The latency of other carts' commands while a cart is parked, compared with that of the same carts without it, in turn: of carts in
//! the partition of the parked cart, and of carts in the other partitions.
//!
//! The parked cart is a new one whose journal has a row that cannot be decoded. Its commands arrive all the time: the cart is tried
//! three times within ten seconds (cart-processor/src/parking/trial.rs), then it is parked, and its commands wait. There is no
//! floor: in its place is the load without that cart. The carts of earlier repetitions stay parked beside it, but get no more commands.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::{LogEpoch, Position};
use kafka::partition_of;
use scylla::client::session::Session;
use uuid::Uuid;

use super::args::RunArgs;
use super::environment::BenchEnvironment;
use super::freshness::add_request;
use super::judge::complaints;
use super::load::{Load, Outcome, Pace, Until};
use super::measurement::{Figure, Measurement, Subject, Values, add_outcome};
use super::progress::{keep, say};
use super::shop::Shopper;
use super::wire::Connection;
use crate::harness::UNKNOWN_SCHEMA;

const BENCH: &str = "parked";

/// The maximum ratio of the 99th percentiles with and without a cart that is parked.
const RATIO_MAX: f64 = 2.0;
const JUDGED: [&str; 1] = ["p99 ms"];

/// The partition of the parked carts.
const PARTITION: i32 = 0;

/// The other carts, in the order of [`Others`].
const CASES: [&str; 2] = ["carts of the same partition", "carts of other partitions"];

/// Commands per second of each of the two loads, low enough that only the parked cart causes waits.
const RATE: f64 = 100.0;

/// Shoppers of each load, each with one cart: enough that no command waits for a shopper.
const SHOPPERS: usize = 128;

/// The first of their numbers: no other shopper's carts are the same.
const FIRST_SHOPPER: u32 = 100_000;

/// The time of a load. The cart is tried for ten seconds of it, and parked for the rest.
const LENGTH: Duration = Duration::from_secs(30);
const LENGTH_QUICK: Duration = Duration::from_secs(20);

/// The time of a load before the first command of the cart.
const BEFORE: Duration = Duration::from_secs(2);

/// The pause between two commands of the cart.
const PAUSE: Duration = Duration::from_millis(100);

/// How long it may take after a load to see that the cart is parked.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

pub(super) const SHOWN: [&str; 5] = ["commands/s", "p50 ms", "p99 ms", "max ms", "failed"];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    ensure!(args.partitions > 1, "there are no carts of other partitions: give --partitions 2 or more");
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut system = environment.start(Subject::System).await?;
    system.warm_up(args.warm_up()).await?;
    let journal = cassandra::connect(environment.installation.cassandra()).await?;
    let mut others = Others::new(system.address, args.partitions.into());
    let length = if args.quick { LENGTH_QUICK } else { LENGTH };
    // The first load finds new carts, which the later ones have in memory.
    others.load(length).await.context("warming up")?;
    let mut measurements = Vec::new();
    for repetition in 0..args.repetitions() {
        for subject in [Subject::Floor, Subject::System] {
            let outcomes = match subject {
                Subject::Floor => others.load(length).await?,
                Subject::System => beside_a_parked_cart(&environment, &journal, &mut others, length).await?,
            };
            for (case, outcome) in CASES.into_iter().zip(&outcomes) {
                let mut values = Values::new();
                add_outcome(&mut values, outcome, "command");
                let (bench, case) = (BENCH.to_owned(), case.to_owned());
                keep(&mut measurements, Measurement { bench, case, subject, repetition, values }, &SHOWN);
            }
        }
    }
    drop(system);
    environment.remove().await?;
    Ok(measurements)
}

/// Checks the latency of the others, if it was measured.
///
/// # Errors
/// The latencies that are too high, and missing answers.
pub(super) fn judge(figures: &[Figure]) -> anyhow::Result<()> {
    let complaints = complaints(figures, BENCH, &JUDGED, RATIO_MAX);
    ensure!(complaints.is_empty(), "others notice a parked cart: {}", complaints.join(", "));
    if figures.iter().any(|figure| figure.bench == BENCH) {
        say(&format!("beside a parked cart {} is at most {RATIO_MAX} times what it is without", JUDGED.join(" and ")));
    }
    Ok(())
}

/// Shoppers on the carts of the parked carts' partition, and on carts of other partitions.
struct Others {
    address: SocketAddr,
    shoppers: [Vec<Shopper>; 2],
}

impl Others {
    fn new(address: SocketAddr, partitions: i32) -> Self {
        let shoppers = [true, false].map(|is_same| {
            let all = (FIRST_SHOPPER..).map(|number| Shopper::new(number, 1));
            all.filter(|shopper| is_beside(shopper.cart(), partitions) == is_same).take(SHOPPERS).collect()
        });
        Self { address, shoppers }
    }

    /// Both loads at the same time.
    async fn load(&mut self, length: Duration) -> anyhow::Result<[Outcome; 2]> {
        let load = Load::new(self.address, Pace::Open(RATE), Until::After(length));
        let beside = Load::new(self.address, Pace::Open(RATE), Until::After(length));
        let [same, other] = std::mem::take(&mut self.shoppers);
        let ((first, same), (second, other)) = tokio::try_join!(load.run(same), beside.run(other))?;
        self.shoppers = [same, other];
        Ok([first, second])
    }
}

/// Whether a cart is in the partition of the parked carts.
fn is_beside(cart: Uuid, partitions: i32) -> bool {
    partition_of(cart.to_string().as_bytes(), partitions) == PARTITION
}

/// Loads while a cart is tried and parked.
async fn beside_a_parked_cart(
    environment: &BenchEnvironment,
    journal: &Session,
    others: &mut Others,
    length: Duration,
) -> anyhow::Result<[Outcome; 2]> {
    let cart = damaged_cart(journal, environment.installation.partitions().into()).await?;
    let (address, is_over) = (others.address, AtomicBool::new(false));
    let sends = async {
        tokio::time::sleep(BEFORE).await;
        send_repeatedly(address, cart, &is_over).await
    };
    let loads = async {
        let outcomes = others.load(length).await;
        is_over.store(true, Ordering::Relaxed);
        outcomes
    };
    let (outcomes, sent) = tokio::join!(loads, sends);
    let (outcomes, sent) = (outcomes?, sent?);
    environment.installation.becomes_parked(cart, SEEN_WITHIN).await.context("the load was too short")?;
    say(&format!("{sent} commands of the parked cart wait"));
    Ok(outcomes)
}

/// A new cart of [`PARTITION`] whose journal has a row that cannot be decoded.
async fn damaged_cart(journal: &Session, partitions: i32) -> anyhow::Result<Uuid> {
    let mut all = std::iter::repeat_with(Uuid::new_v4);
    let cart = all.find(|cart| is_beside(*cart, partitions)).context("no cart has the partition")?;
    let position = Position::new(LogEpoch::FIRST, 0).get();
    let insert = "INSERT INTO cart_journal (cart_id, sequence_number, position, command_id, events, keyed) \
                  VALUES (?, ?, ?, ?, ?, false) USING TIMESTAMP ?";
    let values = (cart, 1_i64, position, Uuid::new_v4(), vec![UNKNOWN_SCHEMA.to_vec()], position);
    journal.query_unpaged(insert, values).await.context("writing a damaged row of the journal")?;
    Ok(cart)
}

/// Adds items to the cart until the load is over. Returns how many were taken to wait.
async fn send_repeatedly(address: SocketAddr, cart: Uuid, is_over: &AtomicBool) -> anyhow::Result<u64> {
    let mut connection = Connection::open(address).await.context("connecting to ingest")?;
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let request = add_request(cart, Uuid::new_v4(), Uuid::new_v4());
        let status = connection.exchange(request.as_bytes()).await.context("sending a command of the parked cart")?;
        ensure!(status == 202, "a command of the cart that cannot be read was answered with {status}, not 202");
        sent += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::super::measurement::Spread;
    use super::*;

    #[test]
    fn the_others_are_in_the_partition_and_in_others() {
        let others = Others::new(SocketAddr::from(([127, 0, 0, 1], 1)), 12);
        let [same, other] = others.shoppers;
        assert_eq!((same.len(), other.len()), (SHOPPERS, SHOPPERS));
        assert!(same.iter().all(|shopper| is_beside(shopper.cart(), 12)));
        assert!(!other.iter().any(|shopper| is_beside(shopper.cart(), 12)));
    }

    #[test]
    fn more_than_twice_the_latency_is_too_much() {
        let figure = |ratio| Figure {
            bench: BENCH.to_owned(),
            case: CASES[0].to_owned(),
            name: JUDGED[0].to_owned(),
            system: None,
            floor: None,
            ratio: Spread::of(vec![ratio]),
        };
        assert!(judge(&[figure(2.0)]).is_ok());
        let error = judge(&[figure(2.1)]).expect_err("it is too much").to_string();
        assert!(error.contains("carts of the same partition: p99 ms (2.10 times)"), "{error}");
    }
}
