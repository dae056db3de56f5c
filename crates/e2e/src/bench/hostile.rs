//! The latency of a well-behaved client while others attack, compared with that of the same client without attacks, in turn.
//!
//! The attackers are one thread of the lowest priority, since real attackers do not use the service's processors. Their line
//! has 100 Mbit/s, since the service does not limit bandwidth. The service has its default limits.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Running, metered};
use super::judge::complaints;
use super::load::{Pace, Until};
use super::measurement::{Figure, Measurement, Subject, Values, add_outcome, add_usage};
use super::meter::Meter;
use super::progress::{keep, say};
use crate::hostile::{h2, http1, over_a_line};

const BENCH: &str = "hostile";

/// The maximum ratio of the latencies with and without an attack, at the median and the 95th percentile.
const RATIO_MAX: f64 = 2.0;
const JUDGED: [&str; 2] = ["p50 ms", "p95 ms"];

/// The bandwidth of all attackers: 100 Mbit/s.
const LINE_BYTES_PER_S: u32 = 12_500_000;

/// The lowest priority.
const NICE: i32 = 19;

/// The pause after the start and after the end of an attack.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) const SHOWN: [&str; 5] = ["commands/s", "p50 ms", "p95 ms", "failed", "CPU-ms/command ingest"];

type Attack = fn(SocketAddr) -> LocalBoxFuture<'static, anyhow::Result<()>>;

/// The attacks, with their names.
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

/// Checks the latency of the shopper, if it was measured.
///
/// # Errors
/// The latencies that are too high, and missing answers.
pub(super) fn judge(figures: &[Figure]) -> anyhow::Result<()> {
    let complaints = complaints(figures, BENCH, &JUDGED, RATIO_MAX);
    ensure!(complaints.is_empty(), "hostile clients are noticed: {}", complaints.join(", "));
    if figures.iter().any(|figure| figure.bench == BENCH) {
        say(&format!("under no attack {} are more than {RATIO_MAX} times what they are without", JUDGED.join(" and ")));
    }
    Ok(())
}

/// An attack that is repeated until it is stopped.
struct Attackers {
    thread: JoinHandle<anyhow::Result<()>>,
    end: oneshot::Sender<()>,
}

impl Attackers {
    fn start(attack: Attack, address: SocketAddr) -> anyhow::Result<Self> {
        let (end, ended) = oneshot::channel();
        let work = move || {
            // On Linux this changes only this thread.
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

    /// Stops it.
    async fn end(self) -> anyhow::Result<()> {
        // The thread also ends when the attack fails.
        self.end.send(()).unwrap_or_default();
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        ended.map_err(|_| anyhow!("the attackers panicked"))?
    }
}
