//! PostgreSQL: what it does with the doctor's own rows, how it is set, and how this installation's tables are.

mod grants;

use std::time::Duration;

use ::postgres::DatabaseArgs;
use anyhow::Context as _;
use cart::contract::{READ_MODELS, Store};
use projectors::{migrate, migrations_to_do};
use rust_decimal::Decimal;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgPool};
use uuid::Uuid;

use self::grants::GRANTS;
use super::report::{Check, Finding, Server, Verdict};
use super::{clock, own};
use crate::grants::Users;

const REACHABLE: Check = check("postgres-reachable", "vendor-billing-jdbc does not start", "CONNECT on the database");
const DURABLE: Check = check(
    "durable-commits",
    "a power cut damages the database, or totals that SQL clients have seen are gone for a while",
    "nothing: every user may SHOW settings",
);
const ENCODING: Check = check(
    "encoding",
    "names of topics and projections cannot be stored as they are",
    "nothing: every user may SHOW settings",
);
const CLOCK: Check = check(
    "postgres-clock",
    "if it is this machine's clock that is wrong, and an ingest runs here: purchases are booked on the wrong day, and keys are forgotten too early or too late",
    "nothing: every user may ask for the time",
);
const OWN: Check = check(
    "own-schema",
    "the checks below that use a schema of their own cannot be made; `projectors setup` needs the same permission",
    "CREATE on the database",
);
const ATOMIC: Check =
    check("atomic-transactions", "a crash leaves totals without their offset: purchases are counted twice", ROWS);
const GUARD: Check = check("guarded-offsets", "two instances of vendor-billing-jdbc count purchases twice", ROWS);
const EXACT: Check = check("exact-decimals", "balances are rounded", ROWS);
const TABLES: Check =
    check("migrations", "vendor-billing-jdbc fails, or writes to tables of another version", "SELECT on its tables");

const fn check(name: &'static str, without_it: &'static str, needs: &'static str) -> Check {
    Check { server: Server::Postgres, name, without_it, needs }
}

/// All checks of this server.
pub(super) fn checks() -> impl Iterator<Item = &'static Check> {
    [&REACHABLE, &DURABLE, &ENCODING, &CLOCK, &OWN, &ATOMIC, &GUARD, &EXACT, &TABLES, &GRANTS].into_iter()
}

const ROWS: &str = "CREATE on the database";

/// What to do where a database is not PostgreSQL.
const OTHER_DATABASE: &str =
    "use PostgreSQL 18, with which the guarantees are tested, or a database that does the same";

/// PostgreSQL's code for a database that is not there, the class of its codes for a transaction that is to be repeated, and its
/// code for a table that is not there.
const NO_DATABASE: &str = "3D000";
const REPEAT: &str = "40";
const NO_TABLE: &str = "42P01";

/// Every server has this database, through which `setup` makes the installation's.
const MAINTENANCE_DATABASE: &str = "postgres";

/// A server answers in milliseconds, or has a problem.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Two transactions at a time, and one that looks on.
const CONNECTIONS: u32 = 3;

/// Until the second transaction has come to the row that the first one has changed.
const MEET: Duration = Duration::from_millis(100);

/// Makes all of them.
pub(super) async fn check_all(database: &DatabaseArgs, users: &Users) -> Vec<Finding> {
    let (pool, is_there) = match connect(database).await {
        Ok(connected) => connected,
        Err(error) => return vec![Finding::unknown(&REACHABLE, &error)],
    };
    let found = if is_there { "the database answers" } else { "the server answers" };
    let left = remove_left(&pool).await;
    let mut findings = vec![
        Finding::new(&REACHABLE, left.map(|()| Verdict::holds(found))),
        Finding::new(&DURABLE, durable(&pool).await),
        Finding::new(&ENCODING, encoding(&pool).await),
        Finding::new(&CLOCK, database_clock(&pool).await),
    ];
    findings.extend(run(&pool).await);
    let (tables, grants) = if is_there {
        (tables(&pool).await, grants::look(&pool, users).await)
    } else {
        let verdict = || Ok(Verdict::not_set_up("the database does not exist: run the three `setup`s"));
        (verdict(), verdict())
    };
    findings.extend([Finding::new(&TABLES, tables), Finding::new(&GRANTS, grants)]);
    pool.close().await;
    findings
}

/// The installation's database; before the first `setup` another one of the server. Says which.
async fn connect(database: &DatabaseArgs) -> anyhow::Result<(PgPool, bool)> {
    let options: PgConnectOptions = database.options()?;
    let operation = format!("connecting to PostgreSQL at {}:{}", options.get_host(), options.get_port());
    match pool(options.clone()).await {
        Ok(pool) => Ok((pool, true)),
        Err(error) if code(&error).as_deref() == Some(NO_DATABASE) => {
            let pool = pool(options.database(MAINTENANCE_DATABASE)).await;
            Ok((pool.context(operation)?, false))
        }
        Err(error) => Err(error).context(operation),
    }
}

async fn pool(options: PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    // A pool repeats what a single connection says at once.
    let first = tokio::time::timeout(TIMEOUT, options.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
    first?.close().await?;
    PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(TIMEOUT).connect_with(options).await
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(DatabaseError::code).map(String::from)
}

async fn show(pool: &PgPool, setting: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!("SHOW {setting}"))).fetch_one(pool).await
}

async fn durable(pool: &PgPool) -> anyhow::Result<Verdict> {
    let (fsync, pages) = (show(pool, "fsync").await?, show(pool, "full_page_writes").await?);
    Ok(judge_durability(&fsync, &pages, &show(pool, "synchronous_commit").await?))
}

fn judge_durability(fsync: &str, full_page_writes: &str, synchronous_commit: &str) -> Verdict {
    let found = format!("fsync={fsync}, full_page_writes={full_page_writes}, synchronous_commit={synchronous_commit}");
    if fsync == "off" || full_page_writes == "off" {
        return Verdict::fails(found, "set fsync = on and full_page_writes = on in postgresql.conf");
    }
    if synchronous_commit == "off" {
        return Verdict::limited(
            format!("{found}: after a crash the newest totals are missing until they are counted again; none is lost"),
            "set synchronous_commit = on, unless that is fine",
        );
    }
    Verdict::holds(found)
}

async fn encoding(pool: &PgPool) -> anyhow::Result<Verdict> {
    let encoding = show(pool, "server_encoding").await?;
    let found = format!("server_encoding={encoding}; nothing is compared by a collation");
    Ok(match encoding.as_str() {
        "UTF8" => Verdict::holds(found),
        _ => Verdict::limited(found, "create the database with ENCODING 'UTF8'"),
    })
}

async fn database_clock(pool: &PgPool) -> anyhow::Result<Verdict> {
    // The first query of a connection has to look up its types.
    let ask = || sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetch_one(pool);
    let _: i64 = ask().await?;
    let before = clock::now_ms();
    let now: i64 = ask().await?;
    Ok(clock::judge(before, now, clock::now_ms()))
}

/// Removes the schemas that a killed doctor has left.
async fn remove_left(pool: &PgPool) -> anyhow::Result<()> {
    let schemas: Vec<String> = sqlx::query_scalar("SELECT nspname::text FROM pg_namespace").fetch_all(pool).await?;
    for schema in schemas.iter().filter(|schema| own::is_left(schema)) {
        drop_schema(pool, schema).await?;
    }
    Ok(())
}

async fn drop_schema(pool: &PgPool, schema: &str) -> Result<(), sqlx::Error> {
    let statement = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
    sqlx::query(AssertSqlSafe(statement)).execute(pool).await.map(drop)
}

/// Makes the trials in tables like those of `setup`, and removes them.
async fn run(pool: &PgPool) -> Vec<Finding> {
    let schema = own::name();
    let (mut created, mut trials) = match create(pool, &schema).await {
        Ok(own) => {
            let trials = vec![
                Finding::new(&ATOMIC, atomic(&own).await),
                Finding::new(&GUARD, guard(&own).await),
                Finding::new(&EXACT, exact(&own).await),
            ];
            own.close().await;
            (
                Ok(Verdict::holds(format!("the tables of `projectors setup` can be made in another schema: {schema}"))),
                trials,
            )
        }
        Err(error) => (Err(error), Vec::new()),
    };
    let dropped = drop_schema(pool, &schema).await;
    if let (true, Err(error)) = (created.is_ok(), dropped) {
        created = Err(anyhow::Error::from(error).context("the doctor's schema could not be removed"));
    }
    trials.insert(0, Finding::new(&OWN, created));
    trials
}

/// Connections whose tables are in the schema.
async fn create(pool: &PgPool, schema: &str) -> anyhow::Result<PgPool> {
    sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(pool).await.context("making a schema")?;
    let options = (*pool.connect_options()).clone().options([("search_path", schema)]);
    let own = self::pool(options).await.context("connecting to PostgreSQL")?;
    migrate(&own).await.context("making the tables")?;
    let insert = "INSERT INTO projection_offset (projection, topic, partition, log_epoch, next_offset) VALUES ('doctor', 't', 0, 1, 0)";
    sqlx::query(insert).execute(&own).await.context("writing a row")?;
    Ok(own)
}

/// Moves the offset, guarded as the projector does.
const MOVE: &str = "UPDATE projection_offset SET next_offset = $1 WHERE projection = 'doctor' AND next_offset = $2";
const ADD: &str = "INSERT INTO vendor_billing_g1 (vendor_id, year, month, balance) VALUES ($1, 2026, 1, $2) \
    ON CONFLICT (vendor_id, year, month) DO UPDATE SET balance = vendor_billing_g1.balance + EXCLUDED.balance";

async fn offset(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT next_offset FROM projection_offset").fetch_one(pool).await
}

async fn balance(pool: &PgPool, vendor: Uuid) -> Result<Option<Decimal>, sqlx::Error> {
    sqlx::query_scalar("SELECT balance FROM vendor_billing WHERE vendor_id = $1")
        .bind(vendor)
        .fetch_optional(pool)
        .await
}

/// A transaction that is rolled back leaves neither total nor offset.
async fn atomic(pool: &PgPool) -> anyhow::Result<Verdict> {
    let vendor = Uuid::from_u128(1);
    let mut transaction = pool.begin().await?;
    sqlx::query(MOVE).bind(1_i64).bind(0_i64).execute(&mut *transaction).await?;
    sqlx::query(ADD).bind(vendor).bind(Decimal::ONE).execute(&mut *transaction).await?;
    let seen = (offset(pool).await?, balance(pool, vendor).await?);
    transaction.rollback().await?;
    let left = (offset(pool).await?, balance(pool, vendor).await?);
    Ok(match (seen, left) {
        ((0, None), (0, None)) => {
            Verdict::holds("an open transaction is not seen, and leaves nothing when it is rolled back")
        }
        _ => Verdict::fails(
            format!("offset and total of an open transaction: {seen:?}, after its rollback: {left:?}"),
            OTHER_DATABASE,
        ),
    })
}

/// Two transactions that begin at one offset.
async fn guard(pool: &PgPool) -> anyhow::Result<Verdict> {
    let (mut first, mut second) = (pool.begin().await?, pool.begin().await?);
    let before = offset(pool).await?;
    sqlx::query(MOVE).bind(before + 5).bind(before).execute(&mut *first).await?;
    let late = async {
        let moved = sqlx::query(MOVE).bind(before + 7).bind(before).execute(&mut *second).await;
        moved.map(|moved| moved.rows_affected())
    };
    let commit = async {
        tokio::time::sleep(MEET).await;
        first.commit().await
    };
    let (late, committed) = tokio::join!(late, commit);
    committed?;
    second.rollback().await?;
    Ok(match late {
        Ok(0) => Verdict::holds("of two transactions that begin at one offset the second changes nothing"),
        Err(error) if code(&error).is_some_and(|code| code.starts_with(REPEAT)) => Verdict::holds(
            "of two transactions that begin at one offset the second is refused, and repeated by the projector",
        ),
        Ok(rows) => Verdict::fails(
            format!("the second of two transactions that begin at one offset changed {rows} rows"),
            OTHER_DATABASE,
        ),
        Err(error) => return Err(error.into()),
    })
}

async fn exact(pool: &PgPool) -> anyhow::Result<Verdict> {
    let vendor = Uuid::from_u128(2);
    let (large, small) = (Decimal::from_i128_with_scale(999_999_999_999_999_999_999_999_999, 4), Decimal::new(1, 4));
    for amount in [large, small] {
        sqlx::query(ADD).bind(vendor).bind(amount).execute(pool).await?;
    }
    let found = balance(pool, vendor).await?;
    Ok(match found {
        Some(found) if found == large + small => Verdict::holds(format!("{large} + {small} = {found}")),
        _ => Verdict::fails(format!("{large} + {small} = {found:?}"), OTHER_DATABASE),
    })
}

async fn tables(pool: &PgPool) -> anyhow::Result<Verdict> {
    const CHANGE: &str = "run `projectors setup` of the version that is to run; where a migration was changed, restore the database from \
         its backup, or delete the tables, run `projectors setup` and `cartctl rebuild vendor-billing-jdbc`";
    let mut problems = match migrations_to_do(pool).await {
        Ok(problems) => problems,
        Err(error) if code(&error).as_deref() == Some(NO_TABLE) => {
            return Ok(Verdict::not_set_up("the database has no tables of `projectors setup`: run the three `setup`s"));
        }
        Err(error) => return Err(error).context("reading the migrations"),
    };
    let mut tables = ["projection_offset", "log_epoch", "read_model", "parked_row"].map(str::to_owned).to_vec();
    for model in READ_MODELS.into_iter().filter(|model| model.store == Store::Postgres) {
        // The view, and the table of the generation that readers see.
        tables.push(model.table.name().to_owned());
        tables.push(model.table_name(::postgres::read_models::active(pool, model).await?));
    }
    for table in tables {
        let is_there: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&table).fetch_one(pool).await?;
        if !is_there {
            problems.push(format!("table {table} does not exist"));
        }
    }
    Ok(match problems.as_slice() {
        [] => Verdict::holds("the tables are those of this program's migrations"),
        problems => Verdict::fails(problems.join("; "), CHANGE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_fsync_a_power_cut_damages_the_database() {
        assert!(matches!(judge_durability("on", "on", "on"), Verdict::Holds { .. }));
        assert!(matches!(judge_durability("on", "on", "remote_apply"), Verdict::Holds { .. }));
        assert!(matches!(judge_durability("on", "on", "off"), Verdict::Limited { .. }));
        assert!(matches!(judge_durability("off", "on", "on"), Verdict::Fails { .. }));
        assert!(matches!(judge_durability("on", "off", "on"), Verdict::Fails { .. }));
    }
}
