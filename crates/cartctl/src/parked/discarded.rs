//! What `cartctl parked discard` prints.

use std::fmt;

use cart::{CartId, CommandId};
use serde::Serialize;

/// What was recorded.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Discarded {
    pub(super) cart_id: CartId,
    pub(super) command_id: CommandId,
    /// As topic/partition/offset, without the installation's prefix.
    pub(super) record: String,
    pub(super) is_dry_run: bool,
    /// Whether it was recorded before.
    pub(super) was_there: bool,
    /// Whether the cart has gone past the command, which is a dead letter then.
    pub(super) is_past: bool,
    /// Why the cart is parked, if it was tried and has failed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
    /// Later waiting commands with the same id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) repeats: Vec<String>,
}

impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cart_id, command_id, record, is_dry_run, was_there, is_past, failed, repeats } = self;
        let before = if *was_there { " before" } else { "" };
        match (is_dry_run, is_past, failed) {
            (true, ..) if *was_there => {
                write!(f, "command {command_id} ({record}) was discarded before; nothing was recorded (--dry-run)")?;
            }
            (true, ..) => {
                write!(f, "command {command_id} ({record}) would be discarded; nothing was recorded (--dry-run)")?;
            }
            (_, true, _) => {
                write!(
                    f,
                    "command {command_id} ({record}) was discarded{before}; cart {cart_id} has gone on behind it"
                )?;
            }
            (_, false, Some(reason)) => write!(
                f,
                "the discard of command {command_id} ({record}) was recorded{before}; cart {cart_id} was tried and is parked \
                 again: {reason}"
            )?,
            (_, false, None) => write!(
                f,
                "the discard of command {command_id} ({record}) was recorded{before}; cart {cart_id} was not tried yet: is a \
                 cart-processor of this version running?"
            )?,
        }
        if !repeats.is_empty() {
            let repeats = repeats.join(", ");
            write!(f, "\nthe same id waits again at {repeats}: that command is decided unless it is discarded too")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn discarded() -> Discarded {
        Discarded {
            cart_id: Uuid::nil().into(),
            command_id: Uuid::nil().into(),
            record: String::from("cart-commands/1/4"),
            is_dry_run: false,
            was_there: false,
            is_past: false,
            failed: None,
            repeats: Vec::new(),
        }
    }

    #[test]
    fn each_state_of_a_discard_has_its_words() {
        let contains = |discarded: Discarded, words: &str| {
            let text = discarded.to_string();
            assert!(text.contains(words), "{text}");
        };
        contains(Discarded { is_dry_run: true, ..discarded() }, "would be discarded; nothing was recorded");
        contains(Discarded { is_dry_run: true, was_there: true, ..discarded() }, "was discarded before; nothing");
        contains(Discarded { is_past: true, was_there: true, ..discarded() }, "was discarded before; cart");
        contains(discarded(), "was not tried yet");
        let reason = String::from("rule-panicked: again");
        contains(Discarded { failed: Some(reason), ..discarded() }, "is parked again: rule-panicked: again");
        let repeats = vec![String::from("cart-commands/1/9")];
        contains(Discarded { is_past: true, repeats, ..discarded() }, "waits again at cart-commands/1/9");
    }
}
