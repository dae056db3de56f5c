//! A pod, and what its kubelet does: it probes the container, and ends it within the grace period.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::workload::{Container, Probe};
use crate::harness::Process;

/// How long a Job may take, and how long a killed process may take to be gone.
const JOB_DEADLINE: Duration = Duration::from_secs(240);
const KILLED_DEADLINE: Duration = Duration::from_secs(10);

/// Where each service says itself whether it can work.
const READY_PATH: &str = "/health/ready";

/// The interval at which a pod is looked at whose probes do not ask that.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A running pod; its process is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Pod {
    name: String,
    process: Process,
    state: PodState,
    probes: Option<JoinHandle<()>>,
}

/// What is known of a pod. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct PodState(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ready_since: Option<Instant>,
    is_ending: bool,
    failure: Option<String>,
}

impl PodState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its Service sends it requests.
    pub(super) fn is_endpoint(&self) -> bool {
        let state = self.lock();
        state.ready_since.is_some() && !state.is_ending
    }

    fn set_ready(&self, is_ready: bool) {
        let mut state = self.lock();
        state.ready_since = is_ready.then(|| state.ready_since.unwrap_or_else(Instant::now));
    }

    fn fail(&self, failure: String) {
        self.lock().failure.get_or_insert(failure);
    }
}

impl Pod {
    /// Starts the container with the address `ip`, and its probes.
    pub(super) fn start(name: &str, process: Process, container: &Container, ip: Ipv4Addr) -> anyhow::Result<Self> {
        let state = PodState::default();
        let client = reqwest::Client::builder().no_proxy().build().context("making an HTTP client")?;
        let asked = |probe: &Option<Probe>| -> anyhow::Result<Option<Asked>> {
            let Some(probe) = probe else { return Ok(None) };
            let (port, path) = container.target(probe)?;
            let url = format!("http://{}{path}", SocketAddr::from((ip, port)));
            Ok(Some(Asked { probe: probe.clone(), url, client: client.clone() }))
        };
        let [startup, liveness, readiness] =
            [asked(&container.startup_probe)?, asked(&container.liveness_probe)?, asked(&container.readiness_probe)?];
        let own = own_readiness(container, ip, &client)?;
        let probes = tokio::spawn(probe(name.to_owned(), startup, liveness, (readiness, own), state.clone()));
        Ok(Self { name: name.to_owned(), process, state, probes: Some(probes) })
    }

    /// Runs the container of a Job to its end.
    pub(super) async fn complete(mut process: Process) -> anyhow::Result<()> {
        process.succeeded(JOB_DEADLINE).await
    }

    pub(super) fn state(&self) -> PodState {
        self.state.clone()
    }

    /// Whether it has been ready for as long as the Deployment wants.
    pub(super) fn is_available(&self, min_ready: Duration) -> bool {
        self.state.lock().ready_since.is_some_and(|since| since.elapsed() >= min_ready)
    }

    /// Why the kubelet would restart it, or why it must not count as ready.
    pub(super) fn failure(&self) -> Option<String> {
        // A zombie has ended.
        if matches!(self.process.state(), None | Some('Z')) {
            return Some(format!("{} has ended by itself: {}", self.name, last_line(&self.process)));
        }
        self.state.lock().failure.clone()
    }

    /// Ends it: it is no endpoint any more, gets SIGTERM, and after the grace period SIGKILL. Returns what was wrong with that.
    pub(super) async fn end(mut self, grace: Duration) -> anyhow::Result<Option<String>> {
        self.state.lock().is_ending = true;
        if let Some(probes) = self.probes.take() {
            probes.abort();
        }
        if self.process.interrupt().is_err() {
            return Ok(Some(format!("{} had ended before it was asked to", self.name)));
        }
        match self.process.ended(grace).await {
            Ok(status) if status.success() => Ok(None),
            Ok(status) => Ok(Some(format!("{} ended with {status}: {}", self.name, last_line(&self.process)))),
            Err(_) => {
                self.process.kill9().context("killing it")?;
                self.process.ended(KILLED_DEADLINE).await?;
                let name = &self.name;
                Ok(Some(format!("{name} was killed: it had not ended {} s after SIGTERM", grace.as_secs())))
            }
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(probes) = self.probes.take() {
            probes.abort();
        }
        self.state.lock().is_ending = true;
    }
}

fn last_line(process: &Process) -> String {
    process.log().lines().last().unwrap_or("it has no log").to_owned()
}

/// A probe of one pod.
#[derive(Debug)]
struct Asked {
    probe: Probe,
    url: String,
    client: reqwest::Client,
}

impl Asked {
    async fn once(&self) -> Result<(), String> {
        let timeout = Duration::from_secs(self.probe.timeout_seconds);
        match self.client.get(&self.url).timeout(timeout).send().await {
            Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => Ok(()),
            Ok(answer) => Err(format!("GET {}: {}", self.url, answer.status())),
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    /// Asks at the probe's period, and reports whenever enough answers in a row are the same, until the reporter breaks.
    async fn repeatedly(&self, mut report: impl FnMut(Result<(), String>) -> ControlFlow<()>) {
        let probe = &self.probe;
        sleep(Duration::from_secs(probe.initial_delay_seconds)).await;
        let mut ticks = interval(Duration::from_secs(probe.period_seconds));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut successes, mut failures) = (0, 0);
        loop {
            ticks.tick().await;
            let result = self.once().await;
            (successes, failures) = if result.is_ok() { (successes + 1, 0) } else { (0, failures + 1) };
            let is_decided = successes >= probe.success_threshold || failures >= probe.failure_threshold;
            if is_decided && report(result).is_break() {
                return;
            }
        }
    }
}

/// The question whether the service itself is ready, where no readiness probe asks it. It is asked at the port of another probe.
fn own_readiness(container: &Container, ip: Ipv4Addr, client: &reqwest::Client) -> anyhow::Result<Option<Asked>> {
    let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
    let Some(probe) = probes.into_iter().flatten().next() else { return Ok(None) };
    let is_asked = match &container.readiness_probe {
        Some(readiness) => container.target(readiness)?.1 == READY_PATH,
        None => false,
    };
    let (port, _) = container.target(probe)?;
    let url = format!("http://{}{READY_PATH}", SocketAddr::from((ip, port)));
    Ok((!is_asked).then(|| Asked { probe: probe.clone(), url, client: client.clone() }))
}

/// Reports a pod that would count as ready before its service does: it would get requests, and an older pod would be ended for it.
async fn is_ready_too_early(name: &str, readiness: Option<&Asked>, own: &Asked, state: &PodState) -> bool {
    if let Some(readiness) = readiness {
        while readiness.once().await.is_err() {
            sleep(LOOK_INTERVAL).await;
        }
    }
    let result = own.once().await;
    if let Err(error) = &result {
        state.fail(format!("{name} counts as ready before its service does: {error}"));
    }
    result.is_err()
}

/// What the kubelet does with the probes of a container. Where it would restart the container, it reports a failure.
async fn probe(
    name: String,
    startup: Option<Asked>,
    liveness: Option<Asked>,
    (readiness, own): (Option<Asked>, Option<Asked>),
    state: PodState,
) {
    if let Some(startup) = startup {
        startup
            .repeatedly(|result| {
                if let Err(error) = result {
                    state.fail(format!("the startup probe of {name} failed: {error}"));
                }
                ControlFlow::Break(())
            })
            .await;
        if state.lock().failure.is_some() {
            return;
        }
    }
    if let Some(own) = own
        && is_ready_too_early(&name, readiness.as_ref(), &own, &state).await
    {
        return;
    }
    let liveness = async {
        let Some(liveness) = liveness else { return };
        let report = |result: Result<(), String>| match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                state.fail(format!("the liveness probe of {name} failed: {error}"));
                ControlFlow::Break(())
            }
        };
        liveness.repeatedly(report).await;
    };
    let readiness = async {
        let Some(readiness) = readiness else { return state.set_ready(true) };
        let report = |result: Result<(), String>| {
            state.set_ready(result.is_ok());
            ControlFlow::Continue(())
        };
        readiness.repeatedly(report).await;
    };
    tokio::join!(liveness, readiness);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::workload::Workload;
    use super::*;

    /// The question to a service with this readiness probe.
    fn question(readiness: &Value) -> Option<String> {
        let live = json!({"httpGet": {"path": "/health/live", "port": "admin"}});
        let container = json!({
            "ports": [{"name": "admin", "containerPort": 9000}], "livenessProbe": live, "readinessProbe": readiness,
        });
        let object = json!({
            "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"metadata": {}, "spec": {"containers": [container]}}},
        });
        let workload = Workload::parse(&object).expect("a workload");
        let container = workload.container().expect("a container");
        let own = own_readiness(container, Ipv4Addr::LOCALHOST, &reqwest::Client::new()).expect("a port");
        own.map(|own| own.url)
    }

    #[test]
    fn a_service_is_asked_whether_it_is_ready_where_its_probe_does_not() {
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "admin"}});
        assert_eq!(question(&probe("/health/ready")), None);
        for wrong in [probe("/health/live"), Value::Null] {
            assert_eq!(question(&wrong).as_deref(), Some("http://127.0.0.1:9000/health/ready"), "{wrong}");
        }
    }
}
