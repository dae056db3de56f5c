//! The command line.

use cart::Generation;
use cassandra::{CassandraArgs, KeyspaceArgs};
use kafka::{KafkaArgs, MemberArgs, TopicArgs};
use postgres::DatabaseArgs;
use service::{AdminArgs, LogArgs, StartupArgs};
use trace::TraceArgs;

/// What `--help` says at its end.
const EXAMPLE: &str = "\
Example, with the servers of `scripts/stack servers`:
  projectors setup && projectors item-purchased-events";

/// Keeps the read models up to date from the events of the carts
#[derive(Debug, clap::Parser)]
#[command(version, after_help = EXAMPLE)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create missing topics, schemas, tables and first offsets, then exit
    Setup(SetupArgs),
    /// Project cart-events to the topic item-purchased: every purchase once, keyed by vendor
    #[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9012")))]
    ItemPurchasedEvents(Args),
    /// Project item-purchased to Cassandra: pieces sold by vendor, product and day
    #[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9013")))]
    PopularItems(CassandraModelArgs),
    /// Project item-purchased to Cassandra: each vendor's balance by month
    #[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9014")))]
    VendorBilling(CassandraModelArgs),
    /// Project item-purchased to PostgreSQL: each vendor's balance by month
    #[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9015")))]
    VendorBillingJdbc(JdbcArgs),
}

/// How to run a projector.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,

    /// Maximum number of records processed in one batch
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch_len_max: u32,

    /// Maximum number of rows in memory; the least recently used rows are evicted, and reloaded when they are needed
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rows_max: u32,

    #[command(flatten)]
    pub(crate) member: MemberArgs,
    #[command(flatten)]
    pub(crate) startup: StartupArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// How to run a projector that writes to Cassandra.
#[derive(Debug, Clone, clap::Args)]
pub struct CassandraProjectorArgs {
    #[command(flatten)]
    pub(crate) args: Args,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
}

/// Which generation of its read model a projector keeps.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct GenerationArgs {
    /// Generation of the read model to keep, in a table and consumer group of its own; `cartctl rebuild` creates the later ones
    #[arg(long, env = "READ_MODEL_GENERATION", value_name = "NUMBER", help_heading = "Common")]
    #[arg(default_value_t = Generation::FIRST)]
    pub(crate) generation: Generation,
}

/// A projector that writes to Cassandra.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CassandraModelArgs {
    #[command(flatten)]
    pub(crate) projector: CassandraProjectorArgs,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

/// The projector that writes to PostgreSQL.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JdbcArgs {
    #[command(flatten)]
    pub(crate) args: Args,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

/// How to set up.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) topics: TopicArgs,
    #[command(flatten)]
    pub(crate) keyspace: KeyspaceArgs,

    /// Accept an item-purchased topic that is not the recorded one, and that continues where the tables end
    #[arg(long, help_heading = "Setup")]
    pub(crate) accept_new_log: bool,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cart::contract::{STAGES, group};
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_subcommands_are_the_stages_but_the_processor() {
        let cli = Cli::command();
        let subcommands: BTreeSet<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
        let stages = STAGES.iter().map(|stage| stage.group).filter(|group| *group != group::CART_PROCESSOR);
        assert_eq!(subcommands, stages.chain(["setup"]).collect());
    }
}
