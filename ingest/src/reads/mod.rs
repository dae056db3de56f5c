//! The reading side: a cart's journal, and what vendors have sold.
//!
//! ```text
//! GET /cart/{cartId}/events ─▶ events ─▶ journal (Cassandra)
//! GET /vendors/...          ─▶ freshness (with Read-After: waits for the read table) ─▶ vendors (Cassandra)
//! ```

mod events;
mod freshness;
mod read_after;
mod vendors;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use cart::{CartId, ProductId, VendorId};
use journal::Journal;
use kafka::{Admin, KafkaArgs};
use scylla::client::session::Session;
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method};
use warp::reply::Response;
use warp::{Filter, Reply as _};

pub(crate) use events::Events;
pub(crate) use read_after::Log;
pub(crate) use vendors::{Billing, Quantities};

use crate::api::conditions;
use crate::api::query::Query;
use crate::api::request;
use crate::api::routes::respond;
use crate::problem::Problem;
use freshness::{Freshness, Table};

use vendors::Tables;

/// What reads need. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pub(crate) log: Log,
    journal: Journal,
    tables: Arc<Tables>,
    freshness: Arc<Freshness>,
}

/// The paths. Each takes every method, so that a wrong one is told which is right.
pub(crate) fn routes(reads: Reads) -> BoxedFilter<(Response,)> {
    let reads = Arc::new(reads);
    let with_reads = warp::any().map(move || reads.clone());
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let parts = warp::method().and(query).and(warp::header::headers_cloned()).and(with_reads);
    let events = warp::path!("cart" / String / "events").and(parts.clone()).then(
        |cart_id: String, method: Method, query: String, headers, reads: Arc<Reads>| async move {
            respond(match method {
                Method::GET => reads.events(&cart_id, &query, &headers).await,
                _ => Err(Problem::method_not_allowed("GET")),
            })
        },
    );
    let billing = warp::path!("vendors" / String / "billing").and(parts.clone()).then(
        |vendor_id: String, method: Method, query: String, headers, reads: Arc<Reads>| async move {
            respond(match method {
                Method::GET => reads.billing(&vendor_id, &query, &headers).await,
                _ => Err(Problem::method_not_allowed("GET")),
            })
        },
    );
    let quantities = warp::path!("vendors" / String / "products" / String / "quantities").and(parts).then(
        |vendor_id: String, product_id: String, method: Method, query: String, headers, reads: Arc<Reads>| async move {
            respond(match method {
                Method::GET => reads.quantities(&vendor_id, &product_id, &query, &headers).await,
                _ => Err(Problem::method_not_allowed("GET")),
            })
        },
    );
    events.boxed().or(billing.boxed()).unify().or(quantities.boxed()).unify().boxed()
}

impl Reads {
    /// Starts to watch the read tables; `timeout` is how long a read waits for one.
    pub(crate) fn start(
        kafka: &KafkaArgs,
        admin: Arc<Admin>,
        log: Log,
        journal: Journal,
        session: Arc<Session>,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        let freshness = Arc::new(Freshness::start(kafka, admin, timeout)?);
        Ok(Self { log, journal, tables: Arc::new(Tables::new(session)), freshness })
    }

    async fn events(&self, cart_id: &str, query: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        conditions::of_untagged(headers)?;
        let cart_id: CartId = request::id("cartId", cart_id)?;
        events::page(&self.journal, cart_id, query).await
    }

    async fn billing(&self, vendor_id: &str, query: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        conditions::of_untagged(headers)?;
        let vendor_id: VendorId = request::id("vendorId", vendor_id)?;
        let year = Query::read(query, &["year"])?.required("year", YEARS)?;
        self.wait(headers, vendor_id, Table::Billing).await?;
        shown(self.tables.billing(vendor_id, year).await)
    }

    async fn quantities(
        &self,
        vendor_id: &str,
        product_id: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        conditions::of_untagged(headers)?;
        let vendor_id: VendorId = request::id("vendorId", vendor_id)?;
        let product_id: ProductId = request::id("productId", product_id)?;
        let query = Query::read(query, &["year", "month"])?;
        let (year, month) = (query.required("year", YEARS)?, query.required("month", 1..=12)?);
        self.wait(headers, vendor_id, Table::Quantities).await?;
        shown(self.tables.quantities(vendor_id, product_id, year, month).await)
    }

    async fn wait(&self, headers: &HeaderMap, vendor_id: VendorId, table: Table) -> Result<(), Problem> {
        match self.log.read_token(headers)? {
            Some(token) => self.freshness.wait(token, vendor_id, table).await,
            None => Ok(()),
        }
    }
}

/// The years that a command's time can be in.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9_999;

fn shown(found: Result<impl Serialize, cassandra::Error>) -> Result<Response, Problem> {
    found.map(|found| warp::reply::json(&found).into_response()).map_err(|error| {
        tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "reading a read table failed");
        Problem::unavailable("the read table is unavailable, or does not exist yet; retry later")
    })
}
