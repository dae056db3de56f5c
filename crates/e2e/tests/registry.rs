//! A registry that holds something else than ours under our subjects: `setup` refuses, and so does a service that is started,
//! both at once and in words.

use std::time::Duration;

use anyhow::ensure;
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, CartReply, PurchasedItem};
use e2e::harness::{Installation, Process, Service};
use kafka::Registry;

const DEADLINE: Duration = Duration::from_secs(60);

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
    for words in [subject, "another schema is registered that ours does not fit", "--topic-prefix"] {
        ensure!(log.contains(words), "it does not say '{words}': {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_refuses_a_registry_with_other_schemas() -> anyhow::Result<()> {
    for (binary, topic) in [
        ("cart-processor", CartCommand::TOPIC),
        ("cart-processor", CartEvent::TOPIC),
        ("ingest", CartReply::TOPIC),
        ("projectors", PurchasedItem::TOPIC),
    ] {
        let installation = Installation::new("foreign")?;
        if binary == "projectors" {
            installation.create_database().await?;
        }
        Registry::new(installation.kafka())?.register(topic, FOREIGN).await?;
        let subject = format!("{}-value", installation.kafka().prefixed(topic));
        refuses(installation.spawn("setup", binary, ["setup"])?, &subject).await?;
        installation.remove().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_refuses_to_start_with_other_schemas() -> anyhow::Result<()> {
    let installation = Installation::new("foreign")?;
    installation.setup().await?;
    // As a registry that was restored, or made anew by somebody else: our subjects are gone, and something else has their names.
    let (http, kafka) = (reqwest::Client::new(), installation.kafka());
    let registry = Registry::new(kafka)?;
    for (service, topic) in [
        (Service::CartProcessor, CartCommand::TOPIC),
        (Service::Ingest, CartReply::TOPIC),
        (Service::Projector("item-purchased-events"), CartEvent::TOPIC),
        (Service::Projector("popular-items"), PurchasedItem::TOPIC),
    ] {
        let subject = format!("{}-value", kafka.prefixed(topic));
        let url = format!("{}/subjects/{subject}", kafka.schema_registry_url);
        for way in ["", "?permanent=true"] {
            http.delete(format!("{url}{way}")).send().await?.error_for_status()?;
        }
        registry.register(topic, FOREIGN).await?;
        refuses(installation.start(service, "0", &PATIENT)?, &subject).await?;
    }
    installation.remove().await
}
