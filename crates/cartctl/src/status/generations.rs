//! The generations of the read models: which have a group, which one readers see, and which of their rows are parked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::Generation;
use cart::contract::{READ_MODELS, ReadModel, STAGES, Stage, Store};
use cassandra::{CassandraArgs, LazySession};
use kafka::KafkaArgs;
use postgres::DatabaseArgs;
use scylla::client::session::Session;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::parked_rows::{ListedRow, ModelStore};

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
    session: LazySession,
    args: DatabaseArgs,
    database: PgPool,
}

impl Stores {
    /// Connects when it is asked.
    ///
    /// # Errors
    /// The database's URL is invalid.
    pub(super) fn new(cassandra: &CassandraArgs, database: &DatabaseArgs) -> anyhow::Result<Self> {
        let args = database.clone();
        let database = database.connect_lazy(PgPoolOptions::new().acquire_timeout(TIMEOUT))?;
        Ok(Self { session: LazySession::new(cassandra), args, database })
    }

    /// The generation of a model that readers see.
    pub(super) async fn active(&self, model: ReadModel) -> anyhow::Result<Generation> {
        let active = within_timeout(async {
            anyhow::Ok(match model.store {
                Store::Cassandra => cassandra::read_models::active(self.session().await?, model).await?,
                Store::Postgres => postgres::read_models::active(&self.database, model).await?,
            })
        });
        self.renewed(model, active.await)
    }

    /// The parked rows of each model's generations, as `cartctl parked rows` lists them, or why they are not known.
    pub(super) async fn parked_rows(&self, kafka: &KafkaArgs) -> Vec<(ReadModel, anyhow::Result<Vec<ListedRow>>)> {
        let of = |model: ReadModel| async move { (model, self.parked_rows_of(model, kafka).await) };
        futures::future::join_all(READ_MODELS.map(of)).await
    }

    async fn parked_rows_of(&self, model: ReadModel, kafka: &KafkaArgs) -> anyhow::Result<Vec<ListedRow>> {
        let rows = within_timeout(async {
            let store = match model.store {
                Store::Cassandra => ModelStore::Cassandra(self.session().await?),
                Store::Postgres => ModelStore::Postgres { kafka, database: &self.database },
            };
            let rows = store.all(model).await?;
            anyhow::Ok(rows.iter().map(|(projector, row)| ListedRow::of(projector, row)).collect())
        });
        self.renewed(model, rows.await)
    }

    async fn session(&self) -> anyhow::Result<&Arc<Session>> {
        Ok(self.session.get().await?)
    }

    /// What the model's store has answered. After an error of PostgreSQL the next connections have the password that its file has by
    /// then: a watch may go on for longer than a password holds.
    fn renewed<T>(&self, model: ReadModel, answer: anyhow::Result<T>) -> anyhow::Result<T> {
        if answer.is_err() && model.store == Store::Postgres {
            self.args.renew_password(&self.database)?;
        }
        answer
    }
}

async fn within_timeout<T>(ask: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(TIMEOUT, ask).await;
    answer.with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))?
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use sqlx::ConnectOptions as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        cassandra: CassandraArgs,
    }

    #[tokio::test]
    async fn the_password_is_read_again_after_an_error_of_postgres() {
        let path = std::env::temp_dir().join(format!("cart-status-password-{}", std::process::id()));
        let write = |password: &str| std::fs::write(&path, password).expect("a file");
        write("old");
        let url = DatabaseArgs::at("postgres://cart@127.0.0.1:1/cart");
        let database = DatabaseArgs { database_password_file: Some(path.clone()), ..url };
        let cassandra = Cli::parse_from(["test"]).cassandra;
        let stores = Stores::new(&cassandra, &database).expect("a valid URL");
        write("new");
        let knows = |password: &str| {
            let url = stores.database.connect_options().to_url_lossy();
            url.password() == Some(password)
        };
        for model in READ_MODELS {
            assert!(stores.renewed(model, Ok(())).is_ok() && knows("old"), "{model}");
        }
        for model in READ_MODELS {
            assert!(stores.renewed::<()>(model, Err(anyhow::anyhow!("it is away"))).is_err());
            assert_eq!(knows("new"), model.store == Store::Postgres, "{model}");
        }
        std::fs::remove_file(path).expect("it is there");
    }

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
