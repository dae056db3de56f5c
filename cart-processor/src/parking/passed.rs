//! Commands that the loop passes over: they wait in the log.

use cart::{CartId, CommandId, Position};
use trace::names::OUTCOME;

use crate::intake::{ConsumedCommand, TooNewCommand};

/// Commands of a cart that were passed over, for the answers to their clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassedCart {
    pub(crate) cart_id: CartId,
    pub(crate) partition: i32,
    pub(super) first: Position,
    pub(super) last: Position,
    /// Of those whose clients wait, or have waited.
    pub(crate) replies: Vec<(CommandId, Position, i32)>,
}

impl PassedCart {
    /// `commands` are of the cart, in order, at least one.
    pub(crate) fn of(cart_id: CartId, commands: &[ConsumedCommand]) -> Self {
        let position = |one: Option<&ConsumedCommand>| one.map_or(Position::NONE, |one| one.position);
        Self {
            cart_id,
            partition: commands.first().map_or(0, |one| one.partition),
            first: position(commands.first()),
            last: position(commands.last()),
            replies: replies(commands),
        }
    }

    /// The cart of a command that is too new. Its client gets no answer: the command has no id that can be read.
    pub(crate) fn of_too_new(command: &TooNewCommand) -> Self {
        let TooNewCommand { partition, position, cart_id, .. } = *command;
        Self { cart_id, partition, first: position, last: position, replies: Vec::new() }
    }

    /// Adds a command that is too new, of the same cart.
    pub(crate) fn add_too_new(&mut self, command: &TooNewCommand) {
        self.first = self.first.min(command.position);
        self.last = self.last.max(command.position);
    }

    /// Adds commands of the same cart, in order.
    pub(crate) fn add(&mut self, commands: &[ConsumedCommand]) {
        for command in commands {
            self.first = self.first.min(command.position);
            self.last = self.last.max(command.position);
        }
        self.replies.append(&mut replies(commands));
    }
}

fn replies(commands: &[ConsumedCommand]) -> Vec<(CommandId, Position, i32)> {
    let reply = |one: &ConsumedCommand| one.reply_to.map(|to| (one.command.command_id, one.position, to));
    commands.iter().filter_map(reply).collect()
}

/// Their traces end here; those of the tries have spans of their own.
pub(crate) fn end_spans(passed: &[ConsumedCommand]) {
    for span in passed.iter().filter_map(|one| one.trace.span()) {
        span.set(OUTCOME, "parked");
        span.end();
    }
}
