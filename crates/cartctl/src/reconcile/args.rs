//! The settings of `reconcile`.

use std::path::PathBuf;

use cassandra::CassandraArgs;
use kafka::KafkaArgs;

/// Waits until everything that was sent has reached every read table, then compares every row with what it must be.
///
/// What it must be comes from files of expected totals (--expected), from the sent commands (--sent), or from both; without
/// either, the tables are compared with the purchases on the topic. Nobody may send commands meanwhile.
///
/// Exit code 0: no differences. 1: differences. 2: the pipeline did not come to rest in time. 3: some commands were never
/// answered, so nobody knows what to expect. 4: it could not be checked, a server is away for example.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where Cassandra is.
    #[command(flatten)]
    pub cassandra: CassandraArgs,

    /// Where PostgreSQL is
    #[arg(long, env, default_value = "postgres://cart:cart@127.0.0.1:5432/cart", hide_env_values = true)]
    pub database_url: String,

    /// Folder with the expected totals: *.balance_by_vendor_month.csv, *.item_quantity_by_vendor_day.csv and *.totals.csv,
    /// each plain or with .gz behind
    #[arg(long, env = "RECONCILE_EXPECTED")]
    pub expected: Option<PathBuf>,

    /// CSV of all commands that were ever sent to this installation, with their outcomes, as `replay --sent` writes it
    /// (plain or gzipped). The replay must have sent each command's own time
    #[arg(long, env = "RECONCILE_SENT")]
    pub sent: Option<PathBuf>,

    /// How long to wait for the pipeline to come to rest
    #[arg(long, env = "RECONCILE_TIMEOUT_S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub timeout_s: u64,

    /// How many differences to print
    #[arg(long, env = "RECONCILE_DIFFERENCES_MAX", default_value_t = 100)]
    pub differences_max: usize,

    /// Accept rows and purchases that are not expected, for totals of a part of what was sent
    #[arg(long, env = "RECONCILE_ALLOW_MORE_ROWS")]
    pub allow_more_rows: bool,

    /// Writes the result as JSON to this file, too
    #[arg(long, env = "RECONCILE_JSON")]
    pub json: Option<PathBuf>,
}
