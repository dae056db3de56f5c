//! The generations of the read models: which have a group, which one readers see, and which of their rows are parked.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use cart::Generation;
use cart::contract::{READ_MODELS, ReadModel, STAGES, Stage, Store};
use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;
use scylla::client::session::Session;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::OnceCell;

use crate::parked_rows::{self, ListedRow};

/// The status of the groups is shown without a store that does not answer for so long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A consumer group of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) stage: Stage,
    /// The read model that it keeps, and which generation of it.
    pub(super) of: Option<(ReadModel, Generation)>,
}

impl Member {
    /// The group's name, without the installation's prefix.
    pub(super) fn name(&self) -> String {
        self.of.map_or_else(|| self.stage.group.to_owned(), |(model, generation)| model.group_name(generation))
    }
}

/// All groups, from the front of the pipeline to its end. `existing` are the names of those that the brokers know; the first generation
/// is shown where there is no other, too.
pub(super) fn members(existing: &BTreeSet<String>) -> Vec<Member> {
    let of_stage = |stage: Stage| {
        let Some(model) = READ_MODELS.into_iter().find(|model| model.group == stage.group) else {
            return vec![Member { stage, of: None }];
        };
        let mut generations: BTreeSet<Generation> =
            existing.iter().filter_map(|name| model.generation_of_group(name)).collect();
        if generations.is_empty() {
            generations.insert(Generation::FIRST);
        }
        let member = |generation| Member { stage, of: Some((model, generation)) };
        generations.into_iter().map(member).collect()
    };
    STAGES.into_iter().flat_map(of_stage).collect()
}

/// The stores, which know the active generations and the parked rows.
pub(super) struct Stores {
    cassandra: CassandraArgs,
    session: OnceCell<Session>,
    database: PgPool,
}

impl Stores {
    /// Connects when it is asked.
    ///
    /// # Errors
    /// The database's URL is invalid.
    pub(super) fn new(cassandra: &CassandraArgs, database: &DatabaseArgs) -> anyhow::Result<Self> {
        let database = database.connect_lazy(PgPoolOptions::new().acquire_timeout(TIMEOUT))?;
        Ok(Self { cassandra: cassandra.clone(), session: OnceCell::new(), database })
    }

    /// The generation of a model that readers see.
    pub(super) async fn active(&self, model: ReadModel) -> anyhow::Result<Generation> {
        within_timeout(async {
            anyhow::Ok(match model.store {
                Store::Cassandra => cassandra::read_models::active(self.session().await?, model).await?,
                Store::Postgres => postgres::read_models::active(&self.database, model).await?,
            })
        })
        .await
    }

    /// The parked rows of all generations, as `cartctl parked rows` lists them.
    pub(super) async fn parked_rows(&self, kafka: &KafkaArgs) -> anyhow::Result<Vec<ListedRow>> {
        within_timeout(async {
            let stores = parked_rows::Stores { kafka, session: self.session().await?, database: &self.database };
            let rows = stores.all().await?;
            anyhow::Ok(rows.iter().map(|(projector, row)| ListedRow::of(projector, row)).collect())
        })
        .await
    }

    async fn session(&self) -> anyhow::Result<&Session> {
        Ok(self.session.get_or_try_init(async || cassandra::connect(&self.cassandra).await).await?)
    }
}

async fn within_timeout<T>(ask: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(TIMEOUT, ask).await;
    answer.with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_a_group() {
        let names = |existing: &[&str]| {
            let existing = existing.iter().map(|name| (*name).to_owned()).collect();
            members(&existing).iter().map(Member::name).collect::<Vec<_>>()
        };
        let first =
            ["cart-processor", "item-purchased-events", "popular-items", "vendor-billing", "vendor-billing-jdbc"];
        assert_eq!(names(&[]), first);
        assert_eq!(names(&["someone-elses", "vendor-billing-g1"]), first);
        let rebuilt = names(&["popular-items", "popular-items-g10", "popular-items-g2", "vendor-billing-g3"]);
        let expected =
            ["popular-items", "popular-items-g2", "popular-items-g10", "vendor-billing-g3", "vendor-billing-jdbc"];
        assert_eq!(rebuilt[2..], expected);
    }
}
