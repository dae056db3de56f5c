//! Why a step failed, and what follows from it.

use kafka::Recovery;

use crate::intake;
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
    pub(super) fn recovery(&self) -> Recovery {
        match self {
            Self::Kafka(error) => error.recovery(),
            Self::Journal(_) | Self::TooNew(_) | Self::NotLoaded | Self::LogRewritten { .. } => Recovery::Retry,
        }
    }

    /// The partition that is to stop and its record's offset, if this is about one.
    pub(super) fn stops(&self) -> Option<(i32, i64)> {
        match self {
            Self::LogRewritten { partition, source } => Some((*partition, source.offset())),
            Self::TooNew(intake::Error::TooNew { partition, offset, .. }) => Some((*partition, *offset)),
            Self::Kafka(_) | Self::Journal(_) | Self::NotLoaded | Self::TooNew(intake::Error::Kafka(_)) => None,
        }
    }
}
