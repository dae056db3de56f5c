//! Every path of the API and its handler, in the order of docs/api.md.
//!
//! A handler rejects a request in the order of its lines. The handler of a command checks the ids of the path, the body, the
//! command and the headers of the command, in this order. The command is appended only if all of them are valid.

use std::convert::Infallible;
use std::sync::Arc;

use cart::{CartCommand, CartId, Command, CommandId, ProductId, VendorId};
use service::{Readiness, health};
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method, Uri};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply as _, path};

use super::body::{BodyLimits, UnreadBody};
use super::conditions::{self, Read};
use super::headers::CommandHeaders;
use super::request::{self, id};
use super::{accept, openapi, query, response};
use crate::commands::{Answer, CommandLookup, Commands};
use crate::http::trace_headers;
use crate::problem::Problem;
use crate::reads::{EventStreams, Reads};

/// What the handlers use.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) commands: Commands,
    pub(crate) lookup: CommandLookup,
    pub(crate) reads: Reads,
    pub(crate) event_streams: EventStreams,
    pub(crate) allow_client_time: bool,
    pub(crate) body_limits: BodyLimits,
    pub(crate) readiness: Readiness,
}

/// All paths. Each accepts every method, so that the response to another method lists the supported ones.
///
/// What is combined is boxed at each step: warp nests the types, and would otherwise move kilobytes from one to the next.
pub(crate) fn routes(api: Api) -> BoxedFilter<(Response,)> {
    let health = health(api.readiness.clone());
    let body_limits = api.body_limits.clone();
    let body = warp::body::stream().map(move |stream| UnreadBody::new(stream, body_limits.clone())).boxed();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify().boxed();
    let api = Arc::new(api);
    let api = warp::any().map(move || api.clone());
    let request = warp::method().and(warp::header::headers_cloned()).and(api).boxed();

    let cart = path!("cart" / String).and(request.clone()).and(body.clone()).then(cart).boxed();
    let product = path!("cart" / String / "productId" / String).boxed();
    let product = product.and(request.clone()).and(body.clone()).then(product_in_cart).boxed();
    let events = path!("cart" / String / "events").and(request.clone()).and(query.clone()).then(events).boxed();
    let checkout = path!("cart" / String / "checkout").and(request.clone()).then(checkout).boxed();
    let commands = path!("cart" / String / "commands").and(request.clone()).and(body).then(commands).boxed();
    let command = path!("cart" / String / "commands" / String).boxed();
    let command = command.and(request.clone()).and(query.clone()).then(self::command).boxed();
    let billing = path!("vendors" / String / "billing").and(request.clone()).and(query.clone()).then(billing).boxed();
    let quantities = path!("vendors" / String / "products" / String / "quantities").boxed();
    let quantities = quantities.and(request).and(query).then(quantities_by_day).boxed();
    let document = path!("openapi.json").and(warp::get()).map(document).boxed();
    let page = path!("docs").and(warp::get()).map(openapi::page).boxed();
    let file = path!("docs" / String).and(warp::get()).and(warp::header::headers_cloned());
    let file = file.map(|name: String, headers| openapi::file(&name, &headers)).boxed();
    let root = path::end().and(warp::get());
    let root = root.map(|| warp::redirect::temporary(Uri::from_static("/docs")).into_response()).boxed();

    // The first one is tried first.
    let all = [cart, product, events, checkout, commands, command, billing, quantities, document, page, file, root]
        .into_iter()
        .rfold(health, |others, route| route.or(others).unify().boxed());
    all.recover(rejected).unify().boxed()
}

/// Responds to requests that no path accepts. Health rejects by method; the paths of carts and vendors do not.
async fn rejected(rejection: Rejection) -> Result<Response, Infallible> {
    let is_method = rejection.find::<warp::reject::MethodNotAllowed>().is_some();
    let problem = if is_method { Problem::method_not_allowed("GET") } else { Problem::not_found() };
    Ok(problem.into_response())
}

fn respond(result: Result<Response, Problem>) -> Response {
    result.unwrap_or_else(Problem::into_response)
}

async fn cart(id: String, method: Method, headers: HeaderMap, api: Arc<Api>, body: UnreadBody) -> Response {
    assert!(!fail_points::names("handler-panics", &id), "a test lets the handler panic");
    respond(match method {
        Method::POST => api.add_item(&id, &headers, body).await,
        Method::GET => api.show_cart(&id, &headers).await,
        _ => Err(Problem::method_not_allowed("GET, POST")),
    })
}

async fn product_in_cart(
    cart_id: String,
    product_id: String,
    method: Method,
    headers: HeaderMap,
    api: Arc<Api>,
    body: UnreadBody,
) -> Response {
    respond(match method {
        Method::PATCH => api.adjust_item(&cart_id, &product_id, &headers, body).await,
        Method::DELETE => api.remove_item(&cart_id, &product_id, &headers).await,
        _ => Err(Problem::method_not_allowed("DELETE, PATCH")),
    })
}

async fn events(cart_id: String, method: Method, headers: HeaderMap, api: Arc<Api>, query: String) -> Response {
    respond(match method {
        Method::GET => api.show_events(&cart_id, &query, &headers).await,
        _ => Err(Problem::method_not_allowed("GET")),
    })
}

async fn checkout(cart_id: String, method: Method, headers: HeaderMap, api: Arc<Api>) -> Response {
    respond(match method {
        Method::POST => api.checkout(&cart_id, &headers).await,
        _ => Err(Problem::method_not_allowed("POST")),
    })
}

async fn commands(cart_id: String, method: Method, headers: HeaderMap, api: Arc<Api>, body: UnreadBody) -> Response {
    respond(match method {
        Method::POST => api.send_commands(&cart_id, &headers, body).await,
        _ => Err(Problem::method_not_allowed("POST")),
    })
}

async fn command(
    cart_id: String,
    command_id: String,
    method: Method,
    headers: HeaderMap,
    api: Arc<Api>,
    query: String,
) -> Response {
    respond(match method {
        Method::GET => api.command_status(&cart_id, &command_id, &query, &headers).await,
        _ => Err(Problem::method_not_allowed("GET")),
    })
}

async fn billing(vendor_id: String, method: Method, headers: HeaderMap, api: Arc<Api>, query: String) -> Response {
    respond(match method {
        Method::GET => api.show_billing(&vendor_id, &query, &headers).await,
        _ => Err(Problem::method_not_allowed("GET")),
    })
}

async fn quantities_by_day(
    vendor_id: String,
    product_id: String,
    method: Method,
    headers: HeaderMap,
    api: Arc<Api>,
    query: String,
) -> Response {
    respond(match method {
        Method::GET => api.show_quantities(&vendor_id, &product_id, &query, &headers).await,
        _ => Err(Problem::method_not_allowed("GET")),
    })
}

fn document() -> Response {
    warp::reply::with_header(openapi::document(), "content-type", "application/json").into_response()
}

/// Each handler rejects in this order: the ids in the path, the headers, the query or the body, a precondition, the command.
impl Api {
    async fn add_item(&self, cart_id: &str, headers: &HeaderMap, mut body: UnreadBody) -> Result<Response, Problem> {
        let cart_id = body.or_discard(headers, id("cartId", cart_id)).await?;
        let about = body.or_discard(headers, self.about(cart_id, headers)).await?;
        let body = body.read().await?;
        let command = request::add_item(headers, &body.bytes)?;
        self.execute_one(about, command, headers).await
    }

    async fn adjust_item(
        &self,
        cart_id: &str,
        product_id: &str,
        headers: &HeaderMap,
        mut body: UnreadBody,
    ) -> Result<Response, Problem> {
        let cart_id = body.or_discard(headers, id("cartId", cart_id)).await?;
        let product_id = body.or_discard(headers, id("productId", product_id)).await?;
        let about = body.or_discard(headers, self.about(cart_id, headers)).await?;
        let body = body.read().await?;
        let command = request::adjust(product_id, headers, &body.bytes)?;
        self.execute_one(about, command, headers).await
    }

    async fn remove_item(&self, cart_id: &str, product_id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let cart_id = id("cartId", cart_id)?;
        let product_id: ProductId = id("productId", product_id)?;
        let about = self.about(cart_id, headers)?;
        self.execute_one(about, Command::RemoveItem { product_id }, headers).await
    }

    async fn show_cart(&self, cart_id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let cart_id: CartId = id("cartId", cart_id)?;
        let cart = self.reads.cart(cart_id).await?;
        Ok(match conditions::of_cart(headers, cart.sequence_number())? {
            Read::Show => response::of_cart(&cart),
            Read::NotModified => conditions::not_modified(cart.sequence_number()),
        })
    }

    async fn show_events(&self, cart_id: &str, query: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let cart_id: CartId = id("cartId", cart_id)?;
        conditions::of_untagged(headers)?;
        if accept::prefers_event_stream(headers) {
            let start = query::stream_start(query, headers)?;
            return Ok(response::of_event_stream(self.event_streams.open(cart_id, start).await?));
        }
        let page = query::page(query, headers)?;
        Ok(response::of_events(&self.reads.events(cart_id, page).await?))
    }

    async fn checkout(&self, cart_id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let cart_id = id("cartId", cart_id)?;
        let about = self.about(cart_id, headers)?;
        self.execute_one(about, Command::Checkout {}, headers).await
    }

    async fn send_commands(
        &self,
        cart_id: &str,
        headers: &HeaderMap,
        mut body: UnreadBody,
    ) -> Result<Response, Problem> {
        let cart_id = body.or_discard(headers, id("cartId", cart_id)).await?;
        let about = body.or_discard(headers, self.about(cart_id, headers)).await?;
        let body = body.read().await?;
        let batch = request::batch(headers, &body.bytes)?;
        let answer = self.execute(about, batch.command(), headers).await?;
        Ok(response::of_batch(&answer, self.reads.log))
    }

    async fn command_status(
        &self,
        cart_id: &str,
        command_id: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let cart_id: CartId = id("cartId", cart_id)?;
        let command_id: CommandId = id("commandId", command_id)?;
        conditions::of_untagged(headers)?;
        let since = query::since(command_id, query)?;
        let status = self.lookup.status(cart_id, command_id, since).await?;
        Ok(response::of_status(cart_id, command_id, &status, self.reads.log))
    }

    async fn show_billing(&self, vendor_id: &str, query: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let vendor_id: VendorId = id("vendorId", vendor_id)?;
        conditions::of_untagged(headers)?;
        let read_after = self.reads.log.read_token(headers)?;
        let year = query::year(query)?;
        let billing = self.reads.billing(vendor_id, year, read_after).await?;
        Ok(warp::reply::json(&billing).into_response())
    }

    async fn show_quantities(
        &self,
        vendor_id: &str,
        product_id: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let vendor_id: VendorId = id("vendorId", vendor_id)?;
        let product_id: ProductId = id("productId", product_id)?;
        conditions::of_untagged(headers)?;
        let read_after = self.reads.log.read_token(headers)?;
        let (year, month) = query::year_and_month(query)?;
        let quantities = self.reads.quantities(vendor_id, product_id, year, month, read_after).await?;
        Ok(warp::reply::json(&quantities).into_response())
    }

    /// What the headers say of a command to the cart.
    fn about(&self, cart_id: CartId, headers: &HeaderMap) -> Result<CommandHeaders, Problem> {
        CommandHeaders::read(headers, cart_id, self.allow_client_time)
    }

    /// Executes a command that is not a batch.
    async fn execute_one(
        &self,
        about: CommandHeaders,
        command: Command,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let answer = self.execute(about, command, headers).await?;
        Ok(response::of_command(&answer, self.reads.log))
    }

    async fn execute(&self, about: CommandHeaders, command: Command, headers: &HeaderMap) -> Result<Answer, Problem> {
        let CommandHeaders { cart_id, command_id, is_keyed, issued_at, expected_version, preference } = about;
        let expected_version = expected_version?;
        let command = CartCommand { command_id, cart_id, issued_at, command, expected_version, keyed: Some(is_keyed) };
        self.commands.execute(&command, trace_headers(headers), preference).await
    }
}
