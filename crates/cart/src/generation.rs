//! Generations of a read model: its tables, each built from the whole log beside the others, of which readers see one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The number of a generation, 1 to 999. The first one is the one that `setup` creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u16);

/// Three digits, so that the names of tables and groups stay short: a rebuild a day lasts for years.
const LAST: u16 = 999;

impl Generation {
    pub const FIRST: Self = Self(1);

    /// `None` below 1 or above 999.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| (1..=LAST).contains(number)).map(Self)
    }

    #[must_use]
    pub fn get(self) -> i32 {
        self.0.into()
    }

    /// The one that is built after this one; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::new(self.get() + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no [`Generation`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a generation is a whole number from 1 to {LAST}")]
pub struct InvalidGeneration;

impl FromStr for Generation {
    type Err = InvalidGeneration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Self::new).ok_or(InvalidGeneration)
    }
}

/// Which generation of a read model its readers see, as the store of its table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationPointer {
    pub active: Generation,
    /// The one that was active before.
    pub previous: Option<Generation>,
    /// The highest number that was ever built. A number is used once: a process that still writes to a dropped generation must
    /// not find a new one under its name.
    pub newest: Generation,
    /// `None` until the first switch.
    pub last_switch: Option<GenerationSwitch>,
    /// The run that may change the pointer now; `None` while there is none.
    pub claim: Option<GenerationClaim>,
}

impl GenerationPointer {
    /// As `setup` leaves it.
    pub const FIRST: Self =
        Self { active: Generation::FIRST, previous: None, newest: Generation::FIRST, last_switch: None, claim: None };

    /// The next generation to build. The record of the newest one may be lost while its table is there; `None`: all are used up.
    #[must_use]
    pub fn next(&self, existing: &[Generation]) -> Option<Generation> {
        existing.iter().copied().fold(self.newest, Generation::max).next()
    }
}

/// A run of `cartctl switch`, `drop` or `rebuild --in-place` that is at work, or has died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationClaim {
    pub run: Uuid,
    /// Who has started it, and with what.
    pub by: String,
    /// How often it has said that it is at work: one whose number does not grow has died.
    pub renewals: i32,
}

impl GenerationClaim {
    /// Between two renewals.
    pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(2);

    /// A run that has not renewed its claim for so long has died.
    pub const DIED_AFTER: Duration = Duration::from_secs(10);
}

/// Who has made a generation the active one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationSwitch {
    pub at: DateTime<Utc>,
    pub by: String,
    pub reason: String,
    /// The digest of the differences that were accepted; `none` if there were none.
    pub accepted_diff: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_a_number_from_1_to_999() {
        assert_eq!("2".parse().map(Generation::get), Ok(2));
        for text in ["", "0", "-1", "1000", "1.0", "g2"] {
            assert_eq!(text.parse::<Generation>(), Err(InvalidGeneration), "{text}");
        }
        assert_eq!(Generation::FIRST.next().map(Generation::get), Some(2));
        assert_eq!(Generation::new(999).and_then(Generation::next), None);
    }

    #[test]
    fn a_number_whose_table_is_there_is_not_used_again() {
        let [second, fourth] = [2, 4].map(|number| Generation::new(number).expect("a generation"));
        let pointer = GenerationPointer { newest: second, ..GenerationPointer::FIRST };
        let next = |existing: &[Generation]| pointer.next(existing).map(Generation::get);
        assert_eq!(next(&[Generation::FIRST]), Some(3));
        assert_eq!(next(&[Generation::FIRST, fourth]), Some(5));
    }
}
