//! `cartctl uninstall`: deletes an installation's topics, consumer groups, schemas, keyspace and database. Other installations
//! on the same servers keep theirs.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cart::contract::{Contract, DEAD_LETTER_TOPIC, READ_MODELS, STAGES};
use cart::{Aggregate, CartCommand, CartEvent, CartParked, CartReply, ControlRecord, PurchasedItem};
use cassandra::CassandraArgs;
use kafka::{Admin, KafkaArgs, Registry};
use postgres::DatabaseArgs;
use scylla::client::session::Session;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};

/// The database that every PostgreSQL server has: a database can't be dropped through a connection to itself.
const MAINTENANCE_DATABASE: &str = "postgres";

/// Delete an installation with all its data
///
/// Deletes the topics, consumer groups (of all generations of the read tables), schemas, keyspace and database that --topic-prefix, --cassandra-keyspace and
/// --database-url name. Other installations on the same servers keep theirs: it fails before it deletes anything if the data of the
/// keyspace or of the database belongs to other topics. It also fails if a consumer group still has members after 15 s. It can
/// be repeated: a missing part is not an error.
///
/// Exit code 0: deleted. 2: something could not be deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the servers of `scripts/stack servers`:
  cartctl uninstall --topic-prefix shop- --cassandra-keyspace shop \\
    --database-url postgres://cart:cart@127.0.0.1:5432/shop --dry-run")]
#[command(group = clap::ArgGroup::new("decision").required(true))]
pub struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,

    #[command(flatten)]
    database: DatabaseArgs,

    /// List what would be deleted, without deleting it
    #[arg(long, group = "decision")]
    dry_run: bool,

    /// Delete it; this cannot be undone
    #[arg(long, group = "decision")]
    yes: bool,
}

/// How long the members of a group may take to leave it. A member whose process ended without leaving stays until its session
/// times out, after 10 s by default.
const LEAVE_MAX: Duration = Duration::from_secs(15);

/// The pause between two checks of the groups.
const PAUSE: Duration = Duration::from_millis(500);

/// The table of the logs that stored positions belong to, in the keyspace and in the database.
const LOG_TABLE: &str = "log_epoch";

/// PostgreSQL's code of the error that there is no such database.
const NO_DATABASE: &str = "3D000";

/// The names of everything that an installation has.
struct Names {
    topics: Vec<String>,
    groups: Vec<String>,
    subjects: Vec<String>,
    keyspace: String,
    database: String,
}

impl Names {
    /// `existing` are all groups that the brokers have.
    fn of(args: &Args, database: &PgConnectOptions, existing: BTreeSet<String>) -> Self {
        let both = [
            CartCommand::TOPIC,
            CartEvent::TOPIC,
            CartReply::TOPIC,
            CartParked::TOPIC,
            PurchasedItem::TOPIC,
            ControlRecord::TOPIC,
        ];
        let topics = both.into_iter().chain([DEAD_LETTER_TOPIC]);
        let schemas = both.into_iter().chain([Aggregate::TOPIC]);
        let kafka = &args.kafka;
        let mut groups: BTreeSet<String> = STAGES.iter().map(|stage| kafka.prefixed(stage.group)).collect();
        groups.extend(existing.into_iter().filter(|group| is_of_a_generation(group, &kafka.prefixed(""))));
        Self {
            topics: topics.map(|topic| kafka.prefixed(topic)).collect(),
            groups: groups.into_iter().collect(),
            subjects: schemas.map(|topic| kafka.prefixed(&format!("{topic}-value"))).collect(),
            keyspace: args.cassandra.cassandra_keyspace.clone(),
            database: database.get_database().unwrap_or("cart").to_owned(),
        }
    }

    /// Rejects a keyspace or database whose data belongs to topics of another installation.
    fn check(&self, what: &str, name: &str, recorded: Vec<String>) -> anyhow::Result<()> {
        match recorded.into_iter().find(|topic| !self.topics.contains(topic)) {
            None => Ok(()),
            Some(topic) => bail!(
                "{what} {name} belongs to another installation: its data is from topic {topic}. Nothing was deleted. \
                 --topic-prefix, --cassandra-keyspace and --database-url must name the same installation"
            ),
        }
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "topics           {}", self.topics.join(", "))?;
        writeln!(out, "consumer groups  {}", self.groups.join(", "))?;
        writeln!(out, "schemas          {}", self.subjects.join(", "))?;
        writeln!(out, "keyspace         {}", self.keyspace)?;
        writeln!(out, "database         {}", self.database)
    }
}

/// Whether a group keeps a generation of a read model of the installation with this prefix.
fn is_of_a_generation(group: &str, prefix: &str) -> bool {
    let name = group.strip_prefix(prefix);
    name.is_some_and(|name| READ_MODELS.iter().any(|model| model.generation_of_group(name).is_some()))
}

/// The topics that a keyspace's positions belong to; none if `setup` has not run.
async fn recorded_in_keyspace(session: &Session, keyspace: &str) -> anyhow::Result<Vec<String>> {
    let is_set_up =
        session.get_cluster_state().get_keyspace(keyspace).is_some_and(|of| of.tables.contains_key(LOG_TABLE));
    if !is_set_up {
        return Ok(Vec::new());
    }
    let rows = session.query_unpaged(format!("SELECT topic FROM {keyspace}.{LOG_TABLE}"), ()).await;
    let rows = rows.context("reading the keyspace's logs")?.into_rows_result()?;
    let topics: Result<Vec<_>, _> = rows.rows::<(String,)>()?.collect();
    Ok(topics?.into_iter().map(|(topic,)| topic).collect())
}

/// The topics that a database's offsets belong to; none if it does not exist or `setup` has not run.
async fn recorded_in_database(database: &PgConnectOptions) -> anyhow::Result<Vec<String>> {
    let mut connection = match database.connect().await {
        Err(error) if error.as_database_error().and_then(DatabaseError::code).as_deref() == Some(NO_DATABASE) => {
            return Ok(Vec::new());
        }
        connected => connected.context("connecting to PostgreSQL")?,
    };
    let is_set_up: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(LOG_TABLE)
        .fetch_one(&mut connection)
        .await
        .context("reading the database's tables")?;
    if !is_set_up {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT topic FROM log_epoch")
        .fetch_all(&mut connection)
        .await
        .context("reading the database's logs")
}

/// Deletes the installation, or lists it on `out`.
///
/// # Errors
/// A consumer group has members, or a server does not answer or rejects a request.
pub async fn uninstall(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let database = args.database.options()?;
    let admin = Admin::new(&args.kafka)?;
    let names = Names::of(args, &database, tokio::task::block_in_place(|| admin.groups())?);
    names.write(out)?;
    let session = cassandra::open(&args.cassandra.patient()).await?;
    names.check("keyspace", &names.keyspace, recorded_in_keyspace(&session, &names.keyspace).await?)?;
    names.check("database", &names.database, recorded_in_database(&database).await?)?;
    if args.dry_run {
        writeln!(out, "Nothing was deleted (--dry-run).")?;
        return Ok(());
    }
    wait_until_idle(&admin, &names.groups).await?;
    // The groups come first: the brokers reject the deletion of a group that has members, even one that has just joined. The
    // topics come last: if this is interrupted, everything else can be rebuilt from the commands.
    admin.remove_groups(&refs(&names.groups)).await?;
    let drop_keyspace = format!("DROP KEYSPACE IF EXISTS {}", names.keyspace);
    session.query_unpaged(drop_keyspace, ()).await.context("deleting the keyspace")?;
    let mut server = database.database(MAINTENANCE_DATABASE).connect().await.context("connecting to PostgreSQL")?;
    let drop_database = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", names.database.replace('"', "\"\""));
    sqlx::query(AssertSqlSafe(drop_database)).execute(&mut server).await.context("deleting the database")?;
    let registry = Registry::new(&args.kafka)?;
    for subject in &names.subjects {
        registry.remove_subject(subject).await?;
    }
    admin.remove_topics(&refs(&names.topics)).await?;
    writeln!(out, "Deleted.")?;
    Ok(())
}

async fn wait_until_idle(admin: &Admin, groups: &[String]) -> Result<(), kafka::Error> {
    let deadline = Instant::now() + LEAVE_MAX;
    loop {
        match tokio::task::block_in_place(|| groups.iter().try_for_each(|group| admin.ensure_idle(group))) {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
    }
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_other_installations_are_left_alone() {
        let is_ours = |group| is_of_a_generation(group, "shop-");
        assert!(is_ours("shop-popular-items") && is_ours("shop-vendor-billing-jdbc-g12"));
        for other in [
            "popular-items-g2",
            "shop-2-popular-items-g2",
            "shop-popular-items-g",
            "shop-popular-items-2",
            "shop-orders-g2",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
