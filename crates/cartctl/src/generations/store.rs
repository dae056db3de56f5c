//! The store of a read model: its generations' rows, and the pointer to the active one.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, anyhow, bail, ensure};
use cart::contract::{Contract as _, ReadModel, ReadTable, Store};
use cart::{Generation, GenerationPointer, GenerationSwitch, LogEpoch, Position, PurchasedItem};
use futures::TryStreamExt as _;
use kafka::{Admin, GroupProgress, KafkaArgs, LogIdentity};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::value::CqlDecimal;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use tokio::task::block_in_place;
use uuid::Uuid;

use super::args::System;
use super::rows::{Row, RowKey, Rows, Value};
use crate::reconcile::decimal;
use crate::totals::{DayKey, MonthKey};

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

enum Connection {
    Cassandra(Box<Session>, LogEpoch),
    Postgres(PgPool, LogEpoch),
}

/// The store of one read model, which was built from the log that Kafka has.
pub(super) struct ModelStore {
    pub(super) model: ReadModel,
    pub(super) identity: LogIdentity,
    kafka: KafkaArgs,
    connection: Connection,
}

impl ModelStore {
    pub(super) async fn open(system: &System, model: ReadModel) -> anyhow::Result<Self> {
        let System { kafka, cassandra, database } = system;
        let topic = kafka.prefixed(PurchasedItem::TOPIC);
        let identity = block_in_place(|| Admin::new(kafka)?.identity(&topic))?;
        let connection = match model.store {
            Store::Cassandra => {
                // Emptying or dropping a table takes longer than a request of a service.
                let session = cassandra::connect(&cassandra.patient()).await?;
                let epoch = cassandra::log_epoch(&session, &topic, &identity).await?;
                Connection::Cassandra(Box::new(session), epoch)
            }
            Store::Postgres => {
                let pool = database.connect().await?;
                let epoch = epoch(&pool, &topic, &identity).await?;
                Connection::Postgres(pool, epoch)
            }
        };
        Ok(Self { model, identity, kafka: kafka.clone(), connection })
    }

    pub(super) async fn pointer(&self) -> anyhow::Result<GenerationPointer> {
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => cassandra::read_models::pointer(session, self.model).await?,
            Connection::Postgres(pool, _) => postgres::read_models::pointer(pool, self.model).await?,
        })
    }

    /// The generations that have a table.
    pub(super) async fn generations(&self) -> anyhow::Result<Vec<Generation>> {
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => cassandra::read_models::generations(session, self.model).await?,
            Connection::Postgres(pool, _) => postgres::read_models::generations(pool, self.model).await?,
        })
    }

    /// As [`Self::pointer`], with every change whose answer was lost: it is done by then, or waits for its claim.
    pub(super) async fn decided_pointer(&self) -> anyhow::Result<GenerationPointer> {
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => cassandra::read_models::decided_pointer(session, self.model).await?,
            Connection::Postgres(pool, _) => postgres::read_models::pointer(pool, self.model).await?,
        })
    }

    /// Lets only `run` change the pointer, if `seen` still has the claim. Returns whether it did.
    pub(super) async fn claim(&self, seen: Option<Uuid>, run: Uuid) -> anyhow::Result<bool> {
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => cassandra::read_models::claim(session, self.model, seen, run).await?,
            Connection::Postgres(pool, _) => postgres::read_models::claim(pool, self.model, seen, run).await?,
        })
    }

    /// Says that `run` is at work. Returns whether it still has the claim.
    pub(super) async fn renew(&self, run: Uuid, renewals: i32) -> anyhow::Result<bool> {
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => {
                cassandra::read_models::renew(session, self.model, run, renewals).await?
            }
            Connection::Postgres(pool, _) => postgres::read_models::renew(pool, self.model, run, renewals).await?,
        })
    }

    /// Ends the claim of `run`.
    pub(super) async fn release(&self, run: Uuid) -> anyhow::Result<()> {
        match &self.connection {
            Connection::Cassandra(session, _) => cassandra::read_models::release(session, self.model, run).await?,
            Connection::Postgres(pool, _) => postgres::read_models::release(pool, self.model, run).await?,
        }
        Ok(())
    }

    /// Makes a generation the active one, if `from` still is and `run` has the claim. Returns what holds afterwards.
    pub(super) async fn switch(
        &self,
        from: Generation,
        to: Generation,
        switch: &GenerationSwitch,
        run: Uuid,
    ) -> anyhow::Result<GenerationPointer> {
        match &self.connection {
            Connection::Cassandra(session, _) => {
                cassandra::read_models::switch(session, self.model, from, to, switch, run).await?;
            }
            Connection::Postgres(pool, _) => {
                postgres::read_models::switch(pool, self.model, from, to, switch, run).await?;
            }
        }
        self.decided_pointer().await
    }

    /// Deletes a generation's table, and in PostgreSQL its offsets with it. One that is not there is fine.
    pub(super) async fn drop_table(&self, generation: Generation) -> anyhow::Result<()> {
        let (table, group) = (self.model.table_name(generation), self.model.group_name(generation));
        let failed = || format!("deleting table {table}");
        match &self.connection {
            Connection::Cassandra(session, _) => {
                session.query_unpaged(format!("DROP TABLE IF EXISTS {table}"), ()).await.with_context(failed)?;
            }
            Connection::Postgres(pool, _) => {
                let mut transaction = pool.begin().await.with_context(failed)?;
                let drop_table = AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}"));
                sqlx::query(drop_table).execute(&mut *transaction).await.with_context(failed)?;
                sqlx::query("DELETE FROM projection_offset WHERE projection = $1 AND topic = $2")
                    .bind(group)
                    .bind(self.kafka.prefixed(PurchasedItem::TOPIC))
                    .execute(&mut *transaction)
                    .await
                    .with_context(failed)?;
                transaction.commit().await.with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Reads the rows of two generations.
    pub(super) async fn rows(&self, generations: [Generation; 2]) -> anyhow::Result<[Rows; 2]> {
        let [first, second] = generations;
        match &self.connection {
            Connection::Cassandra(session, epoch) => Ok([
                self.rows_in_cassandra(session, *epoch, first).await?,
                self.rows_in_cassandra(session, *epoch, second).await?,
            ]),
            Connection::Postgres(pool, epoch) => {
                // One snapshot: rows and offsets belong to each other.
                let mut snapshot = pool.begin().await?;
                sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    .execute(&mut *snapshot)
                    .await?;
                let rows = [
                    self.rows_in_postgres(&mut snapshot, *epoch, first).await?,
                    self.rows_in_postgres(&mut snapshot, *epoch, second).await?,
                ];
                snapshot.rollback().await?;
                Ok(rows)
            }
        }
    }

    /// The offsets before the rows: what a group has committed is in the table.
    async fn rows_in_cassandra(
        &self,
        session: &Session,
        epoch: LogEpoch,
        generation: Generation,
    ) -> anyhow::Result<Rows> {
        let (table, group) = (self.model.table_name(generation), self.model.group_name(generation));
        let next = block_in_place(|| self.committed(&group))?;
        let rows = match self.model.table {
            ReadTable::ItemQuantityByDay => days(session, &table, epoch).await,
            ReadTable::BalanceByVendor => months(session, &table, epoch).await,
            ReadTable::VendorBilling => bail!("{} is not in Cassandra", self.model),
        };
        Ok(Rows { rows: rows.with_context(|| format!("reading table {table}"))?, next })
    }

    fn committed(&self, group: &str) -> Result<BTreeMap<i32, i64>, kafka::Error> {
        let progress =
            GroupProgress::new(&self.kafka, &self.kafka.prefixed(group), &self.kafka.prefixed(PurchasedItem::TOPIC))?;
        let next = progress.committed(0..self.identity.partitions)?;
        self.or_first(&progress, next)
    }

    /// A partition without an offset is read from the log's first one on.
    fn or_first(
        &self,
        progress: &GroupProgress,
        mut next: BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i64>, kafka::Error> {
        for partition in 0..self.identity.partitions {
            if let std::collections::btree_map::Entry::Vacant(entry) = next.entry(partition) {
                entry.insert(progress.bounds(partition)?.0);
            }
        }
        Ok(next)
    }

    async fn rows_in_postgres(
        &self,
        snapshot: &mut Transaction<'_, Postgres>,
        epoch: LogEpoch,
        generation: Generation,
    ) -> anyhow::Result<Rows> {
        let table = self.model.table_name(generation);
        let select = AssertSqlSafe(format!("SELECT vendor_id, year, month, balance FROM {table}"));
        let months: Vec<(Uuid, i32, i32, Decimal)> = sqlx::query_as(select)
            .fetch_all(&mut **snapshot)
            .await
            .with_context(|| format!("reading table {table}"))?;
        let next: Vec<(i32, i64)> = sqlx::query_as(
            "SELECT partition, next_offset FROM projection_offset WHERE projection = $1 AND topic = $2 AND log_epoch = $3",
        )
        .bind(self.model.group_name(generation))
        .bind(self.kafka.prefixed(PurchasedItem::TOPIC))
        .bind(epoch.get())
        .fetch_all(&mut **snapshot)
        .await
        .with_context(|| format!("reading the offsets of table {table}"))?;
        let row = |(vendor, year, month, total)| {
            let key = RowKey::Month(MonthKey { vendor, year, month });
            (key, Row { value: Value { total, name: None }, next: 0 })
        };
        let next = block_in_place(|| {
            let (group, topic) = (self.model.group_name(generation), self.kafka.prefixed(PurchasedItem::TOPIC));
            let progress = GroupProgress::new(&self.kafka, &self.kafka.prefixed(&group), &topic)?;
            self.or_first(&progress, next.into_iter().collect())
        })?;
        Ok(Rows { rows: months.into_iter().map(row).collect(), next })
    }
}

/// The epoch of the log that the database was built from, if that is this one.
async fn epoch(pool: &PgPool, topic: &str, found: &LogIdentity) -> anyhow::Result<LogEpoch> {
    let row: Option<(i32, String, String)> =
        sqlx::query_as("SELECT epoch, cluster_id, topic_id FROM log_epoch WHERE topic = $1")
            .bind(topic)
            .fetch_optional(pool)
            .await
            .context("reading the recorded log")?;
    let (epoch, cluster_id, topic_id) =
        row.with_context(|| format!("topic {topic} is not recorded in this database: run `projectors setup`"))?;
    ensure!(
        (&cluster_id, &topic_id) == (&found.cluster_id, &found.topic_id),
        "topic {topic} is not the log that this database was built from: check --kafka-bootstrap-servers and --database-url"
    );
    LogEpoch::new(epoch).ok_or_else(|| anyhow!("topic {topic} is recorded with {epoch}, which is not a log epoch"))
}

/// The offset behind a row's newest record; 0 for a record of an earlier log.
fn behind(position: i64, epoch: LogEpoch) -> i64 {
    let position = Position::from(position);
    if position < Position::new(epoch, 0) { 0 } else { position.offset() + 1 }
}

async fn days(session: &Session, table: &str, epoch: LogEpoch) -> anyhow::Result<HashMap<RowKey, Row>> {
    type Columns = (Uuid, Uuid, i32, i32, i32, Option<i64>, Option<String>, Option<i64>);
    let select = format!("SELECT vendorid, productid, year, month, day, quantity, name, position FROM {table}");
    let pager = session.query_iter(Statement::new(select).with_page_size(PAGE_ROWS), ()).await?;
    let mut stream = pager.rows_stream::<Columns>()?;
    let mut rows = HashMap::new();
    while let Some((vendor, product, year, month, day, quantity, name, position)) = stream.try_next().await? {
        let key = RowKey::Day(DayKey { vendor, product, year, month, day });
        let lacks = || anyhow!("the row of {key} lacks a column");
        let total = Decimal::from(quantity.ok_or_else(lacks)?);
        let name = Some(name.ok_or_else(lacks)?);
        let next = behind(position.ok_or_else(lacks)?, epoch);
        rows.insert(key, Row { value: Value { total, name }, next });
    }
    Ok(rows)
}

async fn months(session: &Session, table: &str, epoch: LogEpoch) -> anyhow::Result<HashMap<RowKey, Row>> {
    let select = format!("SELECT vendorid, year, month, balance, position FROM {table}");
    let pager = session.query_iter(Statement::new(select).with_page_size(PAGE_ROWS), ()).await?;
    let mut stream = pager.rows_stream::<(Uuid, i32, i32, Option<CqlDecimal>, Option<i64>)>()?;
    let mut rows = HashMap::new();
    while let Some((vendor, year, month, balance, position)) = stream.try_next().await? {
        let key = RowKey::Month(MonthKey { vendor, year, month });
        let lacks = || anyhow!("the row of {key} lacks a column");
        let total = decimal(&balance.ok_or_else(lacks)?)?;
        let next = behind(position.ok_or_else(lacks)?, epoch);
        rows.insert(key, Row { value: Value { total, name: None }, next });
    }
    Ok(rows)
}
