//! Cassandra as this project uses it: connecting, the keyspace, and which logs its positions belong to.

mod args;
mod error;
mod log;

pub use args::{CassandraArgs, check, connect, ensure_keyspace};
pub use error::Error;
pub use log::{LogNotRecorded, accept_new_log, ensure_log, log_epoch};
