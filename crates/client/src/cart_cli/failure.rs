//! Why a command failed: as text, as JSON and as an exit code.

use std::io;

use serde::Serialize;
use uuid::Uuid;

use super::names::printable;
use crate::ids::CartId;
use crate::{Error, Problem};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The service rejected it, or the item is not in the cart.
    #[error("rejected ({}): {}", .0.code(), printable(&.0.detail))]
    Refused(Problem),
    /// The command is invalid.
    #[error("{0}")]
    Usage(String),
    /// It was not executed and will not be.
    #[error("not executed: {reason}")]
    NotTaken {
        /// Why the last attempt failed, or that the user interrupted it.
        reason: String,
    },
    /// It is in the log, and has no outcome yet.
    #[error(
        "no outcome yet ({reason}): the command is in the log; `list` will show its effect; repeat it with --idempotency-key \
         {key} to get its outcome"
    )]
    Pending {
        /// The cart's id.
        cart: CartId,
        command_id: Uuid,
        /// Its idempotency key.
        key: String,
        /// Why the last attempt has none.
        reason: String,
    },
    /// It may have been executed.
    #[error(
        "outcome unknown: {reason}; `list` may show its effect; repeat it with --idempotency-key {key} to get its \
         outcome"
    )]
    Unknown {
        /// Why the last attempt failed.
        reason: String,
        /// Its idempotency key.
        key: String,
    },
    /// The settings are invalid.
    #[error("the client cannot be used: {0}")]
    Client(#[source] Error),
    /// Standard output is closed, for example.
    #[error("writing the output failed: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The failure of the last attempt, as text.
    pub(crate) fn away(reason: &str) -> Self {
        Self::NotTaken { reason: format!("the service is unavailable ({reason})") }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// 1: rejected by a rule; 2: invalid usage; 3: not executed; 4: perhaps executed.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(problem) if is_about_input(problem) => 2,
            Self::Refused(_) => 1,
            Self::Usage(_) | Self::Client(_) | Self::Output(_) => 2,
            Self::NotTaken { .. } => 3,
            Self::Pending { .. } | Self::Unknown { .. } => 4,
        }
    }

    /// One or two words for the session's history.
    pub(crate) fn outcome(&self) -> &str {
        match self {
            Self::Refused(problem) => problem.code(),
            Self::Usage(_) | Self::Client(_) => "usage",
            Self::Output(_) => "no output",
            Self::NotTaken { .. } => "not done",
            Self::Pending { .. } => "pending",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// The body of the service's answer, or a body of the same form; `None` for invalid usage and settings.
    pub(crate) fn json(&self) -> Option<serde_json::Result<String>> {
        match self {
            Self::Refused(problem) => Some(serde_json::to_string(problem)),
            Self::Usage(_) | Self::Client(_) | Self::Output(_) => None,
            Self::NotTaken { reason } => {
                Some(serde_json::to_string(&problem("unavailable", "Service unavailable", 503, reason)))
            }
            Self::Pending { cart, command_id, key, .. } => Some(serde_json::to_string(&Pending {
                command_id: *command_id,
                cart_id: *cart,
                status: "pending",
                idempotency_key: key,
            })),
            Self::Unknown { reason, key } => Some(serde_json::to_string(&Unknown {
                problem: problem("outcome-unknown", "The outcome of the command is unknown", 504, reason),
                idempotency_key: key,
            })),
        }
    }
}

/// The body of a 202, and how to repeat the command.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pending<'a> {
    command_id: Uuid,
    cart_id: CartId,
    status: &'static str,
    idempotency_key: &'a str,
}

/// The body of a 504, and how to repeat the command.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unknown<'a> {
    #[serde(flatten)]
    problem: Problem,
    idempotency_key: &'a str,
}

/// A problem of the service's form, for a failure that the service did not see.
pub(crate) fn problem(code: &str, title: &str, status: u16, detail: &str) -> Problem {
    let kind = format!("urn:cart:problem:{code}");
    Problem { kind, title: title.to_owned(), status, detail: detail.to_owned(), command_id: None }
}

/// Whether the request is invalid, independent of the cart's state.
fn is_about_input(problem: &Problem) -> bool {
    let code = problem.code();
    code.starts_with("invalid-") || ["malformed-body", "payload-too-large"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, status: u16) -> Failure {
        Failure::Refused(problem(code, "In words", status, "why"))
    }

    #[test]
    fn each_failure_has_its_exit_code() {
        let key = "k".to_owned();
        let (cart, command_id) = (CartId::of_member("alice"), Uuid::nil());
        let pending = Failure::Pending { cart, command_id, key: key.clone(), reason: String::new() };
        let cases = [
            (refused("item-not-in-cart", 404), 1, true),
            (refused("negative-quantity", 422), 1, true),
            (refused("invalid-field", 422), 2, true),
            (Failure::usage("no"), 2, false),
            (Failure::NotTaken { reason: String::new() }, 3, true),
            (pending, 4, true),
            (Failure::Unknown { reason: String::new(), key }, 4, true),
        ];
        for (failure, exit_code, has_json) in cases {
            assert_eq!((failure.exit_code(), failure.json().is_some()), (exit_code, has_json), "{failure:?}");
        }
    }

    #[test]
    fn json_has_the_fields_and_order_of_the_service() {
        let json = |failure: &Failure| failure.json().expect("JSON").expect("it can be written");
        let refused = refused("cart-full", 409);
        assert_eq!(refused.to_string(), "rejected (cart-full): why");
        let body = r#"{"type":"urn:cart:problem:cart-full","title":"In words","status":409,"detail":"why"}"#;
        assert_eq!(json(&refused), body);
        let (cart, command_id) = (CartId::of_member("alice"), Uuid::nil());
        let pending = Failure::Pending { cart, command_id, key: "k".to_owned(), reason: "202".to_owned() };
        let body = r#"{"commandId":"00000000-0000-0000-0000-000000000000","cartId":"e4fbfd75-c6ab-52e9-b751-9da31e2bc37b","status":"pending","idempotencyKey":"k"}"#;
        assert_eq!(json(&pending), body);
        let unknown = Failure::Unknown { reason: "lost".to_owned(), key: "k".to_owned() };
        let body = r#"{"type":"urn:cart:problem:outcome-unknown","title":"The outcome of the command is unknown","status":504,"detail":"lost","idempotencyKey":"k"}"#;
        assert_eq!(json(&unknown), body);
    }
}
