//! The installation under test: two instances of each service, which can be stopped and restarted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::Generation;
use cart::contract::{READ_MODELS, ReadModel};

use super::balancer::Balancer;
use super::client_outcomes::ClientOutcomes;
use super::plan::Load;
use super::process_monitor::{Observed, ProcessMonitor};
use super::proxy::{Protocol, Proxy};
use super::readers::Readers;
use crate::harness::{Installation, OwnServers, Process, Server, Service, wait_until};

/// Short, so that a stopped member is soon removed from its group.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// The services' argument for it.
pub(super) const SESSION: [&str; 2] = ["--session-timeout-ms", "3000"];

/// How long services may take to be ready after a fault: transaction timeout (15 s), session timeout, and 30 s.
const READY_DEADLINE: Duration = Duration::from_secs(48);

/// How long a service may take to report that a server is unavailable.
const UNREADY_DEADLINE: Duration = Duration::from_secs(45);

/// The clients' timeout of a request; in a cluster longer than that of ingest.
const ANSWER_TIMEOUT: &str = "10s";
const CLUSTER_ANSWER_TIMEOUT: &str = "75s";

/// How long a client retries a command. Longer than any fault, so that each command gets its answer.
const RETRY_FOR: &str = "180s";

/// How long a replay may take to end, with the retries of the commands in flight.
const REPLAY_END_DEADLINE: Duration = Duration::from_secs(240);

/// More commands than are sent in any round; a replay is interrupted at the end of its round.
const COMMANDS_MAX: &str = "10000000";

/// The exit code of an interrupted replay with an answer to every command.
const INTERRUPTED: i32 = 130;

/// The ports of the balancer and of the first ingest, relative to the servers' ports. A restarted ingest has the same port.
const BALANCER_PORT: u16 = 9001;
const INGEST_PORT: u16 = 9002;

/// The timeout of an orderly end, on a busy machine.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// The interval of the process monitor.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The permanent instances of each service.
pub(super) const INSTANCES: [&str; 2] = ["0", "1"];

/// A service and its instance.
pub(super) type Place = (Service, &'static str);

/// The installation, its servers and its processes.
#[derive(Debug)]
pub struct FaultEnvironment {
    installation: Installation,
    processes: BTreeMap<String, Process>,
    /// The generations that the permanent projectors keep, by read model, where that is not the first one.
    generations: BTreeMap<&'static str, Generation>,
    monitor: ProcessMonitor,
    proxies: Vec<(Server, Proxy)>,
    _balancer: Balancer,
    // Dropped last.
    pub(super) servers: OwnServers,
}

pub(super) fn services() -> impl Iterator<Item = Service> {
    [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS)
}

pub(super) fn places() -> impl Iterator<Item = Place> {
    services().flat_map(|service| INSTANCES.map(|instance| (service, instance)))
}

/// The instances of a service.
pub(super) fn instances_of(service: &str) -> Vec<Place> {
    places().filter(|(known, _)| known.name() == service).collect()
}

fn name((service, instance): Place) -> String {
    format!("{}-{instance}", service.name())
}

fn address((service, instance): Place) -> Option<SocketAddr> {
    let number = instance.parse::<u16>().unwrap_or_default();
    (service == Service::Ingest).then(|| OwnServers::port_beside(INGEST_PORT + number))
}

fn ingests() -> impl Iterator<Item = SocketAddr> {
    INSTANCES.iter().filter_map(|instance| address((Service::Ingest, *instance)))
}

async fn proxies() -> anyhow::Result<Vec<(Server, Proxy)>> {
    let mut proxies = Vec::new();
    for server in Server::ALL {
        let protocol = match server {
            Server::Kafka => Protocol::Kafka,
            Server::Postgres => Protocol::Postgres,
            Server::Cassandra | Server::Registry => Protocol::Other,
        };
        let (listen, behind) = server.proxied();
        let proxy = Proxy::start(listen, behind, protocol).await;
        proxies.push((server, proxy.with_context(|| format!("listening for {server} at {listen}"))?));
    }
    Ok(proxies)
}

/// The arguments of a service; those of a projector of a later generation name it.
fn args(service: Service, is_cluster: bool, generation: Generation) -> Vec<String> {
    let args: &[&str] = match (service, is_cluster) {
        (Service::Ingest | Service::LimitedIngest, false) => &["--allow-client-time"],
        // Much longer than a cluster takes to elect new leaders, also on a busy machine. The summary reports how long clients
        // waited.
        (Service::Ingest | Service::LimitedIngest, true) => &["--allow-client-time", "--reply-timeout-ms=60000"],
        (Service::CartProcessor | Service::Projector(_), false) => &SESSION,
        // Only servers die: the default session timeout is longer than the change of a group's coordinator.
        (Service::CartProcessor | Service::Projector(_), true) => &[],
    };
    let number = (generation != Generation::FIRST).then(|| format!("--generation={generation}"));
    args.iter().map(|arg| (*arg).to_owned()).chain(number).collect()
}

/// A running `replay`, with its files.
#[derive(Debug)]
pub(super) struct Replay {
    process: Process,
    pub(super) record: PathBuf,
    result: PathBuf,
    /// In a cluster, where all reads have to succeed.
    readers: Option<Readers>,
}

impl FaultEnvironment {
    pub(super) async fn open(name: &str, servers: OwnServers) -> anyhow::Result<Self> {
        let mut installation = Installation::on(name, &servers)?;
        let mut proxies = Vec::new();
        if !servers.is_cluster() {
            proxies = self::proxies().await?;
            installation = installation.through(OwnServers::proxied_addresses())?;
        }
        installation.setup().await?;
        let monitor = ProcessMonitor::start(LOOK_INTERVAL);
        let balancer = Balancer::start(OwnServers::port_beside(BALANCER_PORT), ingests().collect()).await?;
        let mut environment = Self {
            installation,
            processes: BTreeMap::new(),
            generations: BTreeMap::new(),
            monitor,
            proxies,
            _balancer: balancer,
            servers,
        };
        for place in places() {
            environment.start(place)?;
        }
        environment.all_ready().await?;
        Ok(environment)
    }

    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(super) fn start(&mut self, place: Place) -> anyhow::Result<()> {
        self.start_beside(place, self.generation(place.0.name()))
    }

    /// Starts a projector of another generation than that of the permanent projectors.
    pub(super) fn start_beside(&mut self, place: Place, generation: Generation) -> anyhow::Result<()> {
        let process = self.spawn(place, generation, address(place), None)?;
        self.keep(place, process);
        Ok(())
    }

    /// Starts a process with fail points.
    pub(super) fn start_with(&mut self, place: Place, fail_points: &str) -> anyhow::Result<()> {
        let generation = self.generation(place.0.name());
        let process = self.spawn(place, generation, address(place), Some(fail_points))?;
        self.keep(place, process);
        Ok(())
    }

    /// Starts a second process with the same name, and returns it.
    pub(super) fn start_twin(&self, place: Place) -> anyhow::Result<Process> {
        self.spawn(place, self.generation(place.0.name()), None, None)
    }

    fn spawn(
        &self,
        place: Place,
        generation: Generation,
        address: Option<SocketAddr>,
        fail_points: Option<&str>,
    ) -> anyhow::Result<Process> {
        let args = args(place.0, self.servers.is_cluster(), generation);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.installation.start_at(place.0, place.1, &args, address, fail_points)
    }

    /// The generation that the permanent projectors of a service keep.
    pub(super) fn generation(&self, service: &str) -> Generation {
        self.generations.get(service).copied().unwrap_or(Generation::FIRST)
    }

    /// Lets the permanent projectors of a read model keep a generation from their next start on.
    pub(super) fn set_generation(&mut self, model: ReadModel, generation: Generation) {
        self.generations.insert(model.group, generation);
    }

    /// The consumer group of the permanent instances of a service.
    pub(super) fn group(&self, service: &str) -> String {
        let model = READ_MODELS.iter().find(|model| model.group == service);
        model.map_or_else(|| service.to_owned(), |model| model.group_name(self.generation(service)))
    }

    /// Stops a process for good, in an orderly way.
    pub(super) async fn dismiss(&mut self, place: Place) -> anyhow::Result<()> {
        self.monitor.remove(&name(place));
        let process = self.processes.remove(&name(place));
        process.with_context(|| format!("{} does not run", name(place)))?.terminate(END_DEADLINE).await
    }

    /// The link between the services and a server.
    pub(super) fn link(&self, server: Server) -> anyhow::Result<&Proxy> {
        let proxy = self.proxies.iter().find(|(known, _)| *known == server).map(|(_, proxy)| proxy);
        proxy.with_context(|| format!("there is no proxy for {server}"))
    }

    /// Waits until an instance of the service is not ready.
    pub(super) async fn unready(&self, service: &str) -> anyhow::Result<()> {
        let monitor = &self.monitor;
        wait_until(&format!("{service} to say that it is not ready"), UNREADY_DEADLINE, async || {
            let unready = monitor.unready();
            let is_one = |name: &String| name.rsplit_once('-').is_some_and(|(known, _)| known == service);
            if unready.iter().any(is_one) { Ok(()) } else { Err(format!("not ready: {}", unready.join(", "))) }
        })
        .await
    }

    fn keep(&mut self, place: Place, process: Process) {
        self.monitor.add(&name(place), process.id(), process.address());
        self.processes.insert(name(place), process);
    }

    pub(super) fn process(&mut self, place: Place) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(&name(place)).with_context(|| format!("{} does not run", name(place)))
    }

    /// Stops a process by SIGTERM. Fails unless it ends with exit code 0.
    pub(super) async fn terminate(&mut self, place: Place) -> anyhow::Result<()> {
        self.process(place)?.terminate(END_DEADLINE).await
    }

    /// Waits until all processes are ready.
    pub(super) async fn all_ready(&mut self) -> anyhow::Result<()> {
        for process in self.processes.values_mut() {
            process.ready(READY_DEADLINE).await?;
        }
        // All at the same time, according to the next check.
        let monitor = &self.monitor;
        wait_until("all services to be ready", READY_DEADLINE, async || match monitor.unready() {
            unready if unready.is_empty() => Ok(()),
            unready => Err(format!("not ready: {}", unready.join(", "))),
        })
        .await
    }

    /// Starts to send commands until [`FaultEnvironment::end_replay`]. Each round has another shop, on the same carts.
    pub(super) fn replay(&self, round: usize, load: &Load) -> anyhow::Result<Replay> {
        let url = format!("http://{}", OwnServers::port_beside(BALANCER_PORT));
        let record = self.installation.folder().join(format!("record-{round}.jsonl.gz"));
        let result = self.installation.folder().join(format!("result-{round}.json"));
        let answer_timeout = if self.servers.is_cluster() { CLUSTER_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        let (rate, seed) = (load.rate.to_string(), (round + 1).to_string());
        let (record_text, run) = (record.display().to_string(), format!("round-{round}"));
        let result_text = result.display().to_string();
        let args = [
            ("--url", url.as_str()),
            ("--commands", COMMANDS_MAX),
            ("--rate", &rate),
            ("--seed", &seed),
            ("--run-id", &run),
            ("--record", &record_text),
            ("--json", &result_text),
            ("--members", "200"),
            ("--hot-carts", "3"),
            ("--hot-share", "0.2"),
            ("--retry-for", RETRY_FOR),
            ("--drain-for", RETRY_FOR),
            ("--answer-timeout", answer_timeout),
        ];
        let args = args.into_iter().flat_map(|(name, value)| [name, value]);
        let process = self.installation.spawn(&format!("replay-{round}"), "replay", args)?;
        let readers = self.servers.is_cluster().then(Self::readers).transpose()?;
        Ok(Replay { process, record, result, readers })
    }

    /// Starts to read carts, bills and sold quantities of each ingest.
    pub(super) fn readers() -> anyhow::Result<Readers> {
        Readers::start(ingests().map(|at| format!("http://{at}")).collect())
    }

    /// Stops the replay, and waits until all its commands have answers. Returns what clients got.
    ///
    /// # Errors
    /// A command has no answer, or the replay had ended before, so that a fault met no load.
    pub(super) async fn end_replay(&self, replay: Replay) -> anyhow::Result<ClientOutcomes> {
        let Replay { mut process, record, result, readers } = replay;
        process.interrupt().context("the replay has ended too early")?;
        let status = process.ended(REPLAY_END_DEADLINE).await?;
        ensure!(status.code() == Some(INTERRUPTED), "the replay ended with {status}: {}", process.log());
        let mut outcomes = ClientOutcomes::read(&record, &result)?;
        outcomes.add(readers.map(Readers::stop).unwrap_or_default());
        Ok(outcomes)
    }

    pub(super) fn observed(&self) -> BTreeMap<String, Observed> {
        self.monitor.report()
    }

    /// Stops all processes. Fails unless each ends with exit code 0.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        for (name, mut process) in std::mem::take(&mut self.processes) {
            process.terminate(END_DEADLINE).await.with_context(|| format!("ending {name}"))?;
        }
        std::fs::remove_dir_all(self.installation.folder()).context("removing the logs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_generation_is_named() {
        let projector = Service::Projector(READ_MODELS[0].group);
        assert_eq!(args(projector, false, Generation::FIRST), SESSION);
        let second = Generation::FIRST.next().expect("a second one");
        assert_eq!(args(projector, false, second), [&SESSION[..], &["--generation=2"]].concat());
        assert_eq!(args(Service::CartProcessor, true, Generation::FIRST), [] as [&str; 0]);
    }
}
