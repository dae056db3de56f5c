//! Whether a well-behaved client keeps its latency while others attack: beside the same client without them, in turn.
//!
//! The attackers are one thread of the lowest priority, since real ones do not run on the service's processors, and have a
//! line of 100 Mbit/s, since no limit of ours is one of bandwidth. The service's limits are the defaults.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Running, metered};
use super::load::{Pace, Until};
use super::measurement::{Figure, Measurement, Subject, Values, add_outcome, add_usage};
use super::meter::Meter;
use super::progress::{keep, say};
use crate::hostile::{h2, http1, over_a_line};

const BENCH: &str = "hostile";

/// How many times later an answer may come under attack, at the median and for nineteen of twenty.
const RATIO_MAX: f64 = 2.0;
const JUDGED: [&str; 2] = ["p50 ms", "p95 ms"];

/// What the attackers together can send: 100 Mbit/s.
const LINE_BYTES_PER_S: u32 = 12_500_000;

/// The lowest priority.
const NICE: i32 = 19;

/// Until an attack is on its way, and until its connections are forgotten.
const PAUSE: Duration = Duration::from_secs(1);

const SHOWN: [&str; 5] = ["commands/s", "p50 ms", "p95 ms", "failed", "CPU-ms/command ingest"];

type Attack = fn(SocketAddr) -> LocalBoxFuture<'static, anyhow::Result<()>>;

/// As they are repeated; each has its own name.
const ATTACKS: [(&str, Attack); 11] = [
    ("heads that never end", |address| Box::pin(http1::slowloris(address))),
    ("silence", |address| Box::pin(http1::silence(address))),
    ("bodies of 100 MiB", |address| Box::pin(http1::large_bodies(address))),
    ("deep and long JSON", |address| Box::pin(http1::deep_json(address))),
    ("bodies by the byte", |address| Box::pin(http1::dribbled_bodies(address))),
    ("never read an answer", |address| Box::pin(http1::deaf_readers(address))),
    ("heads of 1 MiB", |address| Box::pin(http1::large_heads(address))),
    ("h2: 10,000 streams", |address| Box::pin(h2::too_many_streams(address))),
    ("h2: rapid reset", |address| Box::pin(h2::rapid_reset(address))),
    ("h2: endless head", |address| Box::pin(h2::endless_head(address))),
    ("h2: header bomb", |address| Box::pin(h2::header_bomb(address))),
];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let environment = BenchEnvironment::make(BENCH, args).await?;
    let mut system = environment.start(Subject::System).await?;
    system.warm_up(args.warm_up()).await?;
    let meter = environment.meter(&system.processes);
    let length = Duration::from_secs(args.seconds());
    let mut measurements = Vec::new();
    for (name, attack) in ATTACKS {
        for repetition in 0..args.repetitions() {
            for subject in [Subject::Floor, Subject::System] {
                sleep(PAUSE).await;
                let attackers = match subject {
                    Subject::Floor => None,
                    Subject::System => Some(Attackers::start(attack, system.address)?),
                };
                sleep(PAUSE).await;
                let values = shop(&mut system, &meter, length).await?;
                if let Some(attackers) = attackers {
                    attackers.end().await.with_context(|| name.to_owned())?;
                }
                let one = Measurement { bench: BENCH.to_owned(), case: name.to_owned(), subject, repetition, values };
                keep(&mut measurements, one, &SHOWN);
            }
        }
    }
    drop(system);
    environment.remove().await?;
    Ok(measurements)
}

/// One shopper, closed loop.
async fn shop(system: &mut Running, meter: &Meter, length: Duration) -> anyhow::Result<Values> {
    let (outcome, used) = metered(meter, system.load(1, Pace::Closed, Until::After(length))).await?;
    let mut values = Values::new();
    add_outcome(&mut values, &outcome, "command");
    add_usage(&mut values, &used, outcome.answered, "command");
    Ok(values)
}

/// Whether the shopper kept its latency, if that was measured.
///
/// # Errors
/// What was too late or not answered.
pub(super) fn judge(figures: &[Figure]) -> anyhow::Result<()> {
    let figures: Vec<_> = figures.iter().filter(|figure| figure.bench == BENCH).collect();
    let complaint = |figure: &&Figure| {
        let ratio = figure.ratio.map_or(0.0, |ratio| ratio.median);
        let is_late = JUDGED.contains(&figure.name.as_str()) && ratio > RATIO_MAX;
        let is_lost = figure.name == "failed" && figure.system.is_some_and(|failed| failed.max > 0.0);
        (is_late || is_lost).then(|| format!("{}: {} ({ratio:.2} times)", figure.case, figure.name))
    };
    let complaints: Vec<_> = figures.iter().filter_map(complaint).collect();
    ensure!(complaints.is_empty(), "hostile clients are noticed: {}", complaints.join(", "));
    if !figures.is_empty() {
        say(&format!("under no attack {} are more than {RATIO_MAX} times what they are without", JUDGED.join(" and ")));
    }
    Ok(())
}

/// An attack that is repeated until it is ended.
struct Attackers {
    thread: JoinHandle<anyhow::Result<()>>,
    end: oneshot::Sender<()>,
}

impl Attackers {
    fn start(attack: Attack, address: SocketAddr) -> anyhow::Result<Self> {
        let (end, ended) = oneshot::channel();
        let work = move || {
            // On Linux that is this thread's alone.
            rustix::process::nice(NICE).context("taking the lowest priority")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("making the attackers' runtime")?.block_on(async {
                let repeated = over_a_line(LINE_BYTES_PER_S, async {
                    loop {
                        attack(address).await?;
                    }
                });
                tokio::select! { failed = repeated => failed, _ = ended => Ok(()) }
            })
        };
        let thread = std::thread::Builder::new().name(String::from("attackers")).spawn(work)?;
        Ok(Self { thread, end })
    }

    /// Ends it.
    async fn end(self) -> anyhow::Result<()> {
        // One that has failed has ended.
        self.end.send(()).unwrap_or_default();
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        ended.map_err(|_| anyhow!("the attackers panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::super::measurement::Spread;
    use super::*;

    fn figure(name: &str, system: f64, floor: f64) -> Figure {
        let spread = |value| Spread::of(vec![value]);
        let (bench, case) = (BENCH.to_owned(), "a flood".to_owned());
        let ratio = if floor > 0.0 { spread(system / floor) } else { None };
        Figure { bench, case, name: name.to_owned(), system: spread(system), floor: spread(floor), ratio }
    }

    #[test]
    fn late_and_lost_answers_are_told() {
        let well = [figure("p50 ms", 3.9, 2.0), figure("p99 ms", 90.0, 2.0), figure("failed", 0.0, 0.0)];
        assert!(judge(&well).is_ok());
        for (ill, told) in
            [(figure("p95 ms", 4.1, 2.0), "a flood: p95 ms (2.05"), (figure("failed", 1.0, 0.0), "failed")]
        {
            let error = judge(&[ill]).expect_err("it is ill").to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
