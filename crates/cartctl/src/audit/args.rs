//! The settings of `audit`.

use std::path::PathBuf;
use std::time::Duration;

use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;
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

    /// Where PostgreSQL is.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Maximum number of findings in the report, in addition to the first of each kind
    #[arg(long, help_heading = "Limits", env = "AUDIT_FINDINGS_MAX", default_value_t = FINDINGS_KEPT)]
    pub findings_max: usize,
}

impl Target {
    /// With the default for everything that is not named.
    #[must_use]
    pub fn new(kafka: KafkaArgs, cassandra: CassandraArgs, database: DatabaseArgs) -> Self {
        Self { kafka, cassandra, database, findings_max: FINDINGS_KEPT }
    }
}

/// Where checkpoints are.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// The folder of `--checkpoint`.
    pub folder: PathBuf,
    /// Whether everything is read, whatever the folder has.
    pub is_full: bool,
}

/// Check the whole system against the commands in its log
///
/// Compares events, journal, dead letters, purchases and read tables. The services keep running: the audit notes the end of
/// the log, waits until all consumers have reached it, and compares up to there. It reads everything from the beginning, and
/// needs about 3 KB of memory per command.
///
/// With --checkpoint an audit without findings leaves a checkpoint, and the next one reads what has come since. It finds what
/// went wrong since, and changed journals of carts that were touched since. What else was changed before the checkpoint is found
/// by --full: run it now and then.
///
/// Exit code 0: no findings. 1: findings. 2: the audit failed, for example because a server is unavailable or a consumer lags.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9016")))]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl audit --timeout-s 60")]
pub struct Args {
    /// The system.
    #[command(flatten)]
    pub target: Target,

    /// Files of the clients' requests and answers, as `replay --record` writes them, comma-separated. Not with --checkpoint
    #[arg(long, env = "AUDIT_RECORD", value_delimiter = ',', conflicts_with = "checkpoint")]
    pub record: Vec<PathBuf>,

    /// Maximum wait until all consumers have reached the end of the log
    #[arg(help_heading = "Times")]
    #[arg(long, env = "AUDIT_TIMEOUT_S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub timeout_s: u64,

    /// Folder of a checkpoint: read what has come since, and seal what was read if there are no findings
    #[arg(long, env = "AUDIT_CHECKPOINT", value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,

    /// Read everything, and do not start from the checkpoint
    #[arg(long, env = "AUDIT_FULL")]
    pub full: bool,

    /// Print the report as JSON
    #[arg(long, env = "AUDIT_JSON")]
    pub json: bool,

    /// Repeat the audit as a service, with health and metrics on --admin-listen
    #[arg(long, env = "AUDIT_WATCH")]
    pub watch: bool,

    /// Pause between two audits of --watch, from the end of one to the start of the next
    #[arg(help_heading = "Times")]
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

    /// The checkpoints, if there are any.
    #[must_use]
    pub fn checkpoints(&self) -> Option<Checkpoints> {
        Some(Checkpoints { folder: self.checkpoint.clone()?, is_full: self.full })
    }

    /// The pause.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s)
    }
}
