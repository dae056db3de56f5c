//! A visitor's own commands: the page sends them here, and they go to ingest like those of any client.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::CartId;
use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;
use warp::http::StatusCode;

use crate::board::Board;
use crate::probes;

/// More at a time are refused: the page is not a way to load the system.
const IN_FLIGHT_MAX: usize = 16;

/// Longer than ingest waits for an outcome.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends commands to ingest.
#[derive(Debug)]
pub(crate) struct Shop {
    url: String,
    client: reqwest::Client,
    in_flight: Semaphore,
    board: Arc<Board>,
}

/// What the page gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// The status of ingest's response.
    status: u16,
    /// Its body.
    body: serde_json::Value,
    took_ms: u128,
}

/// What a visitor asks for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Add an item; the body is that of ingest's API.
    Add(serde_json::Value),
    Checkout,
}

impl Shop {
    /// Sends to ingest at this URL.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(crate) fn new(url: &str, board: Arc<Board>) -> anyhow::Result<Self> {
        let client = probes::client(TIMEOUT)?;
        Ok(Self { url: url.to_owned(), client, in_flight: Semaphore::new(IN_FLIGHT_MAX), board })
    }

    /// Sends a command, and watches the tables for the cart's purchases.
    ///
    /// # Errors
    /// With the status for the page: too many at a time, or ingest does not answer.
    pub(crate) async fn send(&self, cart_id: CartId, wanted: Wanted) -> Result<Answer, (StatusCode, anyhow::Error)> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            let error = anyhow::anyhow!("too many commands at a time: try again");
            return Err((StatusCode::SERVICE_UNAVAILABLE, error));
        };
        self.board.journeys().watch(cart_id);
        self.forward(cart_id, wanted).await.map_err(|error| (StatusCode::BAD_GATEWAY, error))
    }

    async fn forward(&self, cart_id: CartId, wanted: Wanted) -> anyhow::Result<Answer> {
        let started_at = std::time::Instant::now();
        let request = match wanted {
            Wanted::Add(item) => self.client.post(format!("{}/cart/{cart_id}", self.url)).json(&item),
            Wanted::Checkout => self.client.post(format!("{}/cart/{cart_id}/checkout", self.url)),
        };
        let response = request
            // Sampled, so that the trace of a visitor's command can be looked at.
            .header(cart::contract::header::TRACE_PARENT, traceparent())
            .header("idempotency-key", Uuid::new_v4().to_string())
            .send()
            .await
            .context("ingest does not answer")?;
        let status = response.status().as_u16();
        let body = probes::body(response).await.context("ingest does not answer")?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Answer { status, body, took_ms: started_at.elapsed().as_millis() })
    }
}

/// A new trace (W3C Trace Context, version 00), with the flag 'sampled'.
fn traceparent() -> String {
    let (span, _) = Uuid::new_v4().as_u64_pair();
    // A span id of zeros would be invalid; the version of the UUID is in these bits, so they are not all zero.
    format!("00-{}-{span:016x}-01", Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use trace::TraceHeaders;

    use super::*;

    #[test]
    fn a_new_trace_is_valid() {
        let text = traceparent();
        assert_eq!(text.len(), 55, "{text}");
        let headers = TraceHeaders::new(Some(text.as_bytes()), None);
        assert!(headers.trace_id().is_some() && text.ends_with("-01"), "{text}");
    }
}
