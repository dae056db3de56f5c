//! Throughput of each projector with a backlog of purchases, as after a loss of a read table. The floor reads and decodes the
//! same records, and does nothing else.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use cart::contract::Contract;
use cart::{CartEvent, PurchasedItem};
use chrono::{TimeDelta, TimeZone as _, Utc};
use kafka::{Codec, GroupProgress, KafkaArgs, Message as _, Registry, TopicReader};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::args::RunArgs;
use super::environment::{BenchEnvironment, metered};
use super::http::is_at_end;
use super::measurement::{Measurement, Subject, Values, add_usage};
use super::meter::{LOAD, Meter};
use super::produce::produce;
use super::progress::keep;
use super::shop::purchase;
use crate::harness::Service;

const BENCH: &str = "projectors";

/// The purchases are distributed evenly over this many days, as those of the real shop.
const DAYS: u64 = 240;

/// The pause between two checks of the progress.
const INTERVAL: Duration = Duration::from_millis(50);

/// The timeout of a measurement.
const DEADLINE: Duration = Duration::from_secs(1_800);

/// The timeout of reading a record before the topic's end.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const SHOWN: [&str; 3] = ["events/s", "CPU-ms/event", "CPU-ms/event reader"];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for repetition in 0..args.repetitions() {
        // A new installation, so that all purchases are unprocessed.
        let environment = BenchEnvironment::make(BENCH, args).await?;
        fill(&environment, args.commands()).await?;
        // The first projector writes the topic of the others.
        for projector in Service::PROJECTORS {
            for subject in [Subject::Floor, Subject::System] {
                let values = match subject {
                    Subject::Floor => read_alone(&environment, projector, args.commands()).await?,
                    Subject::System => drain(&environment, projector, args.commands()).await?,
                };
                let case = projector.name().to_owned();
                let one = Measurement { bench: BENCH.to_owned(), case, subject, repetition, values };
                keep(&mut measurements, one, &SHOWN);
            }
        }
        environment.remove().await?;
    }
    Ok(measurements)
}

/// Appends purchases to `cart-events`, as the cart-processor does.
async fn fill(environment: &BenchEnvironment, count: u64) -> anyhow::Result<()> {
    let kafka = environment.installation.kafka();
    let codec = Codec::<CartEvent>::register(&Registry::new(kafka)?, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    let first_day = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().context("a day")?;
    let records = (0..count).map(|index| {
        let at = first_day
            + TimeDelta::seconds(i64::try_from(u128::from(index) * u128::from(DAYS) * 86_400 / u128::from(count))?);
        let event = purchase(index, at)?;
        Ok((event.cart_id.to_string(), codec.encode(&event)?))
    });
    tokio::task::block_in_place(|| produce(kafka, &kafka.prefixed(CartEvent::TOPIC), records))
        .context("filling the topic")
}

fn reads_cart_events(projector: Service) -> bool {
    projector == Service::PROJECTORS[0]
}

/// Reads and decodes the projector's topic.
async fn read_alone(environment: &BenchEnvironment, projector: Service, count: u64) -> anyhow::Result<Values> {
    let kafka = environment.installation.kafka();
    let (rate, used) = metered(&environment.meter([]), async {
        if reads_cart_events(projector) {
            read_all::<CartEvent>(kafka).await
        } else {
            read_all::<PurchasedItem>(kafka).await
        }
    })
    .await?;
    let mut values = Values::from([("events/s".to_owned(), rate)]);
    add_usage(&mut values, &used, count, "event");
    // This process is the reader here.
    let reader = values.get(&format!("CPU-ms/event {LOAD}")).copied();
    values.extend(reader.map(|cpu| (READER.to_owned(), cpu)));
    Ok(values)
}

/// The name of the process that reads: the projector, or its floor.
const READER: &str = "CPU-ms/event reader";

async fn read_all<T: Contract + Serialize + DeserializeOwned>(kafka: &KafkaArgs) -> anyhow::Result<f64> {
    let codec = Codec::<T>::register(&Registry::new(kafka)?, T::TOPIC, T::SCHEMA).await?;
    tokio::task::block_in_place(|| {
        let mut reader = TopicReader::open_at_beginning(kafka, &kafka.prefixed(T::TOPIC))?;
        let (mut first, mut count) = (None, 0_u64);
        while let Some(message) = reader.next(SILENCE_MAX)? {
            codec.decode(message.payload().unwrap_or_default())?;
            first.get_or_insert_with(Instant::now);
            count += 1;
        }
        let elapsed = first.context("the topic is empty")?.elapsed();
        Ok(count as f64 / elapsed.as_secs_f64().max(f64::EPSILON))
    })
}

/// Starts the projector and waits until all records are processed.
async fn drain(environment: &BenchEnvironment, projector: Service, count: u64) -> anyhow::Result<Values> {
    let kafka = environment.installation.kafka();
    let topic = if reads_cart_events(projector) { CartEvent::TOPIC } else { PurchasedItem::TOPIC };
    let progress = GroupProgress::new(kafka, &kafka.prefixed(projector.name()), &kafka.prefixed(topic))?;
    let started_at = Instant::now();
    let mut process = environment.start_projector(projector, "0").await?;
    let meter: Meter = environment.meter([&process]);
    let partitions = environment.installation.partitions().into();
    let work = async { tokio::task::block_in_place(|| rate(&progress, started_at, partitions, count)) };
    let (rate, used) = metered(&meter, work).await?;
    let mut values = Values::from([("events/s".to_owned(), rate)]);
    add_usage(&mut values, &used, count, "event");
    let reader = values.get(&format!("CPU-ms/event {}", projector.name())).copied();
    values.extend(reader.map(|cpu| (READER.to_owned(), cpu)));
    process.1.terminate(DEADLINE).await?;
    Ok(values)
}

/// Events per second from the first progress to the end, without the start. If the first check already sees too much
/// progress, the time of the start is included, and the result is a lower bound.
fn rate(progress: &GroupProgress, started_at: Instant, partitions: i32, count: u64) -> anyhow::Result<f64> {
    let mut first = None;
    loop {
        let is_over = is_at_end(progress, partitions)?;
        // A few offsets in a thousand are transactions' markers.
        let done = progress.committed(0..partitions)?.values().sum::<i64>() as f64;
        let now = Instant::now();
        if is_over {
            let early = first.filter(|(_, before)| *before < count as f64 / 2.0);
            let (since, before) = early.unwrap_or((started_at, 0.0));
            return Ok((count as f64 - before) / (now - since).max(INTERVAL).as_secs_f64());
        }
        if done > 0.0 {
            first.get_or_insert((now, done));
        }
        anyhow::ensure!(started_at.elapsed() < DEADLINE, "only {done} of {count} events are done after {DEADLINE:?}");
        std::thread::sleep(INTERVAL);
    }
}
