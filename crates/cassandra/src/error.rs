//! A failed statement, named for what it was for.

use scylla::deserialize::DeserializationError;
use scylla::errors::{DbError, ExecutionError, NextPageError, RequestAttemptError, RequestError};

/// An operation that failed. All statements of ours are idempotent, and a time-out leaves open whether one was
/// applied: doing it again is always right.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct Error {
    operation: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
    is_undecodable: bool,
}

impl Error {
    /// Names the operation that `source` made fail.
    pub fn new(operation: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation: operation.into(), source: source.into(), is_undecodable: false }
    }

    /// As [`Error::new`], of bytes that were read and do not mean anything.
    pub fn undecodable(
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { is_undecodable: true, ..Self::new(operation, source) }
    }

    /// Whether it is about the rows that were asked for: they cannot be read or decoded, and asking for others may succeed. An
    /// error of a server that does not respond is not.
    #[must_use]
    pub fn is_of_rows(&self) -> bool {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self.source.as_ref());
        while let Some(error) = source {
            if is_read_failure(error) || error.is::<DeserializationError>() {
                return true;
            }
            source = error.source();
        }
        self.is_undecodable
    }
}

/// Whether a server could not read the rows, as of a damaged file. The driver's errors do not name what the server said as their source.
fn is_read_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut attempt = error.downcast_ref::<RequestAttemptError>();
    if let Some(ExecutionError::LastAttemptError(of_statement)) = error.downcast_ref() {
        attempt = Some(of_statement);
    }
    if let Some(NextPageError::RequestFailure(RequestError::LastAttemptError(of_page))) = error.downcast_ref() {
        attempt = Some(of_page);
    }
    matches!(attempt, Some(RequestAttemptError::DbError(DbError::ReadFailure { .. }, _)))
}

#[cfg(test)]
mod tests {
    use scylla::errors::PagerExecutionError;
    use scylla::statement::Consistency;

    use super::*;

    /// What the driver returns for what a server has said.
    fn each_way(said: &DbError) -> [Error; 3] {
        let attempt = || RequestAttemptError::DbError(said.clone(), String::from("said by a server"));
        let page = || NextPageError::RequestFailure(RequestError::LastAttemptError(attempt()));
        [
            Error::new("reading a row", ExecutionError::LastAttemptError(attempt())),
            Error::new("reading the first page", PagerExecutionError::NextPageError(page())),
            Error::new("reading a page", page()),
        ]
    }

    #[test]
    fn rows_that_a_server_cannot_read_are_told_from_a_server_that_does_not_respond() {
        let consistency = Consistency::LocalQuorum;
        let (received, required) = (0, 1);
        let failure = DbError::ReadFailure { consistency, received, required, numfailures: 1, data_present: false };
        assert!(each_way(&failure).iter().all(Error::is_of_rows), "{failure}");
        let timeout = DbError::ReadTimeout { consistency, received, required, data_present: false };
        assert!(!each_way(&timeout).iter().any(Error::is_of_rows), "{timeout}");
    }
}
