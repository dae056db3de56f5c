//! Creates the topics and schemas that ingest needs.

use cart::contract::Contract;
use cart::{CartCommand, CartReply};
use kafka::{Admin, Codec, Registry};

use crate::args::SetupArgs;

/// Idempotent: what exists is not changed.
pub(crate) async fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let SetupArgs { kafka, topics, .. } = args;
    Admin::new(kafka)?
        .ensure_topics(&[
            topics.spec(kafka.prefixed(CartCommand::TOPIC), CartCommand::SETTINGS),
            topics.spec(kafka.prefixed(CartReply::TOPIC), CartReply::SETTINGS),
        ])
        .await?;
    let registry = Registry::new(kafka)?;
    Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    Codec::<CartReply>::register(&registry, CartReply::TOPIC, CartReply::SCHEMA).await?;
    tracing::info!("ingest is set up");
    Ok(())
}
