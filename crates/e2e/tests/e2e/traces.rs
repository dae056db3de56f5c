//! Traces: a checkout is one trace, from the request to each row, also after a crash; what is not sampled leaves nothing; a
//! collector that hangs changes nothing but a counter.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, READ_MODELS, group};
use cart::{CartCommand, CartEvent, CartReply, PurchasedItem};
use cartctl::audit::{Target, audit};
use e2e::harness::{CollectedSpan, Installation, Process, Service, TraceCollector, wait_until};
use kafka::{KafkaArgs, TopicReader, trace_headers};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::http::api::{Answer, Api, PATIENT};
use super::projectors::read_side::metric;

const DEADLINE: Duration = Duration::from_secs(180);

/// The longest wait for a record that is there.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

const STATE: &str = "vendor=1";

/// A client's trace.
struct Client {
    trace_id: String,
    parent: String,
}

impl Client {
    fn new(is_sampled: bool) -> Self {
        let trace_id = Uuid::new_v4().simple().to_string();
        let parent = format!("00-{trace_id}-00f067aa0ba902b7-0{}", u8::from(is_sampled));
        Self { trace_id, parent }
    }

    async fn send(&self, api: &Api, path: &str, body: Option<&[u8]>) -> anyhow::Result<Answer> {
        let headers = [("traceparent", self.parent.as_str()), ("tracestate", STATE), ("x-request-id", &self.trace_id)];
        let json = [("content-type", "application/json")];
        let headers: Vec<_> = headers.into_iter().chain(json.into_iter().take(usize::from(body.is_some()))).collect();
        api.send(&Method::POST, path, &headers, body).await
    }
}

/// Adds two items, unsampled, and checks out, sampled. Returns both traces.
async fn buy(api: &Api) -> anyhow::Result<(Client, Client)> {
    let (unsampled, sampled) = (Client::new(false), Client::new(true));
    let path = format!("/cart/{}", Uuid::new_v4());
    for product in 1..=2 {
        let (product, vendor) = (Uuid::from_u128(product), Uuid::from_u128(100 + product));
        let item = json!({"productId": product, "vendorId": vendor, "name": "mug", "price": "1", "quantity": 1});
        let added = unsampled.send(api, &path, Some(item.to_string().as_bytes())).await?;
        ensure!(added.status == 200, "{added:?}");
    }
    let bought = sampled.send(api, &format!("{path}/checkout"), None).await?;
    ensure!(bought.status == 200, "{bought:?}");
    Ok((unsampled, sampled))
}

/// What a trace must have: the spans by kind, name (without the installation's prefix), service and parent's name.
type Shape = BTreeMap<(&'static str, String, String, String), usize>;

/// The trace of a checkout of two items whose command was processed this often.
fn expected(processed: usize) -> Shape {
    let [commands, replies] = [CartCommand::TOPIC, CartReply::TOPIC];
    let [events, purchases] = [CartEvent::TOPIC, PurchasedItem::TOPIC];
    let request = String::from("POST /cart/{cartId}/checkout");
    let [send, process] = ["send", "process"].map(|verb| move |topic: &str| format!("{verb} {topic}"));
    let ingest = || Service::Ingest.name().to_owned();
    let processor = || group::CART_PROCESSOR.to_owned();
    let re_keying = || group::ITEM_PURCHASED_EVENTS.to_owned();
    let mut shape = Shape::from([
        (("SERVER", request.clone(), ingest(), String::new()), 1),
        (("PRODUCER", send(commands), ingest(), request), 1),
        (("CONSUMER", process(commands), processor(), send(commands)), processed),
        (("PRODUCER", send(replies), processor(), process(commands)), processed),
        (("PRODUCER", send(events), processor(), process(commands)), 1),
        (("CONSUMER", process(events), re_keying(), send(events)), 2),
        (("PRODUCER", send(purchases), re_keying(), process(events)), 2),
    ]);
    for model in READ_MODELS {
        shape.insert(("CONSUMER", process(purchases), model.group.to_owned(), send(purchases)), 2);
    }
    shape
}

struct Traces<'a> {
    collector: &'a TraceCollector,
    prefix: &'a str,
}

impl Traces<'_> {
    fn of(&self, trace_id: &str) -> Vec<CollectedSpan> {
        self.collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect()
    }

    fn shape(&self, trace_id: &str) -> Shape {
        let spans = self.of(trace_id);
        let name = |span: &CollectedSpan| span.name.replace(self.prefix, "");
        let mut shape = Shape::new();
        for span in &spans {
            let parent = spans.iter().find(|parent| parent.span_id == span.parent_span_id);
            let key = (span.kind, name(span), span.service.clone(), parent.map(name).unwrap_or_default());
            *shape.entry(key).or_default() += 1;
        }
        shape
    }

    /// Waits until a trace is as expected.
    async fn becomes(&self, client: &Client, expected: &Shape) -> anyhow::Result<()> {
        wait_until("the trace to be whole", DEADLINE, async || match self.shape(&client.trace_id) {
            shape if shape == *expected => Ok(()),
            shape => Err(format!("{shape:#?}")),
        })
        .await
    }

    /// Every record's span has its position, and each record is processed once by each group.
    fn has_positions(&self, client: &Client) -> anyhow::Result<()> {
        let mut processed: BTreeMap<(String, String), usize> = BTreeMap::new();
        for span in self.of(&client.trace_id) {
            ensure!(!span.has_failed, "{span:?}");
            let attribute = |name: &str| span.attributes.get(name).cloned().unwrap_or_default();
            if span.kind == "SERVER" {
                ensure!(attribute("http.response.status_code") == "200", "{span:?}");
                ensure!(attribute("cart.request_id") == client.trace_id, "{span:?}");
                continue;
            }
            let position =
                ["messaging.destination.name", "messaging.destination.partition.id", "messaging.kafka.offset"]
                    .map(attribute)
                    .join("/");
            ensure!(attribute("cart.position") == position && position.len() > self.prefix.len() + 2, "{span:?}");
            if span.kind == "CONSUMER" && !span.name.ends_with(CartCommand::TOPIC) {
                *processed.entry((span.service, position)).or_default() += 1;
            }
        }
        ensure!(processed.len() == 8 && processed.values().all(|count| *count == 1), "{processed:?}");
        Ok(())
    }

    /// Whatever else arrived is work for records of these traces, linked with them in both directions.
    fn rest_is_work_for(&self, clients: &[&Client]) -> anyhow::Result<()> {
        let is_client = |trace_id: &String| clients.iter().any(|client| client.trace_id == *trace_id);
        let (records, work): (Vec<_>, Vec<_>) =
            self.collector.spans().into_iter().partition(|span| is_client(&span.trace_id));
        let roots: Vec<_> = work.iter().filter(|span| span.parent_span_id.is_empty()).collect();
        for span in &work {
            let root = roots.iter().find(|root| root.trace_id == span.trace_id).with_context(|| format!("{span:?}"))?;
            ensure!(root.name.ends_with(" (batch)") && !root.links.is_empty(), "{root:?}");
            ensure!(root.links.iter().all(|(trace_id, _)| is_client(trace_id)), "{root:?}");
        }
        for (name, table) in [("cassandra", "cart_journal"), ("postgresql", "vendor_billing_g1")] {
            let insert = work.iter().find(|span| span.name == format!("INSERT {table}"));
            let insert = insert.with_context(|| format!("no insert into {table}"))?;
            ensure!(insert.attributes.get("db.system.name").is_some_and(|system| system == name), "{insert:?}");
            let root = (insert.trace_id.clone(), insert.parent_span_id.clone());
            ensure!(records.iter().any(|span| span.links.contains(&root)), "no record is linked to {insert:?}");
        }
        Ok(())
    }
}

/// The trace contexts of a topic's records, as text.
fn contexts(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<Vec<(String, String)>> {
    tokio::task::block_in_place(|| {
        let mut reader = TopicReader::open_at_beginning(kafka, &kafka.prefixed(topic))?;
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let mut contexts = Vec::new();
        while let Some(message) = reader.next(READ_TIMEOUT)? {
            let headers = trace_headers(kafka::Message::headers(&message));
            contexts.push((text(headers.parent()), text(headers.state())));
        }
        Ok(contexts)
    })
}

pub(crate) async fn a_checkout_is_one_trace_from_the_request_to_each_row() -> anyhow::Result<()> {
    let collector = TraceCollector::start().await?;
    let installation = Installation::new("traces")?;
    installation.setup().await?;
    let environment = collector.environment();
    let mut services = vec![installation.start_with(
        Service::Ingest,
        "0",
        &[&PATIENT[..], &["--log", "info,ingest=debug"]].concat(),
        &environment,
    )?];
    for projector in Service::PROJECTORS {
        services.push(installation.start_with(projector, "0", &[], &environment)?);
    }
    // It answers, but publishes nothing.
    let stopped = [("FAILPOINTS", String::from("processor-before-transaction=pause"))];
    let stopped = [&environment[..], &stopped].concat();
    // With the default session: a member that stalls for longer processes its commands again, and their spans are counted.
    let mut first = installation.start_with(Service::CartProcessor, "0", &[], &stopped)?;
    for service in services.iter_mut().chain([&mut first]) {
        service.ready(DEADLINE).await?;
    }
    let api = Api::new(&services[0]);
    let traces = Traces { collector: &collector, prefix: &installation.kafka().prefixed("") };

    let (unsampled, crashed) = buy(&api).await?;
    let process = format!("process {}{}", traces.prefix, CartCommand::TOPIC);
    let processed = || traces.of(&crashed.trace_id).into_iter().filter(|span| span.name == process).collect::<Vec<_>>();
    wait_until("the first processing to be recorded", DEADLINE, async || match processed().len() {
        1 => Ok(()),
        count => Err(format!("{count} spans")),
    })
    .await?;
    // Between the journal and the commit.
    first.kill9()?;
    let mut second = installation.start_with(Service::CartProcessor, "0", &[], &environment)?;
    second.ready(DEADLINE).await?;
    traces.becomes(&crashed, &expected(2)).await?;
    traces.has_positions(&crashed)?;
    let again: Vec<_> = processed().iter().map(|span| span.attributes.get("cart.redelivered").cloned()).collect();
    ensure!(again == [Some(String::from("false")), Some(String::from("true"))], "{again:?}");
    ensure!(processed().iter().all(|span| span.attributes["cart.outcome"] == "accepted"), "{:?}", processed());

    let (_, plain) = buy(&api).await?;
    traces.becomes(&plain, &expected(1)).await?;
    traces.has_positions(&plain)?;
    traces.rest_is_work_for(&[&crashed, &plain])?;

    let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
    let report = audit(&Target::new(kafka, cassandra, installation.database()), &[], DEADLINE).await?;
    ensure!(report.is_clean(), "{report}");
    // No span came after the last one that was expected.
    for (client, processed_times) in [(&crashed, 2), (&plain, 1)] {
        ensure!(traces.shape(&client.trace_id) == expected(processed_times), "{:#?}", traces.shape(&client.trace_id));
        traces.has_positions(client)?;
    }
    // An unsampled context is passed on as it came, and a sampled one is that of the sender's span.
    let added = contexts(installation.kafka(), CartEvent::TOPIC)?;
    let as_sent = added.iter().filter(|(parent, state)| *parent == unsampled.parent && state == STATE).count();
    ensure!(as_sent == 2, "{added:?}");
    let purchases = contexts(installation.kafka(), PurchasedItem::TOPIC)?;
    for client in [&crashed, &plain] {
        let of_client = purchases.iter().filter(|(parent, _)| parent.contains(&client.trace_id));
        let is_new = |(parent, state): &(String, String)| *parent != client.parent && state == STATE;
        ensure!(of_client.clone().count() == 2 && of_client.clone().all(is_new), "{purchases:?}");
    }

    let refused = Client::new(false);
    ensure!(refused.send(&api, "/cart/no-id/checkout", None).await?.status == 400);
    let log = services[0].log();
    let line = log.lines().find(|line| line.contains("a request was rejected")).context("no line")?;
    let both = format!("id=\"{0}\" trace_id=\"{0}\"", refused.trace_id);
    ensure!(line.contains(&both), "{line} lacks {both}");
    installation.remove().await
}

async fn dropped(process: &Process) -> anyhow::Result<()> {
    wait_until("spans to be dropped", DEADLINE, async || match metric(process, "otel_spans_dropped_total").await {
        Ok(0) => Err(String::from("none is dropped")),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

pub(crate) async fn a_collector_that_hangs_changes_nothing_but_a_counter() -> anyhow::Result<()> {
    let collector = TraceCollector::start_hanging().await?;
    let installation = Installation::new("hanging")?;
    installation.setup().await?;
    // The export of one batch takes longer than the test, and few spans wait behind it.
    let more = [("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"), ("OTEL_BSP_MAX_QUEUE_SIZE", "4")];
    let environment: Vec<_> =
        collector.environment().into_iter().chain(more.map(|(name, value)| (name, value.to_owned()))).collect();
    let at_once = [&PATIENT[..], &["--lame-duck-ms", "0"]].concat();
    let mut ingest = installation.start_with(Service::Ingest, "0", &at_once, &environment)?;
    let mut processor = installation.start_with(Service::CartProcessor, "0", &[], &environment)?;
    for service in [&mut ingest, &mut processor] {
        service.ready(DEADLINE).await?;
        ensure!(metric(service, "otel_spans_dropped_total").await? == 0);
    }
    let api = Api::new(&ingest);
    for _ in 0..5 {
        buy(&api).await?;
    }
    for service in [&mut ingest, &mut processor] {
        dropped(service).await?;
        service.interrupt()?;
    }
    for service in [&mut ingest, &mut processor] {
        service.succeeded(DEADLINE).await?;
        ensure!(service.log().contains("the trace collector did not get the last spans"), "{}", service.log());
    }
    installation.remove().await
}
