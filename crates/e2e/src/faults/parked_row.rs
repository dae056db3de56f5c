//! A row of a read table that takes no record while it is in use: it is parked, repaired, and tried again.

use std::cmp::Reverse;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, ReadModel, ReadTable, Store};
use cart::{Position, PurchasedItem};
use kafka::{Admin, partition_of};
use scylla::client::session::Session;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::environment::{FaultEnvironment, instances_of};
use super::plan::{Fault, Plan};
use crate::harness::wait_until;

/// One of each store. `popular-items` parks its rows with the code of `vendor-billing`.
const MODELS: [ReadModel; 2] = [ReadTable::BalanceByVendor.model(), ReadTable::VendorBilling.model()];

/// How long a table may take to have rows of the load, also in a run's first round.
const ROWS_WITHIN: Duration = Duration::from_secs(60);

/// The longest time until a row in use is parked: projectors take over, its next record comes, and three tries in a second fail.
const PARKED_WITHIN: Duration = Duration::from_secs(90);

/// How long its records wait then.
const WAIT: Duration = Duration::from_secs(5);

/// One of so many rows, those that were changed last, takes no record.
const CANDIDATES: usize = 10;

/// The table has so many candidates before its projectors are stopped. Some are left then: of each partition only the last two rows are
/// none.
const ROWS_MIN: usize = 2 * CANDIDATES;

/// How far behind a row's write timestamp the damage and the repair have theirs.
const DAMAGED_LATER: i64 = 1;
const REPAIRED_LATER: i64 = 2;

/// A vendor, year and month.
type Month = (Uuid, i32, i32);

/// A month, its position, and the timestamp of that.
type StoredRow = (Uuid, i32, i32, Option<i64>, Option<i64>);

/// While a row in Cassandra is damaged, the watcher of the run cannot read the tables. The reads of clients succeed: they do not read the
/// position.
pub(super) async fn park_row(
    environment: &mut FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let model = plan.next_of("parked row", &MODELS);
    match model.store {
        Store::Cassandra => damage(environment, model, plan).await?,
        Store::Postgres => reject(environment, model, plan).await?,
    }
    environment.all_ready().await?;
    environment.installation().retry_parked_rows(1).await?;
    Ok(format!("{fault} {}", model.group))
}

/// Damages a row while no projector of the table runs, since one that has the row in memory would not read it. Repairs it when it is
/// parked.
async fn damage(environment: &mut FaultEnvironment, model: ReadModel, plan: &mut Plan) -> anyhow::Result<()> {
    let session = cassandra::connect(environment.installation().cassandra()).await?;
    wait_until("rows to damage", ROWS_WITHIN, async || match candidates(environment, &session, model).await {
        Ok(rows) if rows.len() >= ROWS_MIN => Ok(()),
        Ok(rows) => Err(format!("{} rows", rows.len())),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    let places = instances_of(model.group);
    for place in &places {
        environment.terminate(*place).await?;
    }
    let mut rows = candidates(environment, &session, model).await?;
    rows.truncate(CANDIDATES);
    ensure!(!rows.is_empty(), "no row of {model} has a position behind which its partition has gone on");
    let (row, table) = (plan.any(&rows), table(environment, model));
    row.write_position(&session, &table, None, DAMAGED_LATER).await?;
    for place in places {
        environment.start(place)?;
    }
    let parked = stays_parked(environment, model, plan).await;
    row.write_position(&session, &table, Some(row.position), REPAIRED_LATER).await?;
    parked
}

/// Lets PostgreSQL reject the next change of a row. Allows it again when the row is parked.
async fn reject(environment: &mut FaultEnvironment, model: ReadModel, plan: &mut Plan) -> anyhow::Result<()> {
    let database = environment.installation().database().connect().await?;
    let table = table(environment, model);
    let months = wait_until("rows to reject", ROWS_WITHIN, async || match months(&database, &table).await {
        Ok(months) if months.len() >= CANDIDATES => Ok(months),
        Ok(months) => Err(format!("{} rows", months.len())),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    let (vendor, year, month) = plan.any(&months);
    // The row is there already: without NOT VALID it would violate the constraint at once.
    let add = format!(
        "ALTER TABLE {table} ADD CONSTRAINT unchanged \
         CHECK (vendor_id <> '{vendor}' OR year <> {year} OR month <> {month}) NOT VALID"
    );
    sqlx::query(AssertSqlSafe(add)).execute(&database).await.context("adding a constraint")?;
    let parked = stays_parked(environment, model, plan).await;
    let drop = format!("ALTER TABLE {table} DROP CONSTRAINT unchanged");
    sqlx::query(AssertSqlSafe(drop)).execute(&database).await.context("dropping the constraint")?;
    database.close().await;
    parked
}

/// Waits until the row is parked, then kills a projector: the next owner of its partition has to know of it.
async fn stays_parked(environment: &mut FaultEnvironment, model: ReadModel, plan: &mut Plan) -> anyhow::Result<()> {
    let projector = environment.group(model.group);
    environment.installation().rows_become_parked(&projector, 1, PARKED_WITHIN).await?;
    let place = plan.any(&instances_of(model.group));
    environment.process(place)?.kill9()?;
    environment.start(place)?;
    tokio::time::sleep(WAIT).await;
    Ok(())
}

/// The table that the permanent projectors keep.
fn table(environment: &FaultEnvironment, model: ReadModel) -> String {
    model.table_name(environment.generation(model.group))
}

/// The rows that purchases change now: of the newest month, and of the vendors who sell most.
async fn months(database: &PgPool, table: &str) -> anyhow::Result<Vec<Month>> {
    let select = format!(
        "SELECT vendor_id, year, month FROM {table} ORDER BY year DESC, month DESC, balance DESC LIMIT {CANDIDATES}"
    );
    let months = sqlx::query_as::<_, Month>(AssertSqlSafe(select)).fetch_all(database).await;
    months.with_context(|| format!("reading {table}"))
}

/// The rows that may be damaged, the newest first.
async fn candidates(environment: &FaultEnvironment, session: &Session, model: ReadModel) -> anyhow::Result<Vec<Row>> {
    let (kafka, table) = (environment.installation().kafka(), table(environment, model));
    let group = kafka.prefixed(&environment.group(model.group));
    let topic = kafka.prefixed(PurchasedItem::TOPIC);
    let committed = tokio::task::block_in_place(|| Admin::new(kafka)?.committed(&group, &topic))?;
    let select = format!("SELECT vendorid, year, month, position, WRITETIME(position) FROM {table}");
    // A row of each vendor, and there are few.
    let result = session.query_unpaged(select.as_str(), ()).await.with_context(|| format!("reading {table}"))?;
    let result = result.into_rows_result()?;
    let stored = result.rows::<StoredRow>()?.collect::<Result<Vec<_>, _>>()?;
    Ok(newest_first(stored, &committed))
}

fn newest_first(stored: Vec<StoredRow>, committed: &[Option<i64>]) -> Vec<Row> {
    let mut rows: Vec<Row> = stored.into_iter().filter_map(|row| Row::of(row, committed)).collect();
    rows.sort_unstable_by_key(|row| (Reverse(row.position), row.month));
    rows
}

/// A row of a table in Cassandra.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    month: Month,
    position: i64,
    written_at: i64,
}

impl Row {
    /// A row whose partition has gone on so far that a record which the row takes later has a later timestamp than the repair: else
    /// Cassandra would keep the greater value of each column.
    fn of((vendor, year, month, position, written_at): StoredRow, committed: &[Option<i64>]) -> Option<Self> {
        let (position, written_at) = (position?, written_at?);
        let partition = partition_of(vendor.to_string().as_bytes(), i32::try_from(committed.len()).ok()?);
        let next = committed.get(usize::try_from(partition).ok()?).copied().flatten()?;
        let is_behind = Position::from(position).offset() + REPAIRED_LATER < next;
        is_behind.then_some(Self { month: (vendor, year, month), position, written_at })
    }

    /// Writes the position so much later than the projector has written it. A row without one cannot be read.
    async fn write_position(
        &self,
        session: &Session,
        table: &str,
        position: Option<i64>,
        later: i64,
    ) -> anyhow::Result<()> {
        let statement =
            format!("UPDATE {table} USING TIMESTAMP ? SET position = ? WHERE vendorid = ? AND year = ? AND month = ?");
        let (vendor, year, month) = self.month;
        let values = (self.written_at + later, position, vendor, year, month);
        session.query_unpaged(statement.as_str(), values).await.with_context(|| format!("writing a row of {table}"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cart::LogEpoch;

    use super::*;

    /// A row that includes the record at an offset, as a projector writes it.
    fn stored(vendor: u128, offset: i64) -> StoredRow {
        let position = Position::new(LogEpoch::FIRST, offset).get();
        (Uuid::from_u128(vendor), 2026, 1, Some(position), Some(position))
    }

    #[test]
    fn no_record_that_a_candidate_lacks_is_as_early_as_the_repair() {
        let candidates = |next| newest_first(vec![stored(1, 7), stored(2, 9), stored(3, 6)], &[next]);
        let vendors = |rows: Vec<Row>| rows.iter().map(|row| row.month.0.as_u128()).collect::<Vec<_>>();
        // The damage and the repair have the timestamps of the next two offsets.
        assert_eq!(vendors(candidates(Some(12))), [2, 1, 3]);
        assert_eq!(vendors(candidates(Some(11))), [1, 3]);
        assert_eq!(vendors(candidates(Some(10))), [1, 3]);
        assert_eq!(vendors(candidates(Some(9))), [3]);
        assert_eq!(vendors(candidates(Some(8))), [] as [u128; 0]);
        assert_eq!(vendors(candidates(None)), [] as [u128; 0]);
    }

    #[test]
    fn a_damaged_row_is_no_candidate() {
        let (vendor, year, month, _, _) = stored(1, 7);
        assert_eq!(newest_first(vec![(vendor, year, month, None, None)], &[Some(100)]), []);
    }
}
