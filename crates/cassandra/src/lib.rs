//! Cassandra as this project uses it: connecting, the keyspace, decimals, writes by the group, which logs its positions belong
//! to, which generation of a read model is the active one, and which of its rows are parked.

mod args;
mod decimal;
mod error;
mod groups;
mod lazy_session;
mod log_identity;
pub mod parked_rows;
pub mod read_models;
mod security;
mod table_statement;

pub use args::{CassandraArgs, KeyspaceArgs, check, connect, create_keyspace, ensure_keyspace, open, schema_change};
pub use decimal::{decimal_from_cql, decimal_to_cql};
pub use error::Error;
pub use groups::{groups, write_rows};
pub use lazy_session::LazySession;
pub use log_identity::{LogNotRecorded, accept_new_log, create_log_table, ensure_log, log_epoch, restore_log};
pub use security::{CassandraSecurityArgs, TlsVerify};
pub use table_statement::TableStatement;
