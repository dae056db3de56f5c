//! The live page: what it shows is what happened, whichever server is away, and however many look at it.

pub(crate) mod away;
pub(crate) mod browser;
pub(crate) mod figures;
pub(crate) mod operations;
mod picture;
pub(crate) mod read_models;
pub(crate) mod viewers;

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Process, free_address, wait_until};
use reqwest::Client;
use serde_json::Value;

use super::http::api::DEADLINE;

/// A running console.
#[derive(Debug)]
pub(crate) struct Console {
    process: Process,
    client: Client,
    url: String,
}

impl Console {
    /// Starts it and waits until it serves.
    pub(crate) async fn start(installation: &Installation, name: &str, args: &[&str]) -> anyhow::Result<Self> {
        let address = free_address()?;
        let listen = address.to_string();
        let args = ["--listen", &listen].into_iter().chain(args.iter().copied());
        let mut process = installation.spawn_listening(name, "cart-console", args, address)?;
        process.ready(DEADLINE).await?;
        let client = Client::builder().timeout(DEADLINE).build()?;
        Ok(Self { process, client, url: format!("http://{address}") })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await?;
        let (status, body) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "GET {path}: {status} {body}");
        serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
    }

    /// The answer of ingest, through the page's form, or that to an action.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let response = self.client.post(format!("{}{path}", self.url)).json(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "POST {path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("POST {path}: {text}"))
    }

    /// Waits until what is wanted of a frame is as it should be.
    pub(crate) async fn shows(
        &self,
        what: &str,
        part: impl Fn(&Value) -> Value,
        wanted: &Value,
    ) -> anyhow::Result<Value> {
        wait_until(what, DEADLINE, async || {
            let frame = self.get("/api/now").await.map_err(|error| format!("{error:#}"))?;
            let found = part(&frame);
            if found == *wanted { Ok(frame) } else { Err(format!("{found} instead of {wanted}")) }
        })
        .await
    }
}

/// The state of a server in a frame.
fn state(frame: &Value, server: &str) -> Value {
    let servers = frame["servers"].as_array().into_iter().flatten();
    servers.filter(|known| known["name"] == server).map(|known| known["state"].clone()).collect()
}

/// How many records wait for each group.
fn waiting(frame: &Value) -> Value {
    frame["stages"].as_array().into_iter().flatten().map(|stage| stage["lag"]["behind"].clone()).collect()
}

/// Vendor, count and both tables of each balance: a balance and whether it is equal.
fn balances(frame: &Value) -> Value {
    let lines = frame["balances"].as_array().into_iter().flatten();
    let of = |line: &Value| {
        let cell = |store: &str| Value::from(vec![line[store]["balance"].clone(), line[store]["state"].clone()]);
        Value::from(vec![line["vendorId"].clone(), line["counted"].clone(), cell("cassandra"), cell("postgres")])
    };
    lines.map(of).collect()
}
