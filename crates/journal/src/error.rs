//! A failed operation on the journal.

/// What failed, and why. Doing it again is always right: nothing half done can be told from something not done.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct Error {
    operation: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    pub(crate) fn new(
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation: operation.into(), source: source.into() }
    }
}
