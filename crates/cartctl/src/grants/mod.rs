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
pub(crate) use cql::existing_generations as generations_in_cassandra;
pub use cql::{Permission, cql};
pub use service::{Service, Users};
pub(crate) use sql::existing_generations as generations_in_postgres;
pub use sql::{Privilege, sql};
pub use tables::TableGenerations;

/// Prints the grants on `out`, gives them or takes them away.
///
/// # Errors
/// A server does not answer, or refuses.
pub async fn grants(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let is_change = args.apply || args.remove;
    let services = args.services();
    ensure!(
        !args.allow_operations || services.contains(&Service::Console),
        "--allow-operations is for the grants of console, which --of leaves out: add console to --of, or omit --allow-operations"
    );
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    async fn printed(of: &str) -> anyhow::Result<()> {
        let args = Cli::parse_from(["test", "--for", "kafka", "--allow-operations", "--of", of]).args;
        grants(&args, &mut Vec::new()).await
    }

    #[tokio::test]
    async fn operations_without_the_console_are_refused() {
        assert!(printed("audit,console").await.is_ok());
        let error = printed("audit,operator").await.expect_err("they are of console");
        assert!(error.to_string().contains("add console to --of"), "{error:#}");
    }
}
