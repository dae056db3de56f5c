//! The problems of reads while Cassandra does not answer.

use service::LogLimit;

use crate::problem::Problem;

pub(super) fn journal_unavailable(error: journal::Error) -> Problem {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(left_out) = LIMIT.admit() {
        tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), left_out, "reading a journal failed");
    }
    Problem::unavailable("the journal is unavailable; retry later")
}

pub(super) fn unavailable(error: cassandra::Error) -> Problem {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(left_out) = LIMIT.admit() {
        tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), left_out, "reading a read table failed");
    }
    Problem::unavailable("the read table is unavailable, or does not exist yet; retry later")
}
