//! Which generation of the read model `vendor-billing-jdbc` its readers see: the table `read_model`, and the view
//! `vendor_billing` of that generation's table. Both change in one transaction.
//!
//! The view of generation 1 is a plain one, through which a projector of an earlier version can write. Through that of another
//! generation nothing can be written: such a projector would add to a table that is not its own.
//!
//! A switch puts its run into the column `claim` first, and changes the pointer only while the row has it. Another value there ends the
//! run, also where its transaction got no answer.

use cart::contract::ReadModel;
use cart::{Generation, GenerationClaim, GenerationPointer, GenerationSwitch};
use chrono::{DateTime, Utc};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, PgExecutor, PgPool};

const SELECT: &str = "SELECT active, previous, newest, since, changed_by, reason, accepted_diff, claim, claim_by, \
    claim_renewals FROM read_model WHERE name = $1";
const TABLES: &str = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)";
const EXISTS: &str = "SELECT EXISTS (SELECT FROM read_model WHERE name = $1)";
const RESERVE: &str = "UPDATE read_model SET newest = $1 WHERE name = $2 AND newest = $3";
const SWITCH: &str = "UPDATE read_model SET active = $1, previous = $2, since = $3, changed_by = $4, reason = $5, \
    accepted_diff = $6 WHERE name = $7 AND active = $2 AND claim = $8";
const CLAIM: &str = "UPDATE read_model SET claim = $1, claim_by = $4, claim_renewals = 0 \
    WHERE name = $2 AND claim IS NOT DISTINCT FROM $3";
const RENEW: &str = "UPDATE read_model SET claim_renewals = $1 WHERE name = $2 AND claim = $3";
const RELEASE: &str =
    "UPDATE read_model SET claim = NULL, claim_by = NULL, claim_renewals = NULL WHERE name = $1 AND claim = $2";

/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

/// A change of the view waits for the queries that read it, and every later query waits behind it.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";

/// Why a change of the generations failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} failed")]
    Sql {
        operation: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("{operation} failed: {reason}")]
    Refused { operation: String, reason: String },
}

type Row = (
    i32,
    Option<i32>,
    i32,
    Option<DateTime<Utc>>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Uuid>,
    Option<String>,
    Option<i32>,
);

/// The generation that readers see. The first one where `setup` has not made the table yet.
///
/// # Errors
/// If PostgreSQL does not respond, or the row has no generation.
pub async fn active(executor: impl PgExecutor<'_>, model: ReadModel) -> Result<Generation, Error> {
    Ok(pointer(executor, model).await?.active)
}

/// As [`active`], with what is known of the last switch. A transaction in which it fails because there is no table is aborted.
///
/// # Errors
/// As [`active`].
pub async fn pointer(executor: impl PgExecutor<'_>, model: ReadModel) -> Result<GenerationPointer, Error> {
    let operation = || format!("reading the active generation of {} in table read_model", model.group);
    let row = match sqlx::query_as::<_, Row>(SELECT).bind(model.group).fetch_optional(executor).await {
        Ok(row) => row,
        Err(error) if is_missing_table(&error) => None,
        Err(source) => return Err(Error::Sql { operation: operation(), source }),
    };
    let Some((active, previous, newest, since, by, reason, accepted_diff, claim, claim_by, renewals)) = row else {
        return Ok(GenerationPointer::FIRST);
    };
    let generation = |number: i32| {
        let reason = || format!("{number} is not a generation");
        Generation::new(number).ok_or_else(|| Error::Refused { operation: operation(), reason: reason() })
    };
    let text = Option::unwrap_or_default;
    Ok(GenerationPointer {
        active: generation(active)?,
        previous: previous.map(generation).transpose()?,
        newest: generation(newest)?,
        last_switch: since.map(|at| GenerationSwitch {
            at,
            by: text(by),
            reason: text(reason),
            accepted_diff: text(accepted_diff),
        }),
        claim: claim.map(|run| GenerationClaim { run, by: text(claim_by), renewals: renewals.unwrap_or_default() }),
    })
}

/// The generations that have a table, in their order.
///
/// # Errors
/// If PostgreSQL does not respond.
pub async fn generations(executor: impl PgExecutor<'_>, model: ReadModel) -> Result<Vec<Generation>, Error> {
    let names: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(executor)
        .await
        .map_err(|source| Error::Sql { operation: format!("listing the generations of {}", model.group), source })?;
    let mut found: Vec<_> = names.iter().filter_map(|name| model.generation_of_table(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Takes the number of the next generation to build. `pointer` is what was read before, `existing` are the generations with a table.
///
/// # Errors
/// If another process has taken it, there is none left, or PostgreSQL does not respond.
pub async fn reserve(
    pool: &PgPool,
    model: ReadModel,
    pointer: &GenerationPointer,
    existing: &[Generation],
) -> Result<Generation, Error> {
    let operation = || format!("taking the number of the next generation of {}", model.group);
    let refused = |reason: &str| Error::Refused { operation: operation(), reason: reason.to_owned() };
    let next = pointer.next(existing).ok_or_else(|| refused("all 999 are used up"))?;
    let query = sqlx::query(RESERVE).bind(next.get()).bind(model.group).bind(pointer.newest.get());
    let taken = query.execute(pool).await.map_err(|source| Error::Sql { operation: operation(), source })?;
    match taken.rows_affected() {
        1 => Ok(next),
        _ => {
            require_row(pool, model, operation()).await?;
            Err(refused("another process has taken it: run the command again"))
        }
    }
}

/// Makes the table of a new generation: as the active generation's is, with the same rights.
///
/// # Errors
/// If PostgreSQL does not respond, or refuses, as where there is such a table.
pub async fn create_generation(pool: &PgPool, model: ReadModel, generation: Generation) -> Result<(), Error> {
    let failed = |source| Error::Sql { operation: format!("creating {}", model.table_name(generation)), source };
    let (template, table) = (model.table_name(active(pool, model).await?), model.table_name(generation));
    let mut transaction = pool.begin().await.map_err(failed)?;
    for statement in [format!("CREATE TABLE {table} (LIKE {template} INCLUDING ALL)"), copy_rights(&template, &table)] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// Grants on `to` what each role may do with `from`. The owner is the same too: the view is read with the owner's rights.
fn copy_rights(from: &str, to: &str) -> String {
    format!(
        "DO $$ DECLARE granted record; BEGIN \
         EXECUTE (SELECT format('ALTER TABLE {to} OWNER TO %I', pg_get_userbyid(relowner)) \
             FROM pg_class WHERE oid = '{from}'::regclass); \
         FOR granted IN SELECT privilege_type, grantee FROM pg_class, aclexplode(relacl) \
             WHERE oid = '{from}'::regclass AND grantee <> relowner \
                 AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') LOOP \
             EXECUTE format('GRANT %s ON {to} TO %s', granted.privilege_type, \
                 CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END); \
         END LOOP; END $$"
    )
}

/// Lets `run` be the only one that may change the pointer, if `seen` still is what the row has. `by` says who it is. Returns whether it
/// is.
///
/// # Errors
/// If PostgreSQL does not respond: then it is not known.
pub async fn claim(pool: &PgPool, model: ReadModel, seen: Option<Uuid>, run: Uuid, by: &str) -> Result<bool, Error> {
    let operation = || format!("claiming the read model {}", model.group);
    let failed = |source| Error::Sql { operation: operation(), source };
    // It waits for a transaction that has changed the row and is not decided yet.
    let query = sqlx::query(CLAIM).bind(run).bind(model.group).bind(seen).bind(by);
    let claimed = query.execute(pool).await.map_err(failed);
    if matches!(&claimed, Ok(claimed) if claimed.rows_affected() == 1) {
        return Ok(true);
    }
    // An earlier attempt may have done it, and its answer was lost.
    if pointer(pool, model).await?.claim.is_some_and(|claim| claim.run == run) {
        return Ok(true);
    }
    claimed?;
    require_row(pool, model, operation()).await?;
    Ok(false)
}

/// Says that a run is still at work. Returns `false` if another one has taken over.
///
/// # Errors
/// If PostgreSQL does not respond.
pub async fn renew(pool: &PgPool, model: ReadModel, run: Uuid, renewals: i32) -> Result<bool, Error> {
    let failed = |source| {
        let operation = format!("renewing the claim of the read model {}", model.group);
        Error::Sql { operation, source }
    };
    let query = sqlx::query(RENEW).bind(renewals).bind(model.group).bind(run);
    Ok(query.execute(pool).await.map_err(failed)?.rows_affected() == 1)
}

/// Ends a claim, if the run still has it.
///
/// # Errors
/// If PostgreSQL does not respond.
pub async fn release(pool: &PgPool, model: ReadModel, run: Uuid) -> Result<(), Error> {
    let failed =
        |source| Error::Sql { operation: format!("ending the claim of the read model {}", model.group), source };
    sqlx::query(RELEASE).bind(model.group).bind(run).execute(pool).await.map_err(failed)?;
    Ok(())
}

/// Makes another generation the active one, if `from` still is and `run` has the claim, and lets the view show it: one transaction.
/// The pointer says afterwards what holds.
///
/// # Errors
/// If PostgreSQL does not respond: then it is not known, and may be done as long as `run` has the claim.
pub async fn switch(
    pool: &PgPool,
    model: ReadModel,
    from: Generation,
    to: Generation,
    switch: &GenerationSwitch,
    run: Uuid,
) -> Result<(), Error> {
    let operation = || format!("switching {} to generation {to}", model.group);
    let failed = |source| Error::Sql { operation: operation(), source };
    let mut transaction = pool.begin().await.map_err(failed)?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await.map_err(failed)?;
    let switched = sqlx::query(SWITCH)
        .bind(to.get())
        .bind(from.get())
        .bind(switch.at)
        .bind(&switch.by)
        .bind(&switch.reason)
        .bind(&switch.accepted_diff)
        .bind(model.group)
        .bind(run)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    if switched.rows_affected() != 1 {
        return require_row(&mut *transaction, model, operation()).await;
    }
    sqlx::query(AssertSqlSafe(view(model, to))).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// Fails if the row of a model is lost. It is not made again: without it nothing says which numbers were used.
async fn require_row(executor: impl PgExecutor<'_>, model: ReadModel, operation: String) -> Result<(), Error> {
    let exists = sqlx::query_scalar::<_, bool>(EXISTS).bind(model.group).fetch_one(executor).await;
    match exists {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Refused { operation, reason: missing_row(model) }),
        Err(source) => Err(Error::Sql { operation, source }),
    }
}

fn missing_row(model: ReadModel) -> String {
    let (group, view) = (model.group, model.table.name());
    format!(
        "table read_model has no row of {group}, which `projectors setup` makes only once. Restore it from a backup, or insert it: \
         INSERT INTO read_model (name, active, newest) VALUES ('{group}', A, N), where A is the generation of the table that the view \
         {view} shows, and N the highest number of a generation that was ever built"
    )
}

/// A view of two relations can't be written through; the second one costs nothing. `OFFSET 0` would also do that, and would make
/// every query of one row read the whole table. The view of the first generation is that of the migration.
fn view(model: ReadModel, generation: Generation) -> String {
    let (view, table) = (model.table.name(), model.table_name(generation));
    let is_first = generation == Generation::FIRST;
    let read_only = if is_first { "" } else { " CROSS JOIN (VALUES (true)) AS read_only(is_read_only)" };
    format!("CREATE OR REPLACE VIEW {view} AS SELECT vendor_id, year, month, balance FROM {table}{read_only}")
}

fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some(UNDEFINED_TABLE)
}
