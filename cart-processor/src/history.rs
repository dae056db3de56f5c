//! Redelivery: what the journal says of commands that were decided before.
//!
//! A command at or before its cart's newest journalled position is never decided again. Its events are in the
//! journal under its position; none there means that it was refused, or was a repeat, and nothing is published.

use cart::{CartCommand, Position};
use journal::Entry;

/// A cart's journal from some position on, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(Vec<Entry>);

/// Another command stands where a journalled one stood.
#[derive(Debug, thiserror::Error)]
#[error(
    "cart {cart_id} has journalled command {journalled} at {position}, but the log has command {found} there now: the log was \
     rewritten under us (a restored broker, an unclean leader election). The partition stops, since nobody can tell which \
     of its commands were decided. Restore the log, or copy what is right of it to a new topic in its place and run `setup --accept-new-log`"
)]
pub(crate) struct LogRewritten {
    cart_id: cart::CartId,
    position: Position,
    journalled: cart::CommandId,
    found: cart::CommandId,
}

impl History {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        Self(entries)
    }

    /// What the command at `position` made, if it made anything.
    pub(crate) fn of(&self, command: &CartCommand, position: Position) -> Result<&[Entry], LogRewritten> {
        let start = self.0.partition_point(|entry| entry.position < position);
        let end = self.0.partition_point(|entry| entry.position <= position);
        let entries = &self.0[start..end];
        match entries.first() {
            Some(entry) if entry.command_id != command.command_id => Err(LogRewritten {
                cart_id: command.cart_id,
                position,
                journalled: entry.command_id,
                found: command.command_id,
            }),
            Some(_) | None => Ok(entries),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn entry(sequence_number: i64, position: i64, command: u128) -> Entry {
        let command_id = uuid::Uuid::from_u128(command).into();
        Entry { sequence_number: sequence_number.into(), position: position.into(), command_id, bytes: vec![] }
    }

    fn command(id: u128) -> CartCommand {
        let (command_id, cart_id) = (uuid::Uuid::from_u128(id).into(), uuid::Uuid::nil().into());
        CartCommand {
            command_id,
            cart_id,
            issued_at: Default::default(),
            command: cart::Command::Checkout {},
            expected_version: None,
        }
    }

    #[test]
    fn finds_all_events_of_a_position_and_knows_the_command() {
        let history = History::new(vec![entry(1, 10, 1), entry(2, 12, 2), entry(3, 12, 2), entry(4, 15, 3)]);
        assert_eq!(history.of(&command(2), 12.into()).unwrap().len(), 2);
        assert_eq!(history.of(&command(9), 13.into()).unwrap().len(), 0);
        assert!(history.of(&command(9), 15.into()).unwrap_err().to_string().contains("rewritten"));
    }
}
