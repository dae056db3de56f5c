//! The store of a read model: its generations' tables, and the pointer to the active one.

use anyhow::{Context as _, anyhow, ensure};
use cart::contract::{Contract as _, ReadModel, Store};
use cart::{Generation, GenerationPointer, GenerationSwitch, LogEpoch, ParkedRow, PurchasedItem};
use cassandra::parked_rows;
use cassandra::read_models::READERS_FOLLOW;
use kafka::{Admin, KafkaArgs, LogIdentity};
use scylla::client::session::Session;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::block_in_place;
use uuid::Uuid;

use super::args::System;

pub(super) enum Connection {
    Cassandra(Box<Session>, LogEpoch),
    Postgres(PgPool, LogEpoch),
}

/// The store of one read model, which was built from the log that Kafka has.
pub(super) struct ModelStore {
    pub(super) model: ReadModel,
    pub(super) identity: LogIdentity,
    pub(super) kafka: KafkaArgs,
    pub(super) connection: Connection,
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

    /// Lets only `run` change the pointer, if `seen` still has the claim. `by` is for others to read. Returns whether it did.
    pub(super) async fn claim(&self, seen: Option<Uuid>, run: Uuid, by: &str) -> anyhow::Result<bool> {
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => {
                cassandra::read_models::claim(session, self.model, seen, run, by).await?
            }
            Connection::Postgres(pool, _) => postgres::read_models::claim(pool, self.model, seen, run, by).await?,
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

    /// Waits until every reader of the tables in Cassandra goes by the active generation. The view in PostgreSQL changes for all at once.
    pub(super) async fn settle(&self) {
        if self.model.store == Store::Cassandra && !fail_points::is_off("guard-switch-settles") {
            tokio::time::sleep(READERS_FOLLOW).await;
        }
    }

    /// Deletes a generation's table, and in PostgreSQL its offsets with it. One that is not there is fine.
    pub(super) async fn drop_table(&self, generation: Generation) -> anyhow::Result<()> {
        let (table, group) = (self.model.table_name(generation), self.model.group_name(generation));
        let failed = || format!("deleting table {table}");
        match &self.connection {
            Connection::Cassandra(session, _) => {
                // The generation is gone with its own table: that one comes last.
                for table in [parked_rows::table_name(&table), table.clone()] {
                    session.query_unpaged(format!("DROP TABLE IF EXISTS {table}"), ()).await.with_context(failed)?;
                    fail_points::crash_point("drop-deleted");
                }
                parked_rows::forget_requests(session, &group).await?;
            }
            Connection::Postgres(pool, _) => {
                let mut transaction = pool.begin().await.with_context(failed)?;
                let drop_table = AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}"));
                sqlx::query(drop_table).execute(&mut *transaction).await.with_context(failed)?;
                let topic = self.kafka.prefixed(PurchasedItem::TOPIC);
                sqlx::query("DELETE FROM projection_offset WHERE projection = $1 AND topic = $2")
                    .bind(&group)
                    .bind(&topic)
                    .execute(&mut *transaction)
                    .await
                    .with_context(failed)?;
                postgres::parked_rows::forget(&mut transaction, &group, &topic).await.with_context(failed)?;
                transaction.commit().await.with_context(failed)?;
                fail_points::crash_point("drop-deleted");
            }
        }
        Ok(())
    }

    /// The parked rows of a generation.
    pub(super) async fn parked(&self, generation: Generation) -> anyhow::Result<Vec<ParkedRow>> {
        let (table, group) = (self.model.table_name(generation), self.model.group_name(generation));
        Ok(match &self.connection {
            Connection::Cassandra(session, _) => parked_rows::list(session, &table, &group).await?,
            Connection::Postgres(pool, _) => {
                let topic = self.kafka.prefixed(PurchasedItem::TOPIC);
                let mut connection = pool.acquire().await?;
                postgres::parked_rows::list(&mut connection, &group, &topic).await?
            }
        })
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
