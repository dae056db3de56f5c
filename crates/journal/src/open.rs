//! What a service that uses the journal waits for at its start: servers, `setup`, schemas.

use std::sync::Arc;

use cart::contract::Contract;
use cart::{CartCommand, CartReply, LogEpoch};
use cassandra::{CassandraArgs, LogNotRecorded};
use kafka::{Admin, Codec, KafkaArgs, LogIdentity, Recovery, Registry};
use scylla::client::session::Session;
use service::{Startup, wait_for, wait_for_unless};

use crate::{Codecs, Journal};

/// What the start has found.
#[derive(Clone)]
pub struct Opened {
    /// `cart-commands`, the log that the journal belongs to.
    pub log: LogIdentity,
    pub epoch: LogEpoch,
    /// A session of the journal's keyspace.
    pub session: Arc<Session>,
    pub journal: Journal,
    /// Commands as they are on `cart-commands`.
    pub commands: Codec<CartCommand>,
    /// Replies as they are on `cart-replies`.
    pub replies: Codec<CartReply>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("log", &self.log).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Waits for each of them.
///
/// # Errors
/// When one of them is not there in time. At once when the log is another than the recorded one, or a schema is incompatible:
/// a wait would not change that.
pub async fn open(
    kafka: &KafkaArgs,
    cassandra: &CassandraArgs,
    admin: &Admin,
    startup: &Startup,
) -> anyhow::Result<Opened> {
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let log =
        wait_for(&format!("topic {topic}"), startup, async || tokio::task::block_in_place(|| admin.identity(&topic)))
            .await?;
    let session = wait_for("Cassandra", startup, async || cassandra::connect(cassandra).await).await?;
    let session = Arc::new(session);
    let is_another = |error: &LogNotRecorded| matches!(error, LogNotRecorded::Another { .. });
    let epoch = wait_for_unless("`cart-processor setup`", startup, is_another, async || {
        cassandra::log_epoch(&session, &topic, &log).await
    })
    .await?;
    let registry = Registry::new(kafka)?;
    let is_incompatible = |error: &kafka::Error| error.recovery() == Recovery::Fatal;
    let (codecs, commands, replies) = wait_for_unless("the schema registry", startup, is_incompatible, async || {
        Ok((
            Codecs::register(&registry).await?,
            Codec::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?,
            Codec::register(&registry, CartReply::TOPIC, CartReply::SCHEMA).await?,
        ))
    })
    .await?;
    let journal =
        wait_for("the journal", startup, async || Journal::open(session.clone(), codecs.clone()).await).await?;
    Ok(Opened { log, epoch, session, journal, commands, replies })
}
