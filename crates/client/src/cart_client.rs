//! [`CartClient`]: one method per command, and the stream of a cart's events.

mod events;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri, http};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use events::{EventMessage, EventStream};

use crate::error::Error;
use crate::ids::{CartId, ProductId};
use crate::settings::ClientSettings;
use crate::tls;
use crate::wire::{AdjustBody, Cart, Item, ItemChange, Outcome, PendingBody, Problem, Purchase};

/// The maximum length of an answer: four times that of a full cart (1,000 lines with long names), which is below 1 MiB.
const ANSWER_LEN_MAX: usize = 4 << 20;

/// How much of an unexpected answer an error shows.
const EXCERPT_LEN_MAX: usize = 200;

/// How long an idle connection is kept. Shorter than the service keeps it (`--header-timeout-ms`, and `--lame-duck-ms` at its
/// end), so that the service does not close it while a request is being sent.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// Optional headers of a command.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandOptions<'a> {
    /// Makes a retry safe: 1 to 200 characters.
    pub idempotency_key: Option<&'a str>,
    /// The command's own time, for imports; rejected unless the service was started with `--allow-client-time`.
    pub command_time: Option<DateTime<Utc>>,
}

/// A client of one ingest service; clones share the connections.
#[derive(Debug, Clone)]
pub struct CartClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authorization: Option<HeaderValue>,
    answer_timeout: Duration,
    /// Scheme, host and port.
    origin: String,
    carts_url: String,
}

impl CartClient {
    /// A client of the service at `base_url`, `http://127.0.0.1:9001` for example. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::BaseUrl`] if `base_url` is not an `http://` or `https://` URL, [`Error::Token`] if the token is not a header
    /// value, [`Error::CaCert`] or [`Error::Tls`] if the certificates to trust can't be read.
    pub fn new(base_url: &str, settings: &ClientSettings) -> Result<Self, Error> {
        let bad = || Error::BaseUrl { url: base_url.to_owned() };
        let uri: Uri = base_url.parse().map_err(|_| bad())?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(bad)?;
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(bad)?;
        let authorization = settings.token.as_ref().map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Token)?;
            // Not shown where requests are logged.
            value.set_sensitive(true);
            Ok(value)
        });
        let connector = tls::connector(scheme == "https", settings)?;
        // hyper resends a request only if a closed connection did not accept it; the caller retries. No proxies or redirects.
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(settings.idle_connections_max)
            .build(connector);
        Ok(Self {
            http,
            authorization: authorization.transpose()?,
            answer_timeout: settings.answer_timeout,
            origin: format!("{scheme}://{authority}"),
            carts_url: format!("{}/cart/", base_url.trim_end_matches('/')),
        })
    }

    /// Puts an item into the cart.
    ///
    /// # Errors
    /// See [`Error::execution`] for whether the command can have been executed.
    pub async fn add(
        &self,
        cart: CartId,
        item: &Item,
        options: CommandOptions<'_>,
    ) -> Result<Outcome<ItemChange>, Error> {
        let body = Body::json(item)?;
        self.command(self.request(Method::POST, format_args!("{cart}")), body, options).await
    }

    /// Sends an add with any text in place of the cart's id.
    pub(crate) async fn add_to(
        &self,
        cart: &str,
        item: &Item,
        options: CommandOptions<'_>,
    ) -> Result<Outcome<ItemChange>, Error> {
        let body = Body::json(item)?;
        self.command(self.request(Method::POST, format_args!("{cart}")), body, options).await
    }

    /// Removes an item from the cart.
    ///
    /// # Errors
    /// See [`Error::execution`] for whether the command can have been executed.
    pub async fn remove(
        &self,
        cart: CartId,
        product: ProductId,
        options: CommandOptions<'_>,
    ) -> Result<Outcome<ItemChange>, Error> {
        let request = self.request(Method::DELETE, format_args!("{cart}/productId/{product}"));
        self.command(request, Body::None, options).await
    }

    /// Changes the quantity of an item by a difference.
    ///
    /// # Errors
    /// See [`Error::execution`] for whether the command can have been executed.
    pub async fn adjust(
        &self,
        cart: CartId,
        product: ProductId,
        adjust_by: i64,
        options: CommandOptions<'_>,
    ) -> Result<Outcome<ItemChange>, Error> {
        let request = self.request(Method::PATCH, format_args!("{cart}/productId/{product}"));
        self.command(request, Body::json(&AdjustBody { adjust_by })?, options).await
    }

    /// Buys everything in the cart, or nothing.
    ///
    /// # Errors
    /// See [`Error::execution`] for whether the command can have been executed.
    pub async fn checkout(&self, cart: CartId, options: CommandOptions<'_>) -> Result<Outcome<Purchase>, Error> {
        let request = self.request(Method::POST, format_args!("{cart}/checkout"));
        self.command(request, Body::None, options).await
    }

    /// The cart as it is now.
    ///
    /// # Errors
    /// [`Error::Refused`] with the service's reason, else as for commands.
    pub async fn cart(&self, cart: CartId) -> Result<Cart, Error> {
        let answer = self.send(self.request(Method::GET, format_args!("{cart}")), Body::None).await?;
        match answer.status {
            StatusCode::OK => answer.read(),
            _ => Err(answer.problem().map_or_else(|| answer.unexpected(), Error::Refused)),
        }
    }

    fn request(&self, method: Method, path: std::fmt::Arguments<'_>) -> http::request::Builder {
        Request::builder().method(method).uri(format!("{}{path}", self.carts_url))
    }

    /// Sends a command and interprets the answer.
    async fn command<T: DeserializeOwned>(
        &self,
        mut request: http::request::Builder,
        body: Body,
        options: CommandOptions<'_>,
    ) -> Result<Outcome<T>, Error> {
        if let Some(key) = options.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(at) = options.command_time {
            request = request.header("command-time", at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        }
        let answer = self.send(request, body).await?;
        match answer.status {
            StatusCode::OK => answer.read().map(Outcome::Accepted),
            StatusCode::ACCEPTED => {
                let PendingBody { command_id, reason } = answer.read()?;
                Ok(Outcome::Pending { command_id, parked: reason })
            }
            _ => answer.refusal(),
        }
    }

    /// Sends a request and reads the whole answer, within the timeout.
    async fn send(&self, request: http::request::Builder, body: Body) -> Result<Answer, Error> {
        self.in_time(async { self.whole(self.response(request, body).await?).await }).await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let answer = tokio::time::timeout(self.answer_timeout, answer).await;
        answer.unwrap_or_else(|elapsed| Err(no_answer(&self.origin, elapsed)))
    }

    /// Sends a request and waits for the head of its answer.
    async fn response(&self, mut request: http::request::Builder, body: Body) -> Result<Response<Incoming>, Error> {
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = match body {
            Body::None => request.body(Full::default()),
            Body::Json(json) => request.header(CONTENT_TYPE, "application/json").body(Full::from(json)),
        };
        self.http.request(request.map_err(Error::Request)?).await.map_err(|source| {
            let url = self.origin.clone();
            if source.is_connect() { Error::Connect { url, source } } else { no_answer(&self.origin, source) }
        })
    }

    /// Reads the whole answer.
    async fn whole(&self, response: Response<Incoming>) -> Result<Answer, Error> {
        let (head, mut parts) = response.into_parts();
        let mut body = Vec::with_capacity(512);
        while let Some(frame) = parts.frame().await {
            let frame = frame.map_err(|source| no_answer(&self.origin, source))?;
            let Ok(data) = frame.into_data() else { continue };
            if body.len() + data.len() > ANSWER_LEN_MAX {
                return Err(Error::AnswerTooLong { limit: ANSWER_LEN_MAX });
            }
            body.extend_from_slice(&data);
        }
        Ok(Answer {
            status: head.status,
            retry_after: retry_after(&head.headers),
            is_problem: head.headers.get(CONTENT_TYPE).is_some_and(is_problem_type),
            body,
        })
    }
}

fn no_answer(origin: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::NoAnswer { url: origin.to_owned(), source: source.into() }
}

/// The body of a request.
enum Body {
    None,
    Json(Vec<u8>),
}

impl Body {
    fn json(value: &impl Serialize) -> Result<Self, Error> {
        serde_json::to_vec(value).map(Self::Json).map_err(Error::Body)
    }
}

/// A whole answer, bounded.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    is_problem: bool,
    body: Vec<u8>,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|source| Error::UnreadableAnswer { excerpt: self.excerpt(), source })
    }

    /// The outcome by an answer that is neither 200 nor 202.
    fn refusal<T>(&self) -> Result<Outcome<T>, Error> {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                let detail = self.problem().map(|problem| problem.detail).unwrap_or_default();
                Ok(Outcome::Unavailable { detail, retry_after: self.retry_after })
            }
            status if status.is_client_error() => {
                self.problem().map(Outcome::Rejected).ok_or_else(|| self.unexpected())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn problem(&self) -> Option<Problem> {
        if self.is_problem { self.read().ok() } else { None }
    }

    fn unexpected(&self) -> Error {
        let excerpt = self.problem().map_or_else(|| self.excerpt(), |problem| problem.detail);
        Error::UnexpectedAnswer { status: self.status, excerpt }
    }

    fn excerpt(&self) -> String {
        let bytes = &self.body[..self.body.len().min(EXCERPT_LEN_MAX)];
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// Parses Retry-After in seconds; the service never sends a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn is_problem_type(value: &HeaderValue) -> bool {
    value.as_bytes().starts_with(b"application/problem+json")
}
