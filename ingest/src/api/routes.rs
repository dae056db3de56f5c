//! The API's paths.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use cart::{CartId, Command, CommandId};
use futures::{Stream, TryStreamExt as _, pin_mut};
use journal::Journal;
use service::{Metrics, Readiness, health_and_metrics};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply as _};

use crate::api::conditions;
use crate::api::headers::CommandHeaders;
use crate::api::openapi;
use crate::api::request::{self, Batch};
use crate::api::response;
use crate::commands::Commands;
use crate::commands::lookup::Lookup;
use crate::http::limits::DISCARDED_LEN_MAX;
use crate::problem::Problem;
use crate::reads::{self, Reads};

/// What the handlers need. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) commands: Commands,
    pub(crate) journal: Journal,
    pub(crate) lookup: Lookup,
    pub(crate) reads: Reads,
    pub(crate) allow_client_time: bool,
    pub(crate) body_len_max: usize,
    pub(crate) body_timeout: Duration,
    /// Bytes of bodies that there may be in memory.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) readiness: Readiness,
}

/// All paths. Each takes every method, so that a wrong one is told which are right.
///
/// Each is boxed: they are tried one inside the other, and would be moved as a whole each time, kilobytes of them.
pub(crate) fn routes(api: Api, metrics: Metrics) -> BoxedFilter<(Response,)> {
    let health = health_and_metrics(api.readiness.clone(), metrics);
    let reads = reads::routes(api.reads.clone());
    let api = Arc::new(api);
    let with_api = warp::any().map(move || api.clone());
    let parts = warp::method().and(warp::header::headers_cloned()).and(with_api);
    let cart = warp::path!("cart" / String).and(parts.clone()).and(warp::body::stream()).then(
        |cart_id: String, method: Method, headers, api: Arc<Api>, body| async move {
            respond(match method {
                Method::GET => api.cart(&cart_id, &headers).await,
                Method::POST => match api.read(body).await {
                    Ok(body) => api.execute(&cart_id, &headers, request::add_item(&headers, &body.bytes)).await,
                    Err(problem) => Err(problem),
                },
                _ => Err(Problem::method_not_allowed("GET, POST")),
            })
        },
    );
    let product = warp::path!("cart" / String / "productId" / String)
        .and(parts.clone())
        .and(warp::body::stream())
        .then(|cart_id: String, product_id: String, method: Method, headers, api: Arc<Api>, body| async move {
            respond(match method {
                Method::DELETE => api.execute(&cart_id, &headers, request::remove(&product_id)).await,
                Method::PATCH => match api.read(body).await {
                    Ok(body) => {
                        api.execute(&cart_id, &headers, request::adjust(&product_id, &headers, &body.bytes)).await
                    }
                    Err(problem) => Err(problem),
                },
                _ => Err(Problem::method_not_allowed("DELETE, PATCH")),
            })
        });
    let commands = warp::path!("cart" / String / "commands").and(parts.clone()).and(warp::body::stream()).then(
        |cart_id: String, method: Method, headers, api: Arc<Api>, body| async move {
            respond(match method {
                Method::POST => match api.read(body).await {
                    Ok(body) => api.execute_batch(&cart_id, &headers, request::batch(&headers, &body.bytes)).await,
                    Err(problem) => Err(problem),
                },
                _ => Err(Problem::method_not_allowed("POST")),
            })
        },
    );
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let status = warp::path!("cart" / String / "commands" / String).and(query).and(parts.clone()).then(
        |cart_id: String, command_id: String, query: String, method: Method, headers, api: Arc<Api>| async move {
            respond(match method {
                Method::GET => api.status(&cart_id, &command_id, &query, &headers).await,
                _ => Err(Problem::method_not_allowed("GET")),
            })
        },
    );
    let checkout = warp::path!("cart" / String / "checkout").and(parts).then(
        |cart_id: String, method: Method, headers: HeaderMap, api: Arc<Api>| async move {
            respond(match method {
                Method::POST => api.execute(&cart_id, &headers, Ok(Command::Checkout {})).await,
                _ => Err(Problem::method_not_allowed("POST")),
            })
        },
    );
    let described = warp::path!("openapi.json")
        .and(warp::get())
        .map(|| warp::reply::with_header(openapi::document(), "content-type", "application/json").into_response());
    let page = warp::path!("docs").and(warp::get()).map(|| warp::reply::html(openapi::PAGE).into_response());
    let root = warp::path::end().and(warp::get());
    let root = root.map(|| warp::redirect::temporary(warp::http::Uri::from_static("/docs")).into_response());
    let of_carts = cart
        .boxed()
        .or(product.boxed())
        .unify()
        .or(checkout.boxed())
        .unify()
        .or(commands.boxed())
        .unify()
        .or(status.boxed())
        .unify();
    let all =
        of_carts.or(reads).unify().or(described).unify().or(page).unify().or(root).unify().or(health.boxed()).unify();
    all.recover(refused).unify().boxed()
}

/// What no path takes. Health and metrics reject by method, the rest of the API does not reject.
async fn refused(rejection: Rejection) -> Result<Response, Infallible> {
    let is_method = rejection.find::<warp::reject::MethodNotAllowed>().is_some();
    let problem = if is_method { Problem::method_not_allowed("GET") } else { Problem::not_found() };
    Ok(problem.into_response())
}

pub(crate) fn respond(result: Result<Response, Problem>) -> Response {
    let response = result.unwrap_or_else(Problem::into_response);
    metrics::counter!("ingest_responses_total", "status" => response.status().as_u16().to_string()).increment(1);
    response
}

impl Api {
    async fn execute(
        &self,
        cart_id: &str,
        headers: &HeaderMap,
        command: Result<Command, Problem>,
    ) -> Result<Response, Problem> {
        let started_at = Instant::now();
        let cart_id: CartId = request::id("cartId", cart_id)?;
        let command = command?;
        let headers = CommandHeaders::read(headers, cart_id, self.allow_client_time)?;
        let command = headers.command(cart_id, command);
        let answer = self.commands.execute(&command, headers.trace_parent.as_deref(), headers.preference).await?;
        metrics::histogram!("ingest_command_seconds").record(started_at.elapsed());
        Ok(response::of_command(&answer, self.reads.log))
    }

    async fn execute_batch(
        &self,
        cart_id: &str,
        headers: &HeaderMap,
        batch: Result<Batch, Problem>,
    ) -> Result<Response, Problem> {
        let cart_id: CartId = request::id("cartId", cart_id)?;
        let Batch { atomic, commands } = batch?;
        let headers = CommandHeaders::read(headers, cart_id, self.allow_client_time)?;
        let command = if atomic { Command::Batch { commands } } else { Command::IndependentBatch { commands } };
        let command = headers.command(cart_id, command);
        let answer = self.commands.execute(&command, headers.trace_parent.as_deref(), headers.preference).await?;
        Ok(response::of_batch(&answer, self.reads.log))
    }

    async fn status(
        &self,
        cart_id: &str,
        command_id: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        conditions::of_untagged(headers)?;
        let cart_id: CartId = request::id("cartId", cart_id)?;
        let command_id: CommandId = request::id("commandId", command_id)?;
        let since = request::since(command_id, query)?;
        let status = self.lookup.status(cart_id, command_id, since).await?;
        Ok(response::of_status(cart_id, command_id, &status, self.reads.log))
    }

    async fn cart(&self, cart_id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let cart_id = request::id("cartId", cart_id)?;
        let cart = self.journal.show(cart_id).await.map_err(|error| {
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "reading a cart failed");
            Problem::unavailable("the journal is unavailable; retry later")
        })?;
        Ok(match conditions::of_cart(headers, cart.sequence_number())? {
            conditions::Read::Show => response::of_cart(&cart),
            conditions::Read::NotModified => conditions::not_modified(cart.sequence_number()),
        })
    }

    /// The whole body, within its limits of size and time, however it is sent.
    async fn read(&self, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Body, Problem> {
        let mut discarded = 0;
        let read = async {
            pin_mut!(body);
            let mut whole = Body::default();
            while let Some(mut part) = body
                .try_next()
                .await
                .map_err(|_| Problem::malformed_body("the body is incomplete, or its framing is invalid"))?
            {
                let len = part.remaining();
                if discarded > 0 || whole.bytes.len() + len > self.body_len_max {
                    discarded += len;
                    if discarded > DISCARDED_LEN_MAX {
                        break;
                    }
                    continue;
                }
                let room = u32::try_from(len).ok().and_then(|len| self.bodies.clone().try_acquire_many_owned(len).ok());
                let busy = || {
                    Problem::unavailable(
                        "too many request bodies are in memory; the request was not executed, retry later",
                    )
                };
                let room = room.ok_or_else(busy)?;
                match &mut whole.room {
                    Some(all) => all.merge(room),
                    none => *none = Some(room),
                }
                whole.bytes.extend_from_slice(&part.copy_to_bytes(len));
            }
            Ok(whole)
        };
        let read = tokio::time::timeout(self.body_timeout, read).await;
        if discarded > 0 {
            return Err(Problem::payload_too_large(self.body_len_max));
        }
        read.unwrap_or_else(|_| Err(Problem::body_too_slow()))
    }
}

/// A body, and the room in memory that it has until it is dropped.
#[derive(Debug, Default)]
struct Body {
    bytes: BytesMut,
    room: Option<OwnedSemaphorePermit>,
}
