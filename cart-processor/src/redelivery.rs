//! Redelivery: what the journal says of commands that were decided before.
//!
//! A command at or before its cart's newest journalled position is never decided again. Its row is in the journal under its
//! position; none there means that it left no trace: it was rejected without a key, or was a repeat.

use cart::{CartCommand, Position};
use journal::Row;

/// A cart's journal from some position on, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RedeliveredRows(Vec<Row>);

/// Another command stands where a journalled one stood.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal has command {journalled} at {position}, but the log now has command {found} there: the log was \
     rewritten (a restored broker, or an unclean leader election). The partition is stopped, because it is unknown which of its commands were decided. Restore the log, or copy its valid part to a new topic in its \
     place and run `setup --accept-new-log`"
)]
pub(crate) struct LogRewritten {
    position: Position,
    journalled: cart::CommandId,
    found: cart::CommandId,
}

impl LogRewritten {
    pub(crate) fn offset(&self) -> i64 {
        self.position.offset()
    }
}

impl RedeliveredRows {
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        Self(rows)
    }

    /// The row of the command at `position`, if it left one.
    pub(crate) fn of(&self, command: &CartCommand, position: Position) -> Result<Option<&Row>, LogRewritten> {
        let row = self.0.binary_search_by_key(&position, |row| row.position).ok().map(|place| &self.0[place]);
        match row {
            Some(row) if row.command_id != command.command_id => {
                Err(LogRewritten { position, journalled: row.command_id, found: command.command_id })
            }
            row => Ok(row),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use journal::Content;

    use super::*;

    fn row(sequence_number: i64, position: i64, command: u128) -> Row {
        Row {
            sequence_number: sequence_number.into(),
            position: position.into(),
            command_id: uuid::Uuid::from_u128(command).into(),
            keyed: None,
            outcome: None,
            content: Content::Events(vec![vec![]]),
        }
    }

    fn command(id: u128) -> CartCommand {
        let (command_id, cart_id) = (uuid::Uuid::from_u128(id).into(), uuid::Uuid::nil().into());
        CartCommand {
            command_id,
            cart_id,
            issued_at: Default::default(),
            command: cart::Command::Checkout {},
            expected_version: None,
            keyed: None,
        }
    }

    #[test]
    fn finds_the_row_of_a_position_and_knows_the_command() {
        let unchanged = Content::Unchanged { digest: 0, issued_at: Default::default() };
        let rejected = Row { content: unchanged, ..row(3, 14, 4) };
        let history = RedeliveredRows::new(vec![row(1, 10, 1), row(3, 12, 2), rejected, row(4, 15, 3)]);
        assert_eq!(history.of(&command(2), 12.into()).unwrap().unwrap().sequence_number, 3.into());
        assert_eq!(history.of(&command(9), 13.into()).unwrap(), None);
        for position in [14, 15] {
            assert!(history.of(&command(9), position.into()).unwrap_err().to_string().contains("rewritten"));
        }
    }
}
