//! Checks of a decoded command before it is decided.

use crate::{CartCommand, Command, InvalidItem, is_representable};

/// Why a decoded command is not decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// Readers of events and purchases could not represent the time.
    #[error("issuedAt is not in the years 1 to 9999 in UTC")]
    IssuedAt,
    /// It would make no event.
    #[error("the batch has no commands")]
    EmptyBatch,
    /// Readers could not represent the name, or it is invisible.
    #[error(transparent)]
    Name(InvalidItem),
}

impl CartCommand {
    /// Whether the command may be decided: every downstream reader can represent its events.
    ///
    /// Decoding checks less on purpose, since it must accept commands that were accepted before these checks existed. Events,
    /// snapshots, replies and purchases are never checked, so that old carts stay loadable.
    ///
    /// # Errors
    /// The first failed check.
    pub fn check(&self) -> Result<(), Undecidable> {
        if !is_representable(self.issued_at) {
            return Err(Undecidable::IssuedAt);
        }
        self.command.check()
    }
}

impl Command {
    fn check(&self) -> Result<(), Undecidable> {
        match self {
            Self::AddItem { name, .. } => name.check().map_err(Undecidable::Name),
            Self::RemoveItem { .. } | Self::AdjustQuantity { .. } | Self::Checkout {} => Ok(()),
            Self::Batch { commands } | Self::IndependentBatch { commands } if commands.is_empty() => {
                Err(Undecidable::EmptyBatch)
            }
            Self::Batch { commands } | Self::IndependentBatch { commands } => commands.iter().try_for_each(Self::check),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn add(name: &str) -> Command {
        let id = Uuid::from_u128(1);
        // As a decoder makes it.
        let (name, price) = (name.to_owned().try_into().unwrap(), "3.50".parse().unwrap());
        Command::AddItem { product_id: id.into(), vendor_id: id.into(), name, price, quantity: 1 }
    }

    fn check_at(issued_at: &str, command: Command) -> Result<(), String> {
        let issued_at = issued_at.parse().unwrap();
        let id = Uuid::from_u128(1);
        let command = CartCommand {
            command_id: id.into(),
            cart_id: id.into(),
            issued_at,
            command,
            expected_version: None,
            keyed: None,
        };
        command.check().map_err(|reason| reason.to_string())
    }

    fn check(command: Command) -> Result<(), String> {
        check_at("2026-01-31T12:00:00Z", command)
    }

    #[test]
    fn a_time_is_within_the_calendar() {
        let checkout = || Command::Checkout {};
        for at in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"] {
            assert_eq!(check_at(at, checkout()), Ok(()), "{at}");
        }
        for at in ["0000-12-31T23:59:59.999999Z", "+10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z"] {
            assert_eq!(check_at(at, checkout()).unwrap_err(), "issuedAt is not in the years 1 to 9999 in UTC", "{at}");
        }
        // Nanoseconds where microseconds are meant.
        let at = DateTime::from_timestamp_micros(1_790_000_000_000_000_000).unwrap();
        assert!(check_at(&at.to_rfc3339(), checkout()).is_err());
    }

    #[test]
    fn a_name_can_be_seen_and_stored() {
        for name in ["mug", " two  words ", "é", "👩\u{200d}🔧", "\u{200f}שלום", "x\u{feff}", "\u{301}"] {
            assert_eq!(check(add(name)), Ok(()), "{name:?}");
        }
        for (name, reason) in [
            ("mug\0", "the name has the control character U+0000"),
            ("red\tmug", "the name has the control character U+0009"),
            ("red mug\r", "the name has the control character U+000D"),
            ("\u{7f}x", "the name has the control character U+007F"),
            ("x\u{80}", "the name has the control character U+0080"),
            ("x\u{9f}", "the name has the control character U+009F"),
            ("\u{200b}", "the name has only invisible characters"),
            ("\u{2800}\u{2800}", "the name has only invisible characters"),
            (" \u{3164} ", "the name has only invisible characters"),
            ("\u{202e}\u{feff}", "the name has only invisible characters"),
        ] {
            assert_eq!(check(add(name)).unwrap_err(), reason, "{name:?}");
        }
    }

    #[test]
    fn checks_each_command_of_a_batch() {
        let batch = |commands: &[Command]| {
            let of_its_own = check(Command::IndependentBatch { commands: commands.to_vec() });
            assert_eq!(check(Command::Batch { commands: commands.to_vec() }), of_its_own);
            of_its_own
        };
        assert_eq!(batch(&[add("mug"), Command::Checkout {}]), Ok(()));
        assert_eq!(batch(&[]).unwrap_err(), "the batch has no commands");
        assert_eq!(batch(&[add("mug"), add("x\0")]).unwrap_err(), "the name has the control character U+0000");
    }
}
