//! A failed statement, named for what it was for.

use scylla::deserialize::DeserializationError;
use scylla::errors::DbError;

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
            let is_read_failure = matches!(error.downcast_ref(), Some(DbError::ReadFailure { .. }));
            if is_read_failure || error.is::<DeserializationError>() {
                return true;
            }
            source = error.source();
        }
        self.is_undecodable
    }
}
