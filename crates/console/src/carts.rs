//! A cart's history, from the journal, and the cart at any version.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::{Cart, CartId, Item, SequenceNumber};
use chrono::{DateTime, Utc};
use journal::{Codecs, Journal};
use kafka::{KafkaArgs, Registry};
use rust_decimal::Decimal;
use serde::Serialize;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use crate::stores::Stores;
use crate::words;

/// The events that are shown: the first ones, since the cart at a version follows from all before it.
const EVENTS_MAX: i32 = 1_000;

/// Histories that are read at a time. Each has up to a thousand events, and is of no use to the system itself.
const HISTORIES_MAX: usize = 8;

/// The journal of a large cart needs a fraction of a second. Beyond this time a server does not answer.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(10);

/// The journal.
#[derive(Debug)]
pub(crate) struct Carts {
    kafka: KafkaArgs,
    stores: Arc<Stores>,
    journal: OnceCell<Journal>,
    reading: Semaphore,
}

/// A cart's history, and the cart at one version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct History {
    cart_id: CartId,
    events: Vec<HistoryEvent>,
    /// Whether there are more events than are shown.
    is_cut: bool,
    version: i64,
    items: Vec<HistoryItem>,
    total: Decimal,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryEvent {
    version: i64,
    name: &'static str,
    what: String,
    at: DateTime<Utc>,
    /// Its command's place on `cart-commands`.
    offset: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryItem {
    #[serde(flatten)]
    item: Item,
    amount: Decimal,
}

impl Carts {
    pub(crate) fn new(kafka: &KafkaArgs, stores: Arc<Stores>) -> Self {
        Self { kafka: kafka.clone(), stores, journal: OnceCell::new(), reading: Semaphore::new(HISTORIES_MAX) }
    }

    async fn journal(&self) -> anyhow::Result<&Journal> {
        let open = async || {
            let session = self.stores.session().await?.clone();
            let codecs = Codecs::register(&Registry::new(&self.kafka)?).await?;
            anyhow::Ok(Journal::open(session, codecs).await?)
        };
        self.journal.get_or_try_init(open).await
    }

    /// The history of a cart and its content at a version; without one, at the newest.
    ///
    /// # Errors
    /// Too many are being read, or a server does not answer in time.
    pub(crate) async fn history(&self, cart_id: CartId, version: Option<i64>) -> anyhow::Result<History> {
        let _permit = self.reading.try_acquire().context("too many histories are being read: try again")?;
        let too_late = || format!("reading the journal: no answer within {} s", HISTORY_TIMEOUT.as_secs());
        timeout(HISTORY_TIMEOUT, self.read(cart_id, version)).await.with_context(too_late)?
    }

    async fn read(&self, cart_id: CartId, version: Option<i64>) -> anyhow::Result<History> {
        let journal = self.journal().await?;
        let mut entries = journal.page(cart_id, SequenceNumber::ZERO, EVENTS_MAX + 1).await?;
        let shown = usize::try_from(EVENTS_MAX).unwrap_or_default();
        let is_cut = entries.len() > shown;
        entries.truncate(shown);
        let newest = entries.last().map_or(0, |entry| entry.sequence_number.get());
        let version = version.unwrap_or(newest).clamp(0, newest);
        let (mut events, mut cart) = (Vec::with_capacity(entries.len()), Cart::default());
        for entry in &entries {
            let event = journal.event(entry).await?;
            if event.sequence_number.get() <= version {
                cart.evolve(&event.event);
            }
            let (name, what) = words::event(&event.event);
            events.push(HistoryEvent {
                version: event.sequence_number.get(),
                name,
                what,
                at: event.occurred_at,
                offset: event.position.offset(),
            });
        }
        let items = cart.items().iter().map(|item| HistoryItem { item: item.clone(), amount: item.amount() }).collect();
        let total = cart.items().iter().map(Item::amount).sum::<Decimal>().normalize();
        Ok(History { cart_id, events, is_cut, version, items, total })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    #[tokio::test]
    async fn more_histories_at_a_time_are_refused() {
        let args = Args::parse_from(["cart-console"]);
        let stores = Stores::new(&args.kafka, &args.cassandra, &args.database).expect("a URL");
        let carts = Carts::new(&args.kafka, Arc::new(stores));
        let _permits: Vec<_> = (0..HISTORIES_MAX).map_while(|_| carts.reading.try_acquire().ok()).collect();
        let refused = carts.history(uuid::Uuid::nil().into(), None).await.expect_err("too many");
        assert_eq!(refused.to_string(), "too many histories are being read: try again");
    }
}
