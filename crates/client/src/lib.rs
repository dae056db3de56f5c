//! Clients of the cart service, over HTTP only.
//!
//! - [`CartClient`]: one typed method per command, connections kept alive;
//! - [`ids`]: the ids of carts, products and vendors;
//! - [`cart_cli`]: a cart from the command line, the binary `cart`;
//! - [`replay`]: sends many commands, in order per member, and measures the answers.
//!
//! ```text
//! CSV file ──┐
//!            ├─▶ queues (order per member) ─▶ attempts (retries, one key) ─▶ CartClient ─▶ ingest
//! shop(seed)─┘        ▲                              │
//!                     └────── complete ◀─────────────┴──▶ statistics, sent file
//! ```
//!
//! Invariants: this crate uses no Kafka and no database; a command that may have been executed is never sent again with another
//! key; a member's next command is sent only once the previous one is complete.

mod bits;
pub mod cart_cli;
mod cart_client;
mod error;
pub mod ids;
pub mod replay;
mod retry;
mod settings;
mod text;
mod tls;
mod wire;

pub use cart_client::{CartClient, CommandOptions, EventMessage, EventStream};
pub use error::{CertificateError, Error, Execution};
pub use settings::ClientSettings;
pub use text::LineError;
pub use wire::{Cart, CartEvent, Item, ItemChange, Outcome, Problem, Purchase};
