//! Why a batch could not be applied.

use kafka::Recovery;

/// What failed, and by that what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error(transparent)]
    Cassandra(#[from] cassandra::Error),
    #[error("{operation} failed")]
    Sql {
        operation: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// Another instance was there first.
    #[error(
        "partition {partition} has another offset in the database than {started_from}: another instance has taken over"
    )]
    Stale { partition: i32, started_from: i64 },
    /// A sum has no room.
    #[error("the total of {row} would exceed a decimal of 28 digits")]
    Overflow { row: String },
}

impl Error {
    pub(crate) fn recovery(&self) -> Recovery {
        match self {
            Self::Kafka(error) => error.recovery(),
            Self::Cassandra(_) | Self::Sql { .. } => Recovery::Retry,
            Self::Stale { .. } => Recovery::AbortTransaction,
            Self::Overflow { .. } => Recovery::Fatal,
        }
    }
}
