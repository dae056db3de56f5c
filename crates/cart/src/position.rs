//! Positions in a log, and sequence numbers in a cart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of bits of the offset in a [`Position`].
const OFFSET_BITS: u32 = 48;

/// The epoch of a topic's log, from 1. It grows when the topic is recreated, repartitioned or failed over, so that all
/// positions of a new log are after those of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogEpoch(i16);

impl LogEpoch {
    pub const FIRST: Self = Self(1);

    /// `None` below 1 or above 32,767, the maximum in a position.
    #[must_use]
    pub fn new(epoch: i32) -> Option<Self> {
        i16::try_from(epoch).ok().filter(|epoch| *epoch >= 1).map(Self)
    }

    /// The epoch as a number.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0.into()
    }
}

/// The position of a record in its topic's partition: `log_epoch << 48 | offset`.
///
/// It is also the write timestamp of everything that is stored because of that record. As microseconds all positions are
/// decades in the past, so never write to such a table without a position: that write would win for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(i64);

impl Position {
    /// Before every record: the position of a cart without requests.
    pub const NONE: Self = Self(0);

    /// After every record.
    pub const MAX: Self = Self(i64::MAX);

    /// The position of the record at `offset` (0 to 2^48 - 1, far more than a partition ever holds).
    #[must_use]
    pub const fn new(epoch: LogEpoch, offset: i64) -> Self {
        Self((epoch.0 as i64) << OFFSET_BITS | offset)
    }

    /// The position as a number, as it is stored.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The write timestamp in a table whose rows were replaced `write_base` times: after all that was written before the last time.
    #[must_use]
    pub fn timestamp(self, write_base: i16) -> i64 {
        self.0.saturating_add(i64::from(write_base) << OFFSET_BITS)
    }

    /// The epoch of its log; `None` for [`Position::NONE`].
    #[must_use]
    pub fn epoch(self) -> Option<LogEpoch> {
        i32::try_from(self.0 >> OFFSET_BITS).ok().and_then(LogEpoch::new)
    }

    /// The offset within its log.
    #[must_use]
    pub const fn offset(self) -> i64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

impl From<i64> for Position {
    fn from(stored: i64) -> Self {
        Self(stored)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of log epoch {}", self.offset(), self.0 >> OFFSET_BITS)
    }
}

/// The number of an event in its cart: 1, 2, 3, ... without gaps. 0 is a cart without events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceNumber(i64);

impl SequenceNumber {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// The number of the event that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number as it is stored.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for SequenceNumber {
    fn from(stored: i64) -> Self {
        Self(stored)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
