//! Plays the controllers and the kubelet on the manifests of `scripts/kubernetes`, under load, against the local servers: a probe, a
//! grace period or a strategy that is wrong fails here before it meets a cluster. The binary of that name;
//! `scripts/kubernetes/rollout-test` starts it.
//!
//! ```text
//! manifests ─▶ Job setup ─▶ pods: their commands, environments and probes ─▶ all are available
//!                             │
//!   replay, readers ─▶ Service of the ingests ─▶ ready pods      meanwhile: a rolling update of everything
//! at the end: audit
//! ```
//!
//! * `manifests`, `workload`, `fields`: what is read of them.
//! * `pod`: the kubelet. A pod has an address of its own (127.77.0.0/16) and the ports that the manifests say. A container that the
//!   kubelet would restart is a finding, and so is one that would count as ready before its service does.
//! * `replicas`: the controllers of Deployments and StatefulSets.
//! * `cluster`: the Service, which learns of a change of a pod after 2 s; the local servers in place of those of the overlay.
//! * `mistakes`: manifests that must lead to a finding.
//!
//! Not played: the scheduler, images, security contexts, volumes, network policies, memory limits, disruption budgets.

mod cluster;
mod fields;
mod load;
mod manifests;
mod mistakes;
mod pod;
mod replicas;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cartctl::audit::{Target, audit_with};
use futures::future::{join_all, try_join_all};
use serde_json::Value;

use crate::faults::ClientOutcomes;
use crate::harness::Installation;
use cluster::{Cluster, INGEST, PROPAGATION};
use replicas::{Problems, Replicas};

pub(crate) use load::Clients;
pub use manifests::Manifests;
pub use mistakes::{MISTAKES, Mistake};

/// Load before an update.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long all consumers may take to catch up.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

/// The result of an update of everything.
#[derive(Debug)]
pub struct Summary {
    pub pods: usize,
    pub update_took: Duration,
    pub clients: ClientOutcomes,
    /// The number of commands that the audit has seen acknowledged.
    pub acknowledged: u64,
    /// Empty if everything is right.
    pub findings: Vec<String>,
}

/// A running system, as an overlay describes it.
#[derive(Debug)]
pub struct System {
    // The pods end before the Service.
    workloads: Vec<Replicas>,
    cluster: Cluster,
    records: Vec<PathBuf>,
    rate: u32,
}

impl System {
    /// Runs the Job, and starts all pods. They are given up if one does not become available.
    ///
    /// # Errors
    /// A server is unavailable, or a manifest is not understood, or a pod does not become available.
    pub async fn start(manifests: Manifests, rate: u32) -> anyhow::Result<Self> {
        let installation = Installation::new("rollout")?;
        let jobs = manifests.workloads("Job")?;
        let mut workloads = manifests.workloads("StatefulSet")?;
        workloads.extend(manifests.workloads("Deployment")?);
        let cluster = Cluster::start(manifests, installation).await?;
        for job in &jobs {
            cluster.run_job(job).await?;
        }
        let workloads = workloads.into_iter().map(Replicas::of).collect();
        let mut system = Self { workloads, cluster, records: Vec::new(), rate };
        let problems = try_join_all(system.workloads.iter_mut().map(|each| each.start(&system.cluster))).await?;
        let problems = problems.concat();
        ensure!(problems.is_empty(), "the system does not start: {}", problems.join("; "));
        Ok(system)
    }

    /// Replaces all pods at the same time, as `kubectl apply` of a new image does, under load; then runs the audit.
    ///
    /// # Errors
    /// A server is unavailable. What is wrong with the manifests is a finding.
    pub async fn update(&mut self) -> anyhow::Result<Summary> {
        let clients = self.load("update").await?;
        let started_at = std::time::Instant::now();
        let cluster = &self.cluster;
        let problems = try_join_all(self.workloads.iter_mut().map(|each| each.update(cluster))).await?;
        let update_took = started_at.elapsed();
        let mut findings = problems.concat();
        findings.extend(self.watched().await?);
        let clients = self.outcomes(clients, &mut findings).await?;
        let installation = self.cluster.installation();
        let target =
            Target::new(installation.kafka().clone(), installation.cassandra().clone(), installation.database());
        let report = audit_with(&target, &self.records, CATCH_UP_DEADLINE, None).await?;
        findings.extend(report.findings.iter().map(|finding| format!("the audit found {finding:?}")));
        let acknowledged = report.client.acknowledged;
        if acknowledged == 0 {
            findings.push(String::from("no command was acknowledged, so nothing was checked"));
        }
        let pods = self.workloads.iter().map(Replicas::len).sum();
        Ok(Summary { pods, update_took, clients, acknowledged, findings })
    }

    /// Starts the pods of one workload with a mistake in it, and replaces them under load. Returns the findings.
    ///
    /// # Errors
    /// A server is unavailable.
    pub async fn make(&mut self, mistake: &Mistake) -> anyhow::Result<Vec<String>> {
        self.replace(mistake.workload, |object| mistake.make(object)).await
    }

    /// Does the same without a mistake: there must be no findings, or those of mistakes would prove nothing.
    ///
    /// # Errors
    /// A server is unavailable.
    pub async fn make_none(&mut self) -> anyhow::Result<Vec<String>> {
        self.replace(INGEST, Value::clone).await
    }

    async fn replace(&mut self, workload: &str, change: impl Fn(&Value) -> Value) -> anyhow::Result<Vec<String>> {
        let index = self.workloads.iter().position(|each| each.name() == workload);
        let index = index.with_context(|| format!("there is no workload {workload}"))?;
        let manifests = self.cluster.manifests();
        let object = manifests.object(workload)?;
        let (right, changed) = (manifests.workload(object)?, manifests.workload(&change(object))?);
        let mut findings = self.workloads[index].replace(&self.cluster, changed).await?;
        if findings.is_empty() {
            let clients = self.load(&format!("mistake-{}", self.records.len())).await?;
            findings.extend(self.workloads[index].update(&self.cluster).await?);
            self.outcomes(clients, &mut findings).await?;
            if findings.is_empty() {
                let time = self.workloads[index].liveness_fails_within()?;
                findings.extend(self.workloads[index].watch(time).await);
            }
        }
        let problems = self.workloads[index].replace(&self.cluster, right).await?;
        ensure!(problems.is_empty(), "with the right manifest: {}", problems.join("; "));
        Ok(findings)
    }

    /// Ends all pods, and removes what the system has made.
    ///
    /// # Errors
    /// A pod does not end in time, or a server is unavailable.
    pub async fn remove(mut self) -> anyhow::Result<()> {
        let problems = try_join_all(self.workloads.iter_mut().map(Replicas::end)).await?.concat();
        ensure!(problems.is_empty(), "at the end: {}", problems.join("; "));
        self.cluster.into_installation().remove().await
    }

    /// Starts the clients, once the Service knows the pods.
    async fn load(&mut self, name: &str) -> anyhow::Result<Clients> {
        tokio::time::sleep(2 * PROPAGATION).await;
        let seed = self.records.len() as u64 + 1;
        let clients = Clients::start(self.cluster.installation(), self.cluster.url(), name, self.rate, seed)?;
        tokio::time::sleep(WARM_UP).await;
        Ok(clients)
    }

    /// Watches all pods until a liveness probe that is wrong has failed.
    async fn watched(&self) -> anyhow::Result<Problems> {
        let times = self.workloads.iter().map(Replicas::liveness_fails_within).collect::<anyhow::Result<Vec<_>>>()?;
        let time = times.into_iter().max().unwrap_or_default();
        Ok(join_all(self.workloads.iter().map(|each| each.watch(time))).await.concat())
    }

    async fn outcomes(&mut self, clients: Clients, findings: &mut Vec<String>) -> anyhow::Result<ClientOutcomes> {
        let (outcomes, record) = clients.stop().await?;
        self.records.push(record);
        if let Some(first) = &outcomes.first_error {
            findings.push(format!("clients got {} errors; the first: {first}", outcomes.errors));
        }
        Ok(outcomes)
    }
}
