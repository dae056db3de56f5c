//! The options of `cartctl grants`.

use cart::Generation;
use cassandra::{CassandraArgs, KeyspaceArgs};
use kafka::KafkaArgs;
use postgres::DatabaseArgs;

use super::service::{Service, Users};
use super::tables::TableGenerations;

/// Print or apply the least grants that each service needs
///
/// Prints the commands that give the user of each service what it needs: kafka-acls.sh, CQL or SQL, or the KafkaUsers of Strimzi.
/// --apply gives the grants itself, with the server's settings and an administrator's user. Each service has a user of its own:
/// setup (the three `setup`s), ingest, cart-processor, the four projectors, console, audit (audit, explain, log, parked, reconcile, rehearse,
/// skipped, status, tail), and
/// operator (all of cartctl but doctor and grants). Users and their passwords are made with the servers' own tools.
///
/// Kafka's grants may come before its topics. Cassandra's and PostgreSQL's come in two steps, since tables must exist: `--of
/// setup` makes the keyspace or the database and lets `setup` work there; after `setup` come the others.
///
/// Exit code 0: done. 2: a grant could not be given or taken away.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: the topics of an installation with the prefix shop-, and its keyspace:
  cartctl grants --for kafka --topic-prefix shop-
  cartctl grants --for cassandra --cassandra-keyspace shop")]
pub struct Args {
    /// The server, and the form of the grants
    #[arg(long = "for", value_enum, value_name = "SERVER")]
    pub server: Server,

    /// Only the grants of these services, comma-separated
    #[arg(long = "of", value_enum, value_name = "SERVICE", value_delimiter = ',')]
    pub of: Vec<Service>,

    /// Only this generation of the read tables [default: with --apply and --remove those that have a table, else 1]
    ///
    /// After `cartctl rebuild` has made the table of a further one, its projector needs grants on it
    #[arg(long, value_name = "N")]
    pub generation: Option<Generation>,

    /// How users are called, with {service} for the service: installations that share servers have users of their own, and a user
    /// that Kafka knows by a certificate has its name
    #[arg(long, value_name = "NAME", default_value = Users::DEFAULT)]
    pub user: Users,

    /// Also let console write what operators want, for a cart-console with --allow-operations; --remove takes that away in any case
    #[arg(long)]
    pub allow_operations: bool,

    /// Name of the Kafka cluster in Kubernetes, for --for strimzi
    #[arg(long, value_name = "NAME", default_value = "cart")]
    pub strimzi_cluster: String,

    /// Give the grants instead of printing them
    #[arg(long, conflicts_with = "remove")]
    pub apply: bool,

    /// Take the grants away instead of printing them
    #[arg(long)]
    pub remove: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub cassandra: CassandraArgs,
    #[command(flatten)]
    pub keyspace: KeyspaceArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Where grants are given, and their form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    /// ACLs, as commands of kafka-acls.sh
    Kafka,
    /// Permissions of roles, as CQL
    Cassandra,
    /// Privileges of roles, as SQL
    Postgres,
    /// ACLs, as KafkaUsers for Strimzi
    Strimzi,
}

impl Args {
    /// The generations whose grants are printed.
    pub(super) fn printed_generations(&self) -> TableGenerations {
        TableGenerations::only(self.generation.unwrap_or(Generation::FIRST))
    }

    /// Whether the console's grants for operators' actions are meant.
    pub(super) fn has_operations(&self) -> bool {
        self.allow_operations || self.remove
    }

    /// The services whose grants are meant.
    pub(super) fn services(&self) -> Vec<Service> {
        if self.of.is_empty() { Service::ALL.to_vec() } else { self.of.clone() }
    }
}
