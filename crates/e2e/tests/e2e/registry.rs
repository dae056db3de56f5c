//! A registry that holds something else than ours under our subjects: `setup` refuses, and so does a service that is started,
//! both at once and in words.

use std::time::Duration;

use anyhow::ensure;
use cart::contract::Contract as _;
use cart::{Aggregate, CartCommand, CartEvent, CartReply, PurchasedItem};
use e2e::harness::{Installation, Process, Service};
use kafka::{KafkaArgs, Registry};

const DEADLINE: Duration = Duration::from_secs(180);

/// Long: who waited for a schema to fit would be seen.
const PATIENT: [&str; 2] = ["--startup-timeout-s", "600"];

/// Somebody else's: nothing of ours can be read as this, or this as ours.
const FOREIGN: &str =
    r#"{"type": "record", "name": "Parcel", "namespace": "elsewhere", "fields": [{"name": "weight", "type": "int"}]}"#;

/// Waits for the end of a program that must not do its work, and must say why.
async fn refuses(mut process: Process, subject: &str) -> anyhow::Result<()> {
    let status = process.ended(DEADLINE).await?;
    let log = process.log();
    ensure!(!status.success(), "it ended well: {log}");
    for words in [subject, "an incompatible schema is registered", "--topic-prefix"] {
        ensure!(log.contains(words), "it does not say '{words}': {log}");
    }
    Ok(())
}

/// As in a registry that was restored, or made anew by somebody else: nothing is left under the subject but this.
async fn replace(registry: &Registry, kafka: &KafkaArgs, topic: &str, schema: &str) -> anyhow::Result<String> {
    let subject = format!("{}-value", kafka.prefixed(topic));
    let url = format!("{}/subjects/{subject}", kafka.schema_registry_url);
    for way in ["", "?permanent=true"] {
        reqwest::Client::new().delete(format!("{url}{way}")).send().await?.error_for_status()?;
    }
    registry.register(topic, schema).await?;
    Ok(subject)
}

pub(crate) async fn other_schemas_under_our_names_are_refused() -> anyhow::Result<()> {
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
    // Nothing was harmed.
    installation.run("setup-again", "cart-processor", ["setup"], DEADLINE).await?;
    installation.remove().await
}
