//! A decided request: what the journal keeps of it, and what a client hears of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartEvent, CartId, CommandId, Outcome, Position, Rejection, SequenceNumber};

/// A request that was decided when its turn came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Whose cart.
    pub cart_id: CartId,
    /// The command.
    pub command_id: CommandId,
    /// Where it stands on `cart-commands`.
    pub position: Position,
    /// Its [`crate::CartCommand::keyed`].
    pub keyed: Option<bool>,
    /// Its [`crate::CartCommand::digest`].
    pub digest: i64,
    /// Its time.
    pub issued_at: DateTime<Utc>,
    /// What the events do not say. `None`: all of it was carried out.
    pub outcome: Option<RequestOutcome>,
    /// What it made, oldest first.
    pub events: Vec<CartEvent>,
}

/// The outcome of a request that is not plain from its events. Its serde form in JSON is stored: alternatives are only ever
/// appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RequestOutcome {
    /// All of it was rejected.
    Rejected {
        /// By which rule.
        rejection: Rejection,
        /// Which command of an atomic batch broke it, from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<i32>,
    },
    /// Of an independent batch: the result of each command, in order.
    Each(Vec<CommandResult>),
}

/// The result of one command of an independent batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CommandResult {
    /// It made the next events of the request.
    Made {
        /// How many.
        events: i32,
    },
    /// It was rejected.
    Rejected {
        /// By which rule.
        rejection: Rejection,
    },
    /// It was carried out before version 0.2, when it was a command of its own.
    Earlier {
        /// The number of its last event.
        sequence_number: SequenceNumber,
    },
}

impl Decided {
    /// Whether the journal keeps it: it made events, or it may come again and must then have the same outcome. Otherwise it
    /// leaves no trace, and deciding it again gives the same.
    #[must_use]
    pub fn is_journalled(&self) -> bool {
        !self.events.is_empty() || self.keyed == Some(true)
    }

    /// The number of its last event; [`SequenceNumber::ZERO`] if it made none.
    #[must_use]
    pub fn sequence_number(&self) -> SequenceNumber {
        self.events.last().map_or(SequenceNumber::ZERO, |event| event.sequence_number)
    }

    /// The last events of the commands that were carried out before version 0.2: [`Decided::outcome_with`] asks for their
    /// events.
    pub fn earlier(&self) -> impl Iterator<Item = SequenceNumber> {
        let results = match &self.outcome {
            Some(RequestOutcome::Each(results)) => results.as_slice(),
            Some(RequestOutcome::Rejected { .. }) | None => &[],
        };
        results.iter().filter_map(|result| match result {
            CommandResult::Earlier { sequence_number } => Some(*sequence_number),
            CommandResult::Made { .. } | CommandResult::Rejected { .. } => None,
        })
    }

    /// What a client hears. `earlier` gives the outcome of the command whose last event has this number. `None` only where
    /// events are missing.
    pub fn outcome_with(&self, mut earlier: impl FnMut(SequenceNumber) -> Option<Outcome>) -> Option<Outcome> {
        let results = match &self.outcome {
            None => return Outcome::of(&self.events),
            Some(RequestOutcome::Rejected { rejection, index }) => {
                return Some(Outcome::Rejected { rejection: rejection.clone(), index: *index });
            }
            Some(RequestOutcome::Each(results)) => results,
        };
        let mut rest = self.events.as_slice();
        let mut outcome_of = |result: &CommandResult| match result {
            CommandResult::Made { events } => {
                let made;
                (made, rest) = rest.split_at_checked(usize::try_from(*events).ok()?)?;
                Outcome::of(made)
            }
            CommandResult::Rejected { rejection } => {
                Some(Outcome::Rejected { rejection: rejection.clone(), index: None })
            }
            CommandResult::Earlier { sequence_number } => earlier(*sequence_number),
        };
        let outcomes = results.iter().map(&mut outcome_of).collect::<Option<_>>()?;
        Some(Outcome::IndependentBatch { outcomes })
    }
}
