//! The settings of `doctor`.

use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;

use crate::grants::Users;

/// Check that the servers do what this system relies on
///
/// Tries it out in topics, a subject, a keyspace and a database schema of its own, whose names have `cart_doctor`, and removes
/// them. Those that a killed doctor has left are removed by a run that is 15 minutes later. It also looks at this
/// installation's topics, schemas and tables, if `setup` has made them, and at the grants of the services' users, and changes none of
/// them. It produces and reads 20 MB. It needs an administrator's permissions; of a check that lacks one it prints which. Run it before
/// the first `setup`, and after each change of a server.
///
/// Exit code 0: all checks hold, perhaps with warnings. 1: a check failed. 2: none failed, but one could not be made.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl doctor")]
pub struct Args {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub cassandra: CassandraArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// How the services' users are called, with {service} for the service, as for `cartctl grants`
    #[arg(long, value_name = "NAME", default_value = Users::DEFAULT)]
    pub user: Users,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}
