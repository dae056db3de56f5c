//! Making what the processor needs, where it is not there yet.

use anyhow::Context as _;
use cart::contract::{Contract, DEAD_LETTER_SETTINGS, DEAD_LETTER_TOPIC};
use cart::{Aggregate, CartCommand, CartEvent, CartReply};
use cassandra::LogNotRecorded;
use journal::Journal;
use kafka::{Admin, Codec, Registry};

use crate::GROUP;
use crate::args::SetupArgs;

/// Idempotent: a second time changes nothing.
pub(crate) async fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let SetupArgs { kafka, topics, cassandra, .. } = args;
    let admin = Admin::new(kafka)?;
    let (commands, events) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartEvent::TOPIC));
    admin
        .ensure_topics(&[
            topics.spec(commands.clone(), CartCommand::SETTINGS),
            topics.spec(events.clone(), CartEvent::SETTINGS),
            topics.spec(kafka.prefixed(CartReply::TOPIC), CartReply::SETTINGS),
            topics.spec(kafka.prefixed(DEAD_LETTER_TOPIC), DEAD_LETTER_SETTINGS),
        ])
        .await?;
    let registry = Registry::new(kafka)?;
    Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    Codec::<CartEvent>::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    Codec::<CartReply>::register(&registry, CartReply::TOPIC, CartReply::SCHEMA).await?;
    Codec::<Aggregate>::register(&registry, Aggregate::TOPIC, Aggregate::SCHEMA).await?;
    cassandra::ensure_keyspace(cassandra).await?;
    let session = cassandra::connect(cassandra).await?;
    Journal::setup(&session).await?;
    let identity = tokio::task::block_in_place(|| admin.identity(&commands))?;
    let group = kafka.prefixed(GROUP);
    let epoch = if args.accept_new_log {
        let recorded = cassandra::log_epoch(&session, &commands, &identity).await;
        if matches!(recorded, Err(LogNotRecorded::Another { .. })) {
            // What was committed went with the old log. Done before the new one is written down: if we die in between, it
            // is still to be accepted.
            tokio::task::block_in_place(|| admin.start_new_log(&group, &commands)).context("setting up the group")?;
        }
        cassandra::accept_new_log(&session, &commands, &identity).await?
    } else {
        cassandra::ensure_log(&session, &commands, &identity).await?
    };
    tokio::task::block_in_place(|| admin.ensure_start(&group, &commands, &events)).context("setting up the group")?;
    tracing::info!(epoch = epoch.get(), partitions = identity.partitions, "the cart-processor is set up");
    Ok(())
}
