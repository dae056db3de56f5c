//! With foreign schemas under the system's subjects, `setup` and a starting service fail at once, with a message.

use std::time::Duration;

use anyhow::ensure;
use cart::contract::Contract as _;
use cart::{Aggregate, CartCommand, CartEvent, CartReply, PurchasedItem};
use e2e::harness::{Installation, Process, Service};
use kafka::{KafkaArgs, Registry};

const DEADLINE: Duration = Duration::from_secs(180);

/// Long, so that a service that waits for another schema would fail the test.
const PATIENT: [&str; 2] = ["--startup-timeout-s", "600"];

/// A foreign schema, incompatible with the system's.
const FOREIGN: &str =
    r#"{"type": "record", "name": "Parcel", "namespace": "elsewhere", "fields": [{"name": "weight", "type": "int"}]}"#;

/// Waits for the end of a program, which must fail with this message.
async fn refuses(mut process: Process, subject: &str) -> anyhow::Result<()> {
    let status = process.ended(DEADLINE).await?;
    let log = process.log();
    ensure!(!status.success(), "it ended well: {log}");
    for words in [subject, "an incompatible schema is registered", "--topic-prefix"] {
        ensure!(log.contains(words), "it does not say '{words}': {log}");
    }
    Ok(())
}

/// Replaces all schemas of the subject, as in a registry that was restored or recreated.
async fn replace(registry: &Registry, kafka: &KafkaArgs, topic: &str, schema: &str) -> anyhow::Result<String> {
    let subject = format!("{}-value", kafka.prefixed(topic));
    let url = format!("{}/subjects/{subject}", kafka.schema_registry_url);
    for way in ["", "?permanent=true"] {
        reqwest::Client::new().delete(format!("{url}{way}")).send().await?.error_for_status()?;
    }
    registry.register(topic, schema).await?;
    Ok(subject)
}

pub(crate) async fn foreign_schemas_under_the_systems_subjects_are_rejected() -> anyhow::Result<()> {
    let installation = Installation::new("foreign")?;
    installation.setup().await?;
    let kafka = installation.kafka();
    let registry = Registry::new(kafka)?;
    let re_keying = Service::Projector("item-purchased-events");
    for (binary, service, topic, ours) in [
        ("cart-processor", Service::CartProcessor, CartCommand::TOPIC, CartCommand::SCHEMA),
        ("cart-processor", Service::CartProcessor, CartEvent::TOPIC, CartEvent::SCHEMA),
        ("cart-processor", Service::CartProcessor, Aggregate::TOPIC, Aggregate::SCHEMA),
        ("ingest", Service::Ingest, CartReply::TOPIC, CartReply::SCHEMA),
        ("projectors", re_keying, CartEvent::TOPIC, CartEvent::SCHEMA),
        ("projectors", Service::Projector("popular-items"), PurchasedItem::TOPIC, PurchasedItem::SCHEMA),
    ] {
        let subject = replace(&registry, kafka, topic, FOREIGN).await?;
        refuses(installation.spawn(&format!("setup-{binary}-{topic}"), binary, ["setup"])?, &subject).await?;
        refuses(installation.start(service, topic, &PATIENT)?, &subject).await?;
        replace(&registry, kafka, topic, ours).await?;
    }
    // Nothing was changed.
    installation.run("setup-again", "cart-processor", ["setup"], DEADLINE).await?;
    installation.remove().await
}
