//! Ingest: HTTP in, commands out, replies back.
//!
//! ```text
//! connection ─▶ server (TLS, who may, limits)
//!              ▼
//! request ─▶ routes ─▶ request (shape) ─▶ commands ─▶ cart-commands
//!              │                             │ waits by command id
//! response ◀───┴── answer ◀── replies ◀──────┴─────── cart-replies
//! GET /cart ─▶ journal (Cassandra)
//! GET .../commands/{commandId} ─▶ status ─▶ cart-commands, journal
//! GET .../events, /vendors/... ─▶ reads ─▶ journal, read tables (Cassandra)
//! ```
//!
//! What holds:
//!
//! - A waiter is registered before its command is produced, so no reply comes too early.
//! - A command is answered with what the log made of it. Without an answer in time it is 202: the command is in the
//!   log, and a retry under the same idempotency key gets the first outcome.
//! - 503 means that the command was not produced and will not be. When that can't be known it is 504.
//! - No cart rule is here: only shapes and ranges are checked.

mod api;
mod args;
mod auth;
mod commands;
mod http;
mod problem;
mod reads;
mod request_id;
mod run;
mod schema;
mod setup;

#[doc(hidden)]
pub use api::request::commands_of;
pub use args::Cli;
pub use run::start;
