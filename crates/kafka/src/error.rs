//! Failures of Kafka and the registry, each with how to recover from it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What to do about a missing grant.
pub(crate) const MISSING_GRANT: &str = "the user lacks a grant: see `cartctl grants --for kafka`";

/// A failed operation. `Display` says which; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct Error {
    operation: String,
    recovery: Recovery,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Try again later: a server does not respond for a while.
    Retry,
    /// Abort the transaction and go back to the committed offsets: normal after a rebalance.
    AbortTransaction,
    /// End the process with this error: an operator has to act.
    Fatal,
}

/// Why a request to the schema registry failed.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct RegistryFailure {
    pub(crate) reason: String,
    /// The registry knows the user, who lacks a permission.
    pub(crate) is_denied: bool,
}

impl From<String> for RegistryFailure {
    fn from(reason: String) -> Self {
        Self { reason, is_denied: false }
    }
}

impl Error {
    /// Wraps an error of librdkafka. Its errors are classified only here.
    pub(crate) fn kafka(operation: impl Into<String>, source: KafkaError) -> Self {
        let mut operation = operation.into();
        if source.rdkafka_error_code().is_some_and(is_missing_grant) {
            operation = format!("{operation} ({MISSING_GRANT})");
        }
        Self { operation, recovery: recovery(&source), source: Box::new(source) }
    }

    /// As [`Error::kafka`], of a client that names `group`. librdkafka does not say which group a user may not use.
    pub(crate) fn in_group(group: &str, operation: impl Into<String>, source: KafkaError) -> Self {
        let operation = operation.into();
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Self::kafka(format!("{operation} with group {group}"), source)
            }
            Some(_) | None => Self::kafka(operation, source),
        }
    }

    /// A failure that passes.
    pub fn retry(operation: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation: operation.into(), recovery: Recovery::Retry, source: source.into() }
    }

    /// A transaction that cannot be committed any more, as after a rebalance.
    pub(crate) fn abort(
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation: operation.into(), recovery: Recovery::AbortTransaction, source: source.into() }
    }

    /// A failure that an operator has to remove.
    pub fn fatal(operation: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation: operation.into(), recovery: Recovery::Fatal, source: source.into() }
    }

    /// Of a producer that librdkafka has ended: it stays so, also when the cause is gone.
    pub(crate) fn ended(operation: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        Self { recovery: Recovery::Fatal, ..Self::kafka(operation, KafkaError::MessageProduction(code)) }
    }

    /// Whether another producer has taken over the transactional id (or the transaction outlived its time-out).
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        let kafka = self.source.downcast_ref::<KafkaError>();
        matches!(
            kafka.and_then(KafkaError::rdkafka_error_code),
            Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
        )
    }

    /// Whether the server has refused it for want of a permission. A wrong password is none: the error says what to check.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        if let Some(failure) = self.source.downcast_ref::<RegistryFailure>() {
            return failure.is_denied;
        }
        matches!(
            self.code(),
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            )
        )
    }

    /// Whether the record is larger than the client, the brokers or the topic allow.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self.code(), Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge))
    }

    fn code(&self) -> Option<RDKafkaErrorCode> {
        let kafka = self.source.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code);
        kafka.or_else(|| self.source.downcast_ref().copied())
    }

    /// What to do about it.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }
}

/// An error with its cause.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", error_text(source)),
        None => error.to_string(),
    }
}

fn is_missing_grant(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

fn recovery(error: &KafkaError) -> Recovery {
    if let KafkaError::Transaction(error) = error {
        // A fenced producer is fatal for itself only: its successor under the same id goes on. How often that may
        // happen in a row is for the owner of the producer to bound.
        return if error.txn_requires_abort() || error.is_fatal() {
            Recovery::AbortTransaction
        } else if error.is_retriable() {
            Recovery::Retry
        } else {
            Recovery::Fatal
        };
    }
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::AutoOffsetReset,
        ) => Recovery::Fatal,
        Some(_) => Recovery::Retry,
        None => Recovery::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_server_that_is_away() {
        for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::TransactionalIdAuthorizationFailed] {
            assert!(Error::kafka("producing", KafkaError::MessageProduction(code)).is_denied());
            assert!(Error::retry("creating a topic", code).is_denied());
        }
        let away = RDKafkaErrorCode::BrokerTransportFailure;
        assert!(!Error::kafka("producing", KafkaError::MessageProduction(away)).is_denied());
        assert!(!Error::retry("producing", away).is_denied());
        assert!(!Error::retry("producing", "the queue is full").is_denied());
    }
}
