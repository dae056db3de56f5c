//! Commands with conditions, batches and asynchronous commands over HTTP, with restarts in between.

use std::time::Duration;

use e2e::harness::{Installation, Process, Service, wait_until};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(180);
const INGEST: (Service, &str, &[&str]) = (Service::Ingest, "0", &["--reply-timeout-ms", "30000"]);
const PROCESSOR: (Service, &str, &[&str]) = (Service::CartProcessor, "0", &["--session-timeout-ms", "2000"]);

/// One cart of a running ingest.
struct Cart {
    client: Client,
    base: String,
    id: Uuid,
}

impl Cart {
    fn new(ingest: &Process) -> Self {
        let base = format!("http://{}", ingest.address().expect("ingest has an address"));
        Self { client: Client::new(), base, id: Uuid::new_v4() }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Response {
        let url = format!("{}/cart/{}{path}", self.base, self.id);
        let request = headers
            .iter()
            .fold(self.client.request(method, url), |request, (name, value)| request.header(*name, *value));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        request.send().await.expect("ingest answers")
    }

    async fn add(&self, product: u128, headers: &[(&str, &str)]) -> Response {
        self.send(Method::POST, "", headers, Some(&item(product))).await
    }

    async fn checkout(&self, headers: &[(&str, &str)]) -> Response {
        self.send(Method::POST, "/checkout", headers, None).await
    }

    async fn batch(&self, body: Value) -> Response {
        self.send(Method::POST, "/commands", &[], Some(&body)).await
    }

    async fn version(&self) -> Value {
        json_of(self.send(Method::GET, "", &[], None).await).await["version"].take()
    }

    /// The status of a command, once it is no longer pending.
    async fn settled(&self, location: &str) -> Value {
        let url = format!("{}{location}", self.base);
        let settled = wait_until("the command to be settled", DEADLINE, async || {
            let response = self.client.get(&url).send().await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = json_of(response).await;
            if status == StatusCode::OK && body["status"] != "pending" {
                Ok(body)
            } else {
                Err(format!("{status} {body}"))
            }
        });
        settled.await.expect("it is settled in time")
    }
}

fn item(product: u128) -> Value {
    let id = Uuid::from_u128(product);
    json!({"productId": id, "vendorId": id, "name": "red mug", "price": "0.10", "quantity": 2})
}

fn product(product: u128) -> Value {
    json!({"productId": Uuid::from_u128(product)})
}

async fn json_of(response: Response) -> Value {
    response.json().await.expect("every answer here is JSON")
}

fn location(response: &Response) -> String {
    let location = response.headers().get("location").expect("a Location");
    location.to_str().expect("of plain characters").to_owned()
}

pub(crate) async fn conditions_and_batches_are_decided_in_the_order_of_the_log() -> anyhow::Result<()> {
    let installation = Installation::new("commands")?;
    installation.setup().await?;
    let processes = installation.start_all(&[PROCESSOR, INGEST]).await?;
    let cart = Cart::new(&processes[1]);

    // Of ten commands for the same version one is accepted; the others get the current version.
    let first = cart.add(1, &[("if-match", "\"0\"")]).await;
    assert_eq!((first.status(), first.headers()["etag"].to_str()?), (StatusCode::OK, "\"1\""));
    let all = futures::future::join_all((10..20).map(|n| cart.add(n, &[("if-match", "\"1\"")]))).await;
    let (won, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(|response| response.status() == StatusCode::OK);
    assert_eq!((won.len(), lost.len()), (1, 9));
    for response in lost {
        assert_eq!(
            (response.status(), response.headers()["etag"].to_str()?),
            (StatusCode::PRECONDITION_FAILED, "\"2\"")
        );
        assert_eq!(json_of(response).await["type"], "urn:cart:problem:version-mismatch");
    }
    assert_eq!(cart.version().await, 2);
    conditions(&cart, &Cart::new(&processes[1])).await;

    // Atomic: the third command is rejected, so none is executed.
    let refused = json!({"atomic": true, "commands": [{"add": item(2)}, {"checkout": {}}, {"checkout": {}}]});
    let response = cart.batch(refused.clone()).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let problem = json_of(response).await;
    assert_eq!((&problem["type"], &problem["index"]), (&json!("urn:cart:problem:empty-cart-checkout"), &json!(2)));
    assert_eq!(cart.version().await, 2);
    // Independent: two are executed, the third is rejected.
    let each = json_of(cart.batch(json!({"commands": refused["commands"]})).await).await;
    let statuses: Vec<_> =
        each["results"].as_array().expect("results").iter().map(|one| one["status"].clone()).collect();
    assert_eq!(statuses, [200, 200, 409]);
    assert_eq!(each["results"][1]["outcome"]["items"].as_array().map(Vec::len), Some(3));

    // A whole session in one batch, then one more item in the next.
    let all = [
        json!({"add": item(5)}),
        json!({"adjust": {"productId": product(5)["productId"], "adjustBy": 3}}),
        json!({"add": item(6)}),
        json!({"remove": product(6)}),
        json!({"checkout": {}}),
        json!({"add": item(7)}),
    ];
    let done = json_of(cart.batch(json!({"atomic": true, "commands": all})).await).await;
    assert_eq!(done["results"][4]["outcome"]["total"], "0.5", "{done:#}");
    assert_ne!(done["results"][4]["outcome"]["sessionId"], done["results"][5]["outcome"]["sessionId"]);
    assert_eq!(cart.version().await, done["version"]);

    // 100 commands are accepted, 101 and 0 are not.
    let many = |count: u128| json!({"atomic": true, "commands": (0..count).map(|n| json!({"add": item(100 + n)})).collect::<Vec<_>>()});
    assert_eq!(cart.batch(many(100)).await.status(), StatusCode::OK);
    assert_eq!(cart.batch(many(101)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(cart.batch(many(0)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    drop(processes);
    installation.remove().await
}

/// Checks the conditions of commands and of a GET. `cart` is at version 2, `new` is empty.
async fn conditions(cart: &Cart, new: &Cart) {
    let get = |name, value| async move {
        let response = cart.send(Method::GET, "", &[(name, value)], None).await;
        (response.status().as_u16(), response.headers().get("etag").cloned(), response.bytes().await.expect("a body"))
    };
    for value in ["\"2\"", "W/\"2\"", "*", "\"1\", \"2\""] {
        let (status, etag, body) = get("if-none-match", value).await;
        assert!(status == 304 && etag.is_some_and(|etag| etag == "\"2\"") && body.is_empty(), "{value}: {status}");
    }
    for (name, value, expected) in [
        ("if-none-match", "\"1\"", 200),
        ("if-none-match", "\"02\"", 200),
        ("if-none-match", "2", 400),
        ("if-match", "\"2\"", 200),
        ("if-match", "*", 200),
        ("if-match", "\"1\", \"2\"", 200),
        ("if-match", "\"1\"", 412),
        ("if-match", "\"+2\"", 412),
        ("if-match", "W/\"2\"", 412),
        ("if-match", "2", 400),
    ] {
        assert_eq!(get(name, value).await.0, expected, "GET with {name}: {value}");
    }
    for (name, value) in
        [("if-match", "\"02\""), ("if-match", "\"+2\""), ("if-match", "W/\"2\""), ("if-none-match", "*")]
    {
        let response = cart.add(3, &[(name, value)]).await;
        assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED, "add with {name}: {value}");
    }
    for expected in [StatusCode::OK, StatusCode::PRECONDITION_FAILED] {
        assert_eq!(new.add(1, &[("if-none-match", "*")]).await.status(), expected);
    }
    // A cart id has several spellings.
    let url = |id: &str| format!("{}/cart/{id}", new.base);
    let id = new.id.to_string();
    let (first, rest) = id.split_at(1);
    let encoded = format!("%{:x}{rest}", first.as_bytes()[0]);
    for id in [encoded, format!("{{{id}}}"), format!("%7B{id}%7d"), new.id.simple().to_string(), id.to_uppercase()] {
        let shown = json_of(new.client.get(url(&id)).send().await.expect("ingest answers")).await;
        assert_eq!((&shown["cartId"], &shown["version"]), (&json!(new.id), &json!(1)), "{id}: {shown}");
    }
}

pub(crate) async fn the_status_of_a_command_survives_restarts() -> anyhow::Result<()> {
    let installation = Installation::new("status")?;
    installation.setup().await?;
    let (service, id, args) = PROCESSOR;
    let mut dying = installation.start_to_crash(service, id, args, "transaction-with-offsets=return")?;
    let mut processes = installation.start_all(&[INGEST]).await?;
    dying.ready(DEADLINE).await?;
    let mut cart = Cart::new(&processes[0]);
    assert_eq!(cart.add(1, &[]).await.status(), StatusCode::OK);

    // Without a processor commands are in the log and pending. The status is available although the crashed processor has
    // left a transaction open, with new offsets in it.
    assert!(!dying.ended(DEADLINE).await?.success());
    let asynchronous = cart.add(2, &[("prefer", "respond-async"), ("idempotency-key", "two")]).await;
    assert_eq!(asynchronous.status(), StatusCode::ACCEPTED);
    let accepted = location(&asynchronous);
    let impatient = cart.add(1, &[("prefer", "wait=0")]).await;
    // Without waiting, the record may not even be delivered yet; the link is in the answer all the same.
    assert!([StatusCode::ACCEPTED, StatusCode::GATEWAY_TIMEOUT].contains(&impatient.status()), "{impatient:?}");
    let rejected = location(&impatient);
    let waited = cart.checkout(&[("prefer", "wait=1")]).await;
    assert_eq!(waited.status(), StatusCode::ACCEPTED);
    let bought = location(&waited);
    let pending = json_of(cart.client.get(format!("{}{accepted}", cart.base)).send().await?).await;
    assert_eq!(pending["status"], "pending");
    // A new release starts with `setup`, which needs these offsets, and waits until the transaction has ended.
    installation.run("cart-processor-setup-again", "cart-processor", ["setup"], DEADLINE).await?;

    processes.extend(installation.start_all(&[PROCESSOR]).await?);
    let check = async |cart: &Cart| {
        let status = cart.settled(&accepted).await;
        assert_eq!((&status["status"], &status["outcome"]["version"]), (&json!("accepted"), &json!(2)), "{status:#}");
        let status = cart.settled(&rejected).await;
        assert_eq!(status["problem"]["type"], "urn:cart:problem:item-already-in-cart", "{status:#}");
        let status = cart.settled(&bought).await;
        assert_eq!(status["outcome"]["items"].as_array().map(Vec::len), Some(2), "{status:#}");
    };
    check(&cart).await;
    // A much later repeat of the first command: its own position in the log gives the first outcome.
    let repeat = cart.add(2, &[("prefer", "respond-async"), ("idempotency-key", "two")]).await;
    assert_eq!(cart.settled(&location(&repeat)).await["outcome"]["version"], 2);

    // All processes are new, and the answers are the same.
    processes[0].kill9()?;
    processes[1].kill9()?;
    processes = installation.start_all(&[INGEST, PROCESSOR]).await?;
    cart.base = Cart::new(&processes[0]).base;
    check(&cart).await;

    // A command that does not exist, and invalid links.
    let never = format!("{}/cart/{}/commands/{}", cart.base, cart.id, Uuid::new_v4());
    for (url, expected) in [
        (format!("{never}?since=1700000000000"), StatusCode::NOT_FOUND),
        (never.clone(), StatusCode::BAD_REQUEST),
        (format!("{never}?since=yesterday"), StatusCode::BAD_REQUEST),
        (format!("{never}?until=1"), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(cart.client.get(&url).send().await?.status(), expected, "{url}");
    }
    drop(processes);
    installation.remove().await
}
