//! Every kind of problem: the one list that responses, the OpenAPI document and logs are made from.

use schemars::{Schema, SchemaGenerator, json_schema};
use warp::http::StatusCode;

/// Declares [`Kind`] from rows of status, code, title and meaning, in the order of their statuses.
macro_rules! kinds {
    ($($name:ident { $status:ident, $code:literal, $title:literal, $meaning:literal })*) => {
        /// The cause of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($name,)*
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The last word of the problem's `type`. It is stable.
            pub(crate) const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            pub(crate) const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            pub(crate) const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }

            /// A sentence for the OpenAPI document: what it means, and what the client can do.
            pub(crate) const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

kinds! {
    MalformedBody { BAD_REQUEST, "malformed-body", "The body is not JSON", "The body is not JSON." }
    InvalidHeader {
        BAD_REQUEST, "invalid-header", "A header is invalid",
        "A header is invalid, is given more than once, or contradicts another."
    }
    InvalidParameter {
        BAD_REQUEST, "invalid-parameter", "A query parameter is missing or invalid",
        "A query parameter is missing, unknown, repeated or out of range."
    }
    InvalidId { BAD_REQUEST, "invalid-id", "An id is not a UUID", "An id in the path or the body is not a UUID." }
    Unauthenticated {
        UNAUTHORIZED, "unauthenticated", "Authentication required",
        "The bearer token is missing, invalid or expired."
    }
    Forbidden {
        FORBIDDEN, "forbidden", "Access denied",
        "The token does not give access to this cart or vendor. Nothing was executed or read."
    }
    NotFound { NOT_FOUND, "not-found", "Not found", "No resource has this path." }
    CommandNotFound {
        NOT_FOUND, "command-not-found", "Command not found",
        "The log does not contain the command; it will not be executed."
    }
    ItemNotInCart {
        NOT_FOUND, "item-not-in-cart", "The item is not in the cart",
        "Only items in the cart can be removed or adjusted."
    }
    MethodNotAllowed {
        METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed",
        "The path does not support this method; Allow lists the methods that it supports."
    }
    RequestTimeout { REQUEST_TIMEOUT, "request-timeout", "The request timed out", "The request timed out." }
    ItemAlreadyInCart {
        CONFLICT, "item-already-in-cart", "The item is already in the cart",
        "The item is already in the cart; adjust its quantity instead."
    }
    EmptyCartCheckout {
        CONFLICT, "empty-cart-checkout", "The cart is empty", "An empty cart cannot be checked out."
    }
    RejectedBefore {
        CONFLICT, "rejected-before", "The command was rejected",
        "The command was rejected by a rule that has changed since; the reason is no longer known."
    }
    CommandDiscarded {
        CONFLICT, "command-discarded", "The command was discarded",
        "An operator has discarded the command, which waited; this record of it is not executed. Show the cart, then send the command again with another key."
    }
    CartFull { CONFLICT, "cart-full", "The cart is full", "The cart has the maximum number of lines." }
    VersionMismatch {
        PRECONDITION_FAILED, "version-mismatch", "The version of the cart does not match",
        "The cart's version does not match If-Match or If-None-Match; read the cart again."
    }
    PayloadTooLarge {
        PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large", "The body exceeds the size limit."
    }
    UnsupportedMediaType {
        UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body's content type is not JSON",
        "The body must be sent as application/json."
    }
    UnsupportedContentEncoding {
        UNSUPPORTED_MEDIA_TYPE, "unsupported-content-encoding", "The body has a content encoding",
        "The body must be sent without Content-Encoding; see Accept-Encoding."
    }
    InvalidField {
        UNPROCESSABLE_ENTITY, "invalid-field", "A field is missing or invalid",
        "A field of the body is missing, unknown or out of range."
    }
    NegativeQuantity {
        UNPROCESSABLE_ENTITY, "negative-quantity", "The quantity must stay above zero",
        "A quantity must stay above zero."
    }
    QuantityTooLarge {
        UNPROCESSABLE_ENTITY, "quantity-too-large", "The quantity is too large",
        "A quantity must stay within its limit."
    }
    IdempotencyKeyReused {
        UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The idempotency key was used for another request",
        "The idempotency key was used for another request to this cart; use a new key."
    }
    InternalError {
        INTERNAL_SERVER_ERROR, "internal-error", "Internal error",
        "An error in the service. The request may or may not have been executed; retry a command with the same key."
    }
    Unavailable {
        SERVICE_UNAVAILABLE, "unavailable", "Service unavailable",
        "The service is unavailable or overloaded. The request was not executed and will not be; retry later."
    }
    OutcomeUnknown {
        GATEWAY_TIMEOUT, "outcome-unknown", "The outcome of the command is unknown",
        "The log did not confirm the command in time; query Location, or retry with the same key."
    }
    ReadTableBehind {
        GATEWAY_TIMEOUT, "read-table-behind", "The read table does not include the command yet",
        "The read table does not include the command yet; retry, or read without Read-After."
    }
}

impl Kind {
    /// The schema of a problem's `type`.
    pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
        let all: Vec<_> = Self::ALL.iter().map(|kind| format!("urn:cart:problem:{}", kind.code())).collect();
        json_schema!({"type": "string", "format": "uri", "enum": all})
    }
}
