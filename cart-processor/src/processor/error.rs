//! Why a step failed, and what follows from it.

use kafka::Recovery;

use super::stops::Stop;
use crate::batch;
use crate::intake;
use crate::parking::{BadMarkers, NotRestored, TooManyParked, Unread};
use crate::redelivery::LogRewritten;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    TooNew(intake::Error),
    #[error("a cart was not loaded")]
    NotLoaded,
    #[error(transparent)]
    NotRestored(#[from] NotRestored),
    #[error(transparent)]
    BadMarkers(#[from] BadMarkers),
    #[error("the rules panic for all {carts} carts of a batch: {message}")]
    RulesPanic { carts: usize, message: String },
    #[error(transparent)]
    TooManyParked(#[from] TooManyParked),
    #[error("partition {partition} is stopped")]
    LogRewritten {
        partition: i32,
        #[source]
        source: LogRewritten,
    },
}

impl From<intake::Error> for Error {
    fn from(error: intake::Error) -> Self {
        match error {
            intake::Error::Kafka(error) => Self::Kafka(error),
            error @ intake::Error::TooNew { .. } => Self::TooNew(error),
        }
    }
}

impl Error {
    /// A cart of a partition was not decided.
    pub(super) fn deciding(partition: i32, error: batch::Error) -> Self {
        match error {
            batch::Error::Journal(error) => Self::Journal(error),
            batch::Error::LogRewritten(source) => Self::LogRewritten { partition, source },
        }
    }

    /// All carts that a batch had to load were not read.
    pub(super) fn unread(carts: usize, unread: Unread) -> Self {
        match unread {
            Unread::Rows(error) => Self::Journal(error),
            Unread::Panicked(message) => Self::RulesPanic { carts, message },
        }
    }

    pub(super) fn recovery(&self) -> Recovery {
        match self {
            Self::Kafka(error) => error.recovery(),
            Self::Journal(_)
            | Self::TooNew(_)
            | Self::NotLoaded
            | Self::NotRestored(_)
            | Self::BadMarkers(_)
            | Self::RulesPanic { .. }
            | Self::TooManyParked(_)
            | Self::LogRewritten { .. } => Recovery::Retry,
        }
    }

    /// How a partition is to stop, if this is about one.
    pub(super) fn stops(&self) -> Option<Stop> {
        let (partition, offset) = match self {
            Self::LogRewritten { partition, source } => (*partition, source.offset()),
            Self::TooNew(intake::Error::TooNew { partition, offset, .. })
            | Self::TooManyParked(TooManyParked { partition, offset, .. })
            | Self::BadMarkers(BadMarkers { partition, next_offset: offset, .. }) => (*partition, *offset),
            Self::Kafka(_)
            | Self::Journal(_)
            | Self::NotLoaded
            | Self::NotRestored(_)
            | Self::RulesPanic { .. }
            | Self::TooNew(intake::Error::Kafka(_)) => return None,
        };
        let holds_tries = !matches!(self, Self::TooManyParked(_));
        Some(Stop { partition, offset, holds_tries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_partition_with_too_many_parked_carts_goes_on_trying_them() {
        let too_many = TooManyParked { partition: 3, offset: 7, reason: String::from("rule-panicked: overflow") };
        let stop = Error::from(too_many).stops();
        assert_eq!(stop, Some(Stop { partition: 3, offset: 7, holds_tries: false }));
        let source = kafka::DecodeError::TooShort { len: 0 };
        let too_new = Error::from(intake::Error::TooNew { partition: 3, offset: 7, source });
        assert_eq!(too_new.stops(), Some(Stop { partition: 3, offset: 7, holds_tries: true }));
        assert_eq!(Error::NotLoaded.stops(), None);
    }
}
