//! An idempotency key stands for a whole request: its kind, its commands in order and its condition. A repeat gets the first
//! outcome and changes nothing, also after other commands, and if the processor has dropped its carts.

use anyhow::ensure;
use cart::contract::Contract as _;
use cart::{CartCommand, CartId, Command, CommandId};
use cartctl::audit::{Report, Target, audit};
use cassandra::KeyspaceArgs;
use e2e::harness::{Installation, Process, Service};
use kafka::{Codec, Producer, Record, Registry};
use reqwest::Method;
use serde_json::{Value, json};

use super::http::api::{Answer, Api, Cart, DEADLINE, PATIENT, item, product_path};

/// The arguments of a processor that loads each cart anew for each batch of commands.
const FORGETFUL: [&str; 4] = ["--cart-cache-mib", "0", "--session-timeout-ms", "2000"];

/// A request without its cart and key.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    if_match: Option<&'static str>,
}

impl Request {
    fn add(product: u128, quantity: i64) -> Self {
        Self { method: Method::POST, path: String::new(), body: Some(item(product, quantity)), if_match: None }
    }

    fn adjust(product: u128, by: i64) -> Self {
        let (path, body) = (product_path(product), Some(json!({"adjustBy": by})));
        Self { method: Method::PATCH, path, body, if_match: None }
    }

    fn checkout() -> Self {
        Self { method: Method::POST, path: "/checkout".to_owned(), body: None, if_match: None }
    }

    fn batch(commands: Value) -> Self {
        let body = Some(json!({"commands": commands}));
        Self { method: Method::POST, path: "/commands".to_owned(), body, if_match: None }
    }

    fn atomic(commands: Value) -> Self {
        Self { body: Some(json!({"atomic": true, "commands": commands})), ..Self::batch(json!([])) }
    }

    fn at(self, version: &'static str) -> Self {
        Self { if_match: Some(version), ..self }
    }

    async fn send(&self, cart: &Cart, key: Option<&str>) -> anyhow::Result<Answer> {
        let headers: Vec<_> = key
            .map(|key| ("idempotency-key", key))
            .into_iter()
            .chain(self.if_match.map(|at| ("if-match", at)))
            .collect();
        cart.send(self.method.clone(), &self.path, &headers, self.body.as_ref().map(Value::to_string)).await
    }
}

fn add(product: u128) -> Value {
    json!({"add": item(product, 1)})
}

fn of_product(product: u128) -> Value {
    item(product, 1)["productId"].clone()
}

fn remove(product: u128) -> Value {
    json!({"remove": {"productId": of_product(product)}})
}

fn checkout() -> Value {
    json!({"checkout": {}})
}

/// The statuses of a batch's results.
#[track_caller]
fn statuses(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().cloned().expect("results");
    results.iter().filter_map(|result| result["status"].as_u64()).collect()
}

async fn same(cart: &Cart, request: &Request, key: &str, first: &Answer) -> anyhow::Result<()> {
    let before = cart.get().await?;
    let repeat = request.send(cart, Some(key)).await?;
    // Everything but the id of this HTTP request in the log.
    let without_id = |answer: &Answer| {
        let mut body = answer.json();
        body.as_object_mut().map(|body| body.remove("requestId"));
        (answer.status, answer.header("etag").map(str::to_owned), body)
    };
    ensure!(without_id(&repeat) == without_id(first), "{request:?}: first {first:?}, then {repeat:?}");
    ensure!(cart.get().await? == before, "the repeat of {request:?} changed the cart");
    Ok(())
}

async fn audited(installation: &Installation) -> anyhow::Result<Report> {
    let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
    let target = Target::new(kafka, cassandra, installation.database());
    let report = audit(&target, &[], DEADLINE).await?;
    ensure!(report.is_clean(), "{report}");
    Ok(report)
}

async fn start(installation: &Installation, processor: &[&str]) -> anyhow::Result<(Vec<Process>, Api)> {
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::Ingest, "0", &PATIENT), (Service::CartProcessor, "0", processor)];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let processes = installation.start_all(&services).await?;
    let api = Api::new(&processes[0]);
    Ok((processes, api))
}

pub(crate) async fn a_key_stands_for_one_request_and_its_outcome() -> anyhow::Result<()> {
    let installation = Installation::new("requests")?;
    let (processes, api) = start(&installation, &FORGETFUL).await?;
    repeats_change_nothing(&api).await?;
    another_request_is_refused(&api).await?;
    a_batch_is_one_request(&api).await?;
    a_rejected_request_stays_rejected(&api).await?;
    keys_are_taken_as_they_are(&api).await?;
    let report = audited(&installation).await?;
    ensure!(report.counts.repeats >= 8 && report.counts.refused > 80, "{report}");
    drop(processes);
    installation.remove().await
}

async fn repeats_change_nothing(api: &Api) -> anyhow::Result<()> {
    let cart = api.cart();
    let request = Request::batch(json!([remove(1), add(1)]));
    let first = request.send(&cart, Some("k")).await?;
    assert_eq!(statuses(&first), [404, 200]);
    same(&cart, &request, "k", &first).await?;
    assert_eq!(cart.get().await?["items"].as_array().map(Vec::len), Some(1));
    // Another order of the fields, another spelling of the price, another preference: the same request.
    let again = Request::add(2, 1);
    let first = again.send(&cart, Some("spelled")).await?;
    let mut body = item(2, 1);
    body["price"] = json!(2.50);
    let headers = [("idempotency-key", "spelled"), ("prefer", "wait=9")];
    let repeat = cart.send(Method::POST, "", &headers, Some(body.to_string())).await?;
    assert_eq!(repeat.text, first.text);
    // All commands rejected, and a condition on the batch.
    let nothing = Request::batch(json!([remove(8), remove(9)]));
    let first = nothing.send(&cart, Some("nothing")).await?;
    assert_eq!(statuses(&first), [404, 404]);
    assert_eq!(first.header("etag"), None);
    cart.add(8, 1).await?.done();
    same(&cart, &nothing, "nothing", &first).await?;
    let late = Request::batch(json!([remove(8)])).at("\"1\"");
    let first = late.send(&cart, Some("late")).await?;
    first.rejected(412, "version-mismatch", "at version");
    same(&cart, &late, "late", &first).await
}

async fn another_request_is_refused(api: &Api) -> anyhow::Result<()> {
    let batched = || Request::batch(json!([add(1)]));
    for (first, other) in [
        (Request::add(1, 1), Request::batch(json!([checkout()]))),
        (batched(), Request::batch(json!([add(1), checkout()]))),
        (batched(), Request::add(1, 1)),
        (Request::atomic(json!([add(1)])), batched()),
        (batched(), Request::atomic(json!([add(1)]))),
        (Request::add(1, 1), Request::checkout()),
        (Request::add(1, 1), Request::add(1, 1).at("\"0\"")),
        (Request::add(1, 1).at("\"0\""), Request::add(1, 1).at("\"1\"")),
        (Request::checkout(), Request::add(1, 1)),
    ] {
        let cart = api.cart();
        first.send(&cart, Some("k")).await?;
        let before = cart.get().await?;
        other.send(&cart, Some("k")).await?.rejected(422, "idempotency-key-reused", "used for another request");
        assert_eq!(cart.get().await?, before, "{other:?} after {first:?}");
    }
    Ok(())
}

async fn a_batch_is_one_request(api: &Api) -> anyhow::Result<()> {
    let cart = api.cart();
    cart.add(1, 1).await?.done();
    let up = json!({"adjust": {"productId": of_product(1), "adjustBy": 1}});
    let hundred = Request::batch(Value::Array(vec![up; 100]));
    let first = hundred.send(&cart, Some("hundred")).await?;
    assert_eq!(statuses(&first), [200; 100]);
    cart.adjust(1, 1).await?.done();
    same(&cart, &hundred, "hundred", &first).await?;
    assert_eq!(cart.get().await?["items"][0]["quantity"], 102);
    // Its status can be read, and that of its repeat.
    let body = json!({"commands": [checkout(), checkout()]}).to_string();
    for _ in 0..2 {
        let headers = [("idempotency-key", "bought"), ("prefer", "respond-async")];
        let pending = cart.send(Method::POST, "/commands", &headers, Some(body.clone())).await?;
        assert_eq!(pending.status, 202, "{pending:?}");
        let link = pending.header("location").expect("a link").to_owned();
        let settled = e2e::harness::wait_until("the batch to be decided", DEADLINE, async || {
            let status = api.send(&Method::GET, &link, &[], None).await.map_err(|error| error.to_string())?.json();
            if status["status"] == "pending" { Err(status.to_string()) } else { Ok(status) }
        });
        let settled = settled.await?;
        assert_eq!(settled["status"], "accepted", "{settled}");
        let results = settled["outcome"]["results"].as_array().expect("results").clone();
        assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(200), &json!(409)), "{settled}");
    }
    Ok(())
}

async fn a_rejected_request_stays_rejected(api: &Api) -> anyhow::Result<()> {
    let cart = api.cart();
    let first = Request::checkout().send(&cart, Some("k")).await?;
    first.rejected(409, "empty-cart-checkout", "add an item");
    cart.add(1, 1).await?.done();
    same(&cart, &Request::checkout(), "k", &first).await?;
    // More rejections than requests between two snapshots, none of which makes an event.
    for number in 0..70 {
        let answer = Request::adjust(9, 1).send(&cart, Some(&format!("more-{number}"))).await?;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    same(&cart, &Request::checkout(), "k", &first).await?;
    // Without a key each is a new request.
    let cart = api.cart();
    assert_eq!(cart.checkout().await?.status, 409);
    cart.add(1, 1).await?.done();
    cart.checkout().await?.done();
    Ok(())
}

async fn keys_are_taken_as_they_are(api: &Api) -> anyhow::Result<()> {
    let cart = api.cart();
    let mut ids = std::collections::BTreeSet::new();
    for (product, key) in (1..).zip(["k", "\"k\"", "K", "event:1", "key:event:1", "session:0"]) {
        let answer = Request::add(product, 1).send(&cart, Some(key)).await?.done();
        ids.insert(answer["commandId"].to_string());
    }
    assert_eq!(ids.len(), 6, "a key in quotes is another than the bare one");
    let events = cart.send(Method::GET, "/events", &[], None).await?.json();
    let events = events["events"].as_array().expect("events");
    assert!(events.iter().all(|event| !ids.contains(&event["eventId"].to_string())), "{events:?}");
    Ok(())
}

/// The schema of commands before version 0.2.
const FORMER_SCHEMA: &str = include_str!("../../../cart/tests/golden/1/cart-commands.avsc");

/// The journal before version 0.2.
const FORMER_TABLE: &str = "CREATE TABLE cart_journal (cart_id uuid, sequence_number bigint, position bigint, \
    command_id uuid, events frozen<list<blob>>, snapshot blob STATIC, PRIMARY KEY (cart_id, sequence_number)) \
    WITH CLUSTERING ORDER BY (sequence_number DESC)";

/// Records of a version before 0.2 keep their outcomes, also for a retry after the upgrade. Schema, records and table are
/// those of that version.
pub(crate) async fn a_log_from_before_version_0_2_goes_on() -> anyhow::Result<()> {
    let installation = Installation::new("before02")?;
    let registry = Registry::new(installation.kafka())?;
    let former = registry.register(CartCommand::TOPIC, FORMER_SCHEMA).await?;
    cassandra::ensure_keyspace(installation.cassandra(), &KeyspaceArgs { cassandra_replication: 1 }).await?;
    cassandra::connect(&installation.cassandra().patient()).await?.query_unpaged(FORMER_TABLE, ()).await?;
    let (processes, api) = start(&installation, &FORGETFUL).await?;
    let cart = api.cart();
    let cart_id = CartId::from(cart.id);
    let keyed = |key: &str| CommandId::of_idempotency_key(cart_id, key);
    let added = |product: u128| -> anyhow::Result<Command> {
        let item = item(product, 1);
        let id = uuid::Uuid::from_u128(product);
        Ok(Command::AddItem {
            product_id: id.into(),
            vendor_id: id.into(),
            name: item["name"].as_str().unwrap_or_default().to_owned().try_into()?,
            price: "2.5".parse()?,
            quantity: 1,
        })
    };
    let bought = || Command::Checkout {};
    let log = [
        // Rejected with a key, then bought with it, as in that version.
        (keyed("buy"), bought()),
        (keyed("one"), added(1)?),
        (keyed("buy"), bought()),
        (keyed("one"), added(1)?),
        (keyed("one"), bought()),
        // An independent batch.
        (keyed("batch").in_batch(0), bought()),
        (keyed("batch").in_batch(1), added(2)?),
        (keyed("batch").in_batch(2), added(3)?),
    ];
    let codec = Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let kafka = installation.kafka();
    let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
    for (command_id, command) in log {
        let issued_at = "2026-01-31T12:00:00Z".parse()?;
        let command = CartCommand { command_id, cart_id, issued_at, command, expected_version: None, keyed: None };
        let mut value = codec.encode(&command)?;
        // In the former schema: without the last field, which is one byte if it is null.
        value[1..5].copy_from_slice(&former.to_be_bytes());
        ensure!(value.pop() == Some(0), "the last field is null");
        let key = Some(cart.id.to_string().into_bytes());
        producer.send(&Record { partition: None, key, value: Some(value), headers: None })?.await?;
    }
    // Appended after them: once this is answered, they are decided.
    assert_eq!(cart.add(9, 1).await?.done()["version"], 5);
    for (key, request, version) in [("one", Request::add(1, 1), 1), ("buy", Request::checkout(), 2)] {
        assert_eq!(request.send(&cart, Some(key)).await?.done()["version"], version, "{key}");
    }
    let retry = Request::batch(json!([checkout(), add(2), add(3)]));
    let first = retry.send(&cart, Some("batch")).await?;
    // Executed requests are repeats; a request that was rejected then is decided now, once.
    assert_eq!(statuses(&first), [200, 200, 200]);
    let results = first.json()["results"].clone();
    assert_eq!((&results[1]["outcome"]["version"], &results[2]["outcome"]["version"]), (&json!(3), &json!(4)));
    same(&cart, &retry, "batch", &first).await?;
    audited(&installation).await?;
    drop(processes);
    installation.remove().await
}

/// The processor crashes after it has written a cart's rows to one table, and after both. Its successor completes them in
/// each case.
pub(crate) async fn a_crash_between_the_tables_of_the_journal_loses_no_request() -> anyhow::Result<()> {
    const CRASHES: u32 = 3;
    let installation = Installation::new("rounds")?;
    installation.setup().await?;
    let mut processes = installation.start_all(&[(Service::Ingest, "0", &PATIENT)]).await?;
    let cart = Api::new(&processes[0]).cart();
    let requests = [
        ("rejected", Request::checkout()),
        ("added", Request::add(1, 1)),
        ("missing", Request::adjust(2, 1)),
        ("batch", Request::batch(json!([remove(2), add(2), checkout(), checkout(), add(3)]))),
        ("late", Request::add(4, 1).at("\"1\"")),
        ("bought", Request::checkout()),
        ("again", Request::checkout()),
    ];
    // There is no processor yet, so that all of them are one batch.
    for (key, request) in &requests {
        let mut headers = vec![("idempotency-key", *key), ("prefer", "respond-async")];
        headers.extend(request.if_match.map(|at| ("if-match", at)));
        let body = request.body.as_ref().map(Value::to_string);
        let answer = cart.send(request.method.clone(), &request.path, &headers, body).await?;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let mut crashes = 0;
    for passed in 0..CRASHES {
        let action = format!("journal-after-round={passed}*off->return");
        let mut processor =
            installation.start_to_crash(Service::CartProcessor, "0", &["--session-timeout-ms", "2000"], &action)?;
        let ended = tokio::time::timeout(std::time::Duration::from_secs(8), processor.ended(DEADLINE)).await;
        match ended {
            Ok(status) => {
                ensure!(!status?.success(), "the processor was to crash after round {passed}");
                crashes += 1;
            }
            Err(_) => processor.kill9()?,
        }
    }
    // It crashes after the rejected requests, and after the events; then nothing is left to write.
    ensure!(crashes == 2, "it crashed {crashes} times");
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::CartProcessor, "0", &["--session-timeout-ms", "2000"])];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    processes.extend(installation.start_all(&services).await?);
    let mut answers = Vec::new();
    for (key, request) in &requests {
        answers.push(request.send(&cart, Some(key)).await?);
    }
    let expected = [409, 200, 404, 200, 412, 200, 409];
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), expected, "{answers:?}");
    assert_eq!(statuses(&answers[3]), [404, 200, 200, 409, 200]);
    for ((key, request), first) in requests.iter().zip(&answers) {
        same(&cart, request, key, first).await?;
    }
    let report = audited(&installation).await?;
    ensure!(report.counts.events == 1 + 1 + 2 + 1 + 1, "{report}");
    drop(processes);
    installation.remove().await
}
