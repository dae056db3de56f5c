//! Commands over HTTP: a closed loop with several numbers of clients, then an open loop at shares of the maximum throughput.

use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{STAGES, Stage, group};
use kafka::{GroupProgress, KafkaArgs};
use tokio::time::Instant;

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Running, metered};
use super::load::{Pace, Until};
use super::measurement::{Measurement, Spread, Subject, Values, add_outcome, add_usage};
use super::meter::Meter;
use super::progress::{keep, say};
use crate::harness::wait_until;

const BENCH: &str = "http";

/// The rates of the open loop, in percent of the maximum throughput.
const SHARES: [u32; 4] = [25, 50, 75, 90];

/// The maximum number of connections in the open loop.
const OPEN_CLIENTS: u32 = 1_024;

/// How long projectors may take to catch up after a measurement.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(300);

const SHOWN: [&str; 6] = ["commands/s", "p50 ms", "p99 ms", "failed", "CPU-ms/command", "CPU-ms/command load"];

/// The groups of the read side with their topics, from the front to the end.
fn readers() -> impl Iterator<Item = Stage> {
    STAGES.into_iter().filter(|stage| stage.group != group::CART_PROCESSOR)
}

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut sides = [environment.start(Subject::Floor).await?, environment.start(Subject::System).await?];
    for side in &mut sides {
        side.warm_up(args.warm_up()).await?;
    }
    let mut measurements = Vec::new();
    let all = sides.iter().flat_map(|side| &side.processes);
    let meter = environment.meter(all);
    Series { args, environment: &environment, meter, projectors: false }.measure(&mut sides, &mut measurements).await?;
    if !args.without_projectors {
        say("starting the four projectors");
        let projectors = environment.start_projectors(1).await?;
        catch_up(environment.installation.kafka()).await?;
        let meter = environment.meter(sides.iter().flat_map(|side| &side.processes).chain(&projectors));
        Series { args, environment: &environment, meter, projectors: true }
            .measure(&mut sides, &mut measurements)
            .await?;
        drop(projectors);
    }
    drop(sides);
    environment.remove().await?;
    Ok(measurements)
}

/// All loads, without or with the projectors.
struct Series<'a> {
    args: &'a RunArgs,
    environment: &'a BenchEnvironment,
    meter: Meter,
    projectors: bool,
}

impl Series<'_> {
    async fn measure(&self, sides: &mut [Running; 2], measurements: &mut Vec<Measurement>) -> anyhow::Result<()> {
        let mut most = Vec::new();
        for clients in self.args.clients() {
            let mut rates = Vec::new();
            for repetition in 0..self.args.repetitions() {
                let case = format!("{clients} clients{}", self.suffix());
                for side in &mut *sides {
                    let one = self.one(side, case.clone(), repetition, clients, Pace::Closed).await?;
                    if side.subject == Subject::System {
                        rates.extend(one.values.get("commands/s"));
                    }
                    keep(measurements, one, &SHOWN);
                }
            }
            most.extend(Spread::of(rates).map(|rate| rate.median));
        }
        let most = most.into_iter().fold(1.0, f64::max);
        for share in SHARES {
            for repetition in 0..self.args.repetitions() {
                let case = format!("{share} % of the most{}", self.suffix());
                for side in &mut *sides {
                    let pace = Pace::Open(most * f64::from(share) / 100.0);
                    let one = self.one(side, case.clone(), repetition, OPEN_CLIENTS, pace).await?;
                    keep(measurements, one, &SHOWN);
                }
            }
        }
        Ok(())
    }

    fn suffix(&self) -> &'static str {
        if self.projectors { ", projectors" } else { "" }
    }

    async fn one(
        &self,
        side: &mut Running,
        case: String,
        repetition: u32,
        clients: u32,
        pace: Pace,
    ) -> anyhow::Result<Measurement> {
        let length = Duration::from_secs(self.args.seconds());
        let (outcome, used) = metered(&self.meter, side.load(clients, pace, Until::After(length))).await?;
        let mut values = Values::new();
        add_outcome(&mut values, &outcome, "command");
        add_usage(&mut values, &used, outcome.answered, "command");
        if self.projectors && side.subject == Subject::System {
            // The time to catch up shows whether they have kept up.
            let behind = catch_up(self.environment.installation.kafka()).await?;
            values.insert("catch-up s".to_owned(), behind.as_secs_f64());
        }
        Ok(Measurement { bench: BENCH.to_owned(), case, subject: side.subject, repetition, values })
    }
}

/// Waits until the projectors have caught up, and returns the time.
pub(super) async fn catch_up(kafka: &KafkaArgs) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for Stage { group, topic } in readers() {
        let progress = GroupProgress::new(kafka, &kafka.prefixed(group), &kafka.prefixed(topic))?;
        let partitions = kafka::Admin::new(kafka)?.partitions(&kafka.prefixed(topic))?;
        wait_until(&format!("{group} to catch up"), CATCH_UP_DEADLINE, async || {
            tokio::task::block_in_place(|| is_at_end(&progress, partitions))
                .map_err(|error| format!("{error:#}"))?
                .then_some(())
                .ok_or_else(|| String::from("records are left"))
        })
        .await
        .context("do the projectors run?")?;
    }
    Ok(start.elapsed())
}

/// Whether a group has processed all committed records of its topic.
pub(super) fn is_at_end(progress: &GroupProgress, partitions: i32) -> anyhow::Result<bool> {
    let mut next = progress.committed(0..partitions)?;
    for partition in 0..partitions {
        next.entry(partition).or_insert(0);
    }
    Ok(progress.first_records(&next)?.is_empty())
}
