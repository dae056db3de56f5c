//! The fields of a workload. Another one is an error: it could change what a rollout does, such as `updateStrategy` or `paused`.

use anyhow::ensure;
use serde_json::{Map, Value};

/// The fields of a place in a workload: those that are read here, and those that change nothing of what is played.
const FIELDS: [(&str, &[&str]); 3] = [
    (
        "/spec",
        &[
            "replicas",
            "strategy",
            "minReadySeconds",
            "progressDeadlineSeconds",
            "template",
            // Names of pods and of what owns them.
            "selector",
            "serviceName",
            // Of the start alone, at which all pods are started together here.
            "podManagementPolicy",
            // Of a Job that fails, which is an error here, and of one that has ended.
            "backoffLimit",
            "activeDeadlineSeconds",
            "ttlSecondsAfterFinished",
        ],
    ),
    (
        "/spec/template/spec",
        &[
            "containers",
            "initContainers",
            "terminationGracePeriodSeconds",
            // A container that ends is a finding, and a Job's an error.
            "restartPolicy",
            // Where it runs, and as whom.
            "topologySpreadConstraints",
            "securityContext",
            "automountServiceAccountToken",
            "enableServiceLinks",
            "volumes",
        ],
    ),
    (
        "/spec/template/spec/containers/0",
        &[
            "command",
            "args",
            "env",
            "envFrom",
            "ports",
            "startupProbe",
            "livenessProbe",
            "readinessProbe",
            "lifecycle",
            "name",
            // The binaries of this machine, without limits.
            "image",
            "resources",
            "securityContext",
            "volumeMounts",
        ],
    ),
];

/// Rejects a workload with a field that is not understood.
pub(super) fn check(object: &Value) -> anyhow::Result<()> {
    for (place, known) in FIELDS {
        let fields = object.pointer(place).and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let unknown: Vec<_> = fields.filter(|field| !known.contains(&field.as_str())).collect();
        let name = &object["metadata"]["name"];
        ensure!(unknown.is_empty(), "{name}: at {place} these fields are not understood: {unknown:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_is_not_understood_is_an_error() {
        let right = json!({
            "kind": "StatefulSet", "metadata": {"name": "a"},
            "spec": {"replicas": 2, "template": {"metadata": {}, "spec": {"containers": [{"image": "cart"}]}}},
        });
        check(&right).expect("each field is understood");
        for (place, field, value) in [
            ("/spec", "updateStrategy", json!({"type": "OnDelete"})),
            ("/spec", "paused", json!(true)),
            ("/spec/template/spec", "hostNetwork", json!(true)),
            ("/spec/template/spec/containers/0", "restartPolicy", json!("Never")),
        ] {
            let mut wrong = right.clone();
            wrong.pointer_mut(place).expect("a place")[field] = value;
            let error = check(&wrong).expect_err(field).to_string();
            let expected = format!("\"a\": at {place} these fields are not understood: [\"{field}\"]");
            assert_eq!(error, expected);
        }
    }
}
