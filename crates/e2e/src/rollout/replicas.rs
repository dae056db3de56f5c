//! The pods of a workload, and what its controller does: starts them, and replaces them in a rolling update.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::pod::Pod;
use super::workload::{Kind, Probe, Workload};

/// The interval at which a controller looks at its pods.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The pods of a Deployment or a StatefulSet.
#[derive(Debug)]
pub(super) struct Replicas {
    workload: Workload,
    pods: Vec<Pod>,
    /// How many pods were ever started.
    started: usize,
}

/// What is wrong, in the words of an operator; empty if nothing is.
pub(super) type Problems = Vec<String>;

impl Replicas {
    pub(super) fn of(workload: Workload) -> Self {
        Self { workload, pods: Vec::new(), started: 0 }
    }

    pub(super) fn name(&self) -> &str {
        self.workload.name()
    }

    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// Kills all pods, and starts those of `workload`; returns when they are available.
    pub(super) async fn replace(&mut self, cluster: &Cluster, workload: Workload) -> anyhow::Result<Problems> {
        self.pods.clear();
        self.workload = workload;
        self.start(cluster).await
    }

    /// Starts all pods; returns when they are available.
    pub(super) async fn start(&mut self, cluster: &Cluster) -> anyhow::Result<Problems> {
        for ordinal in 0..self.workload.replicas() {
            let pod = self.new_pod(cluster, ordinal)?;
            self.pods.push(pod);
        }
        self.available().await
    }

    fn new_pod(&mut self, cluster: &Cluster, ordinal: usize) -> anyhow::Result<Pod> {
        self.started += 1;
        let suffix = match self.workload.kind {
            Kind::StatefulSet => ordinal.to_string(),
            Kind::Deployment | Kind::Job => format!("pod{}", self.started),
        };
        cluster.start_pod(&self.workload, &format!("{}-{suffix}", self.name()))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(self.workload.min_ready())
    }

    /// Waits until all pods are available, or one fails, or nothing happens for too long.
    async fn available(&self) -> anyhow::Result<Problems> {
        let deadline = Instant::now() + self.workload.progress_deadline();
        loop {
            let problems = self.failures(&[]);
            if !problems.is_empty() || self.pods.iter().all(|pod| self.is_available(pod)) {
                return Ok(problems);
            }
            if Instant::now() >= deadline {
                return Ok(vec![self.no_progress()]);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn no_progress(&self) -> String {
        let available = self.pods.iter().filter(|pod| self.is_available(pod)).count();
        format!(
            "{} made no progress in {} s: {available} of {} new pods are available",
            self.name(),
            self.workload.progress_deadline().as_secs(),
            self.workload.replicas()
        )
    }

    /// Why the kubelet would restart a pod, or why one must not count as ready.
    fn failures(&self, others: &[Pod]) -> Problems {
        self.pods.iter().chain(others).filter_map(Pod::failure).collect()
    }

    /// Replaces all pods by new ones, as after a change of the template.
    pub(super) async fn update(&mut self, cluster: &Cluster) -> anyhow::Result<Problems> {
        match self.workload.kind {
            Kind::StatefulSet => self.update_in_order(cluster).await,
            Kind::Deployment | Kind::Job => self.update_with_surge(cluster).await,
        }
    }

    /// A StatefulSet: the last pod first, and the next one when its successor is available.
    async fn update_in_order(&mut self, cluster: &Cluster) -> anyhow::Result<Problems> {
        let mut problems = Problems::new();
        for ordinal in (0..self.pods.len()).rev() {
            problems.extend(self.pods.remove(ordinal).end(self.workload.grace()).await?);
            let pod = self.new_pod(cluster, ordinal)?;
            self.pods.insert(ordinal, pod);
            problems.extend(self.available().await?);
            if !problems.is_empty() {
                break;
            }
        }
        Ok(problems)
    }

    /// A Deployment: at most `maxSurge` pods more than its replicas, and at most `maxUnavailable` fewer that are available. Pods that
    /// end do not count.
    async fn update_with_surge(&mut self, cluster: &Cluster) -> anyhow::Result<Problems> {
        let (surge, unavailable) = self.workload.surge_and_unavailable()?;
        let (replicas, grace) = (self.workload.replicas(), self.workload.grace());
        let mut old = std::mem::take(&mut self.pods);
        let mut ending = FuturesUnordered::new();
        let mut problems = Problems::new();
        let mut deadline = Instant::now() + self.workload.progress_deadline();
        let mut last = (old.len(), 0);
        while problems.is_empty() {
            let available = old.iter().chain(&self.pods).filter(|pod| self.is_available(pod)).count();
            let spare = (available + unavailable).saturating_sub(replicas);
            let next =
                old.iter().position(|pod| !self.is_available(pod)).or((spare > 0 && !old.is_empty()).then_some(0));
            if let Some(index) = next {
                ending.push(old.remove(index).end(grace));
            }
            while self.pods.len() < replicas && self.pods.len() + old.len() < replicas + surge {
                let pod = self.new_pod(cluster, self.pods.len())?;
                self.pods.push(pod);
            }
            problems.extend(self.failures(&old));
            let done = self.pods.iter().filter(|pod| self.is_available(pod)).count();
            if old.is_empty() && done == replicas {
                break;
            }
            if (old.len(), done) != last {
                last = (old.len(), done);
                deadline = Instant::now() + self.workload.progress_deadline();
            } else if Instant::now() >= deadline {
                problems.push(self.no_progress());
            }
            tokio::select! {
                () = sleep(LOOK_INTERVAL) => {}
                Some(ended) = ending.next() => problems.extend(ended?),
            }
        }
        // They serve on where the update has failed.
        self.pods.extend(old);
        while let Some(ended) = ending.next().await {
            problems.extend(ended?);
        }
        Ok(problems)
    }

    /// How long a container that is alive no more runs until its liveness probe has failed.
    pub(super) fn liveness_fails_within(&self) -> anyhow::Result<Duration> {
        Ok(self.workload.container()?.liveness_probe.as_ref().map(Probe::fails_within).unwrap_or_default())
    }

    /// Watches the pods for a while.
    pub(super) async fn watch(&self, time: Duration) -> Problems {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let problems = self.failures(&[]);
            if !problems.is_empty() {
                return problems;
            }
            sleep(LOOK_INTERVAL).await;
        }
        let unready = self.pods.iter().filter(|pod| !self.is_available(pod)).count();
        if unready == 0 { Vec::new() } else { vec![format!("{unready} pods of {} are not ready", self.name())] }
    }

    /// Ends all pods.
    pub(super) async fn end(&mut self) -> anyhow::Result<Problems> {
        let grace = self.workload.grace();
        let ended = join_all(std::mem::take(&mut self.pods).into_iter().map(|pod| pod.end(grace))).await;
        let ended = ended.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok(ended.into_iter().flatten().collect())
    }
}
