//! Clients that read carts, bills and sold quantities, while a cluster has its faults or a read model is built anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use client::ids::{ProductId, VendorId};
use futures::future::join_all;
use serde::Deserialize;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::client_outcomes::ClientOutcomes;

/// The pause between two reads of one client.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How many products' quantities are read: the most popular ones of `replay`'s shop, which soon have rows and are bought all the time.
const PRODUCTS: u128 = 5;

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
    let mut totals = Totals::default();
    for n in 0_u128.. {
        let (path, has_total) = nth_read(n);
        let sent_at = Instant::now();
        let answer = read(client, &format!("{url}/{path}")).await;
        let slowest_ms = u64::try_from(sent_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let checked = answer.and_then(|body| if has_total { totals.check(&path, &body) } else { Ok(()) });
        let mut outcome = ClientOutcomes { slowest_ms, reads: 1, ..ClientOutcomes::default() };
        if let Err(error) = checked {
            outcome.error(&format!("{error:#}"));
        }
        outcomes.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
        tokio::time::sleep(PAUSE).await;
    }
}

/// A path, and whether its answer is one of [`Totals`].
fn nth_read(n: u128) -> (String, bool) {
    // A cart or vendor that does not exist is read like any other.
    let id = Uuid::from_u128(n);
    match n % 3 {
        0 => (format!("cart/{id}"), false),
        1 => (format!("vendors/{id}/billing?year=2026"), false),
        _ => {
            // The first products of the shop have vendors of the same numbers, and all its purchases are of one month.
            let number = n / 3 % PRODUCTS;
            let (vendor, product) =
                (VendorId::of_vendor(&format!("v{number}")), ProductId::of_product(&format!("p{number}")));
            (format!("vendors/{vendor}/products/{product}/quantities?year=2026&month=1"), true)
        }
    }
}

async fn read(client: &reqwest::Client, url: &str) -> anyhow::Result<Vec<u8>> {
    let answer = client.get(url).send().await?.error_for_status()?;
    Ok(answer.bytes().await?.to_vec())
}

#[derive(Debug, Deserialize)]
struct Quantities {
    days: Vec<Day>,
}

#[derive(Debug, Deserialize)]
struct Day {
    quantity: i64,
}

/// The last sold pieces of each product, by path. A table that is empty or half built has less.
#[derive(Debug, Default)]
struct Totals(BTreeMap<String, i64>);

impl Totals {
    /// # Errors
    /// The total fell.
    fn check(&mut self, path: &str, body: &[u8]) -> anyhow::Result<()> {
        let read: Quantities = serde_json::from_slice(body).with_context(|| format!("parsing the answer to {path}"))?;
        let total: i64 = read.days.iter().map(|day| day.quantity).sum();
        let before = self.0.insert(path.to_owned(), total).unwrap_or(total);
        ensure!(total >= before, "the quantity at {path} fell from {before} to {total}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_a_fall() {
        let mut totals = Totals::default();
        let two_days = br#"{"year":2026,"days":[{"day":1,"quantity":3},{"day":2,"quantity":4}]}"#;
        assert!(totals.check("a", br#"{"days":[]}"#).is_ok() && totals.check("a", two_days).is_ok());
        assert!(totals.check("a", two_days).is_ok() && totals.check("b", br#"{"days":[]}"#).is_ok());
        let error = totals.check("a", br#"{"days":[]}"#).expect_err("it fell");
        assert_eq!(error.to_string(), "the quantity at a fell from 7 to 0");
    }

    #[test]
    fn each_third_read_is_of_a_popular_product() {
        let reads: Vec<_> = (0..6 * PRODUCTS).map(nth_read).collect();
        let quantities: Vec<_> = reads.iter().filter(|(_, has_total)| *has_total).collect();
        assert_eq!((reads.len(), quantities.len()), (30, 10));
        assert_eq!(quantities[0], quantities[5]);
        let (vendor, product) = (VendorId::of_vendor("v1"), ProductId::of_product("p1"));
        assert_eq!(quantities[1].0, format!("vendors/{vendor}/products/{product}/quantities?year=2026&month=1"));
    }
}
