//! The reading side: carts, their events, and what vendors have sold.
//!
//! ```text
//! cart, events        ─▶ journal (Cassandra)
//! event streams       ─▶ journal, woken by cart-events (Kafka)
//! billing, quantities ─▶ freshness (with a token: waits for the read table) ─▶ vendors (Cassandra)
//! ```

mod event_streams;
mod events;
mod generations;
mod parked_rows;
mod read_after;
mod read_after_token;
mod unavailable;
mod vendors;
mod wakeups;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use cart::contract::ReadTable;
use cart::{Aggregate, CartId, Generation, ProductId, VendorId};
use journal::Journal;
use kafka::{Admin, KafkaArgs};
use scylla::client::session::Session;
use service::Store;

pub(crate) use event_streams::{Chunk, EventStreams, Start};
pub(crate) use events::{Events, Page};
pub(crate) use generations::ActiveGenerations;
pub(crate) use read_after_token::{CommandLog, Token};
pub(crate) use vendors::{Billing, Quantities};

use crate::parked::Parked;
use crate::problem::Problem;
use parked_rows::ParkedRows;
use read_after::Freshness;
use unavailable::{journal_unavailable, unavailable};
use vendors::{ReadRows, Tables};

/// Reads the journal and the read tables. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pub(crate) log: CommandLog,
    journal: Journal,
    generations: ActiveGenerations,
    tables: Arc<Tables>,
    parked_rows: ParkedRows,
    freshness: Arc<Freshness>,
}

impl Reads {
    /// Starts to watch the read tables. A read waits at most `timeout` for its table.
    pub(crate) fn start(
        kafka: &KafkaArgs,
        admin: Arc<Admin>,
        log: CommandLog,
        journal: Journal,
        (session, generations): (Arc<Session>, ActiveGenerations),
        parked: Parked,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        let freshness = Arc::new(Freshness::start(kafka, admin, parked, timeout)?);
        let parked_rows = ParkedRows::new(session.clone());
        Ok(Self { log, journal, generations, tables: Arc::new(Tables::new(session)), parked_rows, freshness })
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
        let rows = ReadRows::of_year(year);
        let of = &rows;
        let read = |generation| async move {
            let billing = self.tables.billing(generation, vendor_id, year).await?;
            let parked = self.parked_rows.of(ReadTable::BalanceByVendor, generation, vendor_id);
            Ok::<_, cassandra::Error>(billing.with_parked(of, &parked))
        };
        self.table(ReadTable::BalanceByVendor, (vendor_id, &rows), read_after, read).await
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
        let rows = ReadRows::of_month(product_id, year, month);
        let of = &rows;
        let read = |generation| async move {
            let quantities = self.tables.quantities(generation, vendor_id, product_id, year, month).await?;
            let parked = self.parked_rows.of(ReadTable::ItemQuantityByDay, generation, vendor_id);
            Ok::<_, cassandra::Error>(quantities.with_parked(of, &parked))
        };
        self.table(ReadTable::ItemQuantityByDay, (vendor_id, &rows), read_after, read).await
    }

    /// Reads the active generation of a table. If that one has been dropped, reads the one that is active then.
    async fn table<T, F>(
        &self,
        table: ReadTable,
        of: (VendorId, &ReadRows),
        read_after: Option<Token>,
        read: impl Fn(Generation) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, cassandra::Error>>,
    {
        let generation = self.generations.of(table)?;
        let error = match self.generation(table, generation, of, read_after, &read).await? {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if !cassandra::read_models::is_missing_table(&error, &table.model().table_name(generation)) {
            return Err(unavailable(error));
        }
        self.generations.refresh().await.map_err(unavailable)?;
        let active = self.generations.of(table)?;
        if active == generation {
            return Err(unavailable(error));
        }
        self.generation(table, active, of, read_after, &read).await?.map_err(unavailable)
    }

    /// Waits for the group of the generation that is read. A parked row of those that are read may lack the command's purchase.
    async fn generation<T, F>(
        &self,
        table: ReadTable,
        generation: Generation,
        (vendor_id, rows): (VendorId, &ReadRows),
        read_after: Option<Token>,
        read: &impl Fn(Generation) -> F,
    ) -> Result<Result<T, cassandra::Error>, Problem>
    where
        F: Future<Output = Result<T, cassandra::Error>>,
    {
        if let Some(token) = read_after {
            let partition = self.freshness.wait(token, vendor_id, table, generation).await?;
            let parked = self.tables.parked((table, generation), (partition, vendor_id), rows);
            match Store::Cassandra.time("parked_read", parked).await {
                Ok(None) => {}
                Ok(Some((row_key, reason))) => return Err(Problem::read_table_row_parked(&row_key, &reason)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Store::Cassandra.time("table_read", read(generation)).await)
    }
}
