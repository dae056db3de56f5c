//! Why a request was rejected, as problem details (RFC 9457).

mod kind;

use cart::{CartId, CommandId, Rejection, SequenceNumber};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;
use warp::Reply as _;
use warp::http::{HeaderName, HeaderValue, StatusCode, header};

pub(crate) use kind::Kind;

use crate::request_id;

/// Maximum number of characters of a detail.
const DETAIL_LEN_MAX: usize = 500;

/// Why a request did not get what it asked for. `type` is stable and names the cause; `detail` is for people.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type", serialize_with = "urn")]
    #[schemars(schema_with = "Kind::schema")]
    kind: Kind,
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

fn urn<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:cart:problem:{}", kind.code()))
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        // It may quote what was sent, of which the beginning is enough.
        if let Some((end, _)) = detail.char_indices().nth(DETAIL_LEN_MAX) {
            detail.replace_range(end.., "…");
        }
        let (title, status) = (kind.title(), kind.status());
        Self { kind, title, status, detail, command_id: None, index: None, request_id: None, header: None }
    }

    fn with_header(self, name: HeaderName, value: impl Into<String>) -> Self {
        Self { header: Some(Box::new((name, value.into()))), ..self }
    }

    fn of_command(self, command_id: CommandId) -> Self {
        Self { command_id: Some(command_id), ..self }
    }

    pub(crate) fn malformed_body(detail: impl Into<String>) -> Self {
        Self::new(Kind::MalformedBody, detail)
    }

    pub(crate) fn invalid_header(detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidHeader, detail)
    }

    /// Closes the connection: it is not certain where its next request begins.
    pub(crate) fn unclear_framing(detail: impl Into<String>) -> Self {
        Self::invalid_header(detail).with_header(header::CONNECTION, "close")
    }

    /// The cart has another version than the request expects.
    pub(crate) fn version_mismatch(version: SequenceNumber) -> Self {
        let detail = format!("the cart is now at version {version}; read it again, then decide again");
        Self::new(Kind::VersionMismatch, detail).with_header(header::ETAG, format!("\"{version}\""))
    }

    /// The request expects a version that no cart can have.
    pub(crate) fn matches_no_version() -> Self {
        let detail = "If-Match is not an ETag from a GET of the cart, or is a weak one, so it matches no version";
        Self::new(Kind::VersionMismatch, detail)
    }

    pub(crate) fn invalid_parameter(detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, detail)
    }

    pub(crate) fn invalid_id(what: &str, text: &str) -> Self {
        let text: String = text.chars().take(64).collect();
        let detail = format!("{what} '{text}' is not a UUID such as 6ba7b811-9dad-11d1-80b4-00c04fd430c8");
        Self::new(Kind::InvalidId, detail)
    }

    pub(crate) fn invalid_field(detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidField, detail)
    }

    /// `has_token`: the request has a token, but it is invalid (RFC 6750).
    pub(crate) fn unauthenticated(rejected: bearer::Rejected) -> Self {
        let problem = Self::new(Kind::Unauthenticated, rejected.to_string());
        problem.with_header(header::WWW_AUTHENTICATE, rejected.challenge())
    }

    pub(crate) fn forbidden(scope: &str) -> Self {
        let detail = format!("the token must belong to that member or vendor, or have the scope {scope}");
        Self::new(Kind::Forbidden, detail).with_header(header::WWW_AUTHENTICATE, bearer::scope_challenge(scope))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Kind::NotFound, "no resource has this path; carts are at /cart/{cartId}")
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(Kind::MethodNotAllowed, format!("this path supports {allow}")).with_header(header::ALLOW, allow)
    }

    pub(crate) fn payload_too_large(max: usize) -> Self {
        Self::new(Kind::PayloadTooLarge, format!("the body has more than {max} bytes"))
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(Kind::RequestTimeout, "the body did not arrive in time")
    }

    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(Kind::UnsupportedMediaType, "send the body with content-type: application/json")
    }

    pub(crate) fn unsupported_content_encoding() -> Self {
        Self::new(Kind::UnsupportedContentEncoding, "send the body without Content-Encoding")
            .with_header(header::ACCEPT_ENCODING, "identity")
    }

    /// The request may or may not have been executed.
    pub(crate) fn internal_error() -> Self {
        let detail = "an error in the service; a command may or may not be executed, so retry it with the same \
            Idempotency-Key";
        Self::new(Kind::InternalError, detail)
    }

    /// The request was not executed and will not be.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail)
    }

    /// The command may or may not be executed. `location` is the path of its status.
    pub(crate) fn outcome_unknown(command_id: CommandId, location: String) -> Self {
        let detail = "the log did not confirm the command in time; it may or may not be executed. To get its \
            outcome, query Location, or retry with the same Idempotency-Key";
        Self::new(Kind::OutcomeUnknown, detail).with_header(header::LOCATION, location).of_command(command_id)
    }

    /// The command is not among the `searched` records from its time on.
    pub(crate) fn command_not_found(command_id: CommandId, searched: usize) -> Self {
        let detail = format!(
            "the log has no such command for this cart among the {searched} records after `since`: the command \
             was not appended and will not be executed, or `since` is not the time at which it was sent"
        );
        Self::new(Kind::CommandNotFound, detail).of_command(command_id)
    }

    /// The command was rejected, but the log does not say why.
    pub(crate) fn rejected_before(command_id: CommandId) -> Self {
        let detail = "the command was rejected by a rule that has changed since; the reason is no longer known";
        Self::new(Kind::RejectedBefore, detail).of_command(command_id)
    }

    /// The command was given up before it was decided.
    pub(crate) fn command_discarded(command_id: CommandId) -> Self {
        let detail = "an operator has discarded the command, which waited; this record of it is not executed; show the cart, \
             then send the command again with another key";
        Self::new(Kind::CommandDiscarded, detail).of_command(command_id)
    }

    /// The read is valid, but too early.
    pub(crate) fn read_table_behind(stage: &str, records: i64) -> Self {
        let detail = format!(
            "the read table does not include that command yet: {stage} is at most {records} {} behind; retry soon, \
             or read without Read-After",
            if records == 1 { "record" } else { "records" }
        );
        Self::new(Kind::ReadTableBehind, detail)
    }

    /// The read is valid, and too early for as long as the command's cart is parked.
    pub(crate) fn read_table_behind_parked(cart_id: CartId, reason: &str) -> Self {
        let detail = format!(
            "the read table does not include that command: its cart {cart_id} is parked ({reason}), and its commands \
             wait until an operator has repaired it; read without Read-After"
        );
        Self::new(Kind::ReadTableBehind, detail)
    }

    /// The read is valid, and too early for as long as the row is parked. `reason` is a code, and behind a colon an error, which clients
    /// do not see.
    pub(crate) fn read_table_row_parked(row_key: &str, reason: &str) -> Self {
        let code = reason.split_once(':').map_or(reason, |(code, _)| code);
        let detail = format!(
            "the read table may not include that command: its row {row_key} is parked ({code}), and lacks purchases until an \
             operator has repaired it; read without Read-After"
        );
        Self::new(Kind::ReadTableBehind, detail)
    }

    /// Prefixes the field that the detail names with the path of its object.
    pub(crate) fn within(self, path: impl std::fmt::Display) -> Self {
        Self { detail: format!("{path}.{}", self.detail), ..self }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn rejected(rejection: &Rejection, index: Option<i32>, command_id: CommandId) -> Self {
        let problem = match rejection {
            Rejection::ItemAlreadyInCart => {
                let detail = "an item can be added only once; adjust its quantity instead";
                Self::new(Kind::ItemAlreadyInCart, detail)
            }
            Rejection::ItemNotInCart => {
                Self::new(Kind::ItemNotInCart, "only items in the cart can be removed or adjusted")
            }
            Rejection::NegativeQuantity { quantity } => {
                let detail = format!("the quantity would be {quantity}; it must stay above zero");
                Self::new(Kind::NegativeQuantity, detail)
            }
            Rejection::QuantityTooLarge { quantity, max } => {
                let detail = format!("the quantity would be {quantity}; at most {max} are allowed");
                Self::new(Kind::QuantityTooLarge, detail)
            }
            Rejection::EmptyCartCheckout => Self::new(Kind::EmptyCartCheckout, "add an item first"),
            Rejection::CartFull { max } => {
                Self::new(Kind::CartFull, format!("the cart has {max} lines, which is the maximum"))
            }
            Rejection::IdempotencyKeyReused => {
                let detail = "the Idempotency-Key was used for another request to this cart; use a new key";
                Self::new(Kind::IdempotencyKeyReused, detail)
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
        // For the log of rejected requests.
        response.extensions_mut().insert(self.kind);
        response
    }
}
