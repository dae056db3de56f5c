//! Why a batch could not be applied.

use std::io;

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
    /// Another instance has tried a parked row again, or an earlier try was committed although its answer was lost.
    #[error(
        "a parked row of partition {partition} does not wait from offset {next_offset} on any more: it was tried again meanwhile"
    )]
    StaleMarker { partition: i32, next_offset: i64 },
    /// Rows fail, and none is kept meanwhile: that may be no matter of rows.
    #[error(
        "none of {rows} rows can be kept, and no other row was found that can. None is parked: the store may be at fault"
    )]
    NoRowKept {
        rows: usize,
        #[source]
        source: RowsFailed,
    },
    /// The rows of a batch were rejected together, and each alone is kept.
    #[error("the rows of a batch cannot be kept together")]
    KeptAlone(#[source] RowsFailed),
    /// A partition has too many parked rows.
    #[error(
        "{parked} rows of partition {partition} are parked, and one more fails ({reason}). Correct the cause (`cartctl parked rows`), run \
         `cartctl parked rows retry --all`, then restart this process"
    )]
    TooManyParked {
        partition: i32,
        /// Those that are parked.
        parked: usize,
        /// The offset of the last one's first record.
        offset: i64,
        reason: String,
    },
    /// The records that a parked row lacks are not in this log.
    #[error(
        "a row of partition {partition} is parked at offset {offset} of an earlier log, and its records are not in this one. Build the \
         read model anew (`cartctl rebuild`)"
    )]
    ParkedInOtherLog { partition: i32, offset: i64 },
    /// The thread that reads for a parked row did not start.
    #[error("starting to read the records of a parked row failed")]
    Thread(#[source] io::Error),
}

/// The reason of the first row that fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RowsFailed(pub(crate) String);

impl Error {
    pub(crate) fn recovery(&self) -> Recovery {
        match self {
            Self::Kafka(error) => error.recovery(),
            Self::Cassandra(_)
            | Self::Sql { .. }
            | Self::NoRowKept { .. }
            | Self::KeptAlone(_)
            | Self::TooManyParked { .. }
            | Self::ParkedInOtherLog { .. }
            | Self::Thread(_) => Recovery::Retry,
            Self::Stale { .. } | Self::StaleMarker { .. } => Recovery::AbortTransaction,
        }
    }

    /// The partition and the offset at which it stops, if that is what is to be done.
    pub(crate) fn stops(&self) -> Option<(i32, i64)> {
        match self {
            Self::TooManyParked { partition, offset, .. } => Some((*partition, *offset)),
            Self::Kafka(_)
            | Self::Cassandra(_)
            | Self::Sql { .. }
            | Self::Stale { .. }
            | Self::StaleMarker { .. }
            | Self::NoRowKept { .. }
            | Self::KeptAlone(_)
            | Self::ParkedInOtherLog { .. }
            | Self::Thread(_) => None,
        }
    }
}
