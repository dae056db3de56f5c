//! The installation under test: two of each service, which can be ended and started again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::Load;
use crate::audit::{Vital, Vitals};
use crate::harness::{Installation, OwnServers, Process, Service, wait_until};

/// Short, so that a member that stands still is soon missed.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// The services' argument for that.
const SESSION: [&str; 2] = ["--session-timeout-ms", "3000"];

/// After a fault all must be ready again: transaction timeout (15 s), session timeout, and 30 s.
const READY_DEADLINE: Duration = Duration::from_secs(48);

/// To end by itself, on a busy machine.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// How often processes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The instances of each service.
const INSTANCES: [&str; 2] = ["0", "1"];

/// Which process.
pub(super) type Place = (Service, &'static str);

/// The installation, its servers and its processes.
#[derive(Debug)]
pub struct Field {
    installation: Installation,
    processes: BTreeMap<String, Process>,
    vitals: Vitals,
    // Dropped last.
    pub(super) servers: OwnServers,
}

pub(super) fn services() -> impl Iterator<Item = Service> {
    [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS)
}

pub(super) fn places() -> impl Iterator<Item = Place> {
    services().flat_map(|service| INSTANCES.map(|instance| (service, instance)))
}

fn name((service, instance): Place) -> String {
    format!("{}-{instance}", service.name())
}

fn args(service: Service) -> &'static [&'static str] {
    match service {
        Service::Ingest => &["--allow-client-time"],
        Service::CartProcessor | Service::Projector(_) => &SESSION,
    }
}

impl Field {
    pub(super) async fn open(name: &str, servers: OwnServers) -> anyhow::Result<Self> {
        let installation = Installation::on(name, &servers)?;
        installation.setup().await?;
        let vitals = Vitals::start(LOOK_INTERVAL);
        let mut field = Self { installation, processes: BTreeMap::new(), vitals, servers };
        for place in places() {
            field.start(place)?;
        }
        field.all_ready().await?;
        Ok(field)
    }

    /// What it is an installation of.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(super) fn start(&mut self, place: Place) -> anyhow::Result<()> {
        let process = self.installation.start(place.0, place.1, args(place.0))?;
        self.keep(place, process);
        Ok(())
    }

    /// Starts one that is to end at a fail point.
    pub(super) fn start_to_crash(&mut self, place: Place, fail_point: &str) -> anyhow::Result<()> {
        let process = self.installation.start_to_crash(place.0, place.1, args(place.0), fail_point)?;
        self.keep(place, process);
        Ok(())
    }

    fn keep(&mut self, place: Place, process: Process) {
        self.vitals.add(&name(place), process.id(), process.address());
        self.processes.insert(name(place), process);
    }

    pub(super) fn process(&mut self, place: Place) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(&name(place)).with_context(|| format!("{} does not run", name(place)))
    }

    /// Ends one by SIGTERM; it must end well.
    pub(super) async fn terminate(&mut self, place: Place) -> anyhow::Result<()> {
        self.process(place)?.terminate(END_DEADLINE).await
    }

    /// Waits until all say that they are ready.
    pub(super) async fn all_ready(&mut self) -> anyhow::Result<()> {
        for process in self.processes.values_mut() {
            process.ready(READY_DEADLINE).await?;
        }
        // At the same time, as the next look will say.
        let vitals = &self.vitals;
        wait_until("all services to be ready", READY_DEADLINE, async || match vitals.unready() {
            unready if unready.is_empty() => Ok(()),
            unready => Err(format!("not ready: {}", unready.join(", "))),
        })
        .await
    }

    /// Starts to send commands: a shop of its own for each round, on the same carts.
    pub(super) fn replay(&self, round: usize, load: &Load) -> anyhow::Result<(Process, PathBuf)> {
        let address = |instance| self.processes.get(&name((Service::Ingest, instance))).and_then(Process::address);
        let urls: Vec<_> = INSTANCES.into_iter().filter_map(address).map(|at| format!("http://{at}")).collect();
        let record = self.installation.folder().join(format!("record-{round}.jsonl.gz"));
        let (commands, rate, seed) = (load.commands.to_string(), load.rate.to_string(), (round + 1).to_string());
        let (urls, record_text, run) = (urls.join(","), record.display().to_string(), format!("round-{round}"));
        let args = [
            ("--url", urls.as_str()),
            ("--commands", &commands),
            ("--rate", &rate),
            ("--seed", &seed),
            ("--run-id", &run),
            ("--record", &record_text),
            ("--members", "200"),
            ("--hot-carts", "3"),
            ("--hot-share", "0.2"),
            ("--retry-for", "60s"),
            ("--answer-timeout", "10s"),
        ];
        let args = args.into_iter().flat_map(|(name, value)| [name, value]);
        Ok((self.installation.spawn(&format!("replay-{round}"), "replay", args)?, record))
    }

    pub(super) fn vitals(&self) -> BTreeMap<String, Vital> {
        self.vitals.report()
    }

    /// Ends everything; each must end well.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        for (name, mut process) in std::mem::take(&mut self.processes) {
            process.terminate(END_DEADLINE).await.with_context(|| format!("ending {name}"))?;
        }
        std::fs::remove_dir_all(self.installation.folder()).context("removing the logs")
    }
}
