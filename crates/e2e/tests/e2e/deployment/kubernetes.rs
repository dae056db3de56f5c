//! The files of `scripts/kubernetes`, before kustomize: their variables, ports and numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use cart::CartCommand;
use cart::contract::{Contract as _, STAGES};
use e2e::harness::binary;
use serde_json::Value;

use super::{document, documents, is_no_option, options_of, root, server_versions, strings, text};

const FOLDER: &str = "scripts/kubernetes";

/// The workloads of the base.
const WORKLOADS: [&str; 9] = [
    "setup",
    "ingest",
    "cart-processor",
    "item-purchased-events",
    "popular-items",
    "vendor-billing",
    "vendor-billing-jdbc",
    "console",
    "audit",
];

/// The ports of the registry's pods, without and with TLS: Apicurio's own.
const REGISTRY_PORTS: (u64, u64) = (8080, 8443);

/// A workload of the base, and the other objects of its file.
struct Workload {
    object: Value,
    others: Vec<Value>,
}

impl Workload {
    fn read(name: &str) -> anyhow::Result<Self> {
        let mut all = documents(&format!("{FOLDER}/base/{name}.yaml"))?;
        ensure!(all[0]["metadata"]["name"] == name, "base/{name}.yaml begins with {}", all[0]["metadata"]["name"]);
        Ok(Self { object: all.remove(0), others: all })
    }

    fn container(&self) -> &Value {
        &self.object["spec"]["template"]["spec"]["containers"][0]
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let variables = self.container()["env"].as_array()?;
        variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
    }

    fn port(&self, name: &str) -> Option<u64> {
        let ports = self.container()["ports"].as_array()?;
        ports.iter().find(|port| port["name"] == name)?["containerPort"].as_u64()
    }
}

/// The YAML files of a folder and the folders below it.
fn files(folder: PathBuf) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The names of all variables in an object, a patch or a kustomization.
fn variables(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let is_variable = fields.contains_key("value") || fields.contains_key("valueFrom");
            if let Some(name) = fields.get("name").and_then(Value::as_str).filter(|_| is_variable) {
                found.insert(name.to_owned());
            }
            let literals = fields.get("literals").map(strings).unwrap_or_default();
            found
                .extend(literals.iter().filter_map(|literal| literal.split_once('=')).map(|(name, _)| name.to_owned()));
            // A patch in a kustomization is a text.
            let patch = fields.get("patch").and_then(Value::as_str);
            let patch: Option<Value> = patch.and_then(|patch| serde_saphyr::from_str(patch).ok());
            fields.values().chain(&patch).for_each(|value| variables(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| variables(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(crate) async fn variables_are_options() -> anyhow::Result<()> {
    let mut every = BTreeSet::new();
    for name in WORKLOADS {
        let workload = Workload::read(name)?;
        let options = options_of(name, &strings(&workload.container()["command"]))?;
        let mut used = BTreeSet::new();
        variables(&workload.object, &mut used);
        for variable in used {
            ensure!(options.contains(&variable), "base/{name}.yaml: {variable} is no option");
        }
        every.extend(options);
    }
    let mut used = BTreeSet::new();
    for file in files(root().join(FOLDER))? {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&file)?)
            .with_context(|| format!("reading {}", file.display()))?;
        // Names of Prometheus' rules and of other operators' objects are no variables.
        let is_ours = !file.starts_with(root().join(FOLDER).join("operators"));
        documents.iter().filter(|_| is_ours).for_each(|document| variables(document, &mut used));
    }
    ensure!(used.contains("KAFKA_SECURITY") && used.contains("TOPIC_PARTITIONS"), "not understood: {used:?}");
    for variable in &used {
        let is_known = every.contains(variable) || is_no_option(variable);
        ensure!(is_known, "scripts/kubernetes: {variable} is no option");
    }
    Ok(())
}

pub(crate) async fn manifests_agree_with_each_other() -> anyhow::Result<()> {
    let listed = document(&format!("{FOLDER}/base/kustomization.yaml"))?;
    let (resources, literals) = (strings(&listed["resources"]), strings(&listed["configMapGenerator"][0]["literals"]));
    let admin = literals.iter().find_map(|literal| literal.strip_prefix("ADMIN_LISTEN=0.0.0.0:"));
    let admin: u64 = admin.context("ADMIN_LISTEN is set")?.parse()?;
    for name in WORKLOADS {
        let workload = Workload::read(name)?;
        ensure!(resources.contains(&format!("{name}.yaml")), "base/kustomization.yaml lacks {name}.yaml");
        let (spec, labels) = (&workload.object["spec"], &workload.object["spec"]["template"]["metadata"]["labels"]);
        ensure!(labels["app.kubernetes.io/name"] == name, "{name}: the pods have the labels {labels}");
        if name == "setup" {
            // A reconciler would make it again, and run it, whenever a TTL has removed it.
            ensure!(spec["ttlSecondsAfterFinished"].is_null(), "{name} is removed when it has ended");
            continue;
        }
        ensure!(spec["selector"]["matchLabels"] == *labels, "{name} selects {}", spec["selector"]);
        // Where the probes ask, and Prometheus.
        let own = workload.variable("CONSOLE_LISTEN").and_then(|address| address.rsplit_once(':'));
        let own = own.map_or(Ok(admin), |(_, port)| port.parse())?;
        ensure!(workload.port("admin") == Some(own), "{name}: the port admin is not {own}, where health is");
        ensure!(!workload.container()["resources"]["limits"]["memory"].is_null(), "{name} has no limit of memory");
        ensure!(workload.container()["resources"]["limits"]["cpu"].is_null(), "{name} has a limit of CPU time");
        let replicas = spec["replicas"].as_u64().context("a number of replicas")?;
        let budget = workload.others.iter().find(|other| other["kind"] == "PodDisruptionBudget");
        ensure!(budget.is_some() == (replicas > 1), "{name}: {replicas} replicas, budget: {budget:?}");
        if let Some(budget) = budget {
            ensure!(budget["spec"]["selector"]["matchLabels"] == *labels, "{name}: its budget is for other pods");
        }
    }
    let ingest = Workload::read("ingest")?;
    let number = |name: &str| -> anyhow::Result<u64> {
        Ok(ingest.variable(name).with_context(|| format!("ingest: {name} is not set"))?.parse()?)
    };
    let grace = ingest.object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    let needed = number("LAME_DUCK_MS")? / 1_000 + 2 * number("DRAIN_TIMEOUT_S")? + 10;
    ensure!(grace >= Some(needed), "ingest needs a grace period of {needed} s and has {grace:?}");
    let listens = ingest.variable("INGEST_LISTEN").and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
    ensure!(ingest.port("http").map(|port| port.to_string()).as_deref() == listens, "ingest listens on {listens:?}");
    let user = document(&format!("{FOLDER}/base/pod.yaml"))?;
    let user = user.as_array().into_iter().flatten().find(|patch| !patch["value"]["runAsUser"].is_null());
    let user = user.context("pods run as a user")?["value"]["runAsUser"].to_string();
    ensure!(text("scripts/Dockerfile")?.contains(&format!("USER {user}:{user}")), "the image's user is not {user}");
    the_page_finds_ingest_and_the_audit()?;
    status_finds_the_audit()?;
    servers_are_reachable()
}

/// The URLs of the live page are those of Services, which select the pods' port.
fn the_page_finds_ingest_and_the_audit() -> anyhow::Result<()> {
    let console = Workload::read("console")?;
    for (variable, name, path) in [("CONSOLE_INGEST_URL", "ingest", ""), ("CONSOLE_AUDIT_URL", "audit", "/metrics")] {
        let workload = Workload::read(name)?;
        let service = workload.others.iter().find(|other| other["kind"] == "Service");
        let service = service.with_context(|| format!("base/{name}.yaml has no Service"))?;
        ensure!(service["metadata"]["name"] == name, "the Service of {name} is {}", service["metadata"]["name"]);
        let labels = &workload.object["spec"]["template"]["metadata"]["labels"];
        ensure!(service["spec"]["selector"] == *labels, "Service {name} selects {}", service["spec"]["selector"]);
        let port = &service["spec"]["ports"][0];
        let target = port["targetPort"].as_str().context("a Service's target is a named port")?;
        ensure!(workload.port(target).is_some(), "Service {name}: the pods have no port {target}");
        let place = if port["port"] == 80 { name.to_owned() } else { format!("{name}:{}", port["port"]) };
        let (expected, given) = (format!("http://{place}{path}"), console.variable(variable));
        ensure!(given == Some(expected.as_str()), "{variable} is {given:?}, not {expected}");
    }
    Ok(())
}

/// `cartctl status` in the audit's pod asks that pod.
fn status_finds_the_audit() -> anyhow::Result<()> {
    let audit = Workload::read("audit")?;
    let port = audit.port("admin").context("the audit has a port admin")?;
    let (expected, given) = (format!("http://127.0.0.1:{port}/metrics"), audit.variable("STATUS_AUDIT_URL"));
    ensure!(given == Some(expected.as_str()), "STATUS_AUDIT_URL is {given:?}, not {expected}");
    Ok(())
}

/// A checkpoint in the container's own files would be lost with the pod.
pub(crate) async fn the_audit_keeps_its_checkpoint() -> anyhow::Result<()> {
    let audit = Workload::read("audit")?;
    let folder = audit.variable("AUDIT_CHECKPOINT").context("the audit has a checkpoint")?;
    let (mounts, pod) = (&audit.container()["volumeMounts"], &audit.object["spec"]["template"]["spec"]);
    let mount = mounts.as_array().into_iter().flatten().find(|mount| mount["mountPath"] == folder);
    let mount = mount.with_context(|| format!("base/audit.yaml: nothing is mounted at {folder}"))?;
    let volume = pod["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == mount["name"]);
    let claim = &volume.context("the mount has a volume")?["persistentVolumeClaim"]["claimName"];
    let is_claim = |other: &&Value| other["kind"] == "PersistentVolumeClaim" && other["metadata"]["name"] == *claim;
    let claim = audit.others.iter().find(is_claim).context("the volume's claim is in base/audit.yaml")?;
    let modes = strings(&claim["spec"]["accessModes"]);
    ensure!(modes == ["ReadWriteOnce"], "the volume of the checkpoint is {modes:?}");
    let spec = &audit.object["spec"];
    let has_one_pod = spec["replicas"] == 1 && spec["strategy"]["type"] == "Recreate";
    ensure!(has_one_pod, "two pods of the audit would wait for one volume: {}", spec["strategy"]);
    // It is ready after its first look, and Kubernetes waits for 600 s by default.
    let progress = spec["progressDeadlineSeconds"].as_u64();
    ensure!(progress > Some(600), "the audit's first look may take {progress:?} s");
    Ok(())
}

/// The network policies allow the port of each server's pods; members are not more than partitions.
fn servers_are_reachable() -> anyhow::Result<()> {
    let policies = documents(&format!("{FOLDER}/base/network-policies.yaml"))?;
    let rules = policies.iter().filter_map(|policy| policy["spec"]["egress"].as_array()).flatten();
    let ports: BTreeSet<u64> =
        rules.filter_map(|rule| rule["ports"].as_array()).flatten().filter_map(|port| port["port"].as_u64()).collect();
    for overlay in ["small", "production"] {
        let file = format!("{FOLDER}/overlays/{overlay}/kustomization.yaml");
        let literals = strings(&document(&file)?["configMapGenerator"][0]["literals"]);
        let settings: BTreeMap<_, _> = literals.iter().filter_map(|literal| literal.split_once('=')).collect();
        for name in ["KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "CASSANDRA_NODES", "DATABASE_URL"] {
            let address = settings.get(name).with_context(|| format!("{file} lacks {name}"))?;
            let rest = address.rsplit_once("://").map_or(*address, |(_, rest)| rest);
            let place = rest.split('/').next().unwrap_or_default();
            // A policy sees the pods' port, not the Service's. Those of an address without a port are the registry's own.
            let port = match place.rsplit_once(':') {
                Some((_, port)) => port.parse()?,
                None if address.starts_with("https:") => REGISTRY_PORTS.1,
                None => REGISTRY_PORTS.0,
            };
            ensure!(ports.contains(&port), "{file}: no network policy allows port {port} of the pods of {name}");
        }
        if overlay == "production" {
            let scaling = document(&format!("{FOLDER}/components/autoscaling/kustomization.yaml"))?;
            let patches = scaling["patches"].as_array().into_iter().flatten();
            let texts: Vec<_> = patches.filter_map(|patch| patch["patch"].as_str()).collect();
            let partitions = settings.get("TOPIC_PARTITIONS").context("a number of partitions")?;
            let max = format!("path: /spec/maxReplicaCount\n  value: {partitions}\n");
            ensure!(texts.concat().contains(&max), "components/autoscaling has no maximum of {partitions} members");
        }
    }
    Ok(())
}

/// More members do not end the lag of a partition that is paused or stopped. The numbers are in alerts_test.yml.
pub(crate) async fn members_are_not_added_for_what_is_paused_or_stopped() -> anyhow::Result<()> {
    let scaled = documents(&format!("{FOLDER}/components/autoscaling/scaled-objects.yaml"))?;
    ensure!(scaled.len() == STAGES.len(), "{} of {} groups are scaled", scaled.len(), STAGES.len());
    let tests = document("scripts/observability/alerts_test.yml")?;
    let tests = tests["tests"].as_array().into_iter().flatten();
    let tested: BTreeSet<String> = tests
        .filter_map(|test| test["promql_expr_test"].as_array())
        .flatten()
        .filter_map(|test| test["expr"].as_str().map(str::to_owned))
        .collect();
    for object in scaled {
        let spec = &object["spec"];
        let name = spec["scaleTargetRef"]["name"].as_str().context("a ScaledObject has a target")?;
        ensure!(STAGES.iter().any(|stage| stage.group == name), "{name} is no group");
        let query = spec["triggers"][0]["metadata"]["query"].as_str().context("its trigger has a query")?;
        let of_tests = query.replace(&format!("\"{name}\""), "\"popular-items\"");
        ensure!(
            tested.contains(&of_tests),
            "{name}: its query is not that of scripts/observability/alerts_test.yml: {query}"
        );
        for metric in ["cart_lag_seconds", "cart_partition_paused", "cart_partition_stopped"] {
            let is_exported = kafka::METRICS.iter().any(|definition| definition.name == metric);
            ensure!(is_exported && query.contains(metric), "{name}: its query does not use {metric}: {query}");
        }
    }
    Ok(())
}

pub(crate) async fn alerts_are_those_of_prometheus() -> anyhow::Result<()> {
    let rules = document("scripts/observability/alerts.yml")?;
    let ours = document(&format!("{FOLDER}/components/monitoring/alerts.yaml"))?;
    let is_same = rules["groups"] == ours["spec"]["groups"] && rules["groups"].is_array();
    ensure!(
        is_same,
        "components/monitoring/alerts.yaml is not scripts/observability/alerts.yml: scripts/kubernetes/alerts makes it"
    );
    Ok(())
}

pub(crate) async fn examples_of_servers_have_what_is_needed() -> anyhow::Result<()> {
    let versions = server_versions()?;
    let kafka = documents(&format!("{FOLDER}/operators/kafka.yaml"))?;
    let of_kind = |kind: &str| {
        let found = kafka.iter().find(|object| object["kind"] == kind);
        found.map(|object| &object["spec"]).with_context(|| format!("operators/kafka.yaml has no {kind}"))
    };
    let topic = of_kind("KafkaTopic")?;
    for (name, value) in CartCommand::SETTINGS {
        let ours = topic["config"][name].to_string();
        ensure!(ours == *value, "KafkaTopic: {name} is {ours}, not {value}");
    }
    let broker = &of_kind("Kafka")?["kafka"];
    ensure!(broker["version"] == versions["kafka"].as_str(), "Kafka is {}", broker["version"]);
    // What scripts/servers/kafka*.properties have for the guarantees.
    let properties =
        [text("scripts/servers/kafka.properties")?, text("scripts/servers/kafka-cluster.properties")?].concat();
    let properties: BTreeMap<_, _> = properties.lines().filter_map(|line| line.split_once('=')).collect();
    let guaranteed = [
        "auto.create.topics.enable",
        "min.insync.replicas",
        "offsets.topic.replication.factor",
        "offsets.retention.minutes",
        "transaction.state.log.replication.factor",
        "transaction.state.log.min.isr",
        "replica.fetch.max.bytes",
        "broker.session.timeout.ms",
    ];
    for name in guaranteed {
        let (ours, tested) = (&broker["config"][name], properties.get(name).copied().unwrap_or_default());
        ensure!(ours.to_string().trim_matches('"') == tested, "Kafka: {name} is {ours}; the tests run with {tested}");
    }
    let election = &broker["config"]["unclean.leader.election.enable"];
    ensure!(election == "false", "Kafka: an unclean leader election, {election}, loses acknowledged commands");
    let cassandra = document(&format!("{FOLDER}/operators/cassandra.yaml"))?;
    let cassandra = &cassandra["spec"]["cassandra"];
    ensure!(
        cassandra["serverVersion"] == versions["cassandra"].as_str(),
        "Cassandra is {}",
        cassandra["serverVersion"]
    );
    let tested = document("scripts/servers/cassandra.yaml")?;
    for name in ["commitlog_sync", "batch_size_warn_threshold", "batch_size_fail_threshold"] {
        let ours = &cassandra["config"]["cassandraYaml"][name];
        ensure!(*ours == tested[name], "Cassandra: {name} is {ours}; the tests run with {}", tested[name]);
    }
    // The operator merges over Cassandra's own file, whose period forbids `batch`: Cassandra would not start.
    let period = &cassandra["config"]["cassandraYaml"]["commitlog_sync_period"];
    ensure!(*period == "0ms", "Cassandra: commitlog_sync_period is {period}, which batch does not permit");
    // Its services connect with TLS.
    let encryption = &cassandra["config"]["cassandraYaml"]["client_encryption_options"];
    ensure!(encryption["enabled"] == true && encryption["optional"] == false, "Cassandra: clients have {encryption}");
    for store in ["keystoreSecretRef", "truststoreSecretRef"] {
        ensure!(cassandra["clientEncryptionStores"][store]["name"].is_string(), "Cassandra has no {store}");
    }
    let postgres = document(&format!("{FOLDER}/operators/postgres.yaml"))?;
    let major = postgres["spec"]["imageCatalogRef"]["major"].to_string();
    ensure!(versions["postgres"].split('.').next() == Some(&major), "PostgreSQL is {major}");
    // The operator adds a last rule that admits every client with a password, also without TLS.
    let rules = strings(&postgres["spec"]["postgresql"]["pg_hba"]);
    let last = rules.last().map(String::as_str);
    ensure!(last == Some("hostnossl all all all reject"), "PostgreSQL admits clients without TLS: {rules:?}");
    Ok(())
}

pub(crate) async fn the_example_of_a_kafka_user_has_its_grants() -> anyhow::Result<()> {
    let example = documents(&format!("{FOLDER}/operators/kafka.yaml"))?;
    let example = example.iter().find(|object| object["kind"] == "KafkaUser").context("kafka.yaml has a KafkaUser")?;
    let arguments = ["grants", "--for", "strimzi", "--of", "ingest", "--user", "cart-{service}"];
    let printed = Command::new(binary("cartctl")?).args(arguments).output()?;
    let printed = String::from_utf8(printed.stdout)?;
    let printed: Value = serde_saphyr::from_str(&printed).context("cartctl prints a KafkaUser")?;
    for part in ["apiVersion", "kind", "spec"] {
        ensure!(example[part] == printed[part], "{part} is {}; cartctl prints {}", example[part], printed[part]);
    }
    ensure!(example["metadata"]["name"] == printed["metadata"]["name"], "cartctl prints {}", printed["metadata"]);
    let acls = printed["spec"]["authorization"]["acls"].as_array().context("it has acls")?;
    let writes = |acl: &&Value| strings(&acl["operations"]).contains(&String::from("Write"));
    let written: Vec<_> = acls.iter().filter(writes).map(|acl| &acl["resource"]["name"]).collect();
    ensure!(written == [CartCommand::TOPIC], "ingest writes {written:?}");
    Ok(())
}
