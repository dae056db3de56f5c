//! The system and the floor on one installation, started as in production.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;

use super::args::RunArgs;
use super::floor;
use super::load::{Load, Outcome, Pace, Until};
use super::measurement::Subject;
use super::meter::{Meter, Reading};
use super::servers;
use super::shop::{Mix, Shopper};
use crate::harness::{Installation, Process, Service, free_address};

/// The timeout of a start. The machine may be busy, and the servers may have just been started.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// The carts of all shoppers. Some are used for the first time during a measurement, as in a real shop.
const CARTS: u64 = 10_000;

/// The limit of the command line.
const SHOPPERS_MAX: u32 = 10_000;

/// An installation for one measurement.
#[derive(Debug)]
pub(crate) struct BenchEnvironment {
    pub(crate) installation: Installation,
    processors: u16,
    workers: u16,
    bare_floor: bool,
    processor_args: &'static [&'static str],
    /// More environment variables of the services.
    variables: Vec<(&'static str, String)>,
    mix: Mix,
}

/// A process, with the name for its usage.
pub(crate) type Named = (String, Process);

/// The system or the floor, ready to be used.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) subject: Subject,
    pub(crate) processes: Vec<Named>,
    pub(crate) address: SocketAddr,
    mix: Mix,
    first_shopper: u32,
    shoppers: Vec<Shopper>,
}

impl BenchEnvironment {
    /// Makes topics, tables and schemas of system and floor.
    pub(crate) async fn make(name: &str, args: &RunArgs) -> anyhow::Result<Self> {
        Self::make_with(name, args.partitions, args).await
    }

    pub(crate) async fn make_with(name: &str, partitions: u16, args: &RunArgs) -> anyhow::Result<Self> {
        let installation = Installation::new(&format!("bench_{name}"))?.with_partitions(partitions);
        installation.setup().await?;
        floor::setup(installation.kafka(), installation.cassandra(), partitions).await?;
        let RunArgs { processors, workers, bare_floor, .. } = *args;
        let (variables, mix) = (Vec::new(), Mix::default());
        Ok(Self { installation, processors, workers, bare_floor, processor_args: &[], variables, mix })
    }

    /// Replaces the kind of shoppers.
    pub(crate) fn with_mix(self, mix: Mix) -> Self {
        Self { mix, ..self }
    }

    /// Replaces the settings of the cart-processors.
    pub(crate) fn with_processors(self, workers: u16, processor_args: &'static [&'static str]) -> Self {
        Self { workers, processor_args, ..self }
    }

    /// Replaces the environment variables that the services get when they are started, beside their usual ones.
    pub(crate) fn set_variables(&mut self, variables: &[(&'static str, &str)]) {
        self.variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    }

    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        floor::remove(self.installation.kafka()).await?;
        self.installation.remove().await
    }

    /// Starts one ingest and the cart-processors, or the floor's two sides. Returns when a command was answered.
    pub(crate) async fn start(&self, subject: Subject) -> anyhow::Result<Running> {
        let mut processes = Vec::new();
        processes.push(match subject {
            Subject::System => self.start_ingest_at(None).await?,
            Subject::Floor => {
                let address = free_address().context("finding a free port")?;
                let mut args = vec!["floor-front".to_owned(), "--listen".to_owned(), address.to_string()];
                args.extend(self.bare_floor.then(|| "--bare".to_owned()));
                let front = self.installation.spawn_listening("floor-front", "bench", args, address)?;
                ("floor-front".to_owned(), front)
            }
        });
        let address = processes[0].1.address().context("it has an address")?;
        for number in 0..self.processors {
            processes.push(self.start_worker(subject, &number.to_string(), false).await?);
        }
        processes[0].1.ready(READY_DEADLINE).await?;
        let mut running =
            Running { subject, processes, address, mix: self.mix, first_shopper: 0, shoppers: Vec::new() };
        // When it is ready it accepts commands; once a command is answered, all stages work.
        running.load(1, Pace::Closed, Until::Answered(1)).await.context("waiting for the first answer")?;
        Ok(running)
    }

    /// Starts a cart-processor or a worker of the floor. For a backlog, the worker also publishes.
    pub(crate) async fn start_worker(&self, subject: Subject, instance: &str, backlog: bool) -> anyhow::Result<Named> {
        match subject {
            Subject::System => self.start_processor(instance).await,
            Subject::Floor => {
                let workers = self.workers.to_string();
                let mut args = vec!["floor-worker", "--workers", &workers];
                args.extend(backlog.then_some("--publish"));
                args.extend(self.bare_floor.then_some("--bare"));
                let process = self.installation.spawn(&format!("floor-worker-{instance}"), "bench", args)?;
                Ok(("floor-worker".to_owned(), process))
            }
        }
    }

    async fn start_processor(&self, instance: &str) -> anyhow::Result<Named> {
        let workers = self.workers.to_string();
        let mut args = vec!["--workers", &workers];
        args.extend(self.processor_args);
        let mut process = self.start_service(Service::CartProcessor, instance, &args, None)?;
        process.ready(READY_DEADLINE).await?;
        Ok(("cart-processor".to_owned(), process))
    }

    /// Starts an ingest, at its former address or a free one.
    pub(crate) async fn start_ingest_at(&self, address: Option<SocketAddr>) -> anyhow::Result<Named> {
        let mut process = self.start_service(Service::Ingest, "0", &[], address)?;
        process.ready(READY_DEADLINE).await?;
        Ok(("ingest".to_owned(), process))
    }

    /// Starts this many instances of each projector.
    pub(crate) async fn start_projectors(&self, instances: u16) -> anyhow::Result<Vec<Named>> {
        let each = |instance: u16| Service::PROJECTORS.map(|projector| (projector, instance.to_string()));
        let all = (0..instances).flat_map(each);
        try_join_all(all.map(async |(projector, instance)| self.start_projector(projector, &instance).await)).await
    }

    pub(crate) async fn start_projector(&self, projector: Service, instance: &str) -> anyhow::Result<Named> {
        let mut process = self.start_service(projector, instance, &[], None)?;
        process.ready(READY_DEADLINE).await?;
        Ok((projector.name().to_owned(), process))
    }

    fn start_service(
        &self,
        service: Service,
        instance: &str,
        args: &[&str],
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Process> {
        self.installation.start_as(service, instance, args, address, &self.variables)
    }

    /// A meter of this process, these processes, and the servers on this machine.
    pub(crate) fn meter<'a>(&self, processes: impl IntoIterator<Item = &'a Named>) -> Meter {
        let mut meter = Meter::with_load();
        for (name, process) in processes {
            meter.add(name, process.id(), false);
        }
        servers::watch(&mut meter, &self.servers());
        meter
    }

    /// The servers, with their addresses.
    pub(crate) fn servers(&self) -> [(&'static str, String); 3] {
        let first = |list: &str| list.split(',').next().unwrap_or_default().to_owned();
        let database = self.installation.database_url();
        let database = database.rsplit_once('@').map_or(database, |(_, rest)| rest);
        let database = database.split('/').next().unwrap_or_default();
        let database = if database.contains(':') { database.to_owned() } else { format!("{database}:5432") };
        [
            ("kafka", first(&self.installation.kafka().kafka_bootstrap_servers)),
            ("cassandra", self.installation.cassandra().cassandra_nodes.first().cloned().unwrap_or_default()),
            ("postgres", database),
        ]
    }
}

impl Running {
    /// The same processes, with other shoppers and carts.
    pub(crate) fn others(&self) -> Self {
        let Self { subject, address, mix, .. } = *self;
        let first_shopper = self.first_shopper + SHOPPERS_MAX;
        Self { subject, processes: Vec::new(), address, mix, first_shopper, shoppers: Vec::new() }
    }

    /// Runs a load of this many clients, which continue where they were.
    pub(crate) async fn load(&mut self, clients: u32, pace: Pace, until: Until) -> anyhow::Result<Outcome> {
        self.run(Load::new(self.address, pace, until), clients).await
    }

    pub(crate) async fn run(&mut self, load: Load, clients: u32) -> anyhow::Result<Outcome> {
        while self.shoppers.len() < clients as usize {
            let number = self.first_shopper + u32::try_from(self.shoppers.len())?;
            self.shoppers.push(match self.mix {
                Mix::RealShop => Shopper::new(number, CARTS / 256),
                Mix::Sessions => Shopper::with_sessions(number),
            });
        }
        let rest = self.shoppers.split_off(clients as usize);
        let (outcome, shoppers) = load.run(std::mem::take(&mut self.shoppers)).await?;
        self.shoppers = shoppers;
        self.shoppers.extend(rest);
        Ok(outcome)
    }

    /// Sends commands until code is compiled, connections are made and caches are warm, including the servers'.
    pub(crate) async fn warm_up(&mut self, commands: u64) -> anyhow::Result<()> {
        self.warm_up_with(64, commands).await
    }

    /// Does the same with this many clients.
    pub(crate) async fn warm_up_with(&mut self, clients: u32, requests: u64) -> anyhow::Result<()> {
        if requests > 0 {
            self.load(clients, Pace::Closed, Until::Answered(requests)).await.context("warming up")?;
        }
        Ok(())
    }
}

/// Does some work, and measures its usage.
pub(crate) async fn metered<T>(
    meter: &Meter,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Reading)> {
    let before = meter.read();
    let done = work.await?;
    Ok((done, meter.read().since(&before)))
}
