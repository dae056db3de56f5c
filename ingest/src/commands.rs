//! Putting a command into the log and waiting for what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use cart::{CartCommand, CartReply, CommandId};
use kafka::{Codec, Header, OwnedHeaders, Producer, Record};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::problem::Problem;
use crate::replies::Waiters;

/// The way of a command. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    pub(crate) producer: Producer,
    pub(crate) codec: Codec<CartCommand>,
    pub(crate) waiters: Waiters,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) reply_timeout: Duration,
}

/// What is known of a command when its request is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its outcome.
    Replied(CartReply),
    /// It is on its way.
    Pending(CommandId),
}

impl Commands {
    /// Produces a command and waits for its reply.
    pub(crate) async fn execute(&self, command: &CartCommand, trace_parent: Option<&str>) -> Result<Answer, Problem> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(Problem::unavailable("too many commands are under way; the command was not taken"));
        };
        let command_id = command.command_id;
        let Some(mut waiter) = self.waiters.register(command_id) else {
            return Err(Problem::unavailable("this instance can't receive replies yet; the command was not taken"));
        };
        let record = self.record(command, waiter.partition, trace_parent)?;
        let delivery = self.producer.send(&record).map_err(|error| {
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "a command was not taken");
            Problem::unavailable("the log does not take commands at the moment; the command was not taken")
        })?;
        let outcome = async {
            // The reply may be quicker than the log's own confirmation.
            tokio::select! {
                biased;
                reply = &mut waiter.reply => return Ok(reply.map_or(Answer::Pending(command_id), Answer::Replied)),
                delivered = delivery => delivered.map_err(|error| {
                    tracing::warn!(%command_id, error = format!("{:#}", anyhow::Error::new(error)), "not confirmed by the log");
                    Problem::outcome_unknown(command_id)
                })?,
            }
            let reply = (&mut waiter.reply).await;
            Ok(reply.map_or(Answer::Pending(command_id), Answer::Replied))
        };
        match timeout(self.reply_timeout, outcome).await {
            Ok(result) => result,
            Err(_) => Ok(Answer::Pending(command_id)),
        }
    }

    fn record(
        &self,
        command: &CartCommand,
        reply_partition: i32,
        trace_parent: Option<&str>,
    ) -> Result<Record, Problem> {
        let value = self.codec.encode(command).map_err(|error| {
            tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "a command does not fit its schema");
            Problem::unavailable("the command can't be written; it was not taken")
        })?;
        let reply_partition = reply_partition.to_string();
        let mut headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: "content-type", value: Some("avro/binary") })
            .insert(Header { key: "reply-partition", value: Some(&reply_partition) });
        if let Some(value) = trace_parent {
            headers = headers.insert(Header { key: "traceparent", value: Some(value) });
        }
        let key = command.cart_id.to_string().into_bytes();
        Ok(Record { partition: None, key: Some(key), value: Some(value), headers: Some(headers) })
    }
}
