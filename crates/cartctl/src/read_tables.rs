//! Which generation of a read table its readers see, for the verbs that read the tables.

use cart::Generation;
use cart::contract::{ReadModel, Store};
use scylla::client::session::Session;
use sqlx::{PgPool, Postgres, Transaction};

/// Asks the table's store.
pub(crate) async fn active(model: ReadModel, session: &Session, database: &PgPool) -> anyhow::Result<Generation> {
    Ok(match model.store {
        Store::Cassandra => cassandra::read_models::active(session, model).await?,
        Store::Postgres => postgres::read_models::active(database, model).await?,
    })
}

/// Begins a transaction that sees one snapshot. Until its end the view vendor_billing is of one generation: another one would also
/// be seen by snapshots that are older.
pub(crate) async fn snapshot(database: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    sqlx::query("LOCK TABLE vendor_billing IN ACCESS SHARE MODE").execute(&mut *transaction).await?;
    Ok(transaction)
}
