//! The reading side: carts, their events, and what vendors have sold.
//!
//! ```text
//! cart, events        ─▶ journal (Cassandra)
//! event streams       ─▶ journal, woken by cart-events (Kafka)
//! billing, quantities ─▶ freshness (with a token: waits for the read table) ─▶ vendors (Cassandra)
//! ```

mod event_streams;
mod events;
mod read_after;
mod read_after_token;
mod unavailable;
mod vendors;
mod wakeups;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use cart::{Aggregate, CartId, ProductId, VendorId};
use journal::Journal;
use kafka::{Admin, KafkaArgs};
use scylla::client::session::Session;
use service::Store;

pub(crate) use event_streams::{Chunk, EventStreams, Start};
pub(crate) use events::{Events, Page};
pub(crate) use read_after_token::{CommandLog, Token};
pub(crate) use vendors::{Billing, Quantities};

use crate::parked::Parked;
use crate::problem::Problem;
use read_after::{Freshness, Table};
use unavailable::{journal_unavailable, unavailable};
use vendors::Tables;

/// Reads the journal and the read tables. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pub(crate) log: CommandLog,
    journal: Journal,
    tables: Arc<Tables>,
    freshness: Arc<Freshness>,
}

impl Reads {
    /// Starts to watch the read tables. A read waits at most `timeout` for its table.
    pub(crate) fn start(
        kafka: &KafkaArgs,
        admin: Arc<Admin>,
        log: CommandLog,
        journal: Journal,
        session: Arc<Session>,
        parked: Parked,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        let freshness = Arc::new(Freshness::start(kafka, admin, parked, timeout)?);
        Ok(Self { log, journal, tables: Arc::new(Tables::new(session)), freshness })
    }

    pub(crate) async fn cart(&self, cart_id: CartId) -> Result<Aggregate, Problem> {
        Store::Cassandra.time("journal_read", self.journal.show(cart_id)).await.map_err(journal_unavailable)
    }

    pub(crate) async fn events(&self, cart_id: CartId, page: Page) -> Result<Events, Problem> {
        let events = Events::read(&self.journal, cart_id, page);
        Store::Cassandra.time("journal_read", events).await.map_err(journal_unavailable)
    }

    /// The balances of a vendor in a year; with a token they include its command.
    pub(crate) async fn billing(
        &self,
        vendor_id: VendorId,
        year: i32,
        read_after: Option<Token>,
    ) -> Result<Billing, Problem> {
        self.wait(read_after, vendor_id, Table::Billing).await?;
        Store::Cassandra.time("table_read", self.tables.billing(vendor_id, year)).await.map_err(unavailable)
    }

    /// The sold pieces of a product in a month; with a token they include its command.
    pub(crate) async fn quantities(
        &self,
        vendor_id: VendorId,
        product_id: ProductId,
        year: i32,
        month: i32,
        read_after: Option<Token>,
    ) -> Result<Quantities, Problem> {
        self.wait(read_after, vendor_id, Table::Quantities).await?;
        let read = self.tables.quantities(vendor_id, product_id, year, month);
        Store::Cassandra.time("table_read", read).await.map_err(unavailable)
    }

    async fn wait(&self, read_after: Option<Token>, vendor_id: VendorId, table: Table) -> Result<(), Problem> {
        match read_after {
            Some(token) => self.freshness.wait(token, vendor_id, table).await,
            None => Ok(()),
        }
    }
}
