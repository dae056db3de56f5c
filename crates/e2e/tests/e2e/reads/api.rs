//! A plain HTTP client.

use std::time::Duration;

use anyhow::Context as _;
use e2e::harness::Process;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use uuid::Uuid;

/// The timeout of every wait, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// The arguments of an ingest with long timeouts.
pub(crate) const PATIENT: [&str; 4] = ["--reply-timeout-ms", "30000", "--read-after-timeout-ms", "30000"];

/// One running ingest.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Api {
    pub(crate) fn new(ingest: &Process) -> Self {
        let base = format!("http://{}", ingest.address().expect("ingest has an address"));
        Self { client: Client::builder().timeout(DEADLINE).build().expect("a client"), base }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| path.to_owned())?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.json().await.with_context(|| path.to_owned())? })
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, headers, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, &[], body).await
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn done(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.body
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.headers.get("read-after-token").and_then(|token| token.to_str().ok())
    }

    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str, detail: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.body["type"], format!("urn:cart:problem:{kind}"), "{self:?}");
        assert!(self.body["detail"].as_str().is_some_and(|text| text.contains(detail)), "{detail}: {self:?}");
    }
}

pub(crate) fn item(product: u128, vendor: u128, price: &str, quantity: u128) -> Value {
    let (product, vendor) = (Uuid::from_u128(product), Uuid::from_u128(vendor));
    json!({"productId": product, "vendorId": vendor, "name": "red mug", "price": price, "quantity": quantity})
}
