//! Appending commands to the log and waiting for their outcomes.

mod lookup;
mod replies;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cart::contract::header;
use cart::{CartCommand, CartId, CartReply, CommandId, Outcome};
use kafka::{Codec, Header, OwnedHeaders, PartitionBatcher, Record};
use service::LogLimit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use trace::TraceHeaders;

pub(crate) use lookup::{CommandLookup, Status};
pub(crate) use replies::{Waiters, random_partition, read_replies};

use crate::problem::Problem;
use replies::Waiter;

/// Appends commands and waits for their outcomes. Clones share the log and the waiters.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    pub(crate) log: PartitionBatcher,
    pub(crate) codec: Codec<CartCommand>,
    pub(crate) waiters: Waiters,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) reply_timeout: Duration,
}

/// How long a client wants to wait for the outcome (`Prefer`, RFC 7240).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preference {
    /// Up to the reply timeout.
    Default,
    /// At most this long: `wait=N`, in seconds.
    Wait(Duration),
    /// Not at all: `respond-async`.
    RespondAsync,
}

/// What is known of a command when its request is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Replied(CartReply),
    /// The log has the command; its outcome is not known yet.
    Pending(CommandLink),
    /// The log has the command; it is not decided, since its cart is parked, for this reason.
    Parked(CommandLink, String),
}

/// The path of a command's status.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLink {
    pub(crate) cart_id: CartId,
    pub(crate) command_id: CommandId,
    /// The earliest time of its record in the log, in milliseconds since 1970.
    pub(crate) since: u64,
}

impl std::fmt::Display for CommandLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cart_id, command_id, since } = self;
        write!(f, "/cart/{cart_id}/commands/{command_id}?since={since}")
    }
}

/// Completes with the offset, when the log has the command.
type Delivery = Pin<Box<dyn Future<Output = Result<i64, kafka::Error>> + Send>>;

/// A command in the queue of the log's producer.
struct Submitted {
    link: CommandLink,
    delivery: Delivery,
    waiter: Option<Waiter>,
    deadline: Instant,
    /// Delivery deadline: after it the record has either been appended or never will be (`delivery.timeout.ms`).
    log_deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Commands {
    /// Produces a command and waits for its reply.
    pub(crate) async fn execute(
        &self,
        command: &CartCommand,
        trace: TraceHeaders<'_>,
        preference: Preference,
    ) -> Result<Answer, Problem> {
        let deadline = self.deadline(preference);
        self.submit(command, trace, preference, deadline)?.outcome().await
    }

    /// The end of the wait for an outcome.
    fn deadline(&self, preference: Preference) -> Instant {
        Instant::now()
            + match preference {
                Preference::Wait(wait) => wait.min(self.reply_timeout),
                Preference::Default | Preference::RespondAsync => self.reply_timeout,
            }
    }

    /// Passes a command to the producer. After an error it is not in the log and will not be executed.
    fn submit(
        &self,
        command: &CartCommand,
        trace: TraceHeaders<'_>,
        preference: Preference,
        deadline: Instant,
    ) -> Result<Submitted, Problem> {
        let Ok(permit) = self.in_flight.clone().try_acquire_owned() else {
            return Err(Problem::unavailable(
                "too many commands are in flight; the command was not executed, retry later",
            ));
        };
        let CartCommand { cart_id, command_id, .. } = *command;
        let waiter = match preference {
            Preference::RespondAsync => None,
            Preference::Default | Preference::Wait(_) => Some(self.waiters.register(command_id)),
        };
        let trace = trace::append(trace, self.log.topic());
        let record = self.record(command, waiter.as_ref().map(Waiter::partition), trace.headers())?;
        let partition = self.log.partition(&record);
        let since = fail_points::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let link = CommandLink { cart_id, command_id, since: u64::try_from(since).unwrap_or(u64::MAX) };
        // A crash before this leaves nothing behind; the client sees a broken connection. After it the command may be in
        // the log. In both cases a retry with the same idempotency key gets the one outcome.
        fail_points::crash_point("ingest-before-log");
        let delivery = self.log.send(record).map_err(|error| {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, left_out, "a command was not appended to the log");
            }
            Problem::unavailable("the log is unavailable; the command was not executed, retry later")
        })?;
        let log_deadline = Instant::now() + self.reply_timeout;
        let delivery: Delivery = match trace.span() {
            None => Box::pin(delivery),
            Some(span) => Box::pin(span.clone().sending(delivery, self.log.topic().to_owned(), partition)),
        };
        Ok(Submitted { link, delivery, waiter, deadline, log_deadline, _permit: permit })
    }

    fn record(
        &self,
        command: &CartCommand,
        reply_partition: Option<i32>,
        trace: TraceHeaders<'_>,
    ) -> Result<Record, Problem> {
        let value = self.codec.encode(command).map_err(|error| {
            tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "a command does not match its schema");
            Problem::unavailable("the command cannot be encoded; it was not executed")
        })?;
        let mut headers =
            OwnedHeaders::new_with_capacity(3).insert(Header { key: header::CONTENT_TYPE, value: Some(header::AVRO) });
        if let Some(partition) = reply_partition {
            headers = headers.insert(Header { key: header::REPLY_PARTITION, value: Some(&partition.to_string()) });
        }
        headers = kafka::with_trace(headers, trace);
        let key = command.cart_id.to_string().into_bytes();
        Ok(Record { partition: None, key: Some(key), value: Some(value), headers: Some(headers) })
    }
}

impl Submitted {
    /// Waits for the reply until the deadline, then for the log to confirm the command.
    async fn outcome(mut self) -> Result<Answer, Problem> {
        let unknown = |link: CommandLink| Problem::outcome_unknown(link.command_id, link.to_string());
        let (link, mut deadline) = (self.link, self.deadline);
        let mut is_delivered = false;
        loop {
            tokio::select! {
                biased;
                // An error means that the reply cannot arrive any more.
                reply = async { (&mut self.waiter.as_mut()?.reply).await.ok() }, if self.waiter.is_some() => match reply {
                    Some(reply) => {
                        fail_points::crash_point("ingest-before-answer");
                        if let Outcome::Parked { reason } = reply.outcome {
                            return Ok(Answer::Parked(link, reason));
                        }
                        return Ok(Answer::Replied(reply));
                    }
                    None => self.waiter = None,
                },
                delivered = &mut self.delivery, if !is_delivered => match delivered {
                    Ok(offset) => {
                        is_delivered = true;
                        fail_points::crash_point("ingest-after-log");
                        if let Some(waiter) = &self.waiter {
                            waiter.delivered(offset);
                        }
                    }
                    Err(error) => {
                        static LIMIT: LogLimit = LogLimit::new();
                        if let Some(left_out) = LIMIT.admit() {
                            let error = format!("{:#}", anyhow::Error::new(error));
                            let command_id = link.command_id;
                            tracing::warn!(%command_id, error, left_out, "the log did not confirm a command");
                        }
                        return Err(unknown(link));
                    }
                },
                () = sleep_until(deadline) => {
                    if is_delivered {
                        return Ok(Answer::Pending(link));
                    }
                    if deadline >= self.log_deadline {
                        return Err(unknown(link));
                    }
                    // The client does not wait longer for the outcome. The confirmation of the log is always waited for.
                    (deadline, self.waiter) = (self.log_deadline, None);
                }
            }
            if is_delivered && self.waiter.is_none() {
                return Ok(Answer::Pending(link));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cart::{LogEpoch, Outcome, Position, Rejection};
    use tokio::time::sleep;
    use uuid::Uuid;

    use super::*;
    use crate::problem::Kind;

    const OFFSET: i64 = 7;
    const SECOND: Duration = Duration::from_secs(1);

    /// A command whose client waits for 2 s, and whose delivery ends within 5 s.
    struct Case {
        /// When the delivery ends, and whether it succeeds.
        delivered: (Duration, bool),
        /// When the reply arrives. Without a time the client does not wait for it.
        replied: Option<Duration>,
    }

    impl Case {
        /// The answer, and when it was known.
        async fn run(self) -> (Result<&'static str, Kind>, Duration) {
            let (cart_id, command_id) = (CartId::from(Uuid::nil()), CommandId::from(Uuid::nil()));
            let waiters = Waiters::at(3);
            let waiter = self.replied.map(|_| waiters.register(command_id));
            let (delivered_after, is_delivered) = self.delivered;
            let delivery = async move {
                sleep(delivered_after).await;
                if is_delivered { Ok(OFFSET) } else { Err(kafka::Error::retry("producing", "the brokers are down")) }
            };
            let started_at = Instant::now();
            let submitted = Submitted {
                link: CommandLink { cart_id, command_id, since: 0 },
                delivery: Box::pin(delivery),
                waiter,
                deadline: started_at + 2 * SECOND,
                log_deadline: started_at + 5 * SECOND,
                _permit: Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit"),
            };
            if let Some(replied_after) = self.replied {
                tokio::spawn(async move {
                    sleep(replied_after).await;
                    let outcome = Outcome::Rejected { rejection: Rejection::EmptyCartCheckout, index: None };
                    let position = Position::new(LogEpoch::FIRST, OFFSET);
                    waiters.complete(&CartReply { command_id, cart_id, position, outcome });
                });
            }
            let answer = match submitted.outcome().await {
                Ok(Answer::Replied(_)) => Ok("replied"),
                Ok(Answer::Pending(_)) => Ok("pending"),
                Ok(Answer::Parked(..)) => Ok("parked"),
                Err(problem) => Err(problem.kind()),
            };
            (answer, started_at.elapsed())
        }
    }

    const NEVER: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn a_reply_in_time_is_the_answer() {
        let before_its_delivery = Case { delivered: (SECOND, true), replied: Some(SECOND / 2) };
        assert_eq!(before_its_delivery.run().await, (Ok("replied"), SECOND));
        let after_its_delivery = Case { delivered: (SECOND / 2, true), replied: Some(SECOND) };
        assert_eq!(after_its_delivery.run().await, (Ok("replied"), SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivered_command_without_a_reply_is_pending_at_the_deadline() {
        let late_reply = Case { delivered: (SECOND, true), replied: Some(NEVER) };
        assert_eq!(late_reply.run().await, (Ok("pending"), 2 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn the_delivery_is_waited_for_beyond_the_deadline() {
        let late_delivery = Case { delivered: (3 * SECOND, true), replied: Some(NEVER) };
        assert_eq!(late_delivery.run().await, (Ok("pending"), 3 * SECOND));
        let without_reply = Case { delivered: (3 * SECOND, true), replied: None };
        assert_eq!(without_reply.run().await, (Ok("pending"), 3 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unconfirmed_command_has_an_unknown_outcome() {
        let unconfirmed = Case { delivered: (NEVER, true), replied: Some(NEVER) };
        assert_eq!(unconfirmed.run().await, (Err(Kind::OutcomeUnknown), 5 * SECOND));
        let failed = Case { delivered: (SECOND, false), replied: Some(NEVER) };
        assert_eq!(failed.run().await, (Err(Kind::OutcomeUnknown), SECOND));
    }
}
