//! `cartctl grants`: what the user of each service may do in Kafka, Cassandra and PostgreSQL, and no more.
//!
//! The tables in [`acls`], [`cql`] and [`sql`] are the only list. `scripts/stack` applies them to the secured servers. A test takes
//! each grant away in turn: then the service that needs it must fail and say what it lacks (crates/e2e/tests/e2e/secure).

mod acls;
mod args;
mod cql;
mod service;
mod sql;
mod strimzi;
mod tables;

use std::io::Write;

use anyhow::ensure;

pub use acls::acls;
pub use args::{Args, Server};
pub use cql::{Permission, cql};
pub use service::{Service, Users};
pub use sql::{Privilege, sql};
pub use tables::TableGenerations;

/// Prints the grants on `out`, gives them or takes them away.
///
/// # Errors
/// A server does not answer, or refuses.
pub async fn grants(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let is_change = args.apply || args.remove;
    let services = args.services();
    match args.server {
        Server::Kafka if is_change => acls::change(args, &services)?,
        Server::Kafka => acls::print(args, &services, out)?,
        Server::Strimzi => {
            ensure!(!is_change, "--for strimzi prints only: apply its output with kubectl");
            strimzi::print(args, &services, out)?;
        }
        Server::Cassandra if is_change => cql::change(args, &services).await?,
        Server::Cassandra => cql::print(args, &services, out)?,
        Server::Postgres if is_change => sql::change(args, &services).await?,
        Server::Postgres => sql::print(args, &services, out)?,
    }
    Ok(())
}
