//! Mistakes in the manifests, each with the finding that it must lead to.

use serde_json::{Value, json};

use super::cluster::INGEST;

/// A mistake in one workload.
#[derive(Debug)]
pub struct Mistake {
    pub name: &'static str,
    /// The workload that has it.
    pub(super) workload: &'static str,
    /// Where, from the object, and what.
    places: &'static [(&'static str, Wrong)],
    /// A part of the finding.
    finding: &'static str,
}

/// A wrong value.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Number(u64),
    Text(&'static str),
    /// The value of the variable in the container's list.
    Variable(&'static str, &'static str),
    /// Another variable at the end of the list.
    NewVariable(&'static str, &'static str),
    /// No such field.
    Nothing,
}

/// With this setting no local broker is found, so the service lives, and never becomes ready.
const WITHOUT_KAFKA: (&str, Wrong) = ("/env", Wrong::NewVariable("KAFKA_PROPERTIES", "broker.address.family=v6"));

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// All of them. An update is given up sooner than by default where that is what must happen.
pub static MISTAKES: [Mistake; 9] = [
    Mistake {
        name: "a grace period below the lame-duck time",
        workload: INGEST,
        places: &[("/spec/template/spec/terminationGracePeriodSeconds", Wrong::Number(5))],
        finding: "was killed: it had not ended 5 s after SIGTERM",
    },
    Mistake {
        name: "no lame-duck time",
        workload: INGEST,
        places: &[("/env", Wrong::Variable("LAME_DUCK_MS", "0"))],
        finding: "clients got",
    },
    Mistake {
        name: "all pods may be unavailable",
        workload: INGEST,
        places: &[
            ("/spec/strategy/rollingUpdate/maxUnavailable", Wrong::Text("100%")),
            ("/spec/strategy/rollingUpdate/maxSurge", Wrong::Number(0)),
        ],
        finding: "clients got",
    },
    Mistake {
        name: "a startup probe that waits too short",
        workload: INGEST,
        places: &[
            // A service that listens within milliseconds passes a single probe for its life, and only that.
            ("/startupProbe/httpGet/path", Wrong::Text("/health/ready")),
            ("/startupProbe/periodSeconds", Wrong::Number(1)),
            ("/startupProbe/timeoutSeconds", Wrong::Number(1)),
            ("/startupProbe/failureThreshold", Wrong::Number(1)),
        ],
        finding: "the startup probe of ingest",
    },
    Mistake {
        name: "a liveness probe with a wrong path",
        workload: INGEST,
        places: &[("/livenessProbe/httpGet/path", Wrong::Text("/healthz"))],
        finding: "the liveness probe of ingest",
    },
    Mistake {
        name: "a readiness probe with a wrong port",
        workload: "cart-processor",
        places: &[
            ("/readinessProbe/httpGet/port", Wrong::Number(9001)),
            ("/spec/progressDeadlineSeconds", Wrong::Number(20)),
        ],
        finding: "cart-processor made no progress in 20 s",
    },
    Mistake {
        name: "a readiness probe that asks whether it lives, of a version that cannot work",
        workload: INGEST,
        places: &[("/readinessProbe/httpGet/path", Wrong::Text("/health/live")), WITHOUT_KAFKA],
        finding: "counts as ready before its service does",
    },
    Mistake {
        name: "no readiness probe, of a version that cannot work",
        workload: INGEST,
        places: &[("/readinessProbe", Wrong::Nothing), WITHOUT_KAFKA],
        finding: "counts as ready before its service does",
    },
    Mistake {
        name: "a grace period below the time of a commit",
        workload: "cart-processor",
        places: &[("/spec/template/spec/terminationGracePeriodSeconds", Wrong::Number(0))],
        finding: "was killed: it had not ended 0 s after SIGTERM",
    },
];

impl Mistake {
    /// Whether this finding is of this mistake.
    #[must_use]
    pub fn is_found_by(&self, finding: &str) -> bool {
        finding.contains(self.finding)
    }

    /// The workload with the mistake in it. Places that begin with another word than `spec` are in its container.
    ///
    /// # Panics
    /// The workload has no such place, so the mistake would not be made.
    pub(super) fn make(&self, right: &Value) -> Value {
        let mut wrong = right.clone();
        for (place, value) in self.places {
            let place = if place.starts_with("/spec/") { (*place).to_owned() } else { format!("{CONTAINER}{place}") };
            match value {
                Wrong::Number(number) => put(&mut wrong, &place, json!(number)),
                Wrong::Text(text) => put(&mut wrong, &place, json!(text)),
                Wrong::Variable(name, value) => {
                    let list = wrong.pointer_mut(&place).and_then(Value::as_array_mut);
                    let variable = list.and_then(|list| list.iter_mut().find(|variable| variable["name"] == *name));
                    variable.expect("the workload sets this variable")["value"] = json!(value);
                }
                Wrong::NewVariable(name, value) => {
                    let list = wrong.pointer_mut(&place).and_then(Value::as_array_mut);
                    list.expect("the workload has variables").push(json!({"name": name, "value": value}));
                }
                Wrong::Nothing => {
                    let (parent, field) = place.rsplit_once('/').expect("a place has a parent");
                    let parent = wrong.pointer_mut(parent).and_then(Value::as_object_mut);
                    let removed = parent.and_then(|parent| parent.remove(field));
                    assert!(removed.is_some(), "the workload has no {place}");
                }
            }
        }
        wrong
    }
}

/// Sets a field of an object that is there; the field may be new.
fn put(object: &mut Value, place: &str, value: Value) {
    let (parent, field) = place.rsplit_once('/').expect("a place has a parent");
    let parent = object.pointer_mut(parent).and_then(Value::as_object_mut).expect("the workload has this place");
    parent.insert(field.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_changes_what_it_names_only() {
        let right = json!({"spec": {
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"spec": {
                "terminationGracePeriodSeconds": 40,
                "containers": [{
                    "env": [{"name": "A", "value": "1"}, {"name": "LAME_DUCK_MS", "value": "10000"}],
                    "startupProbe": {"httpGet": {"path": "/health/live"}}, "livenessProbe": {"httpGet": {"path": "/health/live"}},
                    "readinessProbe": {"httpGet": {"port": "admin"}},
                }],
            }},
        }});
        for mistake in &MISTAKES {
            assert_ne!(mistake.make(&right), right, "{}", mistake.name);
        }
        let wrong = MISTAKES[1].make(&right);
        assert_eq!(wrong.pointer("/spec/template/spec/containers/0/env/1/value"), Some(&json!("0")));
        assert_eq!(wrong.pointer("/spec/template/spec/containers/0/env/0/value"), Some(&json!("1")));
        let wrong = MISTAKES.iter().find(|mistake| mistake.name.starts_with("no readiness probe")).expect("a mistake");
        let wrong = wrong.make(&right);
        assert_eq!(wrong.pointer("/spec/template/spec/containers/0/readinessProbe"), None);
        assert_eq!(wrong.pointer("/spec/template/spec/containers/0/env/2/name"), Some(&json!("KAFKA_PROPERTIES")));
    }
}
