//! The end state of a small pipeline, made by hand: topics, offsets and tables.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, READ_MODELS, ReadModel, ReadTable, STAGES, Stage, Store};
use cart::{
    CartCommand, CartEvent, CartParked, ControlRecord, EventId, Item, PurchasedItem, SequenceNumber, SessionId,
};
use cartctl::reconcile::Args;
use cartctl::{cart_id, product_id, vendor_id};
use cassandra::KeyspaceArgs;
use chrono::{DateTime, Utc};
use clap::Parser as _;
use e2e::harness::{Installation, wait_until};
use kafka::{
    Admin, AssignmentEvent, Codec, GroupConsumer, Instance, OffsetReset, Producer, Record, Registry, TopicSpec,
    TransactionalProducer,
};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use sqlx::{AssertSqlSafe, PgPool};

const PARTITIONS: i32 = 2;
const DEADLINE: Duration = Duration::from_secs(180);
const TRANSACTIONAL_ID: &str = "reconcile-test";

const OFFSETS: &str = "CREATE TABLE projection_offset (projection text, topic text, partition int, log_epoch int, next_offset bigint, \
     PRIMARY KEY (projection, topic, partition, log_epoch))";

fn create(table: ReadTable) -> &'static str {
    match table {
        ReadTable::ItemQuantityByDay => {
            "CREATE TABLE item_quantity_by_day (vendorid uuid, productid uuid, year int, month int, day int, \
             quantity bigint, name text, position bigint, PRIMARY KEY ((vendorid, productid, year, month), day)) \
             WITH CLUSTERING ORDER BY (day ASC)"
        }
        ReadTable::BalanceByVendor => {
            "CREATE TABLE balance_by_vendor (vendorid uuid, year int, month int, balance decimal, position bigint, \
             PRIMARY KEY ((vendorid, year), month)) WITH CLUSTERING ORDER BY (month DESC)"
        }
        ReadTable::VendorBilling => {
            "CREATE TABLE vendor_billing (vendor_id uuid, year int, month int, balance numeric, \
             PRIMARY KEY (vendor_id, year, month))"
        }
    }
}

/// The settings from the environment.
#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A line of a checkout on 31 January 2026.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sale {
    pub(crate) member: &'static str,
    pub(crate) vendor: &'static str,
    pub(crate) product: &'static str,
    pub(crate) name: &'static str,
    pub(crate) price: &'static str,
    pub(crate) quantity: i32,
}

impl Sale {
    /// The event number distinguishes the sales of a member; here each has another product.
    fn purchase(&self) -> anyhow::Result<PurchasedItem> {
        let cart_id = cart_id(self.member).into();
        let number = SequenceNumber::from(i64::from(self.product.as_bytes()[1]));
        let item = Item {
            product_id: product_id(self.product).into(),
            vendor_id: vendor_id(self.vendor).into(),
            name: self.name.to_owned().try_into()?,
            price: self.price.parse()?,
            quantity: self.quantity.try_into()?,
        };
        let Item { product_id, vendor_id, name, price, quantity } = item;
        let event_id = EventId::of(cart_id, number);
        let session_id = SessionId::of(cart_id, 0);
        let purchased_at: DateTime<Utc> = "2026-01-31T10:00:04Z".parse()?;
        Ok(PurchasedItem { event_id, cart_id, session_id, vendor_id, product_id, name, price, quantity, purchased_at })
    }
}

/// An installation whose services have all just finished.
pub(crate) struct EndState {
    installation: Installation,
    session: Session,
    database: PgPool,
    codec: Codec<PurchasedItem>,
}

impl EndState {
    /// Topics and tables, which are empty except for a command and an event that can't be decoded.
    pub(crate) async fn make(installation: Installation) -> anyhow::Result<Self> {
        installation.create_database().await?;
        let database = PgPool::connect(installation.database_url()).await?;
        sqlx::query(OFFSETS).execute(&database).await?;
        cassandra::ensure_keyspace(installation.cassandra(), &KeyspaceArgs { cassandra_replication: 1 }).await?;
        let session = cassandra::connect(&installation.cassandra().patient()).await?;
        let kafka = installation.kafka();
        let topics =
            [CartCommand::TOPIC, CartEvent::TOPIC, PurchasedItem::TOPIC, CartParked::TOPIC, ControlRecord::TOPIC];
        let spec =
            |topic| TopicSpec { name: kafka.prefixed(topic), partitions: PARTITIONS, replication: 1, config: &[] };
        Admin::new(kafka)?.ensure_topics(&topics.map(spec)).await?;
        for topic in [CartCommand::TOPIC, CartEvent::TOPIC] {
            let producer = Producer::durable(kafka, &kafka.prefixed(topic))?;
            drop(producer.send(&Record { partition: Some(0), key: None, value: Some(vec![1]), headers: None })?);
            producer.flush(DEADLINE)?;
        }
        let codec = Codec::register(&Registry::new(kafka)?, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
        let state = Self { installation, session, database, codec };
        for model in READ_MODELS {
            state.execute(model.store, create(model.table)).await?;
        }
        Ok(state)
    }

    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        drop(self.session);
        self.database.close().await;
        self.installation.remove().await
    }

    pub(crate) fn folder(&self) -> &PathBuf {
        self.installation.folder()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn write_file(&self, name: &str, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.file(name), text).with_context(|| format!("writing {name}"))
    }

    /// The arguments of `reconcile` for this installation, without expected totals. No wait is long, since no service runs.
    pub(crate) fn args(&self) -> Args {
        Args {
            kafka: self.installation.kafka().clone(),
            cassandra: self.installation.cassandra().clone(),
            database: self.installation.database(),
            timeout_s: 20,
            ..Cli::parse_from(["reconcile"]).args
        }
    }

    /// Runs the binary. Returns its exit code, and its output.
    pub(crate) async fn reconcile(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut process = self.installation.spawn("reconcile", "cartctl", ["reconcile"].iter().chain(args))?;
        let before = process.log().len();
        let status = process.ended(DEADLINE).await?;
        let log = process.log();
        // It may have ended already.
        let output = log.get(before..).filter(|output| !output.is_empty()).unwrap_or(&log);
        Ok((status.code(), output.to_owned()))
    }

    fn record(&self, sale: &Sale) -> anyhow::Result<Record> {
        let purchase = sale.purchase()?;
        let key = purchase.vendor_id.to_string().into_bytes();
        Ok(Record { partition: None, key: Some(key), value: Some(self.codec.encode(&purchase)?), headers: None })
    }

    fn topic(&self) -> String {
        self.installation.kafka().prefixed(PurchasedItem::TOPIC)
    }

    pub(crate) fn publish(&self, sales: &[Sale]) -> anyhow::Result<()> {
        let producer = Producer::durable(self.installation.kafka(), &self.topic())?;
        for sale in sales {
            drop(producer.send(&self.record(sale)?)?);
        }
        Ok(producer.flush(DEADLINE)?)
    }

    /// Returns when the record is delivered.
    pub(crate) async fn publish_in_open_transaction(&self, sale: &Sale) -> anyhow::Result<TransactionalProducer> {
        let (kafka, topic) = (self.installation.kafka(), self.topic());
        let admin = Arc::new(Admin::new(kafka)?);
        ensure!(!admin.has_open_transaction(&topic)?, "a transaction is open before the first");
        let mut producer = TransactionalProducer::connect(kafka, &kafka.prefixed(TRANSACTIONAL_ID))?;
        producer.begin()?.send(&topic, &self.record(sale)?)?;
        wait_until("the open transaction", DEADLINE, async || match admin.has_open_transaction(&topic) {
            Ok(true) => Ok(()),
            Ok(false) => Err(String::from("no transaction is open")),
            Err(error) => Err(error.to_string()),
        })
        .await?;
        Ok(producer)
    }

    /// A producer with the same id aborts the open transaction of its predecessor.
    pub(crate) async fn abort(&self, open: TransactionalProducer) -> anyhow::Result<()> {
        let kafka = self.installation.kafka();
        let successor = TransactionalProducer::connect(kafka, &kafka.prefixed(TRANSACTIONAL_ID))?;
        drop((open, successor));
        let admin = Admin::new(kafka)?;
        wait_until("the abort", DEADLINE, async || match admin.has_open_transaction(&self.topic()) {
            Ok(false) => Ok(()),
            Ok(true) => Err(String::from("the transaction is open")),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Sets all groups to the ends of their topics.
    pub(crate) fn commit_groups(&self) -> anyhow::Result<()> {
        for Stage { group, topic } in STAGES.into_iter().filter(|stage| !stage.has_offsets_in_postgres()) {
            self.commit_group(group, topic)?;
        }
        Ok(())
    }

    fn commit_group(&self, group: &str, topic: &str) -> anyhow::Result<()> {
        let kafka = self.installation.kafka();
        let (group, topic) = (kafka.prefixed(group), kafka.prefixed(topic));
        let ends = Admin::new(kafka)?.watermarks(&topic)?;
        let start_at = OffsetReset::CommittedOrBeginning;
        let instance = Instance::named("test", group.clone(), Duration::from_secs(10));
        let consumer = GroupConsumer::join(kafka, &instance, 0, &topic, start_at)?;
        let start = Instant::now();
        loop {
            consumer.poll(Duration::from_millis(50))?;
            let events = consumer.assignment_events();
            if events.iter().any(|event| matches!(event, AssignmentEvent::Assigned(_))) {
                break;
            }
            ensure!(start.elapsed() < DEADLINE, "group {group} was given no partitions; last seen: {events:?}");
        }
        let offsets = consumer.offsets((0..).zip(ends.into_iter().map(|(_, end)| end)))?;
        Ok(consumer.commit(&offsets)?)
    }

    /// Sets the projector with offsets in PostgreSQL to the end. In an earlier epoch of the topic its offset was higher.
    pub(crate) async fn commit_projection(&self) -> anyhow::Result<()> {
        let ends = Admin::new(self.installation.kafka())?.watermarks(&self.topic())?;
        for (partition, (_, end)) in (0_i32..).zip(ends) {
            for (epoch, next_offset) in [(1, 1_000), (2, end)] {
                sqlx::query(
                    "INSERT INTO projection_offset VALUES ('vendor-billing-jdbc', $1, $2, $3, $4) \
                     ON CONFLICT (projection, topic, partition, log_epoch) DO UPDATE SET next_offset = EXCLUDED.next_offset",
                )
                .bind(self.topic())
                .bind(partition)
                .bind(epoch)
                .bind(next_offset)
                .execute(&self.database)
                .await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn execute(&self, store: Store, statement: &str) -> anyhow::Result<()> {
        let failed = || statement.to_owned();
        match store {
            Store::Cassandra => drop(self.session.query_unpaged(statement, ()).await.with_context(failed)?),
            Store::Postgres => {
                sqlx::query(AssertSqlSafe(statement)).execute(&self.database).await.with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Resets the tables to the totals of the first three sales.
    pub(crate) async fn write_tables(&self) -> anyhow::Result<()> {
        let (v1, v2, p1) = (vendor_id("V1"), vendor_id("V2"), product_id("P1"));
        for ReadModel { store, table, .. } in READ_MODELS {
            let rows = match table {
                ReadTable::ItemQuantityByDay => {
                    format!("vendorid = {v1} AND productid = {p1} AND year = 2026 AND month IN (1, 2)")
                }
                ReadTable::BalanceByVendor => format!("vendorid IN ({v1}, {v2}, {p1}) AND year = 2026"),
                ReadTable::VendorBilling => String::from("true"),
            };
            self.execute(store, &format!("DELETE FROM {} WHERE {rows}", table.name())).await?;
        }
        self.write_row("V1", "P1", "ONE, NEW", 5, "0.005").await?;
        self.write_row("V2", "P2", "TWO", 2, "25").await
    }

    /// Adds a sale to the tables, as the projectors would after the first three sales. Can be repeated.
    pub(crate) async fn add_to_tables(&self, sale: &Sale) -> anyhow::Result<()> {
        let amount = sale.price.parse::<Decimal>()? * Decimal::from(sale.quantity);
        let balance = Decimal::new(5, 3) + amount;
        self.write_row(sale.vendor, sale.product, sale.name, sale.quantity, &balance.to_string()).await
    }

    async fn write_row(
        &self,
        vendor: &str,
        product: &str,
        name: &str,
        quantity: i32,
        balance: &str,
    ) -> anyhow::Result<()> {
        let (vendor, product) = (vendor_id(vendor), product_id(product));
        for ReadModel { store, table, .. } in READ_MODELS {
            let insert = match table {
                ReadTable::ItemQuantityByDay => format!(
                    "INSERT INTO item_quantity_by_day (vendorid, productid, year, month, day, quantity, name) \
                     VALUES ({vendor}, {product}, 2026, 1, 31, {quantity}, '{name}')"
                ),
                ReadTable::BalanceByVendor => format!(
                    "INSERT INTO balance_by_vendor (vendorid, year, month, balance) VALUES ({vendor}, 2026, 1, {balance})"
                ),
                ReadTable::VendorBilling => format!(
                    "INSERT INTO vendor_billing VALUES ('{vendor}', 2026, 1, {balance}) \
                     ON CONFLICT (vendor_id, year, month) DO UPDATE SET balance = EXCLUDED.balance"
                ),
            };
            self.execute(store, &insert).await?;
        }
        Ok(())
    }
}
