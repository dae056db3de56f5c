//! Making what the projectors need, where it is not there yet.

use anyhow::{Context as _, ensure};
use cart::contract::{CONTROL_PARTITIONS, Contract, READ_MODELS, ReadModel, ReadTable, Store, group};
use cart::{CartEvent, ControlRecord, Generation, LogEpoch, PurchasedItem};
use cassandra::parked_rows;
use kafka::{Admin, Codec, LogIdentity, Registry};
use scylla::client::session::Session;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgPool, SqlStr};

use crate::args::SetupArgs;
use crate::log_identity::log_epoch;
use crate::{popular_items, vendor_billing};

/// PostgreSQL's code for a database that is not there.
const INVALID_CATALOG_NAME: &str = "3D000";

/// PostgreSQL's code for a lock that was not free within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What makes the tables in PostgreSQL, oldest first. What has been released is never changed: the database remembers its
/// checksum.
fn migrations() -> Migrator {
    let migration = |version, description: &'static str, sql| {
        Migration::new(version, description.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    let mut migrator = Migrator::with_migrations(vec![
        migration(1, "vendor billing", include_str!("../migrations/0001_vendor_billing.sql")),
        migration(2, "generations", include_str!("../migrations/0002_generations.sql")),
        migration(3, "parked rows", include_str!("../migrations/0003_parked_rows.sql")),
    ]);
    // After a rollback the database has migrations of the newer version.
    migrator.set_ignore_missing(true);
    migrator
}

/// Makes the tables in PostgreSQL, or brings them up to date.
///
/// # Errors
/// If PostgreSQL does not respond, or refuses; also if a migration was changed after it was applied.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    migrations().run(pool).await
}

/// In what way the tables in PostgreSQL are not those that [`migrate`] makes, one sentence each; changes nothing.
///
/// # Errors
/// If PostgreSQL does not respond, or the table of the migrations cannot be read, as before the first `setup`.
pub async fn migrations_to_do(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let applied: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(pool)
            .await?;
    let migrations = migrations();
    let mut problems = Vec::new();
    for migration in migrations.iter() {
        let Migration { version, description, checksum, .. } = migration;
        match applied.iter().find(|(applied, ..)| applied == version) {
            None => problems.push(format!("migration {version} ({description}) is not applied")),
            Some((.., false)) => problems.push(format!("migration {version} ({description}) has failed half-way")),
            Some((_, found, true)) if found.as_slice() != &**checksum => {
                problems.push(format!("migration {version} ({description}) is another one than this program's"));
            }
            Some(_) => {}
        }
    }
    let newer = applied.iter().filter(|(version, ..)| !migrations.version_exists(*version));
    problems.extend(newer.map(|(version, ..)| format!("migration {version} is of a newer version of this program")));
    Ok(problems)
}

/// Creates the table of a generation in Cassandra, and that of its parked rows, where they are not there yet. Does nothing for a read
/// model in PostgreSQL.
pub(crate) async fn create_in_cassandra(
    session: &Session,
    model: ReadModel,
    generation: Generation,
) -> anyhow::Result<()> {
    let table = model.table_name(generation);
    let create = match model.table {
        ReadTable::ItemQuantityByDay => popular_items::create(&table),
        ReadTable::BalanceByVendor => vendor_billing::create(&table),
        ReadTable::VendorBilling => return Ok(()),
    };
    // A generation is what has a table: that one comes last.
    for create in [parked_rows::create(&table), create] {
        session.query_unpaged(create, ()).await.with_context(|| format!("creating {table} in Cassandra"))?;
    }
    Ok(())
}

/// Idempotent: a second time changes nothing.
pub(crate) async fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let SetupArgs { kafka, topics, cassandra, keyspace, .. } = args;
    let admin = Admin::new(kafka)?;
    let (events, purchases) = (kafka.prefixed(CartEvent::TOPIC), kafka.prefixed(PurchasedItem::TOPIC));
    admin
        .ensure_topics(&[
            topics.spec(events.clone(), CartEvent::SETTINGS),
            topics.spec(purchases.clone(), PurchasedItem::SETTINGS),
            topics.spec_of(kafka.prefixed(ControlRecord::TOPIC), CONTROL_PARTITIONS, ControlRecord::SETTINGS),
        ])
        .await?;
    let registry = Registry::new(kafka)?;
    Codec::<ControlRecord>::register(&registry, ControlRecord::TOPIC, ControlRecord::SCHEMA).await?;
    Codec::<CartEvent>::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    Codec::<PurchasedItem>::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
    let identity = tokio::task::block_in_place(|| admin.identity(&purchases))?;
    cassandra::ensure_keyspace(cassandra, keyspace).await?;
    let session = cassandra::connect(&cassandra.patient()).await?;
    cassandra::read_models::create_table(&session).await?;
    parked_rows::create_retries(&session).await?;
    for model in READ_MODELS.into_iter().filter(|model| model.store == Store::Cassandra) {
        let active = cassandra::read_models::active(&session, model).await?;
        create_in_cassandra(&session, model, active).await?;
        // Those that an earlier version has made have no table of parked rows.
        for generation in cassandra::read_models::generations(&session, model).await? {
            create_in_cassandra(&session, model, generation).await?;
        }
    }
    if args.accept_new_log {
        cassandra::accept_new_log(&session, &purchases, &identity).await?;
    } else {
        cassandra::ensure_log(&session, &purchases, &identity).await?;
    }
    set_up_database(args, &purchases, &identity).await?;
    let group = kafka.prefixed(group::ITEM_PURCHASED_EVENTS);
    tokio::task::block_in_place(|| admin.ensure_start(&group, &events, &purchases))
        .context("setting up the group (if its offsets were lost, run `cartctl resume-purchases`)")?;
    tracing::info!(partitions = identity.partitions, "the projectors are set up");
    Ok(())
}

async fn set_up_database(args: &SetupArgs, topic: &str, found: &LogIdentity) -> anyhow::Result<()> {
    ensure_database(&args.database.options()?).await?;
    let pool = args.database.connect().await?;
    if let Err(error) = migrate(&pool).await {
        let is_locked = is_lock_timeout(&error);
        let error = anyhow::Error::new(error).context("creating the tables in PostgreSQL");
        return Err(if is_locked {
            error.context(
                "a query on vendor_billing, or a transaction that changes projection_offset, holds a lock: end what takes long, then run \
                 setup again",
            )
        } else {
            error
        });
    }
    sqlx::query("INSERT INTO log_epoch (topic, epoch, cluster_id, topic_id, partitions) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
        .bind(topic)
        .bind(LogEpoch::FIRST.get())
        .bind(&found.cluster_id)
        .bind(&found.topic_id)
        .bind(found.partitions)
        .execute(&pool)
        .await?;
    if args.accept_new_log {
        sqlx::query(
            "UPDATE log_epoch SET epoch = epoch + 1, cluster_id = $2, topic_id = $3, partitions = $4 \
             WHERE topic = $1 AND (cluster_id, topic_id, partitions) <> ($2, $3, $4)",
        )
        .bind(topic)
        .bind(&found.cluster_id)
        .bind(&found.topic_id)
        .bind(found.partitions)
        .execute(&pool)
        .await?;
    }
    log_epoch(&pool, topic, found).await?;
    Ok(())
}

fn is_lock_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<sqlx::Error>()?.as_database_error()?.code())
        .any(|code| code == LOCK_NOT_AVAILABLE)
}

/// Whether PostgreSQL says that there is no such database.
pub(crate) fn is_missing_database(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some(INVALID_CATALOG_NAME)
}

async fn ensure_database(options: &PgConnectOptions) -> anyhow::Result<()> {
    let name = options.get_database().unwrap_or("cart").to_owned();
    match options.connect().await {
        Ok(connection) => return Ok(connection.close().await?),
        Err(error) if is_missing_database(&error) => {}
        Err(error) => {
            return Err(postgres::Error::from(error)).with_context(|| format!("using the PostgreSQL database {name}"));
        }
    }
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    ensure!(plain, "the database {name} does not exist, and cannot be created with this name: use a-z, 0-9 and _");
    let mut connection = options.clone().database("postgres").connect().await.map_err(postgres::Error::from)?;
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(statement).execute(&mut connection).await.with_context(|| format!("creating the database {name}"))?;
    Ok(())
}
