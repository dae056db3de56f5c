//! A plain HTTP client. Requests and answers stay text, so that nothing is corrected on the way.

use std::time::Duration;

use anyhow::Context as _;
use cart::CartCommand;
use cart::contract::Contract as _;
use e2e::harness::{Installation, Process, Service};
use kafka::Admin;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use uuid::Uuid;

/// The timeout of every wait, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// The arguments of an ingest that does not answer with 202 on a busy machine.
pub(crate) const PATIENT: [&str; 2] = ["--reply-timeout-ms", "30000"];

/// The arguments of a processor whose partitions are reassigned soon after a crash.
pub(crate) const PROCESSOR: (Service, &str, &[&str]) = (Service::CartProcessor, "0", &["--session-timeout-ms", "2000"]);

pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

/// One running ingest.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    metrics_url: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    pub(crate) fn new(ingest: &Process) -> Self {
        let base = format!("http://{}", ingest.address().expect("ingest has an address"));
        let client = Client::builder().timeout(DEADLINE).build().expect("a client");
        Self { client, base, metrics_url: ingest.metrics_url().expect("ingest has metrics") }
    }

    /// The metrics, in Prometheus' text format.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.client.get(&self.metrics_url).send().await?.error_for_status()?.text().await?)
    }

    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: Headers<'_>,
        body: Option<&[u8]>,
    ) -> anyhow::Result<Answer> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.base));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = match body {
            Some(body) => request.body(body.to_vec()),
            None => request,
        };
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.with_context(|| format!("the body of {method} {path}"))?;
        Ok(Answer { status, headers, text })
    }

    /// A new member's cart.
    pub(crate) fn cart(&self) -> Cart {
        Cart { api: self.clone(), id: Uuid::new_v4() }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body of an accepted command; checks that its version is the ETag.
    #[track_caller]
    pub(crate) fn done(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(self.header("etag"), Some(format!("\"{}\"", body["version"]).as_str()), "{self:?}");
        body
    }

    /// Compares with the expected problem details: the status, the type, and a part of the detail.
    pub(crate) fn unlike_problem(&self, status: u16, kind: &str, detail: &str) -> Option<String> {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let is_text = |field: &str| body[field].as_str().is_some_and(|text| !text.is_empty());
        let is_right = self.status == status
            && self.header("content-type") == Some("application/problem+json")
            && body["status"] == status
            && body["type"] == format!("urn:cart:problem:{kind}")
            && is_text("title")
            && is_text("detail")
            && body["detail"].as_str().is_some_and(|text| text.contains(detail));
        (!is_right).then(|| {
            let content_type = self.header("content-type");
            format!("wanted {status} {kind} '…{detail}…', got {} {content_type:?} {}", self.status, self.text)
        })
    }

    /// Asserts a rejection by a rule: a problem with the command's id.
    #[track_caller]
    pub(crate) fn rejected(&self, status: u16, kind: &str, detail: &str) {
        if let Some(difference) = self.unlike_problem(status, kind, detail) {
            panic!("{difference}");
        }
        let command_id = self.json()["commandId"].as_str().map(Uuid::parse_str);
        assert!(matches!(command_id, Some(Ok(_))), "a rejection names its command: {self:?}");
    }
}

/// One member's cart, through one ingest.
#[derive(Debug, Clone)]
pub(crate) struct Cart {
    pub(crate) api: Api,
    pub(crate) id: Uuid,
}

impl Cart {
    /// The same cart through another ingest.
    pub(crate) fn through(&self, api: &Api) -> Self {
        Self { api: api.clone(), id: self.id }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: Headers<'_>,
        body: Option<String>,
    ) -> anyhow::Result<Answer> {
        let mut all = headers.to_vec();
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        let path = format!("/cart/{}{path}", self.id);
        self.api.send(&method, &path, &all, body.as_deref().map(str::as_bytes)).await
    }

    pub(crate) async fn add(&self, product: u128, quantity: i64) -> anyhow::Result<Answer> {
        self.send(Method::POST, "", &[], Some(item(product, quantity).to_string())).await
    }

    pub(crate) async fn remove(&self, product: u128) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, &product_path(product), &[], None).await
    }

    pub(crate) async fn adjust(&self, product: u128, by: i64) -> anyhow::Result<Answer> {
        self.send(Method::PATCH, &product_path(product), &[], Some(json!({"adjustBy": by}).to_string())).await
    }

    pub(crate) async fn checkout(&self) -> anyhow::Result<Answer> {
        self.send(Method::POST, "/checkout", &[], None).await
    }

    pub(crate) async fn get(&self) -> anyhow::Result<Value> {
        Ok(self.send(Method::GET, "", &[], None).await?.done())
    }
}

pub(crate) fn product_path(product: u128) -> String {
    format!("/productId/{}", Uuid::from_u128(product))
}

/// An item, as it is sent and returned: its price has no trailing zeros.
pub(crate) fn item(product: u128, quantity: i64) -> Value {
    let id = Uuid::from_u128(product);
    json!({"productId": id, "vendorId": id, "name": format!("mug {product}"), "price": "2.5", "quantity": quantity})
}

/// The number of records on `cart-commands`.
pub(crate) fn logged(installation: &Installation) -> anyhow::Result<i64> {
    let kafka = installation.kafka();
    let watermarks = block_in_place(|| Admin::new(kafka)?.watermarks(&kafka.prefixed(CartCommand::TOPIC)))?;
    Ok(watermarks.into_iter().map(|(_, end)| end).sum())
}
