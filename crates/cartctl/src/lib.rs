//! `cartctl`, the operators' tool: works on an installation from outside, beside its running services.
//!
//! ```text
//! expected totals (CSV) ─┐                      ┌─ item-purchased (Kafka, committed records only)
//! sent commands ─▶ model ┴─▶ compare ◀── stores ┼─ item_quantity_by_day, balance_by_vendor (Cassandra)
//!                               │               └─ vendor_billing (PostgreSQL)
//!                               └─▶ 0 differences, or every one of them
//! ```
//!
//! * [`reconcile`]: waits until the pipeline is at rest, then compares every row.
//! * [`audit`]: whether events, journal, purchases and tables are what the commands in the log lead to, also while the system
//!   runs.
//! * [`mod@tail`]: a topic's records, as they come.
//! * [`mod@uninstall`]: deletes an installation.
//! * [`model`]: what the sent commands must have led to, by the rules as they are written down.
//! * [`journal`]: whether the journal and the events topic tell the same, byte for byte.
//!
//! These share no code with the cart-processor and the projectors beyond the wire types, so that a mistake of theirs is not
//! repeated here. The recovery commands are the exception: they do what the services do, with the services' code
//! (`cart_processor::recovery`, `projectors::recovery`).

pub mod audit;
mod cli;
mod ids;
pub mod journal;
pub mod model;
pub mod reconcile;
pub mod tail;
pub mod topic;
pub mod totals;
pub mod uninstall;

pub use cli::{Cli, start};
pub use ids::{cart_id, product_id, vendor_id};
