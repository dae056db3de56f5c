//! A cart service in memory: a plain implementation of the contract and the rules, with failures on request.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

/// A request to the service.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// From 0, in the order of arrival.
    pub(crate) number: usize,
    pub(crate) method: Method,
    pub(crate) cart: String,
    pub(crate) key: Option<String>,
    pub(crate) time: Option<String>,
    /// The header `Last-Event-ID`.
    pub(crate) last_event: Option<String>,
    rest: Vec<String>,
    body: Bytes,
}

impl Call {
    /// The number in the source, from a key of `replay`.
    pub(crate) fn sequence(&self) -> u64 {
        let key = self.key.as_deref().expect("an idempotency key");
        let (_, sequence) = key.rsplit_once('-').expect("run id and sequence");
        sequence.parse().expect("a sequence")
    }
}

/// How the service answers a request.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    Answer,
    AnswerLate(Duration),
    Drop,
    ExecuteAndDrop,
    ExecuteAndSayPending,
    Unavailable,
    /// With this status, content type and body.
    Say(u16, &'static str, String),
    /// After `Service::release` was called.
    Hold,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) calls: Vec<Call>,
    pub(crate) in_flight_most: usize,
    /// Carts that got a second request while one was being answered.
    pub(crate) overtaken: Vec<String>,
    in_flight: HashSet<String>,
    carts: HashMap<String, Cart>,
    outcomes: HashMap<String, (u16, Value)>,
}

#[derive(Debug, Default)]
struct Cart {
    items: BTreeMap<String, Value>,
    version: i64,
}

pub(crate) struct Service {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    seen: watch::Receiver<usize>,
    release: watch::Sender<bool>,
}

impl Service {
    pub(crate) async fn start(behave: impl Fn(&Call) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Arc::new(Mutex::new(State::default()));
        let (seen_sender, seen) = watch::channel(0);
        let (release, released) = watch::channel(false);
        let shared = Arc::new((Arc::clone(&state), behave, seen_sender, released));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a TCP socket");
                let shared = Arc::clone(&shared);
                let serve = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move {
                        let (state, behave, seen, released) = &*shared;
                        handle(request, state, behave, seen, released.clone()).await
                    }
                });
                // A dropped request closes its connection with an error, as intended.
                tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await });
            }
        });
        Self { url, state, seen, release }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it was held")
    }

    /// Waits until this many requests have arrived.
    pub(crate) async fn saw(&self, calls: usize) {
        self.seen.clone().wait_for(|seen| *seen >= calls).await.expect("the service runs");
    }

    /// Answers all held requests.
    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }
}

/// The connection is closed without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

async fn handle(
    request: Request<Incoming>,
    state: &Mutex<State>,
    behave: &impl Fn(&Call) -> Behaviour,
    seen: &watch::Sender<usize>,
    mut released: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, Dropped> {
    let call = arrive(request, state).await;
    seen.send_modify(|seen| *seen += 1);
    let behaviour = behave(&call);
    match behaviour {
        Behaviour::AnswerLate(delay) => tokio::time::sleep(delay).await,
        Behaviour::Hold => {
            released.wait_for(|released| *released).await.expect("the test runs");
        }
        Behaviour::Answer
        | Behaviour::Drop
        | Behaviour::ExecuteAndDrop
        | Behaviour::ExecuteAndSayPending
        | Behaviour::Unavailable
        | Behaviour::Say(..) => {}
    }
    let mut state = state.lock().expect("no panic while it was held");
    state.in_flight.remove(&call.cart);
    match behaviour {
        Behaviour::Drop => Err(Dropped),
        Behaviour::ExecuteAndDrop => {
            state.execute(&call);
            Err(Dropped)
        }
        Behaviour::Unavailable => Ok(respond(503, "application/problem+json", "{}".to_owned())),
        Behaviour::ExecuteAndSayPending => {
            state.execute(&call);
            let body = json!({"commandId": command_id(&call), "cartId": call.cart, "status": "pending"});
            Ok(respond(202, "application/json", body.to_string()))
        }
        Behaviour::Say(status, kind, body) => Ok(respond(status, kind, body)),
        Behaviour::Answer | Behaviour::AnswerLate(_) | Behaviour::Hold => {
            let (status, body) = state.execute(&call);
            let kind = if status == 200 { "application/json" } else { "application/problem+json" };
            Ok(respond(status, kind, body.to_string()))
        }
    }
}

async fn arrive(request: Request<Incoming>, state: &Mutex<State>) -> Call {
    let header = |name| request.headers().get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    let (key, time, last_event) = (header("idempotency-key"), header("command-time"), header("last-event-id"));
    let method = request.method().clone();
    let mut path = request.uri().path().split('/').map(str::to_owned).skip(2);
    let cart = path.next().expect("a cart");
    let rest = path.collect();
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    let mut state = state.lock().expect("no panic while it was held");
    let call = Call { number: state.calls.len(), method, cart, key, time, last_event, rest, body };
    state.calls.push(call.clone());
    if !state.in_flight.insert(call.cart.clone()) {
        state.overtaken.push(call.cart.clone());
    }
    state.in_flight_most = state.in_flight_most.max(state.in_flight.len());
    call
}

fn respond(status: u16, kind: &str, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", kind).header("retry-after", "0");
    response.body(Full::new(Bytes::from(body))).expect("a good response")
}

fn command_id(call: &Call) -> Uuid {
    let name = format!("{}/{}", call.cart, call.key.as_deref().unwrap_or_default());
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

impl State {
    /// The outcome; for a repeated key, the first one.
    fn execute(&mut self, call: &Call) -> (u16, Value) {
        let known = format!("{}/{}", call.cart, call.key.as_deref().unwrap_or_default());
        if let (Some(outcome), true) = (self.outcomes.get(&known), call.key.is_some()) {
            return outcome.clone();
        }
        let (status, mut body) = self.decide(call);
        if call.method != Method::GET {
            body["commandId"] = json!(command_id(call));
        }
        if status == 200 && call.key.is_some() {
            self.outcomes.insert(known, (status, body.clone()));
        }
        (status, body)
    }

    fn decide(&mut self, call: &Call) -> (u16, Value) {
        let cart = self.carts.entry(call.cart.clone()).or_default();
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let product = call.rest.get(1).cloned().unwrap_or_default();
        let changed = match (call.method.as_str(), call.rest.first().map(String::as_str)) {
            ("GET", _) => {
                let items: Vec<_> = cart.items.values().collect();
                let session = json!({"cartId": call.cart, "sessionId": Uuid::nil(), "total": "0"});
                return (200, with(session, &[("version", json!(cart.version)), ("items", json!(items))]));
            }
            ("POST", Some("checkout")) => cart.checkout(),
            ("POST", _) => cart.add(body),
            ("PATCH", _) => cart.adjust(&product, body["adjustBy"].as_i64().expect("a difference")),
            ("DELETE", _) => {
                cart.items.remove(&product).map(|item| json!({ "item": item })).ok_or((404, "item-not-in-cart"))
            }
            other => panic!("the client sent {other:?}"),
        };
        match changed {
            Ok(changed) => {
                cart.version += 1;
                let ids = [("cartId", json!(call.cart)), ("sessionId", json!(Uuid::nil()))];
                (200, with(with(changed, &ids), &[("version", json!(cart.version))]))
            }
            Err((status, code)) => {
                let kind = format!("urn:cart:problem:{code}");
                (status, json!({"type": kind, "title": code, "status": status, "detail": "by the rules"}))
            }
        }
    }
}

type Refused = (u16, &'static str);

impl Cart {
    fn add(&mut self, item: Value) -> Result<Value, Refused> {
        let product = item["productId"].as_str().expect("a product").to_owned();
        if self.items.contains_key(&product) {
            return Err((409, "item-already-in-cart"));
        }
        if item["quantity"].as_i64().expect("a quantity") < 1 {
            return Err((422, "negative-quantity"));
        }
        self.items.insert(product, item.clone());
        Ok(json!({ "item": item }))
    }

    fn adjust(&mut self, product: &str, by: i64) -> Result<Value, Refused> {
        let item = self.items.get_mut(product).ok_or((404, "item-not-in-cart"))?;
        let quantity = item["quantity"].as_i64().expect("a quantity") + by;
        if quantity < 1 {
            return Err((422, "negative-quantity"));
        }
        item["quantity"] = json!(quantity);
        Ok(json!({ "item": item }))
    }

    fn checkout(&mut self) -> Result<Value, Refused> {
        if self.items.is_empty() {
            return Err((409, "empty-cart-checkout"));
        }
        let items: Vec<_> = std::mem::take(&mut self.items).into_values().collect();
        Ok(json!({"items": items, "total": "12.50", "purchasedAt": "2026-11-23T10:00:00Z"}))
    }
}

fn with(mut value: Value, fields: &[(&str, Value)]) -> Value {
    for (name, field) in fields {
        value[name] = field.clone();
    }
    value
}
