//! The command line.

use std::net::SocketAddr;

use cassandra::CassandraArgs;
use kafka::{KafkaArgs, TopicArgs};
use service::{LogArgs, StartupArgs};

use crate::auth::AuthArgs;
use crate::cors::CorsArgs;
use crate::limits::LimitArgs;
use crate::tls::TlsArgs;

/// Takes cart commands over HTTP, puts them into the log and answers with their outcome.
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
    /// Makes the topics and schemas that are not there yet, and ends
    Setup(SetupArgs),
}

/// How to run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) startup: StartupArgs,
    #[command(flatten)]
    pub(crate) auth: AuthArgs,
    #[command(flatten)]
    pub(crate) cors: CorsArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// Address of the API, health and metrics; port 0 takes a free one, which is logged
    #[arg(long = "listen", env = "INGEST_LISTEN", default_value = "127.0.0.1:9001")]
    pub(crate) listen: SocketAddr,

    /// How long a request waits for its command's outcome before it is answered with 202
    #[arg(long, env, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) reply_timeout_ms: u64,

    /// How long a read with Read-After waits for its table before it is answered with 504
    #[arg(long, env, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) read_after_timeout_ms: u64,

    /// Take a command's time from the header Command-Time: for imports and replays, never for the public
    #[arg(long, env)]
    pub(crate) allow_client_time: bool,

    /// Most bytes of a request's body: a batch of 100 with the longest names fits
    #[arg(long, env, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=10_485_760))]
    pub(crate) body_len_max: u32,

    /// Most commands that wait for their outcome at a time; more are answered with 503
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) commands_in_flight_max: u32,

    /// Most bytes of bodies in memory at a time; more are answered with 503
    #[arg(long, env, default_value_t = 268_435_456, value_parser = clap::value_parser!(u32).range(10_485_760..))]
    pub(crate) bodies_len_max: u32,

    /// How long a client may take to send a request's body
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=300_000))]
    pub(crate) body_timeout_ms: u64,
}

/// How to set up.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) topics: TopicArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}
