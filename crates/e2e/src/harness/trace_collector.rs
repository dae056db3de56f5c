//! A trace collector: takes OTLP over HTTP as JSON, and keeps the spans.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use warp::Filter as _;
use warp::http::StatusCode;

/// More than a service sends at once.
const BODY_LEN_MAX: u64 = 64 << 20;

/// A running collector. It ends when this is dropped.
#[derive(Debug)]
pub struct TraceCollector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Received {
    spans: Vec<CollectedSpan>,
    requests: Vec<String>,
}

impl Drop for TraceCollector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A span that was received.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// The service that sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER` or `INTERNAL`.
    pub kind: &'static str,
    /// The trace's id, in hexadecimal digits.
    pub trace_id: String,
    /// Its own.
    pub span_id: String,
    /// The parent's; empty for a root.
    pub parent_span_id: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The traces and spans that it is linked to.
    pub links: Vec<(String, String)>,
    /// Whether what it stands for has failed.
    pub has_failed: bool,
}

impl TraceCollector {
    /// Starts one.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(false).await
    }

    /// Starts one that accepts requests and never responds.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start_hanging() -> anyhow::Result<Self> {
        Self::with(true).await
    }

    async fn with(is_hanging: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for traces")?;
        let address = listener.local_addr().context("listening for traces")?;
        let received = Arc::<Mutex<Received>>::default();
        let kept = received.clone();
        let receive = move |body: Value| {
            let kept = kept.clone();
            async move {
                if is_hanging {
                    std::future::pending::<()>().await;
                }
                let status = match Request::deserialize(&body) {
                    Ok(request) => {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.spans.extend(request.spans());
                        kept.requests.push(body.to_string());
                        StatusCode::OK
                    }
                    Err(_) => StatusCode::BAD_REQUEST,
                };
                let answer = warp::reply::json(&Value::Object(Default::default()));
                Ok::<_, Infallible>(warp::reply::with_status(answer, status))
            }
        };
        let limit = warp::body::content_length_limit(BODY_LEN_MAX);
        let route = warp::path!("v1" / "traces").and(warp::post()).and(limit).and(warp::body::json()).and_then(receive);
        let server = tokio::spawn(warp::serve(route).incoming(listener).run());
        Ok(Self { address, received, server })
    }

    /// The environment of a service that is to send its spans here: soon, and only those that the client wants.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", String::from("http/json")),
            ("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off")),
            ("OTEL_BSP_SCHEDULE_DELAY", String::from("50")),
        ]
    }

    /// What has arrived so far.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).spans.clone()
    }

    /// The bodies of the requests so far, as JSON: also the parts of spans and resources that [`CollectedSpan`] does not have.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

/// `ExportTraceServiceRequest`, as far as it is of interest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Attributes,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Deserialize)]
struct Attributes {
    attributes: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    key: String,
    value: Value,
}

#[derive(Debug, Deserialize)]
struct ScopeSpans {
    spans: Vec<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    name: String,
    kind: usize,
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    attributes: Vec<Attribute>,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    status: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    trace_id: String,
    span_id: String,
}

const KINDS: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

fn texts(attributes: Vec<Attribute>) -> BTreeMap<String, String> {
    // A value is an object of its type and itself: {"intValue": "7"}.
    let text = |value: Value| match value.as_object().and_then(|typed| typed.values().next()) {
        Some(Value::String(text)) => text.clone(),
        other => other.map(Value::to_string).unwrap_or_default(),
    };
    attributes.into_iter().map(|Attribute { key, value }| (key, text(value))).collect()
}

impl Request {
    fn spans(self) -> Vec<CollectedSpan> {
        let mut spans = Vec::new();
        for of_one in self.resource_spans {
            let service = texts(of_one.resource.attributes).remove("service.name").unwrap_or_default();
            for span in of_one.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(CollectedSpan {
                    service: service.clone(),
                    name: span.name,
                    kind: KINDS.get(span.kind).copied().unwrap_or(KINDS[0]),
                    trace_id: span.trace_id,
                    span_id: span.span_id,
                    parent_span_id: span.parent_span_id,
                    attributes: texts(span.attributes),
                    links: span.links.into_iter().map(|link| (link.trace_id, link.span_id)).collect(),
                    has_failed: span.status["code"].as_u64() == Some(ERROR),
                });
            }
        }
        spans
    }
}
