//! Putting a projector together.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use cart::contract::{Contract as _, READ_MODELS, ReadModel, ReadTable, group};
use cart::{CartEvent, Generation, LogEpoch, PurchasedItem};
use cassandra::CassandraArgs;
use cassandra::parked_rows::ParkedRows;
use kafka::{Codec, OffsetReset};
use postgres::DatabaseArgs;
use scylla::client::session::Session;
use service::{Store, probe, wait_for, wait_for_unless};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Handle;

use crate::args::{Args, CassandraModelArgs, CassandraProjectorArgs, Cli, Command, JdbcArgs};
use crate::balance::Month;
use crate::base::Base;
use crate::item_purchased_events::ItemPurchasedEvents;
use crate::log_identity::{LogNotRecorded, log_epoch};
use crate::pace::AppliedOffsets;
use crate::parking::{LogReader, Lots, Retries, ensure_same_partitions};
use crate::popular_items::PopularItems;
use crate::setup::is_missing_database;
use crate::totals::{Table, Totals};
use crate::vendor_billing::VendorBilling;
use crate::vendor_billing_jdbc::VendorBillingJdbc;
use crate::write_base::WriteBase;

/// The program. Runs one projector until a signal, or sets up and ends. What ended it early is on standard error.
// The runtime is started here and not in `main.rs`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(cli: Cli) -> ExitCode {
    service::exit_code("projectors", run_command(cli).await)
}

async fn run_command(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Setup(args) => {
            args.log.init()?;
            crate::setup::setup(&args).await
        }
        Command::ItemPurchasedEvents(args) => item_purchased_events(args).await,
        Command::PopularItems(args) => cassandra_model(args, group::POPULAR_ITEMS).await,
        Command::VendorBilling(args) => cassandra_model(args, group::VENDOR_BILLING).await,
        Command::VendorBillingJdbc(JdbcArgs { args, database, generation }) => {
            let (model, generation) = (read_model(group::VENDOR_BILLING_JDBC)?, generation.generation);
            let base = Base::start(&args, model.group, model.group_name(generation)).await?;
            keep_in_postgres(base, &database, model, generation).await
        }
    }
}

fn read_model(group: &str) -> anyhow::Result<ReadModel> {
    READ_MODELS.into_iter().find(|model| model.group == group).with_context(|| format!("{group} is not a read model"))
}

async fn cassandra_model(args: CassandraModelArgs, group: &str) -> anyhow::Result<()> {
    let CassandraModelArgs { projector: CassandraProjectorArgs { args, cassandra }, generation } = args;
    let (model, generation) = (read_model(group)?, generation.generation);
    let base = Base::start(&args, model.group, model.group_name(generation)).await?;
    keep_in_cassandra(base, &cassandra, model, generation).await
}

async fn item_purchased_events(args: Args) -> anyhow::Result<()> {
    let name = group::ITEM_PURCHASED_EVENTS;
    let base = Base::start(&args, name, name.to_owned()).await?;
    for topic in [CartEvent::TOPIC, PurchasedItem::TOPIC] {
        base.identity(&args.kafka.prefixed(topic)).await?;
    }
    let events = base.codec::<CartEvent>().await?;
    let purchases = base.codec::<PurchasedItem>().await?;
    let topic = args.kafka.prefixed(PurchasedItem::TOPIC);
    let instance = base.instance()?;
    kafka::start_transactions(instance.group());
    let projector = tokio::task::block_in_place(|| {
        ItemPurchasedEvents::connect(&args.kafka, instance.full_name(), topic, purchases)
    })?;
    base.first_offsets().await?;
    base.run(projector, events, instance, CartEvent::TOPIC, OffsetReset::Committed).await
}

/// A session, and the epoch and the partitions of the purchases' log. Another log ends the start at once: a wait would not change it.
async fn cassandra(args: &CassandraArgs, base: &Base) -> anyhow::Result<(Arc<Session>, LogEpoch, i32)> {
    let topic = base.settings.kafka.prefixed(PurchasedItem::TOPIC);
    let identity = base.identity(&topic).await?;
    let session = wait_for("Cassandra", &base.startup, async || cassandra::connect(args).await).await?;
    let is_another = |error: &cassandra::LogNotRecorded| matches!(error, cassandra::LogNotRecorded::Another { .. });
    let epoch = wait_for_unless("`projectors setup`", &base.startup, is_another, async || {
        cassandra::log_epoch(&session, &topic, &identity).await
    })
    .await?;
    let session = Arc::new(session);
    probe("Cassandra", &base.readiness, &base.shutdown, session.clone(), |session| async move {
        cassandra::check(&session).await
    });
    Ok((session, epoch, identity.partitions))
}

/// Runs a projector that keeps a table of totals in Cassandra, as consumer group `group`, until a signal. `open` prepares the
/// table, which must exist, with that of its parked rows (`cassandra::parked_rows::create`).
///
/// # Errors
/// What ended it early.
pub async fn totals<T, F>(
    args: CassandraProjectorArgs,
    group: &'static str,
    open: impl FnOnce(Arc<Session>) -> F,
) -> anyhow::Result<()>
where
    T: Table + Send + Sync + 'static,
    T::Within: Send,
    T::Total: Send,
    F: Future<Output = Result<T, cassandra::Error>>,
{
    let base = Base::start(&args.args, group, group.to_owned()).await?;
    keep_totals(base, &args.cassandra, open).await
}

async fn keep_totals<T, E, F>(
    base: Base,
    cassandra: &CassandraArgs,
    open: impl FnOnce(Arc<Session>) -> F,
) -> anyhow::Result<()>
where
    T: Table + Send + Sync + 'static,
    T::Within: Send,
    T::Total: Send,
    E: Into<anyhow::Error>,
    F: Future<Output = Result<T, E>>,
{
    Store::Cassandra.start(&["table_read", "table_write", "parked_read", "parked_write"]);
    let (session, epoch, partitions) = self::cassandra(cassandra, &base).await?;
    let table = open(session.clone()).await.map_err(Into::into)?;
    let parked = wait_for("Cassandra", &base.startup, async || {
        cassandra::parked_rows::list(&session, table.name(), &base.group).await
    });
    ensure_same_partitions(&parked.await?, epoch, partitions)?;
    let markers = ParkedRows::open(session, table.name(), &base.group).await.with_context(|| {
        format!("keeping the parked rows of {} (`projectors setup` creates their tables)", table.name())
    })?;
    let codec = base.codec::<PurchasedItem>().await?;
    let row_key = |purchase: &PurchasedItem| T::within(purchase).to_string();
    let retries = Retries::new(log_reader(&base, codec.clone(), row_key));
    let parking = (Lots::new(&base.group, epoch, row_key), markers, retries);
    let table = (table, base.settings.rows_max as usize);
    let projector = Totals::new(table, epoch, parking, Handle::current());
    let instance = base.instance()?;
    base.run(projector, codec, instance, PurchasedItem::TOPIC, OffsetReset::CommittedOrBeginning).await
}

fn log_reader(base: &Base, codec: Codec<PurchasedItem>, row_key: fn(&PurchasedItem) -> String) -> LogReader {
    let kafka = base.settings.kafka.clone();
    let topic = kafka.prefixed(PurchasedItem::TOPIC);
    LogReader { kafka, topic, codec, runtime: Handle::current(), row_key }
}

/// Keeps a generation of a read model in Cassandra until the shutdown. Its table must exist.
pub(crate) async fn keep_in_cassandra(
    base: Base,
    cassandra: &CassandraArgs,
    model: ReadModel,
    generation: Generation,
) -> anyhow::Result<()> {
    let table = model.table_name(generation);
    let keeping = || keeping(model, generation);
    let write_base = |session: &Arc<Session>| WriteBase::new(session.clone(), model, generation);
    match model.table {
        ReadTable::ItemQuantityByDay => {
            let open = |session| async {
                let base = write_base(&session);
                PopularItems::open(session, table, base).await.with_context(keeping)
            };
            keep_totals(base, cassandra, open).await
        }
        ReadTable::BalanceByVendor => {
            let open = |session| async {
                let base = write_base(&session);
                VendorBilling::open(session, table, base).await.with_context(keeping)
            };
            keep_totals(base, cassandra, open).await
        }
        ReadTable::VendorBilling => Err(anyhow!("{model} is not in Cassandra")),
    }
}

fn keeping(model: ReadModel, generation: Generation) -> String {
    let creator = if generation == Generation::FIRST { "projectors setup" } else { "cartctl rebuild" };
    format!("keeping table {} (`{creator}` creates it)", model.table_name(generation))
}

/// As [`keep_in_cassandra`], in PostgreSQL.
pub(crate) async fn keep_in_postgres(
    base: Base,
    database: &DatabaseArgs,
    model: ReadModel,
    generation: Generation,
) -> anyhow::Result<()> {
    Store::Postgres.start(&["offsets_read", "parked_read", "transaction"]);
    let topic = base.settings.kafka.prefixed(PurchasedItem::TOPIC);
    let identity = base.identity(&topic).await?;
    let pool = pool(&base, database).await?;
    let is_another = |error: &LogNotRecorded| matches!(error, LogNotRecorded::Another { .. });
    let epoch = wait_for_unless("`projectors setup`", &base.startup, is_another, async || {
        log_epoch(&pool, &topic, &identity).await
    })
    .await?;
    let table = model.table_name(generation);
    wait_for(&format!("table {table}"), &base.startup, async || {
        let exists: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&table).fetch_one(&pool).await?;
        if exists { Ok(()) } else { Err(anyhow!("there is none").context(keeping(model, generation))) }
    })
    .await?;
    let projection = model.group_name(generation);
    let parked = wait_for("PostgreSQL", &base.startup, async || {
        let mut connection = pool.acquire().await?;
        postgres::parked_rows::list(&mut connection, &projection, &topic).await
    });
    ensure_same_partitions(&parked.await?, epoch, identity.partitions)?;
    let codec = base.codec::<PurchasedItem>().await?;
    let server = (pool.clone(), database.clone());
    probe("PostgreSQL", &base.readiness, &base.shutdown, server, |(pool, database)| async move {
        let answer = sqlx::query("SELECT 1").execute(&pool).await;
        if answer.is_err() {
            database.renew_password(&pool)?;
        }
        answer.map(|_| ()).map_err(postgres::Error::from)
    });
    let row_key = |purchase: &PurchasedItem| Month::of(purchase).to_string();
    let projector = VendorBillingJdbc {
        pool,
        topic,
        table,
        projection,
        epoch,
        runtime: Handle::current(),
        started_from: HashMap::new(),
        offsets: AppliedOffsets::new(),
        lots: Lots::new(&base.group, epoch, row_key),
        retries: Retries::new(log_reader(&base, codec.clone(), row_key)),
    };
    let instance = base.instance()?;
    base.run(projector, codec, instance, PurchasedItem::TOPIC, OffsetReset::CommittedOrBeginning).await
}

async fn pool(base: &Base, database: &DatabaseArgs) -> anyhow::Result<PgPool> {
    // One thread works, so one connection does; the second is for the moment in which the first is replaced.
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5));
    // An instance that is paused inside its transaction has its offsets' rows locked. When the group has given its
    // partitions away, that must not block the new owner.
    let timeout = format!("{}ms", base.settings.member.session_timeout_ms);
    // Without the second, PostgreSQL takes it for a projector of an earlier version (migrations/0003_parked_rows.sql).
    let settings = [("idle_in_transaction_session_timeout", timeout), ("cart.knows_parked_rows", String::from("on"))];
    let connection = database.options()?.options(settings);
    wait_for("PostgreSQL", &base.startup, async || {
        options.clone().connect_with(connection.clone()).await.map_err(|error| {
            let is_missing = is_missing_database(&error);
            let error = anyhow::Error::new(postgres::Error::from(error));
            if is_missing {
                error.context("using the database of --database-url failed (`projectors setup` creates it)")
            } else {
                error
            }
        })
    })
    .await
}
