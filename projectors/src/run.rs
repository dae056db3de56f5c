//! Putting a projector together.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract, group};
use cart::{CartEvent, LogEpoch, PurchasedItem};
use control::{ControlTopic, Follower, MemberControl};
use kafka::{Admin, Codec, GroupConsumer, Instance, OffsetReset, Registry};
use scylla::client::session::Session;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{
    Metrics, Readiness, Shutdown, Startup, Store, probe, serve_admin, shutdown_signal, wait_for, wait_for_unless,
};
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Handle;
use trace::Tracing;

use crate::args::{Args, CassandraProjectorArgs, Cli, Command, JdbcArgs};
use crate::item_purchased_events::ItemPurchasedEvents;
use crate::log_identity::{LogNotRecorded, log_epoch};
use crate::pace::AppliedOffsets;
use crate::popular_items::PopularItems;
use crate::runner::{Projector, Runner};
use crate::setup::is_missing_database;
use crate::totals::{Table, Totals};
use crate::vendor_billing::VendorBilling;
use crate::vendor_billing_jdbc::VendorBillingJdbc;

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
        Command::PopularItems(args) => totals(args, group::POPULAR_ITEMS, PopularItems::open).await,
        Command::VendorBilling(args) => totals(args, group::VENDOR_BILLING, VendorBilling::open).await,
        Command::VendorBillingJdbc(args) => vendor_billing_jdbc(args).await,
    }
}

/// What all projectors have.
struct Base {
    /// As its group is called, without a prefix.
    name: &'static str,
    readiness: Readiness,
    startup: Startup,
    shutdown: Shutdown,
    registry: Registry,
    admin: Arc<Admin>,
    tracing: Tracing,
}

impl Base {
    /// For the projector that is consumer group `name`.
    async fn start(args: &Args, name: &'static str) -> anyhow::Result<Self> {
        args.log.init()?;
        let readiness = Readiness::default();
        let startup = args.startup.start(&readiness);
        let shutdown = shutdown_signal()?;
        let metrics = Metrics::install(name, &[crate::METRICS, kafka::METRICS, trace::METRICS], &[kafka::collect_lag])?;
        crate::metrics::start(name);
        serve_admin(&args.admin, readiness.clone(), metrics, shutdown.clone()).await?;
        let tracing = args.trace.start(name)?;
        let admin = Arc::new(Admin::new(&args.kafka)?);
        probe("Kafka", &readiness, &shutdown, admin.clone(), |admin| async move { admin.check().await });
        Ok(Self { name, readiness, startup, shutdown, registry: Registry::new(&args.kafka)?, admin, tracing })
    }

    async fn identity(&self, topic: &str) -> anyhow::Result<kafka::LogIdentity> {
        wait_for(&format!("topic {topic}"), &self.startup, async || {
            tokio::task::block_in_place(|| self.admin.identity(topic))
        })
        .await
    }

    /// Waits until `setup` has committed where `item-purchased-events` begins: before that it would be an error to join
    /// the group, and `setup` could not commit for a group that has members.
    async fn first_offsets(&self, args: &Args) -> anyhow::Result<()> {
        let group = args.kafka.prefixed(group::ITEM_PURCHASED_EVENTS);
        let [events, purchases] = [CartEvent::TOPIC, PurchasedItem::TOPIC].map(|topic| args.kafka.prefixed(topic));
        wait_for("`projectors setup`", &self.startup, async || {
            tokio::task::block_in_place(|| {
                // If there are purchases, the group has begun. Missing offsets were lost then; the consumer reports that.
                let has_begun = self.admin.watermarks(&purchases)?.iter().any(|(_, end)| *end > 0);
                if has_begun || self.admin.committed(&group, &events)?.iter().all(Option::is_some) {
                    return Ok(());
                }
                let operation = format!("reading the committed offsets of group {group} on {events}");
                Err(kafka::Error::retry(operation, "there are none yet; `setup` commits the first ones"))
            })
        })
        .await
    }

    async fn codec<T: Contract + Serialize + DeserializeOwned>(&self) -> anyhow::Result<Codec<T>> {
        let is_incompatible = |error: &kafka::Error| error.recovery() == kafka::Recovery::Fatal;
        wait_for_unless("the schema registry", &self.startup, is_incompatible, async || {
            Codec::register(&self.registry, T::TOPIC, T::SCHEMA).await
        })
        .await
    }

    /// This process in its group.
    fn instance(&self, args: &Args) -> anyhow::Result<Instance> {
        let instance = Instance::of(&args.member, args.kafka.prefixed(self.name))?;
        tokio::task::block_in_place(|| self.admin.report_namesakes(&instance));
        Ok(instance)
    }

    /// The control topic, read to its end: no record is applied before.
    async fn control(&self, args: &Args) -> anyhow::Result<Follower> {
        wait_for("the topic cart-control", &self.startup, async || {
            let topic = ControlTopic::open(&args.kafka, &self.registry, self.admin.clone()).await?;
            tokio::task::block_in_place(|| Follower::start(topic, self.shutdown.clone()))
        })
        .await
    }

    /// Joins the group and works until the shutdown.
    async fn run<P>(
        self,
        args: Args,
        projector: P,
        codec: Codec<P::Event>,
        instance: Instance,
        topic: &str,
        start_at: OffsetReset,
    ) -> anyhow::Result<()>
    where
        P: Projector + Send + 'static,
        P::Event: 'static,
    {
        let follower = self.control(&args).await?;
        // A member of the group takes its leave.
        self.shutdown.started();
        // A projector has one worker.
        let consumer = GroupConsumer::join(&args.kafka, &instance, 0, &args.kafka.prefixed(topic), start_at)?;
        let by = instance.name().to_owned();
        let control = MemberControl::new(follower, self.readiness.clone(), self.name, topic, by);
        self.startup.ready();
        let runner = Runner {
            name: self.name,
            projector,
            consumer,
            topic: topic.to_owned(),
            group: instance.group().to_owned(),
            codec,
            control,
            batch_len_max: args.batch_len_max as usize,
            runtime: Handle::current(),
            readiness: self.readiness,
            shutdown: self.shutdown,
            stopped: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name(String::from("projector"));
        let (ended, end) = tokio::sync::oneshot::channel();
        thread.spawn(move || drop(ended.send(runner.run())))?;
        let result = end.await.context("the projector panicked")?;
        drop(self.tracing);
        Ok(result?)
    }
}

async fn item_purchased_events(args: Args) -> anyhow::Result<()> {
    let base = Base::start(&args, group::ITEM_PURCHASED_EVENTS).await?;
    for topic in [CartEvent::TOPIC, PurchasedItem::TOPIC] {
        base.identity(&args.kafka.prefixed(topic)).await?;
    }
    let events = base.codec::<CartEvent>().await?;
    let purchases = base.codec::<PurchasedItem>().await?;
    let topic = args.kafka.prefixed(PurchasedItem::TOPIC);
    let instance = base.instance(&args)?;
    kafka::start_transactions(instance.group());
    let projector = tokio::task::block_in_place(|| {
        ItemPurchasedEvents::connect(&args.kafka, instance.full_name(), topic, purchases)
    })?;
    base.first_offsets(&args).await?;
    base.run(args, projector, events, instance, CartEvent::TOPIC, OffsetReset::Committed).await
}

/// A session, and the epoch of the purchases' log. Another log ends the start at once: a wait would not change it.
async fn cassandra(args: &CassandraProjectorArgs, base: &Base) -> anyhow::Result<(Arc<Session>, LogEpoch)> {
    let topic = args.args.kafka.prefixed(PurchasedItem::TOPIC);
    let identity = base.identity(&topic).await?;
    let session = wait_for("Cassandra", &base.startup, async || cassandra::connect(&args.cassandra).await).await?;
    let is_another = |error: &cassandra::LogNotRecorded| matches!(error, cassandra::LogNotRecorded::Another { .. });
    let epoch = wait_for_unless("`projectors setup`", &base.startup, is_another, async || {
        cassandra::log_epoch(&session, &topic, &identity).await
    })
    .await?;
    let session = Arc::new(session);
    probe("Cassandra", &base.readiness, &base.shutdown, session.clone(), |session| async move {
        cassandra::check(&session).await
    });
    Ok((session, epoch))
}

/// Runs a projector that keeps a table of totals in Cassandra, as consumer group `group`, until a signal. `open` prepares the
/// table, which must exist.
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
    let base = Base::start(&args.args, group).await?;
    Store::Cassandra.start(&["table_read", "table_write"]);
    let (session, epoch) = cassandra(&args, &base).await?;
    let table = open(session).await?;
    let codec = base.codec::<PurchasedItem>().await?;
    let projector = Totals::new(table, args.args.rows_max as usize, epoch, Handle::current());
    let instance = base.instance(&args.args)?;
    base.run(args.args, projector, codec, instance, PurchasedItem::TOPIC, OffsetReset::CommittedOrBeginning).await
}

async fn vendor_billing_jdbc(JdbcArgs { args, database }: JdbcArgs) -> anyhow::Result<()> {
    let base = Base::start(&args, group::VENDOR_BILLING_JDBC).await?;
    Store::Postgres.start(&["offsets_read", "transaction"]);
    let topic = args.kafka.prefixed(PurchasedItem::TOPIC);
    let identity = base.identity(&topic).await?;
    // One thread works, so one connection does; the second is for the moment in which the first is replaced.
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5));
    // An instance that is paused inside its transaction has its offsets' rows locked. When the group has given its
    // partitions away, that must not block the new owner.
    let session_timeout = [("idle_in_transaction_session_timeout", format!("{}ms", args.member.session_timeout_ms))];
    let connection = database.options()?.options(session_timeout);
    let connect = async || {
        options.clone().connect_with(connection.clone()).await.map_err(|error| {
            let is_missing = is_missing_database(&error);
            let error = anyhow::Error::new(postgres::Error::from(error));
            if is_missing {
                error.context("using the database of --database-url failed (`projectors setup` creates it)")
            } else {
                error
            }
        })
    };
    let pool = wait_for("PostgreSQL", &base.startup, connect).await?;
    let is_another = |error: &LogNotRecorded| matches!(error, LogNotRecorded::Another { .. });
    let epoch = wait_for_unless("`projectors setup`", &base.startup, is_another, async || {
        log_epoch(&pool, &topic, &identity).await
    })
    .await?;
    let codec = base.codec::<PurchasedItem>().await?;
    probe("PostgreSQL", &base.readiness, &base.shutdown, (pool.clone(), database), |(pool, database)| async move {
        let answer = sqlx::query("SELECT 1").execute(&pool).await;
        if answer.is_err() {
            database.renew_password(&pool)?;
        }
        answer.map(|_| ()).map_err(postgres::Error::from)
    });
    let projector = VendorBillingJdbc {
        pool,
        topic,
        epoch,
        runtime: Handle::current(),
        started_from: HashMap::new(),
        offsets: AppliedOffsets::new(),
    };
    let instance = base.instance(&args)?;
    base.run(args, projector, codec, instance, PurchasedItem::TOPIC, OffsetReset::CommittedOrBeginning).await
}
