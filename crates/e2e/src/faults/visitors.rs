//! Those who look at carts and bills while a cluster has its faults.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::join_all;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::told::Told;

/// Between two looks of one visitor.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Visitors, one at each address. Dropped, they go.
#[derive(Debug)]
pub(super) struct Visitors {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

impl Visitors {
    /// They come, and look again and again.
    pub(super) fn start(urls: Vec<String>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build();
        let client = client.context("making an HTTP client")?;
        let told = Arc::<Mutex<Told>>::default();
        let task = {
            let told = told.clone();
            tokio::spawn(async move { drop(join_all(urls.iter().map(|url| visit(&client, url, &told))).await) })
        };
        Ok(Self { told, task })
    }

    /// What they met.
    pub(super) fn stop(self) -> Told {
        self.task.abort();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn visit(client: &reqwest::Client, url: &str, told: &Mutex<Told>) {
    for n in 0_u128.. {
        // A cart or a vendor that nobody has is looked for like any other.
        let id = Uuid::from_u128(n);
        let path = if n % 2 == 0 { format!("cart/{id}") } else { format!("vendors/{id}/billing?year=2026") };
        let asked_at = Instant::now();
        let answer = client.get(format!("{url}/{path}")).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let slowest_ms = u64::try_from(asked_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut met = Told { slowest_ms, reads: 1, ..Told::default() };
        if let Err(error) = answer {
            met.error(&format!("{:#}", anyhow::Error::from(error)));
        }
        told.lock().unwrap_or_else(PoisonError::into_inner).add(met);
        tokio::time::sleep(PAUSE).await;
    }
}
