//! `cartctl`, the operators' tool. It works on an installation while its services run.
//!
//! ```text
//! expected totals (CSV) ─┐                      ┌─ item-purchased (Kafka, committed records only)
//! sent commands ─▶ model ┴─▶ compare ◀── stores ┼─ item_quantity_by_day, balance_by_vendor (Cassandra)
//!                               │               └─ vendor_billing (PostgreSQL)
//!                               └─▶ 0 differences, or every one of them
//! ```
//!
//! * [`reconcile`]: waits until the pipeline is idle, then compares every row.
//! * [`audit`]: compares events, journal, purchases and tables with what follows from the commands in the log, also while the
//!   system works.
//! * [`mod@doctor`]: asks the servers for what the system relies on.
//! * [`mod@explain`]: shows how a stored figure follows from the log.
//! * [`mod@rehearse`]: decides the log again with the rules of this program, and shows what would differ.
//! * [`mod@generations`]: compares the generations of a read model, and lets readers see another one.
//! * [`mod@grants`]: prints or gives the least that the user of each service may do in the servers.
//! * [`mod@operate`]: pauses, resumes and skips, and lists what operators have done.
//! * [`mod@status`]: shows how far each consumer group is, and what keeps it.
//! * [`mod@parked`]: lists parked carts and rows, lets them be tried again, and discards a command at which a cart stands.
//! * [`mod@tail`]: prints a topic's records as they come.
//! * [`mod@uninstall`]: deletes an installation.
//! * [`model`]: the expected results of the sent commands, from the rules in docs/api.md.
//! * [`journal`]: compares the journal with the events topic, byte for byte.
//!
//! These share no code with the cart-processor and the projectors beyond the wire types, so that they do not repeat their
//! mistakes. There are four exceptions: the module `recovery` does what the services do, with their code; `doctor` finds out
//! whether what they make can be made; `explain` and `rehearse` show what the rules of `crates/cart` decide, beside the journal;
//! and `generations`, `operate`, `parked` and `status` use the control topic as members do (crate `control`).

pub mod audit;
mod cli;
mod discards;
pub mod doctor;
pub mod explain;
pub mod generations;
pub mod grants;
mod ids;
mod intake;
pub mod journal;
mod line;
pub mod model;
pub mod operate;
pub mod parked;
mod parked_rows;
mod read_tables;
pub mod reconcile;
mod recovery;
pub mod rehearse;
mod skips;
pub mod status;
pub mod tail;
pub mod topic;
pub mod totals;
pub mod uninstall;

pub use cli::{Cli, start};
pub use discards::DiscardedCommand;
pub use ids::{cart_id, product_id, vendor_id};
pub use parked_rows::{ListedRow, ParkedKeys};
pub use skips::SkippedRecord;
