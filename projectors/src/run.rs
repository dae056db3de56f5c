//! Putting a projector together.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::Contract;
use cart::{CartEvent, LogEpoch, PurchasedItem};
use kafka::{Admin, Codec, GroupConsumer, Instance, Registry, StartAt};
use scylla::client::session::Session;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Metrics, Readiness, Shutdown, probe, serve_admin, shutdown_signal, wait_for};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::runtime::Handle;

use crate::args::{Args, CassandraProjectorArgs, Cli, Command, JdbcArgs};
use crate::item_purchased_events::ItemPurchasedEvents;
use crate::popular_items::PopularItems;
use crate::runner::{Projector, Runner};
use crate::setup::{LogNotRecorded, is_missing_database, log_epoch};
use crate::totals::{Table, Totals};
use crate::vendor_billing::VendorBilling;
use crate::vendor_billing_jdbc::{self, VendorBillingJdbc};

// The consumer groups, without the installation's prefix.
pub(crate) const ITEM_PURCHASED_EVENTS: &str = "item-purchased-events";
pub(crate) const POPULAR_ITEMS: &str = "popular-items";
pub(crate) const VENDOR_BILLING: &str = "vendor-billing";

/// All of them: they are at 0 from the start.
const COUNTERS: [&str; 2] = ["projector_records_total", "projector_recoveries_total"];

/// The program. Runs one projector until a signal, or sets up or recovers and ends. What ended it early is on standard error.
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
        Command::Rebuild(args) => {
            args.log.init()?;
            crate::recovery::rebuild(&args).await
        }
        Command::ResumePurchases(args) => {
            args.log.init()?;
            crate::recovery::resume_purchases(&args).await
        }
        Command::ItemPurchasedEvents(args) => item_purchased_events(args).await,
        Command::PopularItems(args) => {
            let base = Base::start(&args.args).await?;
            let (session, epoch) = cassandra(&args, &base).await?;
            let table = PopularItems::open(session).await?;
            totals(table, args, base, epoch, POPULAR_ITEMS).await
        }
        Command::VendorBilling(args) => {
            let base = Base::start(&args.args).await?;
            let (session, epoch) = cassandra(&args, &base).await?;
            let table = VendorBilling::open(session).await?;
            totals(table, args, base, epoch, VENDOR_BILLING).await
        }
        Command::VendorBillingJdbc(args) => vendor_billing_jdbc(args).await,
    }
}

/// What all projectors have.
struct Base {
    readiness: Readiness,
    shutdown: Shutdown,
    registry: Registry,
    admin: Arc<Admin>,
}

impl Base {
    async fn start(args: &Args) -> anyhow::Result<Self> {
        args.log.init()?;
        let readiness = Readiness::default();
        readiness.down("start", "connecting");
        let shutdown = shutdown_signal()?;
        serve_admin(&args.admin, readiness.clone(), Metrics::install(&COUNTERS)?, shutdown.clone()).await?;
        let admin = Arc::new(Admin::new(&args.kafka)?);
        probe("Kafka", &readiness, &shutdown, admin.clone(), |admin| async move { admin.check().await });
        Ok(Self { readiness, shutdown, registry: Registry::new(&args.kafka)?, admin })
    }

    async fn identity(&self, args: &Args, topic: &str) -> anyhow::Result<kafka::LogIdentity> {
        wait_for(&format!("topic {topic}"), args.startup.timeout(), async || {
            tokio::task::block_in_place(|| self.admin.identity(topic))
        })
        .await
    }

    /// Waits until `setup` has committed where `item-purchased-events` begins: before that it would be an error to join
    /// the group, and `setup` could not commit for a group that has members.
    async fn first_offsets(&self, args: &Args) -> anyhow::Result<()> {
        let group = args.kafka.prefixed(ITEM_PURCHASED_EVENTS);
        let [events, purchases] = [CartEvent::TOPIC, PurchasedItem::TOPIC].map(|topic| args.kafka.prefixed(topic));
        wait_for("`projectors setup`", args.startup.timeout(), async || {
            tokio::task::block_in_place(|| {
                // Where there are purchases it has begun. If its offsets are missing nevertheless they were lost, which
                // no waiting mends: the consumer says so.
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

    async fn codec<T: Contract + Serialize + DeserializeOwned>(&self, args: &Args) -> anyhow::Result<Codec<T>> {
        wait_for("the schema registry", args.startup.timeout(), async || {
            match Codec::register(&self.registry, T::TOPIC, T::SCHEMA).await {
                // A schema that does not fit will not fit later.
                Err(error) if error.recovery() == kafka::Recovery::Fatal => Ok(Err(error)),
                other => other.map(Ok),
            }
        })
        .await?
        .context("refusing to start")
    }

    /// This process in its group.
    fn instance(&self, args: &Args, group: &str) -> anyhow::Result<Instance> {
        let instance = Instance::of(&args.member, args.kafka.prefixed(group))?;
        tokio::task::block_in_place(|| self.admin.report_namesakes(&instance));
        Ok(instance)
    }

    /// Joins the group and works until the shutdown.
    async fn run<P>(
        self,
        args: Args,
        projector: P,
        codec: Codec<P::Event>,
        instance: Instance,
        topic: &str,
        start_at: StartAt,
    ) -> anyhow::Result<()>
    where
        P: Projector + Send + 'static,
        P::Event: 'static,
    {
        // A member of the group takes its leave.
        self.shutdown.started();
        // A projector has one worker.
        let consumer = GroupConsumer::join(&args.kafka, &instance, 0, &args.kafka.prefixed(topic), start_at)?;
        self.readiness.up("start");
        let runner = Runner {
            projector,
            consumer,
            codec,
            skip: args.skip,
            batch_len_max: args.batch_len_max as usize,
            runtime: Handle::current(),
            readiness: self.readiness,
            shutdown: self.shutdown,
            stopped: HashSet::new(),
        };
        let thread = std::thread::Builder::new().name(String::from("projector"));
        let (ended, end) = tokio::sync::oneshot::channel();
        thread.spawn(move || drop(ended.send(runner.run())))?;
        Ok(end.await.context("the projector panicked")??)
    }
}

async fn item_purchased_events(args: Args) -> anyhow::Result<()> {
    let base = Base::start(&args).await?;
    for topic in [CartEvent::TOPIC, PurchasedItem::TOPIC] {
        base.identity(&args, &args.kafka.prefixed(topic)).await?;
    }
    let events = base.codec::<CartEvent>(&args).await?;
    let purchases = base.codec::<PurchasedItem>(&args).await?;
    let topic = args.kafka.prefixed(PurchasedItem::TOPIC);
    let instance = base.instance(&args, ITEM_PURCHASED_EVENTS)?;
    let projector = tokio::task::block_in_place(|| {
        ItemPurchasedEvents::connect(&args.kafka, instance.full_name(), topic, purchases)
    })?;
    base.first_offsets(&args).await?;
    base.run(args, projector, events, instance, CartEvent::TOPIC, StartAt::Committed).await
}

/// A session, and the epoch of the purchases' log: that is checked once, since no waiting mends another log.
async fn cassandra(args: &CassandraProjectorArgs, base: &Base) -> anyhow::Result<(Arc<Session>, LogEpoch)> {
    let topic = args.args.kafka.prefixed(PurchasedItem::TOPIC);
    let timeout = args.args.startup.timeout();
    let identity = base.identity(&args.args, &topic).await?;
    let session = wait_for("Cassandra", timeout, async || cassandra::connect(&args.cassandra).await).await?;
    let epoch = wait_for("`projectors setup`", timeout, async || {
        match cassandra::log_epoch(&session, &topic, &identity).await {
            Err(another @ cassandra::LogNotRecorded::Another { .. }) => Ok(Err(another)),
            other => other.map(Ok),
        }
    })
    .await?
    .context("refusing to start")?;
    let session = Arc::new(session);
    probe("Cassandra", &base.readiness, &base.shutdown, session.clone(), |session| async move {
        cassandra::check(&session).await
    });
    Ok((session, epoch))
}

async fn totals<T>(
    table: T,
    args: CassandraProjectorArgs,
    base: Base,
    epoch: LogEpoch,
    group: &str,
) -> anyhow::Result<()>
where
    T: Table + Send + Sync + 'static,
    T::Key: Send,
    T::Total: Send,
{
    let codec = base.codec::<PurchasedItem>(&args.args).await?;
    let projector = Totals::new(table, args.args.rows_max as usize, epoch, Handle::current());
    let instance = base.instance(&args.args, group)?;
    base.run(args.args, projector, codec, instance, PurchasedItem::TOPIC, StartAt::CommittedOrBeginning).await
}

async fn vendor_billing_jdbc(JdbcArgs { args, database }: JdbcArgs) -> anyhow::Result<()> {
    let base = Base::start(&args).await?;
    let timeout = args.startup.timeout();
    let topic = args.kafka.prefixed(PurchasedItem::TOPIC);
    let identity = base.identity(&args, &topic).await?;
    // One thread works, so one connection does; the second is for the moment in which the first is replaced.
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5));
    let database: PgConnectOptions = database.database_url.parse().context("reading --database-url")?;
    // An instance that is paused inside its transaction has its offsets' rows locked. When the group has given its
    // partitions away, that must not stop whoever has them now.
    let database =
        database.options([("idle_in_transaction_session_timeout", format!("{}ms", args.member.session_timeout_ms))]);
    let connect = async || {
        options.clone().connect_with(database.clone()).await.map_err(|error| {
            let is_missing = is_missing_database(&error);
            let error = anyhow::Error::new(error);
            if is_missing {
                error.context("using the database of --database-url failed (`projectors setup` creates it)")
            } else {
                error
            }
        })
    };
    let pool = wait_for("PostgreSQL", timeout, connect).await?;
    let epoch = wait_for("`projectors setup`", timeout, async || match log_epoch(&pool, &topic, &identity).await {
        Err(another @ LogNotRecorded::Another { .. }) => Ok(Err(another)),
        other => other.map(Ok),
    })
    .await?
    .context("refusing to start")?;
    let codec = base.codec::<PurchasedItem>(&args).await?;
    probe("PostgreSQL", &base.readiness, &base.shutdown, pool.clone(), |pool| async move {
        sqlx::query("SELECT 1").execute(&pool).await.map(|_| ())
    });
    let projector = VendorBillingJdbc { pool, topic, epoch, runtime: Handle::current(), started_from: HashMap::new() };
    let instance = base.instance(&args, vendor_billing_jdbc::NAME)?;
    base.run(args, projector, codec, instance, PurchasedItem::TOPIC, StartAt::CommittedOrBeginning).await
}
