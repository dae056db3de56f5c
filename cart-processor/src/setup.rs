//! Making what the processor needs, where it is not there yet.

use anyhow::{Context as _, ensure};
use cart::contract::{CONTROL_PARTITIONS, Contract, DEAD_LETTER_SETTINGS, DEAD_LETTER_TOPIC, group};
use cart::{Aggregate, CartCommand, CartEvent, CartParked, CartReply, ControlRecord};
use cassandra::LogNotRecorded;
use journal::Journal;
use kafka::{Admin, Codec, Registry};

use crate::args::SetupArgs;

/// Idempotent: a second time changes nothing.
pub(crate) async fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let SetupArgs { kafka, topics, cassandra, keyspace, .. } = args;
    let admin = Admin::new(kafka)?;
    let (commands, events) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartEvent::TOPIC));
    admin
        .ensure_topics(&[
            topics.spec(commands.clone(), CartCommand::SETTINGS),
            topics.spec(events.clone(), CartEvent::SETTINGS),
            topics.spec(kafka.prefixed(CartReply::TOPIC), CartReply::SETTINGS),
            topics.spec(kafka.prefixed(DEAD_LETTER_TOPIC), DEAD_LETTER_SETTINGS),
            topics.spec_of(kafka.prefixed(ControlRecord::TOPIC), CONTROL_PARTITIONS, ControlRecord::SETTINGS),
            topics.spec(kafka.prefixed(CartParked::TOPIC), CartParked::SETTINGS),
        ])
        .await?;
    let registry = Registry::new(kafka)?;
    Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    Codec::<ControlRecord>::register(&registry, ControlRecord::TOPIC, ControlRecord::SCHEMA).await?;
    Codec::<CartEvent>::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    Codec::<CartReply>::register(&registry, CartReply::TOPIC, CartReply::SCHEMA).await?;
    parking::codec(&registry).await?;
    Codec::<Aggregate>::register(&registry, Aggregate::TOPIC, Aggregate::SCHEMA).await?;
    cassandra::ensure_keyspace(cassandra, keyspace).await?;
    let session = cassandra::connect(&cassandra.patient()).await?;
    Journal::setup(&session).await?;
    let identity = tokio::task::block_in_place(|| admin.identity(&commands))?;
    let group = kafka.prefixed(group::CART_PROCESSOR);
    cassandra::create_log_table(&session).await?;
    let is_another = match cassandra::log_epoch(&session, &commands, &identity).await {
        Ok(_) => false,
        Err(LogNotRecorded::Unknown { .. }) => {
            let committed = tokio::task::block_in_place(|| admin.committed(&group, &commands))?;
            ensure!(
                committed.iter().flatten().all(|offset| *offset == 0),
                "group {group} has decided commands of {commands}, but keyspace {} has no journal of it. If the journal was \
                 lost, run `cartctl restore-journal` first; otherwise set --cassandra-keyspace to the right keyspace",
                cassandra.cassandra_keyspace,
            );
            false
        }
        Err(LogNotRecorded::Another { .. }) if args.accept_new_log => true,
        Err(error) => return Err(error.into()),
    };
    // The first offsets before the log is written down, since services wait for that: one that is started early must
    // find them. If we die in between, a second setup does the rest.
    tokio::task::block_in_place(|| match is_another {
        // What was committed went with the old log.
        true => admin.start_new_log(&group, &commands),
        false => admin.ensure_start(&group, &commands, &events),
    })
    .context("setting up the group")?;
    let epoch = match is_another {
        true => cassandra::accept_new_log(&session, &commands, &identity).await?,
        false => cassandra::ensure_log(&session, &commands, &identity).await?,
    };
    tracing::info!(epoch = epoch.get(), partitions = identity.partitions, "the cart-processor is set up");
    Ok(())
}
