//! The cluster: an address for each pod, the environment that a pod gets here, and the Service in front of the ingests.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use super::manifests::Manifests;
use super::pod::{Pod, PodState};
use super::workload::Workload;
use crate::faults::{Balancer, Endpoints};
use crate::harness::{Installation, Process, free_address};

/// The time until every node of a cluster sends requests according to a change of a pod.
pub(super) const PROPAGATION: Duration = Duration::from_secs(2);

/// The interval at which the pods' states are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The workload that clients reach, and its Service.
pub(super) const INGEST: &str = "ingest";

/// Where the servers are: each pod that is started must have these, and gets the local ones.
const ADDRESSES: [&str; 4] = ["KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "CASSANDRA_NODES", "DATABASE_URL"];

/// What separates this installation from others on the same servers.
const NAMES: [&str; 2] = ["TOPIC_PREFIX", "CASSANDRA_KEYSPACE"];

/// What one local server of each kind has.
const LOCAL: [(&str, &str); 3] =
    [("CASSANDRA_DATACENTER", "datacenter1"), ("TOPIC_REPLICATION", "1"), ("CASSANDRA_REPLICATION", "1")];

/// The folder of the audit's checkpoint, on a volume that outlives its pods.
const CHECKPOINT: &str = "AUDIT_CHECKPOINT";

/// Variables of secured servers and of an issuer of tokens, which the local servers are not.
const SECURED: [&str; 19] = [
    "KAFKA_SECURITY",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_USER",
    "KAFKA_PASSWORD_FILE",
    "KAFKA_CA_CERT",
    "KAFKA_CLIENT_CERT",
    "KAFKA_CLIENT_KEY",
    "CASSANDRA_USER",
    "CASSANDRA_PASSWORD_FILE",
    "CASSANDRA_CA_CERT",
    "CASSANDRA_TLS_VERIFY",
    "DATABASE_PASSWORD_FILE",
    "REGISTRY_USER",
    "REGISTRY_PASSWORD_FILE",
    "REGISTRY_CA_CERT",
    "AUTH",
    "JWKS",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
];

/// An address of a pod's port, with the pod's state.
type Endpoint = (SocketAddr, PodState);

/// When the endpoints changed, and what they are since then.
type Change = (Instant, Vec<SocketAddr>);

/// What all pods share.
#[derive(Debug)]
pub(super) struct Cluster {
    manifests: Manifests,
    installation: Installation,
    ingest_port: u16,
    ingests: Arc<Mutex<Vec<Endpoint>>>,
    address: SocketAddr,
    next: AtomicU16,
    // Its task ends with the cluster.
    _follow: JoinSet<()>,
    _balancer: Balancer,
}

impl Cluster {
    pub(super) async fn start(manifests: Manifests, installation: Installation) -> anyhow::Result<Self> {
        let ingest = manifests.workload(manifests.object(INGEST)?)?;
        let ingest_port = manifests.service_port(INGEST, &ingest)?;
        let (address, endpoints) = (free_address()?, Endpoints::default());
        let balancer = Balancer::over(address, endpoints.clone()).await?;
        let ingests = Arc::<Mutex<Vec<Endpoint>>>::default();
        let mut follow = JoinSet::new();
        follow.spawn(self::follow(ingests.clone(), endpoints));
        let next = AtomicU16::new(1);
        Ok(Self { manifests, installation, ingest_port, ingests, address, next, _follow: follow, _balancer: balancer })
    }

    pub(super) fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Ends the Service.
    pub(super) fn into_installation(self) -> Installation {
        self.installation
    }

    /// The URL of the Service of the ingests.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts the container of a pod, as the kubelet does.
    pub(super) fn start_pod(&self, workload: &Workload, name: &str) -> anyhow::Result<Pod> {
        // All of 127.0.0.0/8 is this machine, so pods can have the same ports.
        let [third, fourth] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let ip = Ipv4Addr::new(127, 77, third, fourth);
        let process = self.process(workload, name, ip)?;
        let pod = Pod::start(name, process, workload.container()?, ip)?;
        if workload.name() == INGEST {
            let mut ingests = self.ingests.lock().unwrap_or_else(PoisonError::into_inner);
            ingests.push((SocketAddr::from((ip, self.ingest_port)), pod.state()));
        }
        Ok(pod)
    }

    /// Runs a Job to its end.
    pub(super) async fn run_job(&self, job: &Workload) -> anyhow::Result<()> {
        Pod::complete(self.process(job, job.name(), Ipv4Addr::LOCALHOST)?).await
    }

    fn process(&self, workload: &Workload, name: &str, ip: Ipv4Addr) -> anyhow::Result<Process> {
        let container = workload.container()?;
        let environment = self.manifests.environment(container, name).with_context(|| format!("starting {name}"))?;
        let environment = self.here(environment, ip).with_context(|| format!("starting {name}"))?;
        Process::contained(name, &container.words(), environment, self.installation.folder(), None)
    }

    /// The pod's environment with the local servers, this installation's names and folder, and its address.
    fn here(&self, mut all: BTreeMap<String, String>, ip: Ipv4Addr) -> anyhow::Result<BTreeMap<String, String>> {
        let local: BTreeMap<_, _> = self.installation.environment().into_iter().collect();
        for name in ADDRESSES {
            let value = all.get_mut(name).with_context(|| format!("{name} is missing"))?;
            value.clone_from(local.get(name).with_context(|| format!("{name} is unknown"))?);
        }
        for name in NAMES {
            let value = local.get(name).with_context(|| format!("{name} is unknown"))?;
            all.insert(name.to_owned(), value.clone());
        }
        for (name, value) in LOCAL {
            all.entry(name.to_owned()).and_modify(|known| value.clone_into(known));
        }
        all.entry(CHECKPOINT.to_owned())
            .and_modify(|folder| *folder = self.installation.folder().join("checkpoint").display().to_string());
        all.retain(|name, _| !SECURED.contains(&name.as_str()));
        for (name, value) in &mut all {
            if let Some(port) = value.strip_prefix("0.0.0.0:") {
                *value = format!("{ip}:{port}");
            } else if *value == format!("http://{INGEST}") {
                *value = self.url();
            }
            ensure!(!value.starts_with("secret "), "{name} is a {value}, which is not known here");
        }
        Ok(all)
    }
}

/// Lets the Service send requests to the pods that were endpoints some time ago.
async fn follow(ingests: Arc<Mutex<Vec<Endpoint>>>, endpoints: Endpoints) {
    let (mut last, mut changes) = (Vec::new(), VecDeque::new());
    loop {
        let now: Vec<_> = {
            let ingests = ingests.lock().unwrap_or_else(PoisonError::into_inner);
            ingests.iter().filter(|(_, state)| state.is_endpoint()).map(|(address, _)| *address).collect()
        };
        if now != last {
            last.clone_from(&now);
            changes.push_back((Instant::now(), now));
        }
        while let Some((_, known)) = changes.pop_front_if(|change: &mut Change| change.0.elapsed() >= PROPAGATION) {
            endpoints.set(known);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
