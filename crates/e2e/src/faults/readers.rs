//! Clients that read carts and bills while a cluster has its faults.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::join_all;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::client_outcomes::ClientOutcomes;

/// The pause between two reads of one client.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Readers, one for each address; they stop when it is dropped.
#[derive(Debug)]
pub(crate) struct Readers {
    outcomes: Arc<Mutex<ClientOutcomes>>,
    task: JoinHandle<()>,
}

impl Readers {
    /// Starts them; each reads again and again.
    pub(crate) fn start(urls: Vec<String>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build();
        let client = client.context("making an HTTP client")?;
        let outcomes = Arc::<Mutex<ClientOutcomes>>::default();
        let task = {
            let outcomes = outcomes.clone();
            tokio::spawn(async move {
                drop(join_all(urls.iter().map(|url| read_repeatedly(&client, url, &outcomes))).await)
            })
        };
        Ok(Self { outcomes, task })
    }

    /// What they got.
    pub(crate) fn stop(self) -> ClientOutcomes {
        self.task.abort();
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_repeatedly(client: &reqwest::Client, url: &str, outcomes: &Mutex<ClientOutcomes>) {
    for n in 0_u128.. {
        // A cart or vendor that does not exist is read like any other.
        let id = Uuid::from_u128(n);
        let path = if n % 2 == 0 { format!("cart/{id}") } else { format!("vendors/{id}/billing?year=2026") };
        let sent_at = Instant::now();
        let answer = client.get(format!("{url}/{path}")).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let slowest_ms = u64::try_from(sent_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut outcome = ClientOutcomes { slowest_ms, reads: 1, ..ClientOutcomes::default() };
        if let Err(error) = answer {
            outcome.error(&format!("{:#}", anyhow::Error::from(error)));
        }
        outcomes.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
        tokio::time::sleep(PAUSE).await;
    }
}
