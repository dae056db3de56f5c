//! Answering: from a fresh decision, or from what the journal says of an earlier one.

use cart::{CartCommand, CartEvent, CartId, CartReply, CommandId, Decision, Outcome, Position, RememberedCommand};
use journal::{Entry, Journal};
use kafka::{Codec, Producer, Record};

/// A reply that somebody waits for.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) command_id: CommandId,
    pub(crate) position: Position,
    pub(crate) reply_to: i32,
    pub(crate) answer: Answer,
}

/// Where the answer is.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Here.
    Known(Option<Outcome>),
    /// In these entries: the command was redelivered.
    Journalled(Vec<Entry>),
    /// In the events that this command made: the command is a repeat of it.
    Repeated(RememberedCommand),
    /// In the journal before it: the command was redelivered and has left no trace, so it was refused or a repeat.
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
    /// Sends what is owed to a cart's clients. Its events are in the journal by now.
    pub(crate) async fn send(&self, cart_id: CartId, owed: Vec<Owed>) -> Result<(), journal::Error> {
        for Owed { command_id, position, reply_to, answer } in owed {
            let Some(outcome) = self.outcome(cart_id, position, answer).await? else { continue };
            self.produce(reply_to, &CartReply { command_id, cart_id, position, outcome });
        }
        Ok(())
    }

    async fn outcome(
        &self,
        cart_id: CartId,
        position: Position,
        answer: Answer,
    ) -> Result<Option<Outcome>, journal::Error> {
        match answer {
            Answer::Known(outcome) => Ok(outcome),
            Answer::Journalled(entries) => {
                let mut events: Vec<CartEvent> = Vec::with_capacity(entries.len());
                for entry in &entries {
                    events.push(self.journal.event(entry).await?);
                }
                Ok(Outcome::of(&events))
            }
            Answer::Repeated(earlier) => Ok(Outcome::of(&self.journal.events_of(cart_id, &earlier).await?)),
            Answer::DecideAgain(command) => {
                let before = self.journal.load_before(cart_id, position).await?;
                match before.decide(&command, position) {
                    Decision::Rejected(refusal) => Ok(Some(refusal.into())),
                    Decision::Repeated(earlier) => Ok(Outcome::of(&self.journal.events_of(cart_id, &earlier).await?)),
                    Decision::Accepted(_) => {
                        // The rules have changed since it was refused. The journal's word holds, and it has no more.
                        tracing::warn!(%cart_id, command_id = %command.command_id, "refused before, would be accepted now");
                        Ok(None)
                    }
                }
            }
        }
    }

    // A reply that gets lost costs its client a wait, never an outcome: nothing here is retried.
    fn produce(&self, partition: i32, reply: &CartReply) {
        let record = self.codec.encode(reply).map(|value| Record {
            partition: Some(partition),
            key: None,
            value: Some(value),
            headers: None,
        });
        match record.and_then(|record| self.producer.send(&record)) {
            // Nobody waits for the delivery: librdkafka goes on without the future.
            Ok(delivery) => drop(delivery),
            Err(error) => {
                metrics::counter!("processor_replies_lost_total").increment(1);
                tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "a reply was not sent");
            }
        }
    }
}
