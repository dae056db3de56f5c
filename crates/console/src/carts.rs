//! A cart's history, from the journal, and the cart at any version.

use std::sync::Arc;

use cart::{Cart, CartId, Item, SequenceNumber};
use chrono::{DateTime, Utc};
use journal::{Codecs, Journal};
use kafka::{KafkaArgs, Registry};
use rust_decimal::Decimal;
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::stores::Stores;
use crate::words;

/// The events that are shown: the first ones, since the cart at a version follows from all before it.
const EVENTS_MAX: i32 = 1_000;

/// The journal.
#[derive(Debug)]
pub(crate) struct Carts {
    kafka: KafkaArgs,
    stores: Arc<Stores>,
    journal: OnceCell<Journal>,
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
        Self { kafka: kafka.clone(), stores, journal: OnceCell::new() }
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
    /// A server does not answer.
    pub(crate) async fn history(&self, cart_id: CartId, version: Option<i64>) -> anyhow::Result<History> {
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
