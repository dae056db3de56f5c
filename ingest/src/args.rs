//! The command line.

use std::net::SocketAddr;

use cassandra::CassandraArgs;
use kafka::{KafkaArgs, TopicArgs};
use service::{AdminArgs, LogArgs, StartupArgs};
use trace::TraceArgs;

use crate::auth::AuthArgs;
use crate::http::{CorsArgs, LimitArgs, TlsArgs};

/// The end of the output of `--help`.
const EXAMPLE: &str = "\
Example, with the servers of `scripts/stack servers` and a running cart-processor:
  ingest setup && ingest --listen 127.0.0.1:9002 --admin-listen 127.0.0.1:0 --reply-timeout-ms 15000";

/// Accepts cart commands over HTTP, appends them to the log and answers with their outcome
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
    /// Create missing topics and schemas, then exit
    Setup(SetupArgs),
}

/// Where metrics are by default. A second ingest on one host needs an address of its own.
const ADMIN_LISTEN: &str = "127.0.0.1:9017";

#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("admin_listen", |arg| arg.default_value(ADMIN_LISTEN)))]
pub(crate) struct Args {
    /// Address of the API and health; with port 0 the system chooses a free port, which is logged
    #[arg(long = "listen", env = "INGEST_LISTEN", help_heading = "Common", default_value = "127.0.0.1:9001")]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(crate) auth: AuthArgs,

    /// Accept the time of a command from the header Command-Time. Use it for imports and replays, never for the public
    #[arg(long, env, help_heading = "Authentication and access")]
    pub(crate) allow_client_time: bool,

    #[command(flatten)]
    pub(crate) cors: CorsArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    /// Maximum size of the body of a request, in bytes; the default fits a batch of 100 with the longest names
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=10_485_760))]
    pub(crate) body_len_max: u32,

    /// Maximum total size of request bodies in memory, in bytes; further requests are answered with 503
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 268_435_456, value_parser = clap::value_parser!(u32).range(10_485_760..))]
    pub(crate) bodies_len_max: u32,

    /// Maximum number of commands that wait for their outcome; further ones are answered with 503
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) commands_in_flight_max: u32,

    /// Maximum wait for the outcome of a command; after it the request is answered with 202
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) reply_timeout_ms: u64,

    /// Maximum wait of a read with Read-After for its table; after it the request is answered with 504
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) read_after_timeout_ms: u64,

    /// Maximum time for a client to send the body of a request
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=300_000))]
    pub(crate) body_timeout_ms: u64,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) startup: StartupArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) topics: TopicArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}
