//! The settings of `audit`.

use std::path::PathBuf;
use std::time::Duration;

use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use service::{AdminArgs, LogArgs};

use super::report::FINDINGS_KEPT;

/// The system that is looked at.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Where Kafka and the registry are.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where Cassandra is.
    #[command(flatten)]
    pub cassandra: CassandraArgs,

    /// Where PostgreSQL is
    #[arg(long, env, default_value = "postgres://cart:cart@127.0.0.1:5432/cart", hide_env_values = true)]
    pub database_url: String,

    /// How many findings to tell, beside the first of each kind
    #[arg(long, env = "AUDIT_FINDINGS_MAX", default_value_t = FINDINGS_KEPT)]
    pub findings_max: usize,
}

impl Target {
    /// With the default for everything that is not named.
    #[must_use]
    pub fn new(kafka: KafkaArgs, cassandra: CassandraArgs, database_url: String) -> Self {
        Self { kafka, cassandra, database_url, findings_max: FINDINGS_KEPT }
    }
}

/// Checks the whole system against the commands in its log: events, journal, dead letters, purchases and read tables.
///
/// Nobody has to stop for it: it notes how far the log is, waits until everything downstream is there, and compares up to
/// there. It reads everything from the beginning, and keeps about 3 KB a command in memory.
///
/// Exit code 0: nothing is wrong. 1: findings. 2: it could not be checked (a server is away, a consumer does not follow).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The system.
    #[command(flatten)]
    pub target: Target,

    /// Files of what clients sent and were told, as `replay --record` writes them: comma-separated
    #[arg(long, env = "AUDIT_RECORD", value_delimiter = ',')]
    pub record: Vec<PathBuf>,

    /// How long to wait until everything downstream has come to the end of the log
    #[arg(long, env = "AUDIT_TIMEOUT_S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub timeout_s: u64,

    /// Writes the result as JSON instead of a table
    #[arg(long, env = "AUDIT_JSON")]
    pub json: bool,

    /// Goes on as a service: looks again and again, with health and metrics
    #[arg(long, env = "AUDIT_WATCH")]
    pub watch: bool,

    /// Between two looks of --watch, from the end of one to the beginning of the next
    #[arg(long, env = "AUDIT_INTERVAL_S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub interval_s: u64,

    /// Where --watch tells how it is.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// What to log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Args {
    /// The wait.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    /// The pause.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s)
    }
}
