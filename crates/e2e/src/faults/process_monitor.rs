//! Monitors the memory and the readiness of processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinHandle;

/// The timeout of a health check: a paused process does not answer.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);

/// A check that is this late is logged, because the whole machine was slow.
const LATE: Duration = Duration::from_secs(1);

/// The observations of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Observed {
    /// The number of checks.
    pub(super) samples: u64,
    /// Its resident memory at the last check, in KiB.
    pub(super) rss_kib: u64,
    /// Its maximum resident memory, in KiB.
    pub(super) rss_max_kib: u64,
    /// Whether it was ready at the last check.
    pub(super) is_ready: bool,
    /// The longest time without readiness, with the resolution of the checks.
    pub(super) not_ready_longest_ms: u64,
}

#[derive(Debug)]
struct Watched {
    pid: u32,
    address: Option<SocketAddr>,
    ready_at: Instant,
    /// False after its end for good.
    is_running: bool,
    observed: Observed,
}

type Shared = Arc<Mutex<BTreeMap<String, Watched>>>;

/// Checks processes periodically, until it is dropped.
#[derive(Debug)]
pub(super) struct ProcessMonitor {
    processes: Shared,
    task: JoinHandle<()>,
}

impl ProcessMonitor {
    /// Starts to check at this interval.
    #[must_use]
    pub(super) fn start(interval: Duration) -> Self {
        let processes = Shared::default();
        let task = tokio::spawn(look_all(processes.clone(), interval));
        Self { processes, task }
    }

    /// Adds a process. It replaces one of the same name, and keeps its observations. With an `address`, its readiness is
    /// checked there.
    pub(super) fn add(&self, name: &str, pid: u32, address: Option<SocketAddr>) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = processes.entry(name.to_owned()).or_insert_with(|| Watched {
            pid,
            address,
            ready_at: Instant::now(),
            is_running: true,
            observed: Observed::default(),
        });
        if !watched.is_running {
            (watched.ready_at, watched.observed.is_ready) = (Instant::now(), false);
        }
        (watched.pid, watched.address, watched.is_running) = (pid, address, true);
    }

    /// Ends the checks of a process. Its observations are reported nevertheless.
    pub(super) fn remove(&self, name: &str) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = processes.get_mut(name) {
            watched.is_running = false;
        }
    }

    /// The observations by name.
    #[must_use]
    pub(super) fn report(&self) -> BTreeMap<String, Observed> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.iter().map(|(name, watched)| (name.clone(), watched.observed.clone())).collect()
    }

    /// The processes that were not ready at the last check.
    #[must_use]
    pub(super) fn unready(&self) -> Vec<String> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unready =
            |watched: &Watched| watched.is_running && watched.address.is_some() && !watched.observed.is_ready;
        let unready = processes.iter().filter(|(_, watched)| is_unready(watched));
        unready.map(|(name, _)| name.clone()).collect()
    }
}

impl Drop for ProcessMonitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look_all(processes: Shared, interval: Duration) {
    // Without a client, no process counts as ready.
    let client = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).no_proxy().build().ok();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = Instant::now() + interval;
        ticks.tick().await;
        let late = Instant::now().saturating_duration_since(due);
        if late >= LATE {
            tracing::warn!(?late, "this process did not get to run");
        }
        let known: Vec<_> = {
            let processes = processes.lock().unwrap_or_else(PoisonError::into_inner);
            let running = processes.iter().filter(|(_, watched)| watched.is_running);
            running.map(|(name, watched)| (name.clone(), watched.pid, watched.address)).collect()
        };
        let looks = known.into_iter().map(|(name, pid, address)| {
            let client = client.clone();
            async move { (name, pid, rss_kib(pid), is_ready(client, address).await) }
        });
        let seen = futures::future::join_all(looks).await;
        let mut processes = processes.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, pid, rss_kib, is_ready) in seen {
            // It may have been replaced or removed during the check.
            let is_same = |watched: &&mut Watched| watched.is_running && watched.pid == pid;
            let Some(watched) = processes.get_mut(&name).filter(is_same) else { continue };
            note(watched, rss_kib, is_ready);
        }
    }
}

fn note(watched: &mut Watched, rss_kib: Option<u64>, is_ready: bool) {
    let observed = &mut watched.observed;
    observed.samples += 1;
    if let Some(rss_kib) = rss_kib {
        observed.rss_kib = rss_kib;
        observed.rss_max_kib = observed.rss_max_kib.max(rss_kib);
    }
    observed.is_ready = is_ready;
    let now = Instant::now();
    let not_ready = u64::try_from((now - watched.ready_at).as_millis()).unwrap_or(u64::MAX);
    if is_ready {
        watched.ready_at = now;
    } else {
        observed.not_ready_longest_ms = observed.not_ready_longest_ms.max(not_ready);
    }
}

async fn is_ready(client: Option<reqwest::Client>, address: Option<SocketAddr>) -> bool {
    let (Some(client), Some(address)) = (client, address) else { return false };
    let answer = client.get(format!("http://{address}/health/ready")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// A process's resident memory; `None` if it has ended.
fn rss_kib(pid: u32) -> Option<u64> {
    procfs::process::Process::new(pid.cast_signed()).ok()?.status().ok()?.vmrss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_memory_of_a_process_that_exists() {
        assert!(rss_kib(std::process::id()).is_some_and(|kib| kib > 1_000));
        assert_eq!(rss_kib(u32::MAX), None);
    }

    #[tokio::test]
    async fn a_removed_process_is_reported_and_not_waited_for() {
        let monitor = ProcessMonitor::start(Duration::from_secs(3_600));
        let nowhere = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        for name in ["popular-items-0", "popular-items-2"] {
            monitor.add(name, std::process::id(), nowhere);
        }
        monitor.remove("popular-items-2");
        assert_eq!(monitor.unready(), ["popular-items-0"]);
        assert_eq!(monitor.report().keys().collect::<Vec<_>>(), ["popular-items-0", "popular-items-2"]);
        monitor.add("popular-items-2", std::process::id(), nowhere);
        assert_eq!(monitor.unready(), ["popular-items-0", "popular-items-2"]);
    }
}
