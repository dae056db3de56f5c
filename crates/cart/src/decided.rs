//! A decided request, as it is journalled, and the outcome for its client.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartEvent, CartId, CommandId, Outcome, Position, Rejection, SequenceNumber};

/// A decided request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub cart_id: CartId,
    pub command_id: CommandId,
    /// Its position on `cart-commands`.
    pub position: Position,
    /// Its [`crate::CartCommand::keyed`].
    pub keyed: Option<bool>,
    /// Its [`crate::CartCommand::digest`].
    pub digest: i64,
    /// Its time.
    pub issued_at: DateTime<Utc>,
    /// The outcome, if it does not follow from the events. `None`: all of it was executed.
    pub outcome: Option<RequestOutcome>,
    /// Its events, oldest first.
    pub events: Vec<CartEvent>,
}

/// The outcome of a request that does not follow from its events. Its JSON form is stored, so variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RequestOutcome {
    /// All of it was rejected.
    Rejected {
        /// The rule.
        rejection: Rejection,
        /// The index of the rejected command in an atomic batch, from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<i32>,
    },
    /// The result of each command of an independent batch, in order.
    Each(Vec<CommandResult>),
}

/// The result of one command of an independent batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CommandResult {
    /// It made the next events of the request.
    Made {
        /// Their number.
        events: i32,
    },
    /// It was rejected.
    Rejected {
        /// The rule.
        rejection: Rejection,
    },
    /// It was executed before version 0.2, when it was a separate command.
    Earlier {
        /// The number of its last event.
        sequence_number: SequenceNumber,
    },
}

impl Decided {
    /// Whether it is journalled: it made events, or it may be repeated and must then have the same outcome. Otherwise
    /// deciding it again gives the same result.
    #[must_use]
    pub fn is_journalled(&self) -> bool {
        !self.events.is_empty() || self.keyed == Some(true)
    }

    /// The number of its last event; [`SequenceNumber::ZERO`] if it made none.
    #[must_use]
    pub fn sequence_number(&self) -> SequenceNumber {
        self.events.last().map_or(SequenceNumber::ZERO, |event| event.sequence_number)
    }

    /// The last events of the commands that were executed before version 0.2, whose outcomes [`Decided::outcome_with`] needs.
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

    /// The outcome for the client. `earlier` returns the outcome of the command whose last event has this number. `None` only
    /// if events are missing.
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
