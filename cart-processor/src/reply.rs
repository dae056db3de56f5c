//! Replies: from a new decision, or from the journal's rows of an earlier one.

use cart::{CartCommand, CartId, CartReply, CommandId, Decided, Outcome, Position, RememberedRequest};
use journal::{Journal, Row};
use kafka::{Codec, OwnedHeaders, Producer, Record};
use trace::Span;

use crate::metrics::REPLIES_LOST;

/// A reply that a client waits for.
#[derive(Debug)]
pub(crate) struct PendingReply {
    pub(crate) command_id: CommandId,
    pub(crate) position: Position,
    pub(crate) reply_to: i32,
    pub(crate) source: ReplySource,
    /// The command's, if it is recorded.
    pub(crate) span: Option<Span>,
}

/// Where the outcome comes from.
#[derive(Debug)]
pub(crate) enum ReplySource {
    /// Nowhere: the client's wait has ended, and no reply is sent.
    None,
    /// Here; `None` if the rules have changed since.
    Known(Option<Outcome>),
    /// Here, but for the parts that were carried out earlier.
    Decided(Box<Decided>),
    /// In this row: the command was redelivered.
    Journalled(Box<(CartCommand, Row)>),
    /// In the row of this request: the command is a repeat of it.
    Repeated(RememberedRequest),
    /// In the journal before it: the command was redelivered and left no trace.
    DecideAgain(Box<CartCommand>),
}

/// Sends replies. Clones share the producer.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    pub(crate) journal: Journal,
    pub(crate) codec: Codec<CartReply>,
    pub(crate) producer: Producer,
}

impl Replies {
    /// Replies to a cart's clients. Its events are in the journal by now.
    pub(crate) async fn send(&self, cart_id: CartId, replies: Vec<PendingReply>) -> Result<(), journal::Error> {
        for PendingReply { command_id, position, reply_to, source, span } in replies {
            let outcome = match source {
                ReplySource::None => None,
                ReplySource::Known(outcome) => outcome,
                ReplySource::Decided(decided) => self.journal.outcome_of(&decided).await?,
                ReplySource::Journalled(known) => self.journal.outcome(&known.0, position, Some(&known.1)).await?,
                ReplySource::Repeated(earlier) => self.journal.outcome_again(cart_id, &earlier).await?,
                ReplySource::DecideAgain(command) => self.journal.outcome(&command, position, None).await?,
            };
            match outcome {
                Some(outcome) => {
                    self.produce(reply_to, &CartReply { command_id, cart_id, position, outcome }, span.as_ref());
                }
                None => {
                    tracing::debug!(%cart_id, %command_id, %position, "no reply was sent: the client's wait has ended, or the \
                        rules have changed")
                }
            }
        }
        Ok(())
    }

    // Not retried: a lost reply costs its client a wait, never an outcome.
    fn produce(&self, partition: i32, reply: &CartReply, span: Option<&Span>) {
        let trace = span.map(|span| span.send(self.producer.topic()));
        let record = self.codec.encode(reply).map(|value| Record {
            partition: Some(partition),
            key: None,
            value: Some(value),
            headers: trace.as_ref().map(|trace| kafka::with_trace(OwnedHeaders::new_with_capacity(1), trace.headers())),
        });
        match record.and_then(|record| self.producer.send(&record)) {
            // The delivery is not awaited: librdkafka does not need the future.
            Ok(delivery) => match trace.as_ref().and_then(|trace| trace.span()).cloned() {
                None => drop(delivery),
                Some(span) => {
                    drop(tokio::spawn(span.sending(delivery, self.producer.topic().to_owned(), partition)));
                }
            },
            Err(error) => {
                REPLIES_LOST.with(&[]).increment(1);
                let (position, error) = (reply.position, format!("{:#}", anyhow::Error::new(error)));
                let trace_id = trace.as_ref().and_then(|trace| trace.headers().trace_id());
                tracing::warn!(%position, trace_id, command_id = %reply.command_id, error, "a reply was not sent");
            }
        }
    }
}
