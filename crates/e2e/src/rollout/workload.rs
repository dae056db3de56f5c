//! A workload, as far as the kubelet and the controllers read it. A field that this module does not know is an error, so nothing that
//! would change what happens is passed over, such as a StatefulSet's `updateStrategy` or a Deployment's `paused`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::fields;

/// A Deployment, a StatefulSet or a Job.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Workload {
    pub(super) kind: Kind,
    pub(super) metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
    Job,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<usize>,
    #[serde(default)]
    strategy: Strategy,
    #[serde(default)]
    min_ready_seconds: u64,
    #[serde(default = "progress_deadline")]
    progress_deadline_seconds: u64,
    template: Template,
}

/// Kubernetes' default.
fn progress_deadline() -> u64 {
    600
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Strategy {
    r#type: Option<String>,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RollingUpdate {
    max_surge: Option<Amount>,
    max_unavailable: Option<Amount>,
}

/// A number of pods, or a part of them such as `25%`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Amount {
    Pods(usize),
    Part(String),
}

#[derive(Debug, Clone, Deserialize)]
struct Template {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default = "grace")]
    termination_grace_period_seconds: u64,
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Value>,
}

/// Kubernetes' default.
fn grace() -> u64 {
    30
}

/// The container of a pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<Variable>,
    #[serde(default)]
    pub(super) env_from: Vec<EnvFrom>,
    #[serde(default)]
    ports: Vec<Port>,
    pub(super) startup_probe: Option<Probe>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    lifecycle: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) value_from: Option<ValueFrom>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum ValueFrom {
    FieldRef {
        #[serde(rename = "fieldPath")]
        field_path: String,
    },
    SecretKeyRef {
        name: String,
        key: String,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnvFrom {
    pub(super) config_map_ref: Reference,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    pub(super) name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    container_port: u16,
}

/// A probe; times in seconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probe {
    http_get: HttpGet,
    #[serde(default)]
    pub(super) initial_delay_seconds: u64,
    #[serde(default = "period")]
    pub(super) period_seconds: u64,
    #[serde(default = "once")]
    pub(super) timeout_seconds: u64,
    #[serde(default = "once")]
    pub(super) success_threshold: u64,
    #[serde(default = "failures")]
    pub(super) failure_threshold: u64,
}

/// Kubernetes' defaults.
fn period() -> u64 {
    10
}
fn once() -> u64 {
    1
}
fn failures() -> u64 {
    3
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpGet {
    path: String,
    port: PortName,
}

/// A port by its name or number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum PortName {
    Number(u16),
    Name(String),
}

impl Workload {
    /// Reads one.
    ///
    /// # Errors
    /// It has a field that is not understood.
    pub(super) fn parse(object: &Value) -> anyhow::Result<Self> {
        let name = &object["metadata"]["name"];
        let workload: Self = serde_json::from_value(object.clone()).with_context(|| format!("reading {name}"))?;
        let spec = &workload.spec.template.spec;
        ensure!(spec.init_containers.is_empty(), "{name}: containers that run before the others are not understood");
        ensure!(workload.container()?.lifecycle.is_none(), "{name}: lifecycle hooks are not understood");
        fields::check(object)?;
        Ok(workload)
    }

    /// Its only container.
    ///
    /// # Errors
    /// It has several.
    pub(super) fn container(&self) -> anyhow::Result<&Container> {
        match &self.spec.template.spec.containers[..] {
            [container] => Ok(container),
            others => bail!("{} has {} containers: one is expected", self.metadata.name, others.len()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    pub(super) fn set_replicas(&mut self, replicas: usize) {
        self.spec.replicas = Some(replicas);
    }

    pub(super) fn pod_labels(&self) -> &BTreeMap<String, String> {
        &self.spec.template.metadata.labels
    }

    pub(super) fn replicas(&self) -> usize {
        self.spec.replicas.unwrap_or(1)
    }

    /// From SIGTERM to SIGKILL.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.spec.template.spec.termination_grace_period_seconds)
    }

    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(self.spec.min_ready_seconds)
    }

    /// How long an update may make no progress.
    pub(super) fn progress_deadline(&self) -> Duration {
        Duration::from_secs(self.spec.progress_deadline_seconds)
    }

    /// How many pods an update may add, and how many it may take away.
    ///
    /// # Errors
    /// They are not understood.
    pub(super) fn surge_and_unavailable(&self) -> anyhow::Result<(usize, usize)> {
        let Strategy { r#type, rolling_update } = &self.spec.strategy;
        let replicas = self.replicas();
        match (r#type.as_deref(), rolling_update) {
            (Some("Recreate"), None) => Ok((0, replicas)),
            (None | Some("RollingUpdate"), update) => {
                let amount = |amount: Option<&Amount>, round_up: bool| match amount {
                    Some(Amount::Pods(pods)) => Ok(*pods),
                    Some(Amount::Part(text)) => {
                        let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<usize>().ok());
                        let percent = percent.with_context(|| format!("{text} is neither pods nor a percentage"))?;
                        let parts = replicas * percent;
                        Ok(if round_up { parts.div_ceil(100) } else { parts / 100 })
                    }
                    // Kubernetes' default of 25 %.
                    None => Ok(if round_up { replicas.div_ceil(4) } else { replicas / 4 }),
                };
                let surge = amount(update.as_ref().and_then(|update| update.max_surge.as_ref()), true);
                let unavailable = amount(update.as_ref().and_then(|update| update.max_unavailable.as_ref()), false);
                surge.and_then(|surge| anyhow::Ok((surge, unavailable?)))
            }
            other => bail!("the strategy of {} is not understood: {other:?}", self.name()),
        }
    }
}

impl Container {
    /// Its command line.
    pub(super) fn words(&self) -> Vec<String> {
        [&self.command[..], &self.args].concat()
    }

    pub(super) fn port(&self, port: &PortName) -> anyhow::Result<u16> {
        match port {
            PortName::Number(port) => Ok(*port),
            PortName::Name(name) => {
                let port = self.ports.iter().find(|port| port.name == *name).map(|port| port.container_port);
                port.with_context(|| format!("there is no port {name}"))
            }
        }
    }

    /// The port and the path that a probe asks.
    ///
    /// # Errors
    /// The container has no such port.
    pub(super) fn target<'a>(&self, probe: &'a Probe) -> anyhow::Result<(u16, &'a str)> {
        Ok((self.port(&probe.http_get.port)?, &probe.http_get.path))
    }
}

impl Probe {
    /// The longest time until a service that never answers has failed it.
    pub(super) fn fails_within(&self) -> Duration {
        Duration::from_secs(
            self.initial_delay_seconds + self.failure_threshold * (self.period_seconds + self.timeout_seconds),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(replicas: usize, strategy: Value) -> Workload {
        let container = json!({"name": "a", "command": ["ingest"], "ports": [{"name": "http", "containerPort": 9001}]});
        let object = json!({
            "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"replicas": replicas, "strategy": strategy,
                "template": {"metadata": {}, "spec": {"containers": [container]}}},
        });
        Workload::parse(&object).expect("a workload")
    }

    #[test]
    fn percentages_are_rounded_as_the_controller_does() {
        let amounts = |strategy| workload(3, strategy).surge_and_unavailable().expect("amounts");
        assert_eq!(amounts(json!({})), (1, 0));
        assert_eq!(amounts(json!({"type": "Recreate"})), (0, 3));
        assert_eq!(amounts(json!({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "50%"}})), (2, 1));
        assert_eq!(amounts(json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})), (0, 1));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let mut object = json!({
            "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"metadata": {}, "spec": {"containers": [{"readinessProbe": {"exec": {"command": []}}}]}}},
        });
        let error = Workload::parse(&object).expect_err("a probe by a command");
        assert!(format!("{error:#}").contains("exec"), "{error:#}");
        object["spec"]["template"]["spec"]["containers"][0] = json!({"lifecycle": {"preStop": {}}});
        assert!(Workload::parse(&object).is_err());
    }
}
