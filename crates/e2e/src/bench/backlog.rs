//! Throughput of a backlog of commands, as after an outage, to journal and events.
//!
//! The number of carts that alternate in the log decides how many commands fit into one write, for system and floor alike.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cart::CartCommand;
use cart::contract::Contract as _;
use chrono::Utc;
use kafka::{Admin, Codec, GroupProgress, KafkaArgs, Registry};

use super::args::RunArgs;
use super::environment::{BenchEnvironment, metered};
use super::floor;
use super::measurement::{Measurement, Subject, Values, add_usage};
use super::produce::produce;
use super::progress::keep;
use super::shop::Shopper;

const BENCH: &str = "backlog";

/// The group of the cart-processors.
const PROCESSOR: &str = "cart-processor";

/// The carts whose commands alternate in the log.
const CARTS_AT_A_TIME: [u32; 2] = [64, 4_096];

/// A shopper returns to a cart after this many others.
const CARTS_EACH: u64 = 40;

/// The pause between two checks of the progress.
const INTERVAL: Duration = Duration::from_millis(100);

/// Without progress for this long, the measurement fails.
const STALL_MAX: Duration = Duration::from_secs(60);

const SHOWN: [&str; 3] = ["commands/s", "CPU-ms/command", "CPU-ms/command cart-processor"];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut measurements = Vec::new();
    let mut numbers = 0;
    for carts in CARTS_AT_A_TIME {
        let mut shoppers: Vec<_> = (carts..carts * 2).map(|number| Shopper::new(number, CARTS_EACH)).collect();
        for repetition in 0..args.repetitions() {
            let (sides, commands) = ([Subject::Floor, Subject::System], args.commands());
            fill(&environment, &sides, &mut shoppers, commands, &mut numbers).await?;
            for subject in sides {
                let values = drain(&environment, subject, args.processors, commands).await?;
                let case = format!("{carts} carts at a time");
                let one = Measurement { bench: BENCH.to_owned(), case, subject, repetition, values };
                keep(&mut measurements, one, &SHOWN);
            }
        }
    }
    environment.remove().await?;
    Ok(measurements)
}

/// Appends the same commands to the topics of these.
pub(super) async fn fill(
    environment: &BenchEnvironment,
    subjects: &[Subject],
    shoppers: &mut [Shopper],
    commands: u64,
    numbers: &mut u64,
) -> anyhow::Result<()> {
    let kafka = environment.installation.kafka();
    let codec = Codec::<CartCommand>::register(&Registry::new(kafka)?, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let first = *numbers;
    *numbers += commands;
    let start: Vec<Shopper> = shoppers.to_vec();
    for &subject in subjects {
        shoppers.clone_from_slice(&start);
        let count = shoppers.len();
        let records = (0..commands).map(|index| {
            let shopper = &mut shoppers[usize::try_from(index)? % count];
            let command = shopper.command(first + index, Utc::now())?;
            shopper.done();
            let value = codec.encode(&command)?;
            let value = if subject == Subject::Floor { floor::value(first + index, -1, &value) } else { value };
            Ok((command.cart_id.to_string(), value))
        });
        let topic = if subject == Subject::Floor { floor::COMMANDS } else { CartCommand::TOPIC };
        tokio::task::block_in_place(|| produce(kafka, &kafka.prefixed(topic), records))
            .context("filling the topics")?;
    }
    Ok(())
}

/// Starts the workers and waits until all commands are processed.
pub(super) async fn drain(
    environment: &BenchEnvironment,
    subject: Subject,
    processors: u16,
    commands: u64,
) -> anyhow::Result<Values> {
    let kafka = environment.installation.kafka().clone();
    let progress = Progress::of(subject, &kafka)?;
    let before = tokio::task::block_in_place(|| progress.done())?;
    let mut workers = Vec::new();
    for number in 0..processors {
        workers.push(environment.start_worker(subject, &number.to_string(), true).await?);
    }
    let meter = environment.meter(&workers);
    let work = async { tokio::task::block_in_place(|| rate(&progress, before, commands)) };
    let (rate, used) = metered(&meter, work).await?;
    let mut values = Values::from([("commands/s".to_owned(), rate)]);
    add_usage(&mut values, &used, commands, "command");
    for (_, mut worker) in workers {
        match subject {
            // Otherwise uncommitted commands would be processed again.
            Subject::System => worker.terminate(STALL_MAX).await?,
            Subject::Floor => {
                floor::committed(&kafka, STALL_MAX).await?;
                worker.kill9()?;
            }
        }
    }
    Ok(values)
}

/// The progress of a side.
enum Progress {
    /// Offsets and events are committed together.
    System(Box<GroupProgress>, i32),
    /// It publishes a record for each command.
    Floor(Box<Admin>, String),
}

impl Progress {
    fn of(subject: Subject, kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let topic = kafka.prefixed(CartCommand::TOPIC);
        Ok(match subject {
            Subject::System => {
                let partitions = Admin::new(kafka)?.partitions(&topic)?;
                let group = kafka.prefixed(PROCESSOR);
                Self::System(Box::new(GroupProgress::new(kafka, &group, &topic)?), partitions)
            }
            Subject::Floor => Self::Floor(Box::new(Admin::new(kafka)?), kafka.prefixed(floor::EVENTS)),
        })
    }

    fn done(&self) -> anyhow::Result<i64> {
        Ok(match self {
            Self::System(group, partitions) => group.committed(0..*partitions)?.values().sum(),
            Self::Floor(admin, events) => admin.watermarks(events)?.iter().map(|(_, end)| end).sum(),
        })
    }
}

/// Commands per second from the first progress to the end, without the start.
fn rate(progress: &Progress, before: i64, commands: u64) -> anyhow::Result<f64> {
    let commands = i64::try_from(commands)?;
    let mut first = None;
    let mut last = (Instant::now(), 0);
    loop {
        let done = progress.done()? - before;
        let now = Instant::now();
        if done > last.1 {
            last = (now, done);
            first.get_or_insert(last);
        }
        if let Some((first_at, first_done)) = first.filter(|_| done >= commands) {
            let rest = (done - first_done) as f64 / (now - first_at).as_secs_f64().max(INTERVAL.as_secs_f64());
            // It took less than one check, which is an upper bound.
            return Ok(if first_done == done { done as f64 / INTERVAL.as_secs_f64() } else { rest });
        }
        if now - last.0 > STALL_MAX {
            bail!("{} of {commands} commands are done, and nothing more was in {STALL_MAX:?}", last.1);
        }
        std::thread::sleep(INTERVAL);
    }
}
