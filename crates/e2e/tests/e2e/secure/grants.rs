//! `cartctl doctor` on secured servers: a grant that is missing, and one too many, is named with what to do; with all grants none is.

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartParked, ControlRecord};
use cartctl::grants::Service;
use kafka::{Acl, Operation, ResourceType};

use super::Secured;
use super::removal::{Grant, Servers, grants_of};

const CHECKS: [&str; 3] = ["kafka-grants", "cassandra-grants", "postgres-grants"];

/// A service's grant whose text begins so.
fn grant(secured: &Secured, service: Service, text: &str) -> anyhow::Result<Grant> {
    let mut grants = grants_of(secured, service).into_iter();
    let found = grants.find(|grant| grant.to_string().starts_with(text));
    found.with_context(|| format!("{} has no grant '{text}'", service.name()))
}

/// The doctor finds nothing wrong with the servers, and each user has its grants.
async fn all_is_granted(secured: &Secured) -> anyhow::Result<()> {
    let report = secured.succeed("admin", "cartctl", &["doctor"]).await?;
    for check in CHECKS {
        let line = format!("ok         {check}: services whose users have their grants: ");
        ensure!(report.contains(&line), "{check} is not ok: {report}");
    }
    Ok(())
}

/// The report names the user that may write to each of these topics, and the command that shows by which grant.
fn names_writers_of(topics: &[String], report: &str) -> anyhow::Result<()> {
    for topic in topics {
        for words in [
            format!("User:audit may write to {topic}, and no service of that name does: "),
            format!("take Write on topic {topic} away from User:audit"),
        ] {
            ensure!(report.contains(&words), "the report does not say '{words}': {report}");
        }
    }
    Ok(())
}

pub(crate) async fn a_grant_that_is_missing_or_too_many_is_named_by_the_doctor() -> anyhow::Result<()> {
    let secured = Secured::set_up("doctor_grants").await?;
    let mut servers = Servers::connect(&secured).await?;
    all_is_granted(&secured).await.context("with all grants")?;

    let keyspace = secured.installation.name();
    let commands = secured.installation.kafka().prefixed(CartCommand::TOPIC);
    let prefix = secured.installation.kafka().prefixed("");
    let taken = [
        grant(&secured, Service::Ingest, &format!("Write on Topic {commands}"))?,
        grant(&secured, Service::CartProcessor, &format!("GRANT MODIFY ON TABLE {keyspace}.cart_journal "))?,
        grant(&secured, Service::VendorBillingJdbc, "GRANT UPDATE ON TABLE \"projection_offset\" ")?,
        grant(&secured, Service::Operator, "GRANT \"setup\" ")?,
    ];
    // What only some services may write.
    let guarded = [CartCommand::TOPIC, ControlRecord::TOPIC, CartParked::TOPIC].map(|topic| format!("{prefix}{topic}"));
    let too_many = guarded.each_ref().map(|topic| {
        Grant::Kafka(Acl {
            principal: String::from("User:audit"),
            resource_type: ResourceType::Topic,
            name: topic.clone(),
            is_prefix: false,
            operation: Operation::Write,
        })
    });
    for grant in &too_many {
        servers.change(grant, true).await?;
    }
    for grant in &taken {
        servers.change(grant, false).await?;
    }
    let (is_success, report) = secured.run("admin", "cartctl", &["doctor"]).await?;
    ensure!(!is_success, "grants are missing: {report}");
    for words in [
        "FAILED     kafka-grants: ",
        &format!("ingest lacks Write on topic {commands}: `ingest` does not get ready"),
        &format!("to do: cartctl grants --for kafka --topic-prefix {prefix} --of ingest --apply; "),
        "FAILED     cassandra-grants: ",
        &format!("cart-processor lacks MODIFY on TABLE {keyspace}.cart_journal: "),
        &format!("to do: cartctl grants --for cassandra --cassandra-keyspace {keyspace} --of cart-processor --apply\n"),
        "FAILED     postgres-grants: ",
        "vendor-billing-jdbc lacks UPDATE ON TABLE \"projection_offset\": ",
        // It may still connect, as everybody may where the database was not made by `cartctl grants`.
        "without any grant, which is fine for services that do not run: operator",
        "to do: cartctl grants --for postgres --of vendor-billing-jdbc,operator --apply\n",
        ", 3 failed, ",
    ] {
        ensure!(report.contains(words), "the report does not say '{words}': {report}");
    }
    names_writers_of(&guarded, &report)?;

    // A grant too many is a warning.
    for grant in &taken {
        servers.change(grant, true).await?;
    }
    let report = secured.succeed("admin", "cartctl", &["doctor"]).await?;
    ensure!(report.contains("warning    kafka-grants: User:audit may write to "), "{report}");
    names_writers_of(&guarded, &report)?;
    for grant in &too_many {
        servers.change(grant, false).await?;
    }
    all_is_granted(&secured).await.context("with all grants again")?;
    secured.remove().await
}
