//! The cart-processor: decides cart commands in the order of their log.
//!
//! ```text
//!               worker (one thread, one member of the group)
//! cart-commands ─▶ intake ─▶ batch ─▶ load ─▶ decide ─▶ journal ─▶ reply ─▶ outbox ─▶ publisher (its own thread)
//!                     │              partition          Cassandra  cart-replies       one transaction at a time:
//!                     └─ dead letter ─────────────────────────────────────────▶       events, dead letters, offsets
//! ```
//!
//! These hold whichever process ends at whatever point:
//!
//! - A cart's commands are decided in the order of their partition, by a pure function of that order.
//! - A reply is sent when its events are in the journal; it does not wait for the transaction.
//! - Events and the offsets of the commands that made them become visible together, in one transaction.
//! - A command at or before its cart's newest journalled position was decided before: its events are read from the journal
//!   and published, and nothing is decided again (module `redelivery`).
//! - A cart that fails alone is parked: the others of its partition go on, its commands wait in the log (module `parking`).
//! - After any failure the worker drops what is in memory and rewinds to the committed offsets; the rules above make the
//!   second time harmless.

mod args;
mod batch;
mod cart_cache;
mod commit_pacing;
mod intake;
mod metrics;
mod outbox;
mod parking;
mod processor;
mod publisher;
pub mod recovery;
mod redelivery;
mod reply;
mod run;
mod setup;

pub use crate::metrics::ALL as METRICS;
pub use args::Cli;
pub use run::start;
