//! Whether a server refused a request for want of a permission.

use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};

/// PostgreSQL's code `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Whether the error, or one that caused it, is a refusal. A wrong password is none: it is said by the error itself.
pub(super) fn is_denied(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<kafka::Error>() {
            return error.is_denied();
        }
        if let Some(sqlx::Error::Database(error)) = cause.downcast_ref() {
            return error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE);
        }
        if let Some(ExecutionError::LastAttemptError(error)) = cause.downcast_ref() {
            return is_unauthorized(error);
        }
        if let Some(PrepareError::AllAttemptsFailed { first_attempt, .. }) = cause.downcast_ref() {
            return is_unauthorized(first_attempt);
        }
        false
    })
}

fn is_unauthorized(error: &RequestAttemptError) -> bool {
    matches!(error, RequestAttemptError::DbError(DbError::Unauthorized, _))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    fn in_cassandra(error: DbError) -> anyhow::Error {
        let source = ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::from("refused")));
        anyhow!(cassandra::Error::new("writing", source)).context("the check")
    }

    #[test]
    fn a_missing_permission_is_recognised_below_other_errors() {
        assert!(is_denied(&in_cassandra(DbError::Unauthorized)));
        assert!(!is_denied(&in_cassandra(DbError::Overloaded)));
        let other = Err::<(), _>(sqlx::Error::PoolClosed).context("connecting").expect_err("an error");
        assert!(!is_denied(&other));
    }
}
