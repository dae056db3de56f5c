//! The command line.

use cassandra::{CassandraArgs, KeyspaceArgs};
use kafka::{KafkaArgs, MemberArgs, TopicArgs};
use service::{AdminArgs, LogArgs, StartupArgs};
use trace::TraceArgs;

/// What `--help` says at its end.
const EXAMPLE: &str = "\
Example, with the servers of `scripts/stack servers`:
  cart-processor setup && cart-processor --workers 2";

/// Where health and metrics are by default. A second processor on one host needs an address of its own.
const ADMIN_LISTEN: &str = "127.0.0.1:9011";

/// Decides cart commands in the order of their log, journals and publishes their events, and sends the replies
#[derive(Debug, clap::Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLE)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) args: Args,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create missing topics, schemas, tables and first offsets, then exit
    Setup(SetupArgs),
}

/// What becomes of a command that is newer than this program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TooNew {
    /// Its partition stops
    #[default]
    Stop,
    /// Its cart waits, and the others of the partition go on
    Park,
}

/// How to run.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("admin_listen", |arg| arg.default_value(ADMIN_LISTEN)))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,

    /// Workers of this process, each with its own thread, transactions and share of the partitions. One worker decides more
    /// than 10,000 commands/s; each further one adds load on Kafka
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,

    /// Memory of this process for carts, in MiB; 256 MiB hold about 250,000 small carts. The least recently used carts are
    /// evicted, and reloaded when they are needed
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub(crate) cart_cache_mib: u32,

    /// Time between the transactions of a worker under load; a shorter one publishes purchases sooner, a longer one costs less
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=5_000))]
    pub(crate) commit_interval_ms: u64,

    /// What follows from a command that is newer than this program: its partition stops, or its cart alone waits for an upgrade and
    /// `cartctl parked retry`
    #[arg(long, env, help_heading = "Common", value_enum, default_value_t)]
    pub(crate) too_new: TooNew,

    #[command(flatten)]
    pub(crate) member: MemberArgs,
    #[command(flatten)]
    pub(crate) startup: StartupArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// How to set up.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) topics: TopicArgs,
    #[command(flatten)]
    pub(crate) keyspace: KeyspaceArgs,

    /// Accept a cart-commands topic that is not the recorded one, and that continues where the journal ends
    #[arg(long, help_heading = "Setup")]
    pub(crate) accept_new_log: bool,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}
