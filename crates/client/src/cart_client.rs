//! [`CartClient`]: one method a command, an answer or an [`Error`] for each.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::ids::{CartId, ProductId};
use crate::wire::{AdjustBody, Cart, Item, ItemChange, Outcome, PendingBody, Problem, Purchase};

/// A full cart (1,000 lines with long names) is below 1 MiB; four times that is surely not an answer.
const ANSWER_LEN_MAX: usize = 4 << 20;

/// How much of an answer that nobody understands is shown.
const EXCERPT_LEN_MAX: usize = 200;

/// How connections are made and kept.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// For a connection to be there.
    pub connect_timeout: Duration,
    /// For a whole answer. Longer than the service's own wait, which ends with a 202.
    pub answer_timeout: Duration,
    /// Connections kept while idle: as many as there are commands at a time, or each burst connects anew.
    pub idle_connections_max: usize,
    /// Who we are: a bearer token (RFC 6750), for a service that asks for one.
    pub token: Option<String>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(15),
            idle_connections_max: 8,
            token: None,
        }
    }
}

/// What a command may carry besides its content.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandOptions<'a> {
    /// Makes a retry safe: 1 to 200 visible ASCII characters.
    pub idempotency_key: Option<&'a str>,
    /// The command's own time, for imports; refused unless the service was started with `--allow-client-time`.
    pub command_time: Option<DateTime<Utc>>,
}

/// A client of one ingest service; clones share the connections.
#[derive(Debug, Clone)]
pub struct CartClient {
    http: Client,
    carts_url: String,
}

impl CartClient {
    /// A client of the service at `base_url`, `http://127.0.0.1:9001` for example. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::BaseUrl`] if that is not an `http://` URL (there is no TLS here), [`Error::Token`] if the token is none,
    /// [`Error::Setup`] from the HTTP library.
    pub fn new(base_url: &str, settings: &ClientSettings) -> Result<Self, Error> {
        let bad = || Error::BaseUrl { url: base_url.to_owned() };
        let url = Url::parse(base_url).map_err(|_| bad())?;
        if url.scheme() != "http" || url.host_str().is_none() {
            return Err(bad());
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Token)?;
            // Not shown where requests are logged.
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = Client::builder()
            .default_headers(headers)
            // An answer fits one segment: Nagle would only hold requests back.
            .tcp_nodelay(true)
            .http1_only()
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.answer_timeout)
            .pool_max_idle_per_host(settings.idle_connections_max)
            .redirect(redirect::Policy::none())
            // Retries are the caller's: the library must not send a command twice on its own.
            .retry(reqwest::retry::never())
            // A proxy of the environment is for the internet, not for the service that is measured.
            .no_proxy()
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { http, carts_url: format!("{}/cart/", base_url.trim_end_matches('/')) })
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
        let request = self.request(Method::POST, format_args!("{cart}"));
        command(request.json(item), options).await
    }

    /// Takes an item out of the cart.
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
        command(request, options).await
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
        command(request.json(&AdjustBody { adjust_by }), options).await
    }

    /// Buys what is in the cart, all or nothing.
    ///
    /// # Errors
    /// See [`Error::execution`] for whether the command can have been executed.
    pub async fn checkout(&self, cart: CartId, options: CommandOptions<'_>) -> Result<Outcome<Purchase>, Error> {
        let request = self.request(Method::POST, format_args!("{cart}/checkout"));
        command(request, options).await
    }

    /// The cart as it is now.
    ///
    /// # Errors
    /// [`Error::Refused`] with the service's reason, else as for commands.
    pub async fn cart(&self, cart: CartId) -> Result<Cart, Error> {
        let answer = Answer::of(self.request(Method::GET, format_args!("{cart}"))).await?;
        match answer.status {
            StatusCode::OK => answer.read(),
            _ => Err(answer.problem().map_or_else(|| answer.unexpected(), Error::Refused)),
        }
    }

    fn request(&self, method: Method, path: std::fmt::Arguments<'_>) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.carts_url))
    }
}

/// Sends a command and says what the answer means.
async fn command<T: DeserializeOwned>(
    mut request: RequestBuilder,
    options: CommandOptions<'_>,
) -> Result<Outcome<T>, Error> {
    if let Some(key) = options.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    if let Some(at) = options.command_time {
        request = request.header("command-time", at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    }
    let answer = Answer::of(request).await?;
    match answer.status {
        StatusCode::OK => answer.read().map(Outcome::Accepted),
        StatusCode::ACCEPTED => {
            let PendingBody { command_id } = answer.read()?;
            Ok(Outcome::Pending { command_id })
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            let detail = answer.problem().map(|problem| problem.detail).unwrap_or_default();
            Ok(Outcome::Unavailable { detail, retry_after: answer.retry_after })
        }
        status if status.is_client_error() => {
            answer.problem().map(Outcome::Rejected).ok_or_else(|| answer.unexpected())
        }
        _ => Err(answer.unexpected()),
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
    async fn of(request: RequestBuilder) -> Result<Self, Error> {
        let mut response = request.send().await.map_err(sending_failed)?;
        let mut body = Vec::with_capacity(512);
        while let Some(chunk) = response.chunk().await.map_err(sending_failed)? {
            if body.len() + chunk.len() > ANSWER_LEN_MAX {
                return Err(Error::AnswerTooLong { limit: ANSWER_LEN_MAX });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self {
            status: response.status(),
            retry_after: retry_after(&response),
            is_problem: response.headers().get(CONTENT_TYPE).is_some_and(is_problem_type),
            body,
        })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|source| Error::UnreadableAnswer { excerpt: self.excerpt(), source })
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

/// Only seconds: the service never sends the date form.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn is_problem_type(value: &HeaderValue) -> bool {
    value.as_bytes().starts_with(b"application/problem+json")
}

fn sending_failed(source: reqwest::Error) -> Error {
    let url = source.url().map_or_else(|| "the service".to_owned(), |url| url.origin().ascii_serialization());
    // The cause is shown with the service's address, not with each cart's own URL.
    let source = source.without_url();
    if source.is_builder() {
        Error::Request(source)
    } else if source.is_connect() {
        Error::Connect { url, source }
    } else {
        Error::NoAnswer { url, source }
    }
}
