//! A body is refused, or a command that the log can carry.
#![no_main]
#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use std::sync::LazyLock;

use cart::{CartCommand, CartId, Command, CommandId};
use kafka::Codec;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

static COMMANDS: LazyLock<Codec<CartCommand>> = LazyLock::new(|| fuzz::codec().unwrap());

fn sent(command: Command) -> CartCommand {
    CartCommand {
        command_id: CommandId::from(Uuid::nil()),
        cart_id: CartId::from(Uuid::nil()),
        issued_at: std::time::UNIX_EPOCH.into(),
        command,
        expected_version: None,
    }
}

fuzz_target!(|body: &[u8]| {
    for command in ingest::commands_of(body).into_iter().map(sent) {
        let bytes = COMMANDS.encode(&command).unwrap();
        assert_eq!(COMMANDS.decode(&bytes).unwrap(), command);
    }
});
