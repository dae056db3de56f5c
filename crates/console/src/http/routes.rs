//! Paths and methods.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use cart::contract::STAGES;
use cart::{CartId, CommandId};
use serde::Serialize;
use serde_json::json;
use service::{Metrics, Readiness, health_and_metrics};
use warp::filters::BoxedFilter;
use warp::http::uri::Authority;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply as _};

use super::assets::{ASSETS, secured};
use super::stream::{Progress, events};
use crate::actions::{Actions, Denied, Failure, SCOPE};
use crate::args::TRACE_ID;
use crate::audience::Audience;
use crate::board::Board;
use crate::carts::Carts;
use crate::clock::now_ms;
use crate::shop::{Shop, Wanted};

/// The longest body: an item with a name of 200 characters.
const BODY_MAX: u64 = 8 * 1024;

/// What the routes need.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) board: Arc<Board>,
    pub(crate) audience: Audience,
    pub(crate) carts: Carts,
    pub(crate) shop: Option<Shop>,
    pub(crate) actions: Option<Actions>,
    pub(crate) trace_url: Option<String>,
    /// The names under which browsers may reach the page, besides localhost.
    pub(crate) hosts: Vec<String>,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Metrics,
}

#[derive(Debug, serde::Deserialize)]
struct AtVersion {
    version: Option<i64>,
}

/// The request names another host.
#[derive(Debug)]
struct ForeignHost;

impl warp::reject::Reject for ForeignHost {}

/// All routes. Those of the page answer only to its own names; probes and Prometheus may use any.
///
/// What is combined is boxed at each step: warp nests the types, and the compiler would take a minute for the one of all routes.
pub(crate) fn routes(page: Arc<Page>) -> BoxedFilter<(Response,)> {
    let service = health_and_metrics(page.readiness.clone(), page.metrics.clone());
    let page = warp::any().map(move || page.clone()).boxed();
    let own_host = warp::header::optional("host").boxed().and(page.clone()).and_then(of_own_host).untuple_one().boxed();
    let get = warp::get().and(page.clone()).boxed();
    let post = warp::post().and(warp::header::headers_cloned()).and(page).boxed();
    let body = warp::body::content_length_limit(BODY_MAX).and(limited_bytes()).boxed();

    let progress = warp::ext::get::<Arc<Progress>>().boxed();
    let stream = warp::path!("api" / "stream").boxed().and(get.clone()).and(progress).map(stream).boxed();
    let now = warp::path!("api" / "now").boxed().and(get.clone()).then(now).boxed();
    let settings = warp::path!("api" / "settings").boxed().and(get.clone()).map(settings).boxed();
    let at = warp::path!("api" / "commands" / i32 / i64).boxed().and(get.clone()).map(command_at).boxed();
    let by_id = warp::path!("api" / "commands" / CommandId).boxed().and(get.clone()).map(command_by_id).boxed();
    let group = warp::path!("api" / "groups" / String).boxed().and(get.clone()).map(partitions).boxed();
    let version = warp::query::<AtVersion>().boxed();
    let history = warp::path!("api" / "carts" / CartId).boxed().and(get).and(version).then(history).boxed();
    let items = warp::path!("api" / "shop" / CartId / "items").boxed();
    let items = items.and(post.clone()).and(body.clone()).then(add).boxed();
    let checkout = warp::path!("api" / "shop" / CartId / "checkout").boxed().and(post.clone()).then(checkout).boxed();
    let operate = warp::path!("api" / "operations").boxed().and(post).and(body).then(operate).boxed();
    let files = warp::path::tail().and(warp::get()).and_then(file).boxed();

    let of_page = [stream, now, settings, at, by_id, group, history, items, checkout, operate]
        .into_iter()
        .rfold(files, |others, route| route.or(others).unify().boxed());
    let all = service.or(own_host.and(of_page).boxed()).unify().boxed();
    all.recover(async |rejection: Rejection| Ok::<_, Infallible>(refused(&rejection))).unify().map(secured).boxed()
}

async fn of_own_host(host: Option<HeaderValue>, page: Arc<Page>) -> Result<(), Rejection> {
    let is_own = host.is_some_and(|host| is_own_host(&host, &page.hosts));
    if is_own { Ok(()) } else { Err(warp::reject::custom(ForeignHost)) }
}

async fn file(path: warp::path::Tail) -> Result<Response, Rejection> {
    let asset = ASSETS.iter().find(|asset| asset.path == path.as_str());
    asset.map(|asset| asset.response()).ok_or_else(warp::reject::not_found)
}

/// The limit on the length comes before it.
#[expect(clippy::disallowed_methods, reason = "content_length_limit comes before it")]
fn limited_bytes() -> impl Filter<Extract = (bytes::Bytes,), Error = Rejection> + Copy {
    warp::body::bytes()
}

fn refused(rejection: &Rejection) -> Response {
    if rejection.find::<ForeignHost>().is_some() {
        let error = "the page is not reached under this host name: open it by IP address or as localhost, \
            or start cart-console with --host NAME";
        return problem(StatusCode::FORBIDDEN, error);
    }
    // First: the filters for other paths have rejected the request too.
    if rejection.find::<warp::reject::PayloadTooLarge>().is_some() {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body has more than {BODY_MAX} bytes"));
    }
    if rejection.is_not_found() {
        return problem(StatusCode::NOT_FOUND, "nothing has this path");
    }
    if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "the path does not support this method");
    }
    problem(StatusCode::BAD_REQUEST, "the request is invalid")
}

fn json<T: Serialize>(value: &T) -> Response {
    warp::reply::json(value).into_response()
}

fn problem(status: StatusCode, error: &str) -> Response {
    warp::reply::with_status(warp::reply::json(&json!({ "error": error })), status).into_response()
}

fn found<T: Serialize>(value: Option<T>) -> Response {
    let missing = || problem(StatusCode::NOT_FOUND, "the command is not among the newest ones any more");
    value.map_or_else(missing, |value| json(&value))
}

fn stream(page: Arc<Page>, progress: Arc<Progress>) -> Response {
    let Some(seat) = page.audience.join() else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the page has as many viewers as it may have: try again later",
        );
    };
    let mut response = warp::reply::stream(events(page.audience.frames(), seat, progress)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// The next frame.
async fn now(page: Arc<Page>) -> Response {
    let Some(_seat) = page.audience.join() else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the page has as many viewers as it may have: try again later",
        );
    };
    let mut frames = page.audience.frames();
    frames.mark_unchanged();
    if frames.changed().await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the page is shutting down");
    }
    let frame = frames.borrow().clone();
    warp::reply::with_header(frame.to_vec(), header::CONTENT_TYPE, "application/json").into_response()
}

fn settings(page: Arc<Page>) -> Response {
    let trace_url = page.trace_url.as_ref().map(|url| url.split(TRACE_ID).collect::<Vec<_>>());
    let operations = page.actions.as_ref().map(|actions| json!({ "needsToken": actions.needs_token() }));
    json(&json!({ "hasShop": page.shop.is_some(), "traceUrl": trace_url, "operations": operations }))
}

fn command_at(partition: i32, offset: i64, page: Arc<Page>) -> Response {
    found(page.board.journeys().at((partition, offset)))
}

fn command_by_id(command_id: CommandId, page: Arc<Page>) -> Response {
    found(page.board.journeys().of(command_id))
}

/// A group's partitions.
fn partitions(group: String, page: Arc<Page>) -> Response {
    let Some((index, stage)) = STAGES.iter().enumerate().find(|(_, stage)| stage.group == group) else {
        return problem(StatusCode::NOT_FOUND, "no group of the pipeline has this name");
    };
    page.audience.note();
    let known = page.board.groups().partitions(index, now_ms());
    let unknown = || {
        problem(StatusCode::SERVICE_UNAVAILABLE, "the group's offsets are not known yet, or its server does not answer")
    };
    known.map_or_else(unknown, |partitions| json(&json!({ "topic": stage.topic, "partitions": partitions })))
}

async fn history(cart_id: CartId, page: Arc<Page>, at: AtVersion) -> Response {
    match page.carts.history(cart_id, at.version).await {
        Ok(history) => json(&history),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &format!("{error:#}")),
    }
}

async fn add(cart_id: CartId, headers: HeaderMap, page: Arc<Page>, body: bytes::Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(item) => send(&page, &headers, cart_id, Wanted::Add(item)).await,
        Err(error) => problem(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {error}")),
    }
}

async fn checkout(cart_id: CartId, headers: HeaderMap, page: Arc<Page>) -> Response {
    send(&page, &headers, cart_id, Wanted::Checkout).await
}

async fn send(page: &Page, headers: &HeaderMap, cart_id: CartId, wanted: Wanted) -> Response {
    let Some(shop) = &page.shop else {
        return problem(StatusCode::NOT_FOUND, "this page has no form: cart-console was started without --ingest-url");
    };
    if !is_own_page(headers) {
        return problem(StatusCode::FORBIDDEN, "commands come only from this page");
    }
    page.audience.note();
    match shop.send(cart_id, wanted).await {
        Ok(answer) => json(&answer),
        Err((status, error)) => problem(status, &format!("{error:#}")),
    }
}

/// An operator's action. Nothing of the request is looked at before it is known who sends it.
async fn operate(headers: HeaderMap, page: Arc<Page>, body: bytes::Bytes) -> Response {
    let Some(actions) = &page.actions else {
        return problem(
            StatusCode::NOT_FOUND,
            "this page has no actions: cart-console was started without --allow-operations",
        );
    };
    if !is_own_page(&headers) {
        return problem(StatusCode::FORBIDDEN, "actions come only from this page");
    }
    let by = match actions.operator(&headers).await {
        Ok(by) => by,
        Err(reason) => return denied(reason),
    };
    let action = match serde_json::from_slice(&body) {
        Ok(action) => action,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("the body is not an action: {error}")),
    };
    page.audience.note();
    match actions.perform(action, &by).await {
        Ok(done) => json(&json!({ "done": done })),
        Err(Failure::Invalid(reason)) => problem(StatusCode::BAD_REQUEST, &reason),
        Err(Failure::Refused(reason)) => problem(StatusCode::CONFLICT, &format!("refused: {reason}")),
        Err(Failure::Unavailable(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, &format!("{error:#}")),
    }
}

fn denied(reason: Denied) -> Response {
    let (status, error, challenge) = match reason {
        Denied::KeysUnknown => {
            let error = "the issuer's keys are not known yet: try again later; the log of cart-console has the reason";
            return problem(StatusCode::SERVICE_UNAVAILABLE, error);
        }
        Denied::Unauthenticated(rejected) => {
            (StatusCode::UNAUTHORIZED, rejected.to_string(), rejected.challenge().to_owned())
        }
        Denied::Scope => {
            let error = format!("the token must have the scope {SCOPE}");
            (StatusCode::FORBIDDEN, error, bearer::scope_challenge(SCOPE))
        }
    };
    warp::reply::with_header(problem(status, &error), header::WWW_AUTHENTICATE, challenge).into_response()
}

/// Whether the page is reached under a name of its own. Another site's name that resolves to the page's address (DNS rebinding)
/// would make its scripts scripts of this origin.
fn is_own_host(host: &HeaderValue, names: &[String]) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let host = authority.host();
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address || host.eq_ignore_ascii_case("localhost") || names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Whether a request comes from this page, and not from another site's page in the same browser: a script of another origin
/// can send this type of content only after a preflight, which is never allowed here.
fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_json = text("content-type").is_some_and(|value: &str| value.starts_with("application/json"));
    let host = text("host").unwrap_or_default();
    let is_same = |origin: &str| origin.split_once("://").is_some_and(|(_, of)| of == host);
    is_json && text("origin").is_none_or(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_localhost_and_the_given_names() {
        let names = ["page.example".to_owned()];
        let is_own = |host: &'static str| is_own_host(&HeaderValue::from_static(host), &names);
        for host in ["127.0.0.1:9010", "10.1.2.3", "[::1]:9010", "localhost:9010", "LocalHost", "Page.example:443"] {
            assert!(is_own(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9010", "127.0.0.1.evil.example", "localhost.evil.example", "", ":80"]
        {
            assert!(!is_own(host), "{host}");
        }
    }
}
