//! A request body is rejected, or it is commands that the log can carry.

use std::sync::LazyLock;

use cart::{CartCommand, CartId, Command, CommandId};
use kafka::Codec;
use uuid::Uuid;

static COMMANDS: LazyLock<Codec<CartCommand>> = LazyLock::new(crate::codec);

/// Parses a body as each route does; writes and reads back every command.
///
/// # Panics
/// If a command does not survive the round trip.
pub fn run(body: &[u8]) -> bool {
    let commands = ingest::commands_of(body);
    let accepted = !commands.is_empty();
    for command in commands.into_iter().map(record) {
        let bytes = COMMANDS.encode(&command).unwrap();
        assert_eq!(COMMANDS.decode(&bytes).unwrap(), command);
    }
    accepted
}

fn record(command: Command) -> CartCommand {
    CartCommand {
        command_id: CommandId::from(Uuid::nil()),
        cart_id: CartId::from(Uuid::nil()),
        issued_at: std::time::UNIX_EPOCH.into(),
        command,
        expected_version: None,
        keyed: Some(true),
    }
}
