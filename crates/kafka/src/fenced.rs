//! Two processes under one name: each fences the other's transactional producer, for ever.

use crate::Error;

/// Fenced this often without one commit between, another process has the same name. A process that was only replaced is fenced
/// once, and ends.
const FENCED_MAX: u32 = 5;

/// Counts how often the producer of one transactional id was fenced since its last commit.
#[derive(Debug)]
pub struct FencedGuard {
    transactional_id: String,
    fenced: u32,
}

impl FencedGuard {
    /// For the producer with this id.
    #[must_use]
    pub fn new(transactional_id: &str) -> Self {
        Self { transactional_id: transactional_id.to_owned(), fenced: 0 }
    }

    /// A transaction was committed.
    pub fn committed(&mut self) {
        self.fenced = 0;
    }

    /// A transaction failed. Returns the error; a fatal one that says what to do when it is the last of too many.
    pub fn failed(&mut self, error: Error) -> Error {
        if !error.is_fenced() {
            return error;
        }
        self.fenced += 1;
        if self.fenced < FENCED_MAX {
            return error;
        }
        let operation = format!(
            "publishing as {} (another process with the same --instance keeps fencing this one; give each its own name)",
            self.transactional_id
        );
        Error::fatal(operation, error)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};

    use super::*;
    use crate::Recovery;

    fn fenced() -> Error {
        Error::kafka("committing", KafkaError::MessageProduction(RDKafkaErrorCode::ProducerFenced))
    }

    #[test]
    fn only_fencing_without_a_commit_between_is_fatal() {
        let mut guard = FencedGuard::new("carts-0");
        for _ in 1..FENCED_MAX {
            assert_ne!(guard.failed(fenced()).recovery(), Recovery::Fatal);
        }
        guard.committed();
        for _ in 1..FENCED_MAX {
            assert_ne!(guard.failed(fenced()).recovery(), Recovery::Fatal);
            assert_ne!(guard.failed(Error::retry("committing", "a rebalance")).recovery(), Recovery::Fatal);
        }
        let last = guard.failed(fenced());
        assert_eq!(last.recovery(), Recovery::Fatal);
        assert!(last.to_string().contains("carts-0"), "{last}");
    }
}
