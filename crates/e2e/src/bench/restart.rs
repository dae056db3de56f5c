//! The time until a service is ready, and the longest wait of clients when a service crashes and is restarted, or another
//! cart-processor joins or leaves.

use std::time::{Duration, Instant};

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Named, Running};
use super::load::{Pace, Until};
use super::measurement::{Measurement, Subject, Values, add_outcome};
use super::progress::keep;
use crate::harness::Service;

const BENCH: &str = "restart";

/// Commands per second, low enough that only the fault causes waits.
const RATE: f64 = 200.0;

/// Enough clients that no command waits for a client.
const CLIENTS: u32 = 1_024;

/// The time of load before the fault, and the time of the whole load. A crashed member of a group is removed after its session
/// timeout (10 s).
const BEFORE: Duration = Duration::from_secs(2);
const LENGTH: Duration = Duration::from_secs(30);
const LENGTH_QUICK: Duration = Duration::from_secs(15);

/// The timeout of an orderly end.
const END_DEADLINE: Duration = Duration::from_secs(60);

const READY_MS: &str = "ready ms";
const SHOWN: [&str; 5] = [READY_MS, "p50 ms", "p99 ms", "max ms", "failed"];

/// The faults under load.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Nothing,
    ProcessorKilled,
    ProcessorRestarted,
    SecondProcessorJoins,
    SecondProcessorLeaves,
    IngestKilled,
}

impl Happening {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::ProcessorKilled,
        Self::ProcessorRestarted,
        Self::SecondProcessorJoins,
        Self::SecondProcessorLeaves,
        Self::IngestKilled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::ProcessorKilled => "kill -9 of the cart-processor, and a new start",
            Self::ProcessorRestarted => "SIGTERM of the cart-processor, and a new start",
            Self::SecondProcessorJoins => "a second cart-processor joins",
            Self::SecondProcessorLeaves => "a second cart-processor leaves (SIGTERM)",
            Self::IngestKilled => "kill -9 of ingest, and a new start",
        }
    }
}

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut system = environment.start(Subject::System).await?;
    system.warm_up(args.warm_up()).await?;
    let mut measurements = Vec::new();
    let mut second = None;
    for repetition in 0..args.repetitions() {
        let mut add = |case: &str, values| {
            let (bench, case) = (BENCH.to_owned(), case.to_owned());
            let one = Measurement { bench, case, subject: Subject::System, repetition, values };
            keep(&mut measurements, one, &SHOWN);
        };
        for projector in Service::PROJECTORS {
            let started_at = Instant::now();
            let (name, mut process) = environment.start_projector(projector, "0").await?;
            add(&format!("start of {name}"), Values::from([ready(started_at)]));
            process.terminate(END_DEADLINE).await?;
        }
        for happening in Happening::ALL {
            let values = under_load(&environment, &mut system, &mut second, happening, args.quick).await?;
            add(happening.name(), values);
        }
    }
    drop(system);
    environment.remove().await?;
    Ok(measurements)
}

fn ready(started_at: Instant) -> (String, f64) {
    (READY_MS.to_owned(), started_at.elapsed().as_secs_f64() * 1_000.0)
}

async fn under_load(
    environment: &BenchEnvironment,
    system: &mut Running,
    second: &mut Option<Named>,
    happening: Happening,
    quick: bool,
) -> anyhow::Result<Values> {
    let mut processes = std::mem::take(&mut system.processes);
    let address = system.address;
    let length = if quick { LENGTH_QUICK } else { LENGTH };
    let happens = async {
        tokio::time::sleep(BEFORE).await;
        let [(_, ingest), (_, processor)] = processes.as_mut_slice() else {
            anyhow::bail!("an ingest and one cart-processor are needed: leave --processors as it is");
        };
        let mut started_at = Instant::now();
        match happening {
            Happening::Nothing => return Ok(None),
            Happening::ProcessorKilled => {
                processor.kill9()?;
                *processor = environment.start_worker(Subject::System, "0", false).await?.1;
            }
            Happening::ProcessorRestarted => {
                processor.terminate(END_DEADLINE).await?;
                started_at = Instant::now();
                *processor = environment.start_worker(Subject::System, "0", false).await?.1;
            }
            Happening::SecondProcessorJoins => {
                *second = Some(environment.start_worker(Subject::System, "1", false).await?);
            }
            Happening::SecondProcessorLeaves => {
                if let Some((_, mut process)) = second.take() {
                    process.terminate(END_DEADLINE).await?;
                }
                return Ok(None);
            }
            Happening::IngestKilled => {
                ingest.kill9()?;
                *ingest = environment.start_ingest_at(Some(address)).await?.1;
            }
        }
        Ok(Some(ready(started_at)))
    };
    let (outcome, happened) = tokio::join!(system.load(CLIENTS, Pace::Open(RATE), Until::After(length)), happens);
    let happened: Option<(String, f64)> = happened?;
    system.processes = processes;
    let mut values = Values::from_iter(happened);
    add_outcome(&mut values, &outcome?, "command");
    Ok(values)
}
