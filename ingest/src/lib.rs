//! The HTTP service: it appends commands to the log, answers with their outcomes, and reads carts and read tables.
//!
//! Every command is a record of `cart-commands`; its reply arrives on `cart-replies`. Reads use the journal and the read tables
//! in Cassandra.
//!
//! ```text
//! connection ─▶ http (TLS, limits) ─▶ auth (path, token)
//!                                       ▼
//! request ───▶ api ─▶ commands ─▶ cart-commands
//!               │        ▲ reply by command id and offset
//!               │        └─────── cart-replies
//!               ├───▶ commands::lookup ─▶ cart-commands, journal (GET .../commands/{commandId})
//!               └───▶ reads ─▶ journal, read tables
//! ```
//!
//! # Modules
//!
//! | module | contents | imports |
//! |---|---|---|
//! | `problem`, `schema`, `request_id` | errors of the API, schemas that bodies share, ids of requests | of these, only `request_id` |
//! | `route`, `metrics` | templates of paths; what is exported | `problem` and, of these, `route` |
//! | `auth` | who may access which path | the above |
//! | `http` | connections, TLS, limits, CORS, traces, panics | the above and `auth` |
//! | `parked` | which commands wait because their carts are parked | |
//! | `commands` | the log in, outcomes out; the status of a command | `problem`, `parked` |
//! | `reads` | carts, events, what vendors sold; `Read-After` | `problem`, `schema`, `parked` |
//! | `api` | every path and its handler; headers and bodies; the OpenAPI document | all above but `auth` |
//! | `args`, `setup`, `run` | options, `ingest setup`, everything built and run | all above |
//!
//! No module imports one below it in this table.
//!
//! # Guarantees
//!
//! - A waiter is registered before its command is produced, so no reply arrives too early.
//! - A command is answered with its outcome from the log. Without an outcome in time the response is 202: the command is in the
//!   log, and a retry with the same idempotency key gets the first outcome.
//! - 503 means that the command was not appended and never will be. If that is not known, the response is 504.
//! - Ingest has no rule of the cart: it checks shapes and ranges only.

mod api;
mod args;
mod auth;
mod commands;
mod http;
mod metrics;
mod parked;
mod problem;
mod reads;
mod request_id;
mod route;
mod run;
mod schema;
mod setup;

pub use crate::metrics::ALL as METRICS;
#[doc(hidden)]
pub use api::commands_of;
pub use args::Cli;
pub use http::FixedLimits;
pub use run::start;
