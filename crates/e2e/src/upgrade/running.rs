//! A system under load whose processes are replaced one after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cartctl::audit::{Target, audit_with};
use futures::future::try_join_all;

use crate::faults::{Balancer, ClientOutcomes};
use crate::harness::{Installation, Process, Service, free_address};
use crate::rollout::Clients;

/// The load on each state: before the first replacement, and after each.
const LOAD: Duration = Duration::from_secs(5);

/// The timeout of a `setup`, and of a start, in debug mode on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(240);

/// The timeout of an orderly end: the longest grace period of the manifests.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// How long all consumers may take to catch up at the end.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

const INSTANCES: [&str; 2] = ["0", "1"];

/// A build: its name in logs, and the folder of its binaries; none for today's, which are beside this program.
#[derive(Debug, Clone)]
pub struct Build {
    pub name: &'static str,
    pub folder: Option<PathBuf>,
}

impl Build {
    /// The build that this program is of.
    #[must_use]
    pub fn of_today() -> Self {
        Self { name: "today", folder: None }
    }

    fn binary(&self, name: &str) -> String {
        let path = self.folder.as_ref().map(|folder| folder.join(name).display().to_string());
        path.unwrap_or_else(|| name.to_owned())
    }

    /// Runs its three `setup`s.
    pub(super) async fn setup(&self, installation: &Installation) -> anyhow::Result<()> {
        for name in ["cart-processor", "ingest", "projectors"] {
            let log = format!("{}-{name}-setup", self.name);
            installation.run(&log, &self.binary(name), ["setup"], READY_DEADLINE).await?;
        }
        Ok(())
    }
}

/// More settings of the services, by their names.
pub type Environments = BTreeMap<&'static str, Vec<(&'static str, String)>>;

/// A service's place, which one process after the other takes, under the same name and at the same address.
#[derive(Debug)]
struct Place {
    service: Service,
    instance: &'static str,
    address: SocketAddr,
    environment: Vec<(&'static str, String)>,
    process: Option<Process>,
    starts: u32,
}

impl Place {
    fn new(service: Service, instance: &'static str, environments: &Environments) -> anyhow::Result<Self> {
        let address = free_address().context("finding a free port")?;
        let environment = environments.get(service.name()).cloned().unwrap_or_default();
        Ok(Self { service, instance, address, environment, process: None, starts: 0 })
    }

    async fn start(&mut self, build: &Build, installation: &Installation) -> anyhow::Result<()> {
        self.starts += 1;
        let address = self.address.to_string();
        let (binary, args) = match self.service {
            Service::Ingest | Service::LimitedIngest => ("ingest", vec!["--listen", &address]),
            Service::CartProcessor => ("cart-processor", vec!["--admin-listen", &address]),
            Service::Projector(name) => ("projectors", vec![name, "--admin-listen", &address]),
        };
        let mut environment = self.environment.clone();
        environment.push(("INSTANCE", self.instance.to_owned()));
        // A build whose ingest has no such address ignores it.
        let admin = (self.service == Service::Ingest).then(free_address).transpose().context("finding a free port")?;
        environment.extend(admin.map(|admin| ("ADMIN_LISTEN", admin.to_string())));
        let log = format!("{}-{}-{}-{}", self.service.name(), self.instance, self.starts, build.name);
        let process = installation.spawn_as(&log, &build.binary(binary), args, &environment, Some(self.address))?;
        self.process.insert(process.with_admin(admin)).ready(READY_DEADLINE).await
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.terminate(END_DEADLINE).await,
            None => Ok(()),
        }
    }
}

/// What the clients got, and what the audit found.
#[derive(Debug)]
pub struct Outcome {
    /// The number of places.
    pub processes: usize,
    pub clients: ClientOutcomes,
    /// The number of commands that the audit has seen acknowledged.
    pub acknowledged: u64,
    /// Errors of clients and findings of the audit; empty if everything is right.
    pub findings: Vec<String>,
}

/// Two of each service under load, with a load balancer in front of the ingests.
#[derive(Debug)]
pub struct Running<'a> {
    installation: &'a Installation,
    /// Readers before writers.
    places: Vec<Place>,
    clients: Clients,
    _balancer: Balancer,
}

impl<'a> Running<'a> {
    /// Starts them on an installation that is set up, with so many commands a second. `run` differs from those of earlier loads on
    /// it.
    ///
    /// # Errors
    /// A service does not get ready.
    pub async fn start(
        installation: &'a Installation,
        build: &Build,
        environments: &Environments,
        rate: u32,
        run: u8,
    ) -> anyhow::Result<Self> {
        let services = Service::PROJECTORS.into_iter().chain([Service::Ingest, Service::CartProcessor]);
        let places = services.flat_map(|service| INSTANCES.map(|instance| Place::new(service, instance, environments)));
        let mut places = places.collect::<anyhow::Result<Vec<_>>>()?;
        try_join_all(places.iter_mut().map(|place| place.start(build, installation))).await?;
        let ingests = places.iter().filter(|place| place.service == Service::Ingest).map(|place| place.address);
        let listen = free_address().context("finding a free port")?;
        let balancer = Balancer::start(listen, ingests.collect()).await?;
        let (url, name) = (format!("http://{listen}"), format!("load-{run}"));
        let clients = Clients::start(installation, url, &name, rate, run.into())?;
        tokio::time::sleep(LOAD).await;
        Ok(Self { installation, places, clients, _balancer: balancer })
    }

    /// The processes that run now.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.places.iter().filter_map(|place| place.process.as_ref())
    }

    /// Replaces each process by one of a build, readers before writers, and returns the time that it took. One process at a time, but all
    /// instances of a service in `together` stop before its first new one starts.
    ///
    /// # Errors
    /// A process does not end in time, or the next one does not get ready.
    pub async fn replace_all(&mut self, build: &Build, together: &[Service]) -> anyhow::Result<Duration> {
        let started_at = Instant::now();
        let is_one_step = |a: &Place, b: &Place| a.service == b.service && together.contains(&a.service);
        for step in self.places.chunk_by_mut(is_one_step) {
            for place in &mut *step {
                place.stop().await?;
            }
            for place in step {
                place.start(build, self.installation).await?;
            }
        }
        let took = started_at.elapsed();
        tokio::time::sleep(LOAD).await;
        Ok(took)
    }

    /// The same in the reverse order, as a way back: writers before readers.
    ///
    /// # Errors
    /// As [`Running::replace_all`].
    pub async fn put_back(&mut self, build: &Build) -> anyhow::Result<Duration> {
        self.places.reverse();
        let took = self.replace_all(build, &[]).await;
        self.places.reverse();
        took
    }

    /// Ends the load, runs the audit, and stops the processes.
    ///
    /// # Errors
    /// A server is unavailable, or a process does not end in time.
    pub async fn finish(self) -> anyhow::Result<Outcome> {
        let Self { installation, mut places, clients, _balancer } = self;
        let (clients, record) = clients.stop().await?;
        let target =
            Target::new(installation.kafka().clone(), installation.cassandra().clone(), installation.database());
        let report = audit_with(&target, &[record], CATCH_UP_DEADLINE, None).await?;
        let mut findings: Vec<_> =
            report.findings.iter().map(|finding| format!("the audit found {finding:?}")).collect();
        if let Some(first) = &clients.first_error {
            findings.push(format!("clients got {} errors; the first: {first}", clients.errors));
        }
        let acknowledged = report.client.acknowledged;
        if acknowledged == 0 {
            findings.push(String::from("no command was acknowledged, so nothing was checked"));
        }
        try_join_all(places.iter_mut().map(Place::stop)).await?;
        Ok(Outcome { processes: places.len(), clients, acknowledged, findings })
    }
}
