//! The projectors: each a consumer group of its own that keeps one read model, at its own pace.
//!
//! ```text
//! cart-events ─▶ item-purchased-events ─▶ item-purchased (key = vendor)
//!                                            ├─▶ popular-items        ─▶ Cassandra item_quantity_by_day
//!                                            ├─▶ vendor-billing       ─▶ Cassandra balance_by_vendor
//!                                            └─▶ vendor-billing-jdbc  ─▶ PostgreSQL vendor_billing
//! ```
//!
//! Exactly once, each in its way, whatever dies when:
//!
//! - `item-purchased-events`: purchases and consumed offsets are one Kafka transaction.
//! - `popular-items`, `vendor-billing`: a row holds an absolute total and the position that it includes; a record at
//!   or before that is skipped. The vendor key makes a row single-writer, and `USING TIMESTAMP position` makes an
//!   instance that wakes up late lose.
//! - `vendor-billing-jdbc`: totals and next offset are one SQL transaction, guarded by the offset it started from.
//!
//! A row that cannot be kept is parked, and the others go on: `parking`.
//!
//! `base` and `run` put a projector together; `runner` has the one loop. `rebuild` runs one within `cartctl`, for a generation beside the
//! active one. `item_purchased_events`, `popular_items`, `vendor_billing` and `vendor_billing_jdbc` are a projector
//! each; `totals` is what the two tables in Cassandra share.

mod args;
mod balance;
mod base;
mod error;
mod item_purchased_events;
mod log_identity;
mod metrics;
mod pace;
mod parking;
mod popular_items;
pub mod rebuild;
pub mod recovery;
mod run;
mod runner;
mod setup;
mod totals;
mod vendor_billing;
mod vendor_billing_jdbc;
mod write_base;

pub use crate::metrics::ALL as METRICS;
pub use args::{Args, CassandraProjectorArgs, Cli};
pub use run::{start, totals};
pub use setup::{migrate, migrations_to_do};
pub use totals::{Key, Row, Rows, Table};
