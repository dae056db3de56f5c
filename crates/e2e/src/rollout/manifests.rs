//! All objects of an overlay, and what they say of a pod's environment and address.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::workload::{Container, EnvFrom, PortName, Reference, ValueFrom, Variable, Workload};

/// All objects of an overlay.
#[derive(Debug, Clone)]
pub struct Manifests {
    objects: Vec<Value>,
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
        if let Some(min) = scaled.and_then(|scaled| scaled["spec"]["minReplicaCount"].as_u64()) {
            workload.set_replicas(min.try_into()?);
        }
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
        let labels = workload.pod_labels();
        let is_selected = selector.iter().all(|(label, value)| labels.get(label) == Some(value));
        ensure!(is_selected && !selector.is_empty(), "Service {name} does not select the pods of {name}: {selector:?}");
        let target: PortName = serde_json::from_value(spec["ports"][0]["targetPort"].clone())?;
        workload.container()?.port(&target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
