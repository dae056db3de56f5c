//! A failed statement, named for what it was for.

/// An operation that failed. All statements of ours are idempotent, and a time-out leaves open whether one was
/// applied: doing it again is always right.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct Error {
    operation: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// Names the operation that `source` made fail.
    pub fn new(operation: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation: operation.into(), source: source.into() }
    }
}
