//! The command line.

use cassandra::CassandraArgs;
use kafka::{KafkaArgs, MemberArgs, TopicArgs};
use service::{AdminArgs, LogArgs, StartupArgs};

/// Decides cart commands in the order of their log: journals the events, answers, publishes the events.
#[derive(Debug, clap::Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) args: Args,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes the topics, schemas, tables and first offsets that are not there yet, and ends
    Setup(SetupArgs),
    /// After cart-events was lost: publishes the journal to the empty topic, and ends
    Republish(RecoveryArgs),
    /// After the journal was lost: writes it again from cart-events, and ends
    RestoreJournal(RecoveryArgs),
}

/// How to run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) startup: StartupArgs,
    #[command(flatten)]
    pub(crate) member: MemberArgs,

    /// Workers in this process, each with its own thread, transactions and share of the partitions. One decides more than
    /// 10,000 commands/s: more are for processes that have more to do, and each adds to what Kafka has to do
    #[arg(long, env, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,

    /// Most commands that are decided in one go
    #[arg(long, env, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch_len_max: u32,

    /// Most events that wait for their transaction; then deciding waits
    #[arg(long, env, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=150_000))]
    pub(crate) outbox_len_max: u32,

    /// A worker starts at most one transaction in each interval of this length: less shows purchases sooner, more costs less
    #[arg(long, env, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=5_000))]
    pub(crate) commit_interval_ms: u64,

    /// Memory of this process for carts, in MiB. The least recently used ones are evicted, and loaded again when they are
    /// needed: 256 MiB are about 250,000 small carts
    #[arg(long, env, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub(crate) cart_cache_mib: u32,
}

/// How to set up.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) topics: TopicArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,

    /// Accept that cart-commands is another log than the recorded one, which goes on where the journal ends
    #[arg(long)]
    pub(crate) accept_new_log: bool,
}

/// How to recover.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RecoveryArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}
