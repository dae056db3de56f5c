//! `docker-compose.yml`, the image and `scripts/kubernetes` are held to what they start: variables, ports, paths, versions.
//!
//! * [`compose`]: the compose file, whose services are started as it says, without an engine.
//! * [`image`]: the Dockerfile.
//! * [`kubernetes`]: the manifests' files. `scripts/kubernetes/check` and `rollout-test` look at what kustomize makes of them.
//! * [`pods`]: grace periods, the audit's memory, who may connect, and the pod of operators.
//! * [`users`]: the PostgreSQL users of the manifests, which are those of `cartctl grants`.

pub(crate) mod compose;
pub(crate) mod image;
pub(crate) mod kubernetes;
pub(crate) mod pods;
pub(crate) mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, ensure};
use e2e::harness::root;
use serde_json::Value;

use crate::settings::option_names;

/// What a process reads from its environment beside its options: traces (OpenTelemetry), and tokio.
fn is_no_option(name: &str) -> bool {
    name.starts_with("OTEL_") || name == "TOKIO_WORKER_THREADS"
}

fn text(file: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| format!("reading {file}"))
}

/// All documents of a YAML file, with its aliases and merges resolved.
fn documents(file: &str) -> anyhow::Result<Vec<Value>> {
    serde_saphyr::from_multiple(&text(file)?).with_context(|| format!("reading {file}"))
}

fn document(file: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(&text(file)?).with_context(|| format!("reading {file}"))
}

/// The items of a list.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The item of a list that has this name.
fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    items(list).find(|item| item["name"] == name)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// What operators run in the container of a service, beside the service itself.
const RUN_THERE: [(&str, &[&str]); 1] = [("audit", &["cartctl", "status"])];

/// The names of the options that a service's container uses: those of its command, which starts a binary or is a shell's that starts
/// several, and of what operators run there.
fn options_of(service: &str, words: &[String]) -> anyhow::Result<BTreeSet<String>> {
    let script = words.last().filter(|_| words.first().is_some_and(|word| word == "sh"));
    let commands: Vec<Vec<&str>> = match script {
        Some(script) => script.split(';').map(|command| command.split_whitespace().collect()).collect(),
        None => vec![words.iter().map(String::as_str).collect()],
    };
    let mut names = BTreeSet::new();
    for command in commands {
        names.extend(option_names(&command)?);
    }
    for (_, command) in RUN_THERE.iter().filter(|(name, _)| *name == service) {
        names.extend(option_names(command)?);
    }
    Ok(names)
}

/// The version of each server in `scripts/servers/pom.xml`, by its property.
fn server_versions() -> anyhow::Result<BTreeMap<String, String>> {
    let pom = text("scripts/servers/pom.xml")?;
    let property = |line: &str| {
        let (name, rest) = line.trim().strip_prefix('<')?.split_once(".version>")?;
        let (version, _) = rest.split_once("</")?;
        Some((name.to_owned(), version.to_owned()))
    };
    let versions: BTreeMap<_, _> = pom.lines().filter_map(property).collect();
    ensure!(versions.len() >= 4, "the versions of pom.xml were not understood: {versions:?}");
    Ok(versions)
}
