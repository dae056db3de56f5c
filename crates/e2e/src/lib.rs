//! What looks at the whole system from outside, and shares no code with what it checks: no rules, no projectors.
//!
//! ```text
//! expected totals (CSV) ─┐                      ┌─ item-purchased (Kafka, committed records only)
//! sent commands ─▶ model ┴─▶ compare ◀── stores ┼─ item_quantity_by_day, balance_by_vendor (Cassandra)
//!                               │               └─ vendor_billing (PostgreSQL)
//!                               └─▶ 0 differences, or every one of them
//! ```
//!
//! * [`reconcile`]: waits until the pipeline is at rest, then compares every row. The binary of that name.
//! * [`audit`]: whether events, journal, purchases and tables are what the commands in the log lead to, also while the system
//!   runs. The binary of that name.
//! * [`model`]: what the sent commands must have led to, by the rules as they are written down.
//! * [`journal`]: whether the journal and the events topic tell the same, byte for byte.
//! * [`faults`]: everything goes wrong under load, then the audit. The binary of that name.
//! * [`mod@bench`]: how fast, beside a floor of the same hops. The binary of that name.
//! * [`mod@tail`]: a topic's records, as they come. The binary `cart-tail`.
//! * [`hostile`]: clients that mean no good, for a test and the bench.
//! * [`harness`]: an installation of its own for a test, and its processes.

pub mod audit;
pub mod bench;
pub mod faults;
pub mod harness;
pub mod hostile;
mod ids;
pub mod journal;
pub mod model;
pub mod reconcile;
pub mod tail;
pub mod topic;
pub mod totals;

pub use ids::{cart_id, product_id, vendor_id};
