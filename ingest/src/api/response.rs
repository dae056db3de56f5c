//! Responses: the bodies and headers of commands and reads.

use cart::{Aggregate, CartId, CartReply, CommandId, Item, Outcome, SequenceNumber, SessionId};
use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;
use warp::Reply as _;
use warp::http::{HeaderName, HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::commands::{Answer, CommandLink, Status};
use crate::http::LongLived;
use crate::problem::Problem;
use crate::reads::{Chunk, CommandLog, Events};
use crate::schema;

/// The body of an accepted command.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted<'a> {
    #[schemars(with = "Uuid")]
    command_id: CommandId,
    #[schemars(with = "Uuid")]
    cart_id: CartId,
    #[serde(flatten)]
    outcome: OutcomeBody<'a>,
}

/// The outcome of an accepted command.
#[derive(Serialize, JsonSchema)]
#[serde(untagged, rename_all_fields = "camelCase")]
// The name in the OpenAPI document: generated clients use it.
#[schemars(rename = "Done")]
enum OutcomeBody<'a> {
    ItemChanged {
        #[schemars(with = "Uuid")]
        session_id: SessionId,
        #[schemars(with = "schema::Version")]
        version: SequenceNumber,
        #[schemars(with = "schema::Item")]
        item: &'a Item,
    },
    CheckedOut {
        #[schemars(with = "Uuid")]
        session_id: SessionId,
        #[schemars(with = "schema::Version")]
        version: SequenceNumber,
        #[schemars(with = "Vec<schema::Item>")]
        items: &'a [Item],
        #[schemars(with = "schema::Amount")]
        total: String,
        #[schemars(with = "schema::Time")]
        purchased_at: String,
    },
    Batch {
        #[schemars(with = "schema::Version")]
        version: SequenceNumber,
        results: Vec<BatchItem<'a>>,
    },
    /// An independent batch.
    Each { results: Vec<BatchItem<'a>> },
}

/// The outcome of one command of an independent batch.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// The name in the OpenAPI document: generated clients use it.
#[schemars(rename = "OneOf")]
struct BatchItem<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

/// The state of a command, for a 202 and for its status link.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommandStatus<'a> {
    #[schemars(with = "Uuid")]
    command_id: CommandId,
    #[schemars(with = "Uuid")]
    cart_id: CartId,
    status: &'static str,
    /// True if the command waits because its cart is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<bool>,
    /// Why the cart is parked: `journal-unreadable`, `rule-panicked` or `command-too-new`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl CommandStatus<'_> {
    fn of(cart_id: CartId, command_id: CommandId, status: &'static str) -> Self {
        Self { command_id, cart_id, status, parked: None, reason: None, outcome: None, problem: None }
    }

    fn parked(cart_id: CartId, command_id: CommandId, reason: &str) -> CommandStatus<'_> {
        CommandStatus { parked: Some(true), reason: Some(reason), ..CommandStatus::of(cart_id, command_id, "pending") }
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cart<'a> {
    #[schemars(with = "Uuid")]
    cart_id: CartId,
    #[schemars(with = "Uuid")]
    session_id: SessionId,
    #[schemars(with = "schema::Version")]
    version: SequenceNumber,
    #[schemars(with = "Vec<schema::Item>")]
    items: &'a [Item],
    #[schemars(with = "schema::Amount")]
    total: String,
}

// A cart's total has at most 1,000 * 10^15: far within a Decimal, so plain sums are exact.
fn total(items: &[Item]) -> String {
    items.iter().map(Item::amount).sum::<Decimal>().normalize().to_string()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl OutcomeBody<'_> {
    /// The cart's version after the command; `None` if no command of an independent batch was accepted.
    fn version(&self) -> Option<SequenceNumber> {
        match self {
            Self::ItemChanged { version, .. } | Self::CheckedOut { version, .. } | Self::Batch { version, .. } => {
                Some(*version)
            }
            Self::Each { results } => {
                results.iter().filter_map(|result| result.outcome.as_ref().and_then(Self::version)).max()
            }
        }
    }
}

fn outcome_body(outcome: &Outcome, command_id: CommandId) -> Result<OutcomeBody<'_>, Problem> {
    Ok(match outcome {
        Outcome::ItemChanged { session_id, version, item } => {
            OutcomeBody::ItemChanged { session_id: *session_id, version: *version, item }
        }
        Outcome::CheckedOut { session_id, version, items, purchased_at } => OutcomeBody::CheckedOut {
            session_id: *session_id,
            version: *version,
            items,
            total: total(items),
            purchased_at: time(*purchased_at),
        },
        Outcome::Batch { outcomes } => {
            let bodies: Vec<_> =
                outcomes.iter().map(|outcome| outcome_body(outcome, command_id)).collect::<Result<_, _>>()?;
            let version = bodies.last().and_then(OutcomeBody::version).unwrap_or(SequenceNumber::ZERO);
            OutcomeBody::Batch { version, results: bodies.into_iter().map(|body| BatchItem::of(Ok(body))).collect() }
        }
        Outcome::IndependentBatch { outcomes } => OutcomeBody::Each {
            results: outcomes.iter().map(|outcome| BatchItem::of(outcome_body(outcome, command_id))).collect(),
        },
        Outcome::Rejected { rejection, index } => return Err(Problem::rejected(rejection, *index, command_id)),
        // An answer of its own, before it comes here.
        Outcome::Parked { .. } => return Err(Problem::internal_error()),
    })
}

impl<'a> BatchItem<'a> {
    fn of(result: Result<OutcomeBody<'a>, Problem>) -> Self {
        match result {
            Ok(outcome) => Self { status: StatusCode::OK.as_u16(), outcome: Some(outcome), problem: None },
            Err(problem) => Self { status: problem.status().as_u16(), outcome: None, problem: Some(problem) },
        }
    }
}

/// The response to a command.
pub(super) fn of_command(answer: &Answer, log: CommandLog) -> Response {
    match answer {
        Answer::Pending(link) => pending(link, &CommandStatus::of(link.cart_id, link.command_id, "pending")),
        Answer::Parked(link, reason) => pending(link, &CommandStatus::parked(link.cart_id, link.command_id, reason)),
        Answer::Replied(reply) => match outcome_body(&reply.outcome, reply.command_id) {
            Ok(outcome) => accepted(reply, outcome, log),
            Err(problem) => problem.into_response(),
        },
    }
}

fn accepted(reply: &CartReply, outcome: OutcomeBody<'_>, log: CommandLog) -> Response {
    let CartReply { command_id, cart_id, position, .. } = *reply;
    let version = outcome.version();
    let mut response = warp::reply::json(&Accepted { command_id, cart_id, outcome }).into_response();
    let Some(version) = version else { return response };
    log.insert_token(&mut response, cart_id, position);
    with_etag(response, version)
}

/// The response to a batch. An independent batch gets 200, whatever the outcomes of its commands. An atomic batch of one
/// command has the outcome of that command in the log; its response is that of a batch.
pub(super) fn of_batch(answer: &Answer, log: CommandLog) -> Response {
    let Answer::Replied(reply) = answer else { return of_command(answer, log) };
    if !matches!(reply.outcome, Outcome::ItemChanged { .. } | Outcome::CheckedOut { .. }) {
        return of_command(answer, log);
    }
    match outcome_body(&reply.outcome, reply.command_id) {
        Ok(outcome) => {
            let version = outcome.version().unwrap_or(SequenceNumber::ZERO);
            accepted(reply, OutcomeBody::Batch { version, results: vec![BatchItem::of(Ok(outcome))] }, log)
        }
        Err(problem) => problem.into_response(),
    }
}

/// The response to a query for the status of a command.
pub(super) fn of_status(cart_id: CartId, command_id: CommandId, status: &Status, log: CommandLog) -> Response {
    let rejected =
        |problem| CommandStatus { problem: Some(problem), ..CommandStatus::of(cart_id, command_id, "rejected") };
    let body = match status {
        Status::Pending => CommandStatus::of(cart_id, command_id, "pending"),
        Status::Parked(reason) => CommandStatus::parked(cart_id, command_id, reason),
        Status::RejectedBefore => rejected(Problem::rejected_before(command_id)),
        Status::Discarded => rejected(Problem::command_discarded(command_id)),
        Status::Settled(outcome, _) => match outcome_body(outcome, command_id) {
            Ok(outcome) => {
                let status = if outcome.version().is_some() { "accepted" } else { "rejected" };
                CommandStatus { outcome: Some(outcome), ..CommandStatus::of(cart_id, command_id, status) }
            }
            Err(problem) => rejected(problem),
        },
    };
    let is_accepted = body.outcome.as_ref().is_some_and(|outcome| outcome.version().is_some());
    let mut response = warp::reply::json(&body).into_response();
    match status {
        Status::Pending | Status::Parked(_) => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Status::Settled(_, position) if is_accepted => log.insert_token(&mut response, cart_id, *position),
        Status::Settled(..) | Status::RejectedBefore | Status::Discarded => {}
    }
    response
}

fn pending(link: &CommandLink, body: &CommandStatus<'_>) -> Response {
    let mut response = warp::reply::with_status(warp::reply::json(body), StatusCode::ACCEPTED).into_response();
    if let Ok(location) = HeaderValue::from_str(&link.to_string()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn with_etag(mut response: Response, version: SequenceNumber) -> Response {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

pub(super) fn of_cart(cart: &Aggregate) -> Response {
    let items = cart.cart().items();
    let version = cart.sequence_number();
    let body = Cart { cart_id: cart.cart_id(), session_id: cart.session_id(), version, items, total: total(items) };
    with_etag(warp::reply::json(&body).into_response(), version)
}

/// A page of a cart's events, with a link to the next page if there is one.
pub(super) fn of_events(events: &Events) -> Response {
    let mut response = warp::reply::json(events).into_response();
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    if let Some(link) = events.next().and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// A stream of a cart's events. It is not cached, and proxies that know the header pass each event on at once.
pub(super) fn of_event_stream(mut chunks: Receiver<Chunk>) -> Response {
    let mut response = warp::reply::stream(futures::stream::poll_fn(move |cx| chunks.poll_recv(cx))).into_response();
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.extensions_mut().insert(LongLived::default());
    response
}
