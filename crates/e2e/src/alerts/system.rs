//! The system that is watched.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use uuid::Uuid;

use super::certificate::Certificate;
use super::prometheus::Target;
use crate::harness::{Installation, Process, Service, free_address};

const READY_DEADLINE: Duration = Duration::from_secs(120);

/// Commands per second during the whole run.
const RATE: &str = "40";

/// A whole system, with what faults need of it.
#[derive(Debug)]
pub(super) struct System {
    pub(super) installation: Installation,
    pub(super) certificate: Certificate,
    /// The address of the ingest that the load is sent to.
    pub(super) ingest: SocketAddr,
    /// An ingest that takes one command at a time, and whose handler panics for [`System::panicking`].
    pub(super) limited: SocketAddr,
    pub(super) panicking: Uuid,
    pub(super) popular_items: Process,
    others: Vec<Process>,
}

impl System {
    /// Ends it, and removes what it has made.
    pub(super) async fn remove(self) -> anyhow::Result<()> {
        drop((self.popular_items, self.others));
        self.installation.remove().await
    }
}

/// Starts everything; what Prometheus is to read comes with it.
pub(super) async fn start() -> anyhow::Result<(System, Vec<Target>)> {
    let installation = Installation::new("alerts")?;
    installation.setup().await?;
    let certificate = Certificate::make(installation.folder())?;
    let paths = certificate.paths();
    let tls = ["--tls-cert", &paths[0], "--tls-key", &paths[1]];
    let ingest = ["--allow-client-time", "--reply-timeout-ms", "30000"];
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::Ingest, "a", &ingest), (Service::CartProcessor, "a", &[])];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "a", &[][..])));
    let mut processes = installation.start_all(&services).await?;
    let mut targets: Vec<Target> = Vec::new();
    for ((service, ..), process) in services.iter().zip(&processes) {
        targets.push(Target { component: service.name().to_owned(), address: process.metrics_address()? });
    }
    let ingest = processes[0].address().context("it has an address")?;
    let url = format!("http://{ingest}");
    let panicking = Uuid::new_v4();
    let (few, panics) = (["--commands-in-flight-max", "1"], format!("handler-panics=return({panicking})"));
    let mut with_limits = installation.start_to_crash(Service::LimitedIngest, "limited", &few, &panics)?;
    with_limits.ready(READY_DEADLINE).await?;
    let limited = with_limits.address().context("it has an address")?;
    let with_tls = installation.start(Service::Ingest, "tls", &tls)?;
    for process in [&with_limits, &with_tls] {
        targets.push(Target { component: String::from("ingest"), address: process.metrics_address()? });
    }
    let address = free_address()?;
    let listen = address.to_string();
    let args = ["audit", "--watch", "--interval-s", "1", "--timeout-s", "10", "--admin-listen", &listen];
    let mut audit = installation.spawn_listening("audit-watch", "cartctl", args, address)?;
    audit.ready(READY_DEADLINE).await?;
    targets.push(Target { component: String::from("audit"), address });
    let replay = ["--url", &url, "--rate", RATE, "--commands", "100000", "--members", "200", "--vendors", "20"];
    let load = installation.spawn("replay", "replay", replay)?;
    let index =
        services.iter().position(|(service, ..)| service.name() == "popular-items").context("it was started")?;
    let popular_items = processes.remove(index);
    processes.extend([with_limits, with_tls, audit, load]);
    let system = System { installation, certificate, ingest, limited, panicking, popular_items, others: processes };
    Ok((system, targets))
}
