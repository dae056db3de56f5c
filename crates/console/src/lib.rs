//! `cart-console`: a web page that shows what happens in an installation now.
//!
//! ```text
//! cart-commands, cart-replies, cart-events, item-purchased ─▶ follow ─┬─▶ traffic, times      rates, percentiles
//!   (committed records, by assignment, without a group)              ├─▶ sales              top items and vendors
//!                                                                    ├─▶ ledger             the page's own balances
//!                                                                    ├─▶ journeys           the way of each command
//! committed offsets of the groups ─▶ lag ─▶ backlog ◀────────────────┘                      behind, oldest waiting
//! balance_by_vendor, vendor_billing ─▶ stores ─▶ ledger::compare      at the position that each table includes
//!                                         └─▶ read_models, parked_rows   generations, rows that lack records
//!                                                       │
//!                                       frame, once a second ─▶ http: Server-Sent Events to all viewers
//! ```
//!
//! It changes nothing, except that a visitor's commands are passed on to ingest, and that operators may act where that is allowed
//! (`actions`). Without a viewer it reads nothing. The page names an unavailable server; what does not need it goes on.

mod actions;
mod args;
mod audience;
mod backlog;
mod board;
mod carts;
mod clock;
mod follow;
mod frame;
mod health;
mod http;
mod journeys;
mod lag;
mod ledger;
mod metrics;
mod operations;
mod operators;
mod parked_rows;
mod probes;
mod read_models;
mod run;
mod sales;
mod shop;
mod stores;
mod times;
mod traffic;
mod words;

pub use args::Args;
pub use metrics::ALL as METRICS;
pub use run::start;
