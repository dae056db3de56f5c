//! The cart-processor: decides cart commands in the order of their log.
//!
//! ```text
//!               worker (one thread, one member of the group)
//! cart-commands ─▶ intake ─▶ batch ─▶ load ─▶ decide ─▶ journal ─▶ reply ─▶ outbox ─▶ publisher (its own thread)
//!                     │              partition          Cassandra  cart-replies       one transaction at a time:
//!                     └─ dead letter ─────────────────────────────────────────▶       events, dead letters, offsets
//! ```
//!
//! What holds, whoever dies when:
//!
//! - A cart's commands are decided in the order of their partition, by a pure function of that order.
//! - A reply is sent when its events are in the journal; it does not wait for the transaction.
//! - Events and the offsets of the commands that made them become visible together, in one transaction.
//! - A command at or before its cart's newest journalled position was decided before: the journal's word holds,
//!   its events are read back and published, nothing is decided again (module `history`).
//! - Whatever fails, the worker forgets what is in memory and goes back to the committed offsets; the rules above
//!   make the second time harmless.

mod args;
mod batch;
mod commit_pacing;
mod history;
mod intake;
mod outbox;
mod partition;
mod processor;
mod publisher;
mod recovery;
mod reply;
mod run;
mod setup;

pub use args::Cli;
pub use run::start;

/// The consumer group of the processors, without the installation's prefix.
pub const GROUP: &str = "cart-processor";
