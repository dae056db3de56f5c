//! The cost of ordinary load: short sessions on new carts, while all services run as the demo starts them. There is no floor.
//! The requests that Kafka and Cassandra answer show where the CPU time goes.

use std::time::{Duration, Instant};

use super::args::RunArgs;
use super::environment::{BenchEnvironment, Named, Running, metered};
use super::freshness::{self, Tables};
use super::http::catch_up;
use super::load::{Pace, Until};
use super::measurement::{Measurement, Subject, Values, add_outcome, add_usage};
use super::meter::{Meter, Reading};
use super::progress::{keep, say};
use super::server_requests::{Counts, ServerRequests, since};
use super::service_metrics::ServiceMetrics;
use super::shop::Mix;

const BENCH: &str = "ordinary";

/// Requests per second of the open loop.
const RATES: [f64; 2] = [100.0, 300.0];

/// The number of clients of the open loop.
const OPEN_CLIENTS: u32 = 128;

/// The requests to warm up; after them the clients are evenly distributed over the steps of their sessions.
const SETTLE: (Pace, Until) = (Pace::Open(300.0), Until::After(Duration::from_secs(5)));

const SHOWN: [&str; 7] =
    ["requests/s", "p50 ms", "p99 ms", "failed", "CPU-ms/request", "CPU-ms/s", "requests/request kafka"];

pub(super) async fn measure(args: &RunArgs) -> anyhow::Result<Vec<Measurement>> {
    let args = RunArgs { processors: args.instances, ..args.clone() };
    let environment = BenchEnvironment::make(BENCH, &args).await?.with_mix(Mix::Sessions);
    let system = environment.start(Subject::System).await?;
    let projectors = environment.start_projectors(args.instances).await?;
    let mut series = Series {
        usage: UsageReader::new(&environment, system.processes.iter().chain(&projectors)),
        args: &args,
        environment: &environment,
        tables: Tables::open(&environment).await?,
        // After a closed loop few clients are at the checkout, because the GET before it is fast. So others are used.
        open: system.others(),
        closed: system,
        measurements: Vec::new(),
    };
    series.warm_up().await?;
    for repetition in 0..args.repetitions() {
        series.all(repetition).await?;
    }
    let Series { measurements, closed, .. } = series;
    drop((closed, projectors));
    environment.remove().await?;
    Ok(measurements)
}

/// All cases.
struct Series<'a> {
    args: &'a RunArgs,
    environment: &'a BenchEnvironment,
    tables: Tables,
    usage: UsageReader,
    closed: Running,
    open: Running,
    measurements: Vec<Measurement>,
}

impl Series<'_> {
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let clients = self.args.clients().into_iter().fold(1, u32::max);
        self.closed.warm_up_with(clients, self.args.warm_up()).await?;
        let (pace, until) = SETTLE;
        self.open.load(OPEN_CLIENTS, pace, until).await?;
        catch_up(self.environment.installation.kafka()).await?;
        Ok(())
    }

    async fn all(&mut self, repetition: u32) -> anyhow::Result<()> {
        self.idle(repetition).await?;
        for clients in self.args.clients() {
            self.load(format!("{clients} clients"), repetition, clients, Pace::Closed).await?;
        }
        for rate in RATES {
            self.load(format!("{rate}/s"), repetition, OPEN_CLIENTS, Pace::Open(rate)).await?;
        }
        self.freshness(repetition, None).await?;
        for rate in RATES {
            self.freshness(repetition, Some(rate)).await?;
        }
        Ok(())
    }

    async fn idle(&mut self, repetition: u32) -> anyhow::Result<()> {
        let seconds = self.args.seconds();
        let rest = async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        };
        let ((), used) = self.usage.of(rest).await?;
        let mut values = Values::new();
        used.add_to(&mut values, seconds, "s");
        self.keep(String::from("idle"), repetition, values);
        Ok(())
    }

    async fn load(&mut self, case: String, repetition: u32, clients: u32, pace: Pace) -> anyhow::Result<()> {
        let length = Duration::from_secs(self.args.seconds());
        let system = if matches!(pace, Pace::Open(_)) { &mut self.open } else { &mut self.closed };
        let (outcome, used) = self.usage.of(system.load(clients, pace, Until::After(length))).await?;
        let mut values = Values::new();
        add_outcome(&mut values, &outcome, "request");
        used.add_to(&mut values, outcome.answered, "request");
        let behind = catch_up(self.environment.installation.kafka()).await?;
        values.insert(String::from("catch-up s"), behind.as_secs_f64());
        self.keep(case, repetition, values);
        Ok(())
    }

    /// Idle without a rate.
    async fn freshness(&mut self, repetition: u32, rate: Option<f64>) -> anyhow::Result<()> {
        let (address, probes) = (self.open.address, freshness::probes(self.args));
        let probing = async {
            let rows = freshness::follow(&self.tables, address, probes).await?;
            Ok((rows, freshness::read_after(address, probes).await?))
        };
        let (rows, reads) = match rate {
            Some(rate) => freshness::under_load(&mut self.open, OPEN_CLIENTS, rate, probing).await?,
            None => probing.await?,
        };
        let load = rate.map_or_else(|| String::from("idle"), |rate| format!("{rate}/s"));
        let delays = freshness::TABLES.into_iter().zip(&rows).chain([("Read-After", &reads)]);
        for (what, delays) in delays {
            self.keep(format!("{what}, {load}"), repetition, freshness::values(delays));
        }
        Ok(())
    }

    fn keep(&mut self, case: String, repetition: u32, values: Values) {
        let one = Measurement { bench: BENCH.to_owned(), case, subject: Subject::System, repetition, values };
        keep(&mut self.measurements, one, &SHOWN);
    }
}

/// Reads the usage of processes, and the counters of servers and services.
struct UsageReader {
    meter: Meter,
    services: ServiceMetrics,
    servers: Option<ServerRequests>,
}

impl UsageReader {
    fn new<'a>(environment: &BenchEnvironment, processes: impl Iterator<Item = &'a Named> + Clone) -> Self {
        let servers = tokio::task::block_in_place(|| ServerRequests::attach(&environment.servers()));
        let servers = servers.inspect_err(say_why_left_out).ok();
        Self { meter: environment.meter(processes.clone()), services: ServiceMetrics::of(processes), servers }
    }

    /// Does some work, and measures its usage, without the cost of reading the counters.
    async fn of<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, Used)> {
        let services = self.services.read().await?;
        let requests = self.requests();
        let started_at = Instant::now();
        let (done, processes) = metered(&self.meter, work).await?;
        let elapsed = started_at.elapsed();
        let requests = since(&self.requests(), &requests);
        let services = since(&self.services.read().await?, &services);
        Ok((done, Used { processes, elapsed, requests, services }))
    }

    fn requests(&mut self) -> Counts {
        let Some(servers) = &mut self.servers else { return Counts::new() };
        tokio::task::block_in_place(|| servers.read()).unwrap_or_else(|error| {
            say_why_left_out(&error);
            self.servers = None;
            Counts::new()
        })
    }
}

fn say_why_left_out(error: &anyhow::Error) {
    say(&format!("requests to the servers by kind are left out: {error:#}"));
}

/// The usage of some work.
struct Used {
    processes: Reading,
    elapsed: Duration,
    requests: Counts,
    services: Counts,
}

impl Used {
    /// The values per request or second (`unit`); those of the services' counters per second.
    fn add_to(&self, values: &mut Values, count: u64, unit: &str) {
        add_usage(values, &self.processes, count, unit);
        for ((kind, server), requests) in self.requests.iter().filter(|(_, requests)| **requests > 0.0) {
            let each = requests / count.max(1) as f64;
            values.insert(format!("{kind}/{unit} {server}"), each);
            // The commit log has no requests.
            if !kind.starts_with("CommitLog") {
                *values.entry(format!("requests/{unit} {server}")).or_default() += each;
            }
        }
        for ((what, service), number) in &self.services {
            values.insert(format!("{what}/s {service}"), number / self.elapsed.as_secs_f64());
        }
    }
}
