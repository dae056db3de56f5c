//! The manifests, as far as the kubelet and the controllers read them. A field that this module does not know, in a place where it
//! would change what happens, is an error: nothing is passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// All objects of an overlay.
#[derive(Debug, Clone)]
pub struct Manifests {
    objects: Vec<Value>,
}

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
    env: Vec<Variable>,
    #[serde(default)]
    env_from: Vec<EnvFrom>,
    #[serde(default)]
    ports: Vec<Port>,
    pub(super) startup_probe: Option<Probe>,
    pub(super) liveness_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    lifecycle: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Variable {
    name: String,
    value: Option<String>,
    value_from: Option<ValueFrom>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum ValueFrom {
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
struct EnvFrom {
    config_map_ref: Reference,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    name: String,
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
enum PortName {
    Number(u16),
    Name(String),
}

impl Manifests {
    /// Reads what `scripts/kubernetes/render` prints.
    ///
    /// # Errors
    /// It is not YAML.
    pub fn parse(yaml: &str) -> anyhow::Result<Self> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).context("reading the manifests")?;
        ensure!(!objects.is_empty(), "there are no manifests");
        Ok(Self { objects })
    }

    /// The objects of a kind.
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The workloads of a kind.
    ///
    /// # Errors
    /// One has a field that is not understood.
    pub(super) fn workloads(&self, kind: &str) -> anyhow::Result<Vec<Workload>> {
        self.of_kind(kind).map(|object| self.workload(object)).collect()
    }

    /// Reads a workload. If an autoscaler decides on its replicas, it has the autoscaler's minimum.
    ///
    /// # Errors
    /// It has a field that is not understood.
    pub(super) fn workload(&self, object: &Value) -> anyhow::Result<Workload> {
        let mut workload = Workload::parse(object)?;
        let name = &object["metadata"]["name"];
        let scaled = self.of_kind("ScaledObject").find(|scaled| scaled["spec"]["scaleTargetRef"]["name"] == *name);
        let min = scaled.and_then(|scaled| scaled["spec"]["minReplicaCount"].as_u64());
        workload.spec.replicas = min.and_then(|min| min.try_into().ok()).or(workload.spec.replicas);
        Ok(workload)
    }

    /// A workload as it is written.
    ///
    /// # Errors
    /// There is none of that name.
    pub(super) fn object(&self, name: &str) -> anyhow::Result<&Value> {
        let is_it = |object: &&Value| {
            object["metadata"]["name"] == name
                && ["Deployment", "StatefulSet", "Job"].iter().any(|kind| object["kind"] == *kind)
        };
        self.objects.iter().find(is_it).with_context(|| format!("there is no workload {name}"))
    }

    /// The variables of a container in the pod `pod`, as the kubelet makes them: those of its ConfigMaps, then its own.
    ///
    /// # Errors
    /// A ConfigMap is missing, or a source is not understood.
    pub(super) fn environment(&self, container: &Container, pod: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for EnvFrom { config_map_ref: Reference { name } } in &container.env_from {
            let map = self.of_kind("ConfigMap").find(|map| map["metadata"]["name"] == **name);
            let data = map.with_context(|| format!("there is no ConfigMap {name}"))?["data"].as_object();
            for (name, value) in data.into_iter().flatten() {
                all.insert(name.clone(), value.as_str().with_context(|| format!("{name} is no string"))?.to_owned());
            }
        }
        for Variable { name, value, value_from } in &container.env {
            let value = match (value, value_from) {
                (Some(value), None) => value.clone(),
                (None, Some(ValueFrom::FieldRef { field_path })) if field_path == "metadata.name" => pod.to_owned(),
                // The caller replaces what is secret, so only its place is needed.
                (None, Some(ValueFrom::SecretKeyRef { name, key })) => format!("secret {name}/{key}"),
                other => bail!("the value of {name} is not understood: {other:?}"),
            };
            ensure!(!value.contains("$("), "{name} refers to another variable, which is not understood here: {value}");
            all.insert(name.clone(), value);
        }
        Ok(all)
    }

    /// The port of the pods to which the Service `name` sends its port `port`, and the pods' label.
    ///
    /// # Errors
    /// There is no such Service, port or pod.
    pub(super) fn service_port(&self, name: &str, workload: &Workload) -> anyhow::Result<u16> {
        let service = self.of_kind("Service").find(|service| service["metadata"]["name"] == name);
        let spec = &service.with_context(|| format!("there is no Service {name}"))?["spec"];
        let selector: BTreeMap<String, String> = serde_json::from_value(spec["selector"].clone())?;
        let labels = &workload.spec.template.metadata.labels;
        let is_selected = selector.iter().all(|(label, value)| labels.get(label) == Some(value));
        ensure!(is_selected && !selector.is_empty(), "Service {name} does not select the pods of {name}: {selector:?}");
        let target: PortName = serde_json::from_value(spec["ports"][0]["targetPort"].clone())?;
        workload.container()?.port(&target)
    }
}

impl Workload {
    /// Reads one.
    ///
    /// # Errors
    /// It has a field that is not understood.
    fn parse(object: &Value) -> anyhow::Result<Self> {
        let name = &object["metadata"]["name"];
        let workload: Self = serde_json::from_value(object.clone()).with_context(|| format!("reading {name}"))?;
        let spec = &workload.spec.template.spec;
        ensure!(spec.init_containers.is_empty(), "{name}: containers that run before the others are not understood");
        ensure!(workload.container()?.lifecycle.is_none(), "{name}: lifecycle hooks are not understood");
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

    #[must_use]
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    #[must_use]
    pub(super) fn replicas(&self) -> usize {
        self.spec.replicas.unwrap_or(1)
    }

    /// From SIGTERM to SIGKILL.
    #[must_use]
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.spec.template.spec.termination_grace_period_seconds)
    }

    #[must_use]
    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(self.spec.min_ready_seconds)
    }

    /// How long an update may make no progress.
    #[must_use]
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
    #[must_use]
    pub(super) fn words(&self) -> Vec<String> {
        [&self.command[..], &self.args].concat()
    }

    fn port(&self, port: &PortName) -> anyhow::Result<u16> {
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
    #[must_use]
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

    #[test]
    fn variables_come_from_config_maps_values_and_fields() {
        let yaml = "
kind: ConfigMap
metadata: { name: cart }
data: { LOG_FORMAT: json, ADMIN_LISTEN: 0.0.0.0:9000 }
---
kind: StatefulSet
metadata: { name: cart-processor }
spec:
  template:
    metadata: {}
    spec:
      containers:
        - command: [cart-processor]
          envFrom: [{ configMapRef: { name: cart } }]
          env:
            - { name: INSTANCE, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
            - { name: LOG_FORMAT, value: text }
";
        let manifests = Manifests::parse(yaml).expect("manifests");
        let workload = manifests.workloads("StatefulSet").expect("workloads").remove(0);
        let environment = manifests.environment(workload.container().expect("a container"), "cart-processor-1");
        let environment = environment.expect("an environment");
        let of = |name: &str| environment.get(name).map(String::as_str);
        assert_eq!((of("INSTANCE"), of("LOG_FORMAT")), (Some("cart-processor-1"), Some("text")));
        assert_eq!(of("ADMIN_LISTEN"), Some("0.0.0.0:9000"));
    }
}
