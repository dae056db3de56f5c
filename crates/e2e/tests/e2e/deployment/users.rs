//! The PostgreSQL users of `overlays/production`: those of `cartctl grants`, one for each service that connects.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use cart::Generation;
use cartctl::grants::{Service, TableGenerations, sql};
use serde_json::Value;

use super::{document, documents, items, named, strings};

const FOLDER: &str = "scripts/kubernetes";

/// Whether the service connects to PostgreSQL. `setup` owns what it makes there, so it needs no grant.
fn connects(service: Service) -> bool {
    let grants = sql(service, "user", "owner", "cart", &TableGenerations::only(Generation::FIRST), false);
    service == Service::Setup || !grants.is_empty()
}

/// Its user, as `cartctl grants --user 'cart-{service}'` calls it.
fn user(service: Service) -> String {
    format!("cart-{}", service.name())
}

/// A variable of a workload's container.
fn variable<'a>(workload: &'a Value, name: &str) -> Option<&'a str> {
    named(&workload["spec"]["template"]["spec"]["containers"][0]["env"], name)?["value"].as_str()
}

pub(crate) async fn each_service_has_a_user_of_its_own_in_postgres() -> anyhow::Result<()> {
    let (mut workloads, mut names) = (BTreeSet::new(), BTreeSet::new());
    // `cartctl` of operators runs in a pod of theirs (`pods.rs`).
    for service in Service::ALL.into_iter().filter(|service| *service != Service::Operator) {
        let (name, user) = (service.name(), user(service));
        let base = documents(&format!("{FOLDER}/base/{name}.yaml"))?;
        let has_password = variable(&base[0], "DATABASE_PASSWORD_FILE").is_some();
        ensure!(has_password == connects(service), "base/{name}.yaml: a password for PostgreSQL: {has_password}");
        let file = format!("{FOLDER}/components/secured/users/{name}.yaml");
        let patch = document(&file)?;
        let url = connects(service).then(|| format!("postgres://{user}@server.invalid"));
        ensure!(variable(&patch, "DATABASE_URL") == url.as_deref(), "{file}: the user is not {user} ({url:?})");
        let volume = named(&patch["spec"]["template"]["spec"]["volumes"], "postgres");
        let secret = volume.and_then(|volume| volume["secret"]["secretName"].as_str());
        let expected = connects(service).then(|| format!("{user}-postgres"));
        ensure!(secret == expected.as_deref(), "{file}: the password is in {secret:?}, not {expected:?}");
        if connects(service) {
            workloads.insert(format!("{} {}", patch["kind"], patch["metadata"]["name"]));
            names.insert(name);
        }
    }
    let file = format!("{FOLDER}/components/secured/kustomization.yaml");
    let component = document(&file)?;
    let authority = items(&component["patches"]).find(|patch| patch["path"] == "postgres.yaml");
    let trusts = authority.and_then(|patch| patch["target"]["name"].as_str()).context("postgres.yaml has a target")?;
    let trusts: BTreeSet<_> = trusts.split('|').map(ToOwned::to_owned).collect();
    ensure!(trusts == names, "{file}: postgres.yaml is for {trusts:?}, not {names:?}");
    servers_are_added(&workloads)
}

/// The overlay puts the server behind each user. Its ConfigMap has no user, which a service could take for its own.
fn servers_are_added(workloads: &BTreeSet<String>) -> anyhow::Result<()> {
    let file = format!("{FOLDER}/overlays/production/kustomization.yaml");
    let overlay = document(&file)?;
    let literals = strings(&overlay["configMapGenerator"][0]["literals"]);
    let server = literals.iter().find_map(|literal| literal.strip_prefix("DATABASE_URL=postgres://"));
    let server = server.with_context(|| format!("{file} lacks DATABASE_URL"))?;
    ensure!(!server.contains('@'), "{file}: DATABASE_URL has a user: {server}");
    let replacement = &overlay["replacements"][0];
    ensure!(replacement["source"]["fieldPath"] == "data.DATABASE_URL", "{file}: replaced by {}", replacement["source"]);
    let targets = items(&replacement["targets"]).map(|target| &target["select"]);
    let targets: BTreeSet<_> = targets.map(|select| format!("{} {}", select["kind"], select["name"])).collect();
    ensure!(targets == *workloads, "{file}: replaced in {targets:?}, not in {workloads:?}");
    Ok(())
}

pub(crate) async fn the_example_of_postgres_has_the_users() -> anyhow::Result<()> {
    let file = format!("{FOLDER}/operators/postgres.yaml");
    let cluster = document(&file)?;
    let spec = &cluster["spec"];
    let owner = user(Service::Setup);
    let owns = &spec["bootstrap"]["initdb"]["owner"];
    ensure!(*owns == owner, "{file}: the owner is {owns}, not {owner}");
    let roles = &spec["managed"]["roles"];
    let expected = Service::ALL.into_iter().filter(|service| *service != Service::Setup && connects(*service));
    let expected: BTreeSet<_> = expected.map(user).collect();
    let declared: BTreeSet<_> = items(roles).filter_map(|role| role["name"].as_str()).map(ToOwned::to_owned).collect();
    ensure!(declared == expected, "{file}: the roles are {declared:?}, not {expected:?}");
    for role in items(roles) {
        let name = role["name"].as_str().context("a role has a name")?;
        let secret = &role["passwordSecret"]["name"];
        ensure!(*secret == format!("{name}-postgres"), "{file}: the password of {name} is in {secret}");
        let is_member = strings(&role["inRoles"]) == [owner.as_str()];
        ensure!(is_member == (name == user(Service::Operator)), "{file}: {name} is a member of {}", role["inRoles"]);
    }
    Ok(())
}
