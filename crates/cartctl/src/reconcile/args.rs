//! The settings of `reconcile`.

use std::path::PathBuf;

use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;

/// Compare every row of the read tables with the expected totals
///
/// First it waits until everything that was sent has reached every read table. The expected totals come from files
/// (--expected), from the sent commands (--sent), or from both; without either, the tables are compared with the purchases on
/// the topic. Do not send commands meanwhile.
///
/// Exit code 0: no differences. 1: differences. 2: the pipeline did not become idle in time. 3: some commands have no known
/// outcome, so the expected totals are unknown. 4: the comparison failed, for example because a server is unavailable.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl reconcile --timeout-s 60")]
pub struct Args {
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where Cassandra is.
    #[command(flatten)]
    pub cassandra: CassandraArgs,

    /// Where PostgreSQL is.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Folder of the expected totals: *.balance_by_vendor_month.csv, *.item_quantity_by_vendor_day.csv and *.totals.csv, each
    /// plain or gzipped (.gz)
    #[arg(long, env = "RECONCILE_EXPECTED")]
    pub expected: Option<PathBuf>,

    /// CSV of all commands ever sent to this installation, with their outcomes, as `replay --sent` writes it (plain or gzipped).
    /// The replay must have sent each command's own time
    #[arg(long, env = "RECONCILE_SENT")]
    pub sent: Option<PathBuf>,

    /// Maximum number of differences to print
    #[arg(long, help_heading = "Limits", env = "RECONCILE_DIFFERENCES_MAX", default_value_t = 100)]
    pub differences_max: usize,

    /// Maximum wait until the pipeline is idle
    #[arg(help_heading = "Times")]
    #[arg(long, env = "RECONCILE_TIMEOUT_S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub timeout_s: u64,

    /// Accept rows and purchases that are not expected; for totals of only a part of the sent commands
    #[arg(long, env = "RECONCILE_ALLOW_MORE_ROWS")]
    pub allow_more_rows: bool,

    /// Also write the report as JSON to this file
    #[arg(long, env = "RECONCILE_JSON")]
    pub json: Option<PathBuf>,
}
