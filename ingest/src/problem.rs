//! Refusals, as problem details (RFC 9457).

use cart::{CommandId, Rejection, SequenceNumber};

use crate::api::openapi;
use crate::commands::CommandLink;
use crate::commands::lookup::SEARCHED_MAX;
use crate::request_id;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;
use warp::Reply as _;
use warp::http::{HeaderName, HeaderValue, StatusCode, header};

/// Most characters of a detail.
const DETAIL_LEN_MAX: usize = 500;

/// The reason why a request was not executed. `type` is stable and names the cause; `detail` is for people.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type", serialize_with = "urn")]
    #[schemars(schema_with = "openapi::problem_type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "number")]
    #[schemars(with = "u16")]
    status: StatusCode,
    detail: String,
    #[serde(rename = "commandId", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    command_id: Option<CommandId>,
    /// The index of the rejected command in its batch, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<i32>,
    /// The id of the request in the logs of the service, as in the header X-Request-Id.
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    // Boxed: few have one, and problems are returned by value.
    header: Option<Box<(HeaderName, String)>>,
}

/// What a response says why a request was not done, for the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind(pub(crate) &'static str);

fn urn<S: serde::Serializer>(kind: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:cart:problem:{kind}"))
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(openapi::PROBLEMS.iter().any(|(known, ..)| *known == kind), "{kind} is not documented");
        let mut detail = detail.into();
        // It may quote what was sent; nobody needs to read much of that.
        if let Some((end, _)) = detail.char_indices().nth(DETAIL_LEN_MAX) {
            detail.replace_range(end.., "…");
        }
        Self { kind, title, status, detail, command_id: None, index: None, request_id: None, header: None }
    }

    pub(crate) fn malformed_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-body", "The body is not JSON", detail)
    }

    pub(crate) fn invalid_header(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-header", "A header is invalid", detail)
    }

    /// Where the next request of the connection begins is not certain: it ends.
    pub(crate) fn unclear_framing(detail: impl Into<String>) -> Self {
        Self { header: Some(Box::new((header::CONNECTION, "close".to_owned()))), ..Self::invalid_header(detail) }
    }

    /// What was asked for is at another version by now.
    pub(crate) fn version_mismatch(version: SequenceNumber) -> Self {
        let detail = format!("the cart is now at version {version}; read it again, then decide again");
        Self { header: Some(Box::new((header::ETAG, format!("\"{version}\"")))), ..Self::moved_on(detail) }
    }

    /// No cart has or will have the version that was asked for.
    pub(crate) fn matches_no_version() -> Self {
        Self::moved_on("If-Match is not an ETag from a GET of the cart, or is a weak one, so it matches no version")
    }

    fn moved_on(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", "The version of the cart does not match", detail)
    }

    pub(crate) fn invalid_parameter(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", "A query parameter is missing or invalid", detail)
    }

    pub(crate) fn invalid_id(what: &str, text: &str) -> Self {
        let text: String = text.chars().take(64).collect();
        let detail = format!("{what} '{text}' is not a UUID such as 6ba7b811-9dad-11d1-80b4-00c04fd430c8");
        Self::new(StatusCode::BAD_REQUEST, "invalid-id", "An id is not a UUID", detail)
    }

    pub(crate) fn invalid_field(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "A field is missing or invalid", detail)
    }

    /// `is_invalid`: there is a token, but it is not good (RFC 6750).
    pub(crate) fn unauthenticated(detail: impl Into<String>, is_invalid: bool) -> Self {
        let title = "Authentication required";
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", title, detail);
        let challenge =
            if is_invalid { "Bearer realm=\"cart\", error=\"invalid_token\"" } else { "Bearer realm=\"cart\"" };
        Self { header: Some(Box::new((header::WWW_AUTHENTICATE, challenge.to_owned()))), ..problem }
    }

    pub(crate) fn forbidden(scope: &str) -> Self {
        let detail = format!("the token must belong to that member or vendor, or have the scope {scope}");
        let problem = Self::new(StatusCode::FORBIDDEN, "forbidden", "Access denied", detail);
        let challenge = format!("Bearer realm=\"cart\", error=\"insufficient_scope\", scope=\"{scope}\"");
        Self { header: Some(Box::new((header::WWW_AUTHENTICATE, challenge))), ..problem }
    }

    pub(crate) fn not_found() -> Self {
        let detail = "no resource has this path; carts are at /cart/{cartId}";
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this path supports {allow}");
        let kind = "method-not-allowed";
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, kind, "Method not allowed", detail);
        Self { header: Some(Box::new((header::ALLOW, allow.to_owned()))), ..problem }
    }

    pub(crate) fn payload_too_large(max: usize) -> Self {
        let detail = format!("the body has more than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large", detail)
    }

    pub(crate) fn body_too_slow() -> Self {
        let detail = "the body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request timed out", detail)
    }

    pub(crate) fn unsupported_media_type() -> Self {
        let detail = "send the body with content-type: application/json";
        let kind = "unsupported-media-type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, "The body's content type is not JSON", detail)
    }

    pub(crate) fn unsupported_content_encoding() -> Self {
        let detail = "send the body without Content-Encoding";
        let kind = "unsupported-content-encoding";
        let problem = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, "The body has a content encoding", detail);
        Self { header: Some(Box::new((header::ACCEPT_ENCODING, "identity".to_owned()))), ..problem }
    }

    /// Nothing was done, and nothing will be.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service unavailable", detail)
    }

    /// It may have been done.
    pub(crate) fn outcome_unknown(link: &CommandLink) -> Self {
        let detail = "the log did not confirm the command in time; it may or may not be executed. To get its \
            outcome, query Location, or retry with the same Idempotency-Key";
        let problem =
            Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "The outcome of the command is unknown", detail);
        let header = Some(Box::new((header::LOCATION, link.to_string())));
        Self { command_id: Some(link.command_id), header, ..problem }
    }

    pub(crate) fn command_not_found(command_id: CommandId) -> Self {
        let detail = format!(
            "the log has no such command for this cart among the {SEARCHED_MAX} records after `since`: the command \
             was not appended and will not be executed, or `since` is not the time at which it was sent"
        );
        let problem = Self::new(StatusCode::NOT_FOUND, "command-not-found", "Command not found", detail);
        Self { command_id: Some(command_id), ..problem }
    }

    /// What the log says is that it was rejected, and no more.
    pub(crate) fn rejected_before(command_id: CommandId) -> Self {
        let detail = "the command was rejected by a rule that has changed since; the reason is no longer known";
        let problem = Self::new(StatusCode::CONFLICT, "rejected-before", "The command was rejected", detail);
        Self { command_id: Some(command_id), ..problem }
    }

    /// The read is right, but too early.
    pub(crate) fn read_table_behind(stage: &str, records: i64) -> Self {
        let detail = format!(
            "the read table does not include that command yet: {stage} is at most {records} {} behind; retry soon, \
             or read without Read-After",
            if records == 1 { "record" } else { "records" }
        );
        let title = "The read table does not include the command yet";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "read-table-behind", title, detail)
    }

    /// Puts the path of what it is about before the field that it names.
    pub(crate) fn within(self, path: impl std::fmt::Display) -> Self {
        Self { detail: format!("{path}.{}", self.detail), ..self }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The last word of its `type`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn rejected(rejection: &Rejection, index: Option<i32>, command_id: CommandId) -> Self {
        let conflict = StatusCode::CONFLICT;
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        let problem = match rejection {
            Rejection::ItemAlreadyInCart => {
                let detail = "an item can be added only once; adjust its quantity instead";
                Self::new(conflict, "item-already-in-cart", "The item is already in the cart", detail)
            }
            Rejection::ItemNotInCart => {
                let detail = "only items in the cart can be removed or adjusted";
                Self::new(StatusCode::NOT_FOUND, "item-not-in-cart", "The item is not in the cart", detail)
            }
            Rejection::NegativeQuantity { quantity } => {
                let detail = format!("the quantity would be {quantity}; it must stay above zero");
                Self::new(unprocessable, "negative-quantity", "The quantity must stay above zero", detail)
            }
            Rejection::QuantityTooLarge { quantity, max } => {
                let detail = format!("the quantity would be {quantity}; at most {max} are allowed");
                Self::new(unprocessable, "quantity-too-large", "The quantity is too large", detail)
            }
            Rejection::EmptyCartCheckout => {
                let detail = "add an item first";
                Self::new(conflict, "empty-cart-checkout", "The cart is empty", detail)
            }
            Rejection::CartFull { max } => {
                let detail = format!("the cart has {max} lines, which is the maximum");
                Self::new(conflict, "cart-full", "The cart is full", detail)
            }
            Rejection::IdempotencyKeyReused => {
                let detail = "the Idempotency-Key was used for another request to this cart; use a new key";
                Self::new(
                    unprocessable,
                    "idempotency-key-reused",
                    "The idempotency key was used for another request",
                    detail,
                )
            }
            Rejection::VersionMismatch { version } => Self::version_mismatch(*version),
        };
        let detail = match index {
            Some(index) => format!("commands[{index}]: {}; no command of the batch was executed", problem.detail),
            None => problem.detail,
        };
        Self { command_id: Some(command_id), index, detail, ..problem }
    }

    pub(crate) fn into_response(mut self) -> warp::reply::Response {
        self.request_id = request_id::current();
        let mut response = warp::reply::with_status(warp::reply::json(&self), self.status).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some((name, value)) = self.header.map(|header| *header)
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
        response.extensions_mut().insert(Kind(self.kind));
        response
    }
}
