//! What pods may do and how long: grace periods cover what is to be finished, the audit of `overlays/production` has memory for its rate, only
//! `overlays/small` admits clients without a token, and the pod of operators (`examples/operator.yaml`) is permitted what it needs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::STAGES;
use serde_json::Value;

use super::{document, documents, items, named, strings};
use crate::settings::option_default;

const FOLDER: &str = "scripts/kubernetes";

/// What a grace period has beyond the times that are known, for a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// Commands a second that `overlays/production` is for.
const PRODUCTION_RATE: u64 = 10_000;

/// The audit's memory for a command that it looks at, in bytes (docs/performance.md).
const AUDIT_COMMAND_LEN: u64 = 3_800;

/// An ingest's pod in an overlay.
#[derive(Default)]
struct Ingest {
    variables: BTreeMap<String, String>,
    grace_s: u64,
}

impl Ingest {
    /// The pod of the base with the overlay's patches.
    fn of(overlay: &str) -> anyhow::Result<Self> {
        let (mut ingest, folder) = (Self::default(), format!("{FOLDER}/overlays/{overlay}"));
        ingest.merge(&documents(&format!("{FOLDER}/base/ingest.yaml"))?[0]);
        let kustomization = document(&format!("{folder}/kustomization.yaml"))?;
        for patch in items(&kustomization["patches"]) {
            if let Some(path) = patch["path"].as_str() {
                let patches = documents(&format!("{folder}/{path}"))?;
                patches
                    .iter()
                    .filter(|patch| patch["metadata"]["name"] == "ingest")
                    .for_each(|patch| ingest.merge(patch));
            } else if patch["target"]["name"] == "ingest" {
                let operations = patch["patch"].as_str().context("a patch of a target is a text")?;
                let operations: Value = serde_saphyr::from_str(operations)?;
                ingest.set(items(&operations).map(|operation| &operation["value"]));
            }
        }
        Ok(ingest)
    }

    fn merge(&mut self, workload: &Value) {
        let pod = &workload["spec"]["template"]["spec"];
        if let Some(grace_s) = pod["terminationGracePeriodSeconds"].as_u64() {
            self.grace_s = grace_s;
        }
        self.set(items(&pod["containers"][0]["env"]));
    }

    fn set<'a>(&mut self, variables: impl Iterator<Item = &'a Value>) {
        for variable in variables {
            if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
                self.variables.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable, or the default of the option.
    fn number(&self, name: &str) -> anyhow::Result<u64> {
        let value =
            self.variable(name).map_or_else(|| option_default(&["ingest"], name), |value| Ok(value.to_owned()))?;
        value.parse::<u64>().with_context(|| format!("{name} is {value}"))
    }
}

/// A member that is killed in a transaction or in its group is missed by the others until its session ends.
pub(crate) async fn members_can_commit_and_leave_before_they_are_killed() -> anyhow::Result<()> {
    let needed = (kafka::COMMIT_DEADLINE + kafka::LEAVE_TIMEOUT + SLACK).as_secs();
    let compose = document("docker-compose.yml")?;
    for stage in &STAGES {
        let name = stage.group;
        let workload = &documents(&format!("{FOLDER}/base/{name}.yaml"))?[0];
        let grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
        ensure!(grace >= Some(needed), "{name} needs a grace period of {needed} s and has {grace:?}");
        let grace = compose["services"][name]["stop_grace_period"].as_str();
        let grace: Option<u64> = grace.and_then(|grace| grace.strip_suffix('s')).and_then(|grace| grace.parse().ok());
        ensure!(grace >= Some(needed), "docker-compose.yml: {name} needs {needed} s to end and has {grace:?}");
    }
    Ok(())
}

/// A request that waits for its outcome or its table when the drain begins gets an answer, 202 or 504 at the latest.
pub(crate) async fn ingest_answers_its_requests_before_it_is_killed() -> anyhow::Result<()> {
    for overlay in ["small", "production"] {
        let ingest = Ingest::of(overlay)?;
        let drain = ingest.number("DRAIN_TIMEOUT_S")?;
        for name in ["REPLY_TIMEOUT_MS", "READ_AFTER_TIMEOUT_MS"] {
            let wait = ingest.number(name)?;
            ensure!(drain * 1_000 >= wait, "{overlay}: DRAIN_TIMEOUT_S is {drain}, and {name} is {wait}");
        }
        // Requests are drained, then the commands of clients that have left.
        let needed = ingest.number("LAME_DUCK_MS")? / 1_000 + 2 * drain + SLACK.as_secs();
        ensure!(ingest.grace_s >= needed, "{overlay}: ingest needs {needed} s to end and has {} s", ingest.grace_s);
    }
    Ok(())
}

pub(crate) async fn only_the_small_overlay_admits_anonymous_clients() -> anyhow::Result<()> {
    let (small, production) = (Ingest::of("small")?, Ingest::of("production")?);
    ensure!(small.variable("ALLOW_ANONYMOUS") == Some("true"), "small: ingest does not start: it has no tokens");
    ensure!(production.variable("AUTH") == Some("jwt"), "production: AUTH is {:?}", production.variable("AUTH"));
    // Without AUTH=jwt it must not start.
    let anonymous = production.variable("ALLOW_ANONYMOUS");
    ensure!(anonymous.is_none(), "production: ALLOW_ANONYMOUS is {anonymous:?}: without AUTH it is open to everybody");
    Ok(())
}

/// A look from the checkpoint on is at the commands of a pause and of the look before it, which takes as long at most. It may take half of
/// the memory; the carts and rows of the checkpoint need the rest.
pub(crate) async fn the_audit_has_memory_for_the_rate_of_production() -> anyhow::Result<()> {
    let sizes = documents(&format!("{FOLDER}/overlays/production/sizes.yaml"))?;
    let audit = sizes.iter().find(|patch| patch["metadata"]["name"] == "audit").context("sizes.yaml has the audit")?;
    let container = &audit["spec"]["template"]["spec"]["containers"][0];
    let interval = named(&container["env"], "AUDIT_INTERVAL_S").and_then(|variable| variable["value"].as_str());
    let interval: u64 = interval.context("the audit of production has an interval")?.parse()?;
    let limit = container["resources"]["limits"]["memory"].as_str().and_then(|limit| limit.strip_suffix("Gi"));
    let limit = limit.context("the audit of production has a limit in GiB")?.parse::<u64>()? << 30;
    let look = PRODUCTION_RATE * 2 * interval * AUDIT_COMMAND_LEN;
    ensure!(
        2 * look <= limit,
        "a look at {interval} s of commands takes {look} bytes, and the audit's limit is {limit}"
    );
    Ok(())
}

/// It has what the base and `components/secured` add to a pod, the addresses of `overlays/production`, and a label of the network policies.
pub(crate) async fn the_pod_of_operators_is_permitted_what_it_needs() -> anyhow::Result<()> {
    let file = format!("{FOLDER}/examples/operator.yaml");
    let pod = document(&file)?;
    for patch in items(&document(&format!("{FOLDER}/base/pod.yaml"))?) {
        let place = place(patch)?;
        let given = pod.pointer(place);
        ensure!(given == Some(&patch["value"]), "{file}: {place} is {given:?}, not {}", patch["value"]);
    }
    for part in ["kafka-and-registry", "cassandra", "postgres"] {
        for patch in items(&document(&format!("{FOLDER}/components/secured/{part}.yaml"))?) {
            let list = place(patch)?.strip_suffix("/-").context("the component adds to lists")?;
            let given = pod.pointer(list);
            let has_it = given.is_some_and(|list| items(list).any(|item| *item == patch["value"]));
            ensure!(has_it, "{file}: {list} lacks {}", patch["value"]);
        }
    }
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    for (volume, secret) in
        [("kafka", "cart-operator"), ("cassandra", "cart-operator-cassandra"), ("postgres", "cart-operator-postgres")]
    {
        let given = named(&spec["volumes"], volume).map(|volume| &volume["secret"]["secretName"]);
        ensure!(given.is_some_and(|given| given == secret), "{file}: volume {volume} has {given:?}, not {secret}");
    }
    let overlay = document(&format!("{FOLDER}/overlays/production/kustomization.yaml"))?;
    let image = &overlay["images"][0];
    let image = [&image["newName"], &image["newTag"]].map(|part| part.as_str().unwrap_or_default()).join(":");
    ensure!(container["image"] == image, "{file}: the image is {}, not {image}", container["image"]);
    has_the_addresses(&file, container, &strings(&overlay["configMapGenerator"][0]["literals"]))?;
    let label = pod["metadata"]["labels"]["app.kubernetes.io/name"].as_str().context("the pod has a label")?;
    let policies = documents(&format!("{FOLDER}/base/network-policies.yaml"))?;
    for name in ["to-cassandra", "to-postgres"] {
        let policy = policies.iter().find(|policy| policy["metadata"]["name"] == name);
        let policy = policy.with_context(|| format!("there is no policy {name}"))?;
        let allowed = strings(&policy["spec"]["podSelector"]["matchExpressions"][0]["values"]);
        ensure!(allowed.iter().any(|allowed| allowed == label), "{name} does not allow {label}: {allowed:?}");
    }
    Ok(())
}

/// The place of a patch of workloads in a pod.
fn place(patch: &Value) -> anyhow::Result<&str> {
    let path = patch["path"].as_str().context("a patch has a path")?;
    path.strip_prefix("/spec/template").with_context(|| format!("{path} is not in a pod"))
}

/// The addresses are those of the overlay's ConfigMap, with the operators' user of PostgreSQL.
fn has_the_addresses(file: &str, container: &Value, literals: &[String]) -> anyhow::Result<()> {
    for name in
        ["KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "CASSANDRA_NODES", "CASSANDRA_DATACENTER", "DATABASE_URL"]
    {
        let literal = literals.iter().filter_map(|literal| literal.split_once('=')).find(|(known, _)| *known == name);
        let (_, address) = literal.with_context(|| format!("production lacks {name}"))?;
        let address = address.replace("postgres://", "postgres://cart-operator@");
        let given = named(&container["env"], name).map(|variable| &variable["value"]);
        ensure!(given.is_some_and(|given| *given == address), "{file}: {name} is {given:?}, not {address}");
    }
    let user = named(&container["env"], "KAFKA_USER").map(|variable| &variable["value"]);
    ensure!(user.is_some_and(|user| user == "cart-operator"), "{file}: KAFKA_USER is {user:?}");
    Ok(())
}
