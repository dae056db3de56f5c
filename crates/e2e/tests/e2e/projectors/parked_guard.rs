//! `vendor-billing-jdbc`: a batch passes records over only while the database says that their row is parked, and the database lets no
//! projector go on that does not know of parked rows.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them).

use anyhow::{bail, ensure};
use cartctl::vendor_id;
use chrono::Datelike as _;
use e2e::harness::Process;
use kafka::partition_of;
use rust_decimal::Decimal;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::offset_guard::{check, wants_our_row};
use super::oracle::Rows;
use super::read_side::{DEADLINE, JDBC, ReadSide, metric};
use super::shop::Line;

/// Lines of all vendors, two of each.
const LINES: usize = 48;

/// Switches off that a batch asks for the markers of the rows that it passes over.
const WITHOUT_GUARD: &str = "guard-passed-over=return";

/// The vendor whose row is parked.
fn bad() -> Uuid {
    vendor_id("V0")
}

/// The partition of its records.
fn partition_of_bad(read_side: &ReadSide) -> i32 {
    partition_of(bad().to_string().as_bytes(), read_side.installation.partitions().into())
}

/// New lines of these vendors, all of one month: a vendor has one row.
fn lines(read_side: &ReadSide, vendors: &[Uuid]) -> Vec<Line> {
    let lines = read_side.lines(vendors.len()).into_iter().zip(vendors);
    lines.map(|(line, vendor)| Line { vendor: *vendor, at: Line::of(0).at, ..line }).collect()
}

async fn start(read_side: &ReadSide, instance: &str, fail_points: &str) -> anyhow::Result<Process> {
    let mut process = read_side.start_with(JDBC, instance, fail_points)?;
    process.ready(DEADLINE).await?;
    Ok(process)
}

/// Parks the bad vendor's row. The instance that goes on knows that, and has room for the row.
async fn park(read_side: &mut ReadSide, round: &str, guard: &str) -> anyhow::Result<Process> {
    let vendors: Vec<Uuid> = read_side.lines(LINES).iter().map(|line| line.vendor).collect();
    let first = lines(read_side, &vendors);
    read_side.send(read_side.purchases(), first)?;
    let overflows = format!("row-overflows=return({})", bad());
    let mut process = start(read_side, &format!("parks{round}"), &overflows).await?;
    read_side.rest(&[JDBC]).await?;
    process.terminate(DEADLINE).await?;
    let process = start(read_side, &format!("goes-on{round}"), guard).await?;
    let second = lines(read_side, &vendors);
    read_side.send(read_side.purchases(), second)?;
    read_side.rest(&[JDBC]).await?;
    read_side.installation.rows_become_parked(JDBC, 1, DEADLINE).await?;
    Ok(process)
}

/// Acts as a try whose answer was lost: it adds what waits, ends the marker, and commits while the instance is about to pass the next
/// record of the row over.
async fn act_as_late_try(read_side: &mut ReadSide, waiting: &[Line]) -> anyhow::Result<()> {
    let at = Line::of(0).at;
    let amount: i64 = waiting.iter().map(|line| line.price * i64::from(line.quantity)).sum();
    let partition = partition_of_bad(read_side);
    let mut transaction = read_side.database.begin().await?;
    sqlx::query("SELECT next_offset FROM projection_offset WHERE partition = $1 FOR UPDATE")
        .bind(partition)
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO vendor_billing_g1 AS billing (vendor_id, year, month, balance) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (vendor_id, year, month) DO UPDATE SET balance = billing.balance + EXCLUDED.balance",
    )
    .bind(bad())
    .bind(at.year())
    .bind(at.month().cast_signed())
    .bind(Decimal::new(amount, 4))
    .execute(&mut *transaction)
    .await?;
    let ended =
        sqlx::query("DELETE FROM parked_row WHERE vendor_id = $1").bind(bad()).execute(&mut *transaction).await?;
    ensure!(ended.rows_affected() == 1, "the vendor has {} parked rows", ended.rows_affected());
    let next = lines(read_side, &[bad(), vendor_id("V1")]);
    read_side.send(read_side.purchases(), next)?;
    wants_our_row(read_side).await?;
    Ok(transaction.commit().await?)
}

/// Parks the row, ends its marker and sends one more record of it. Returns how often the instance went back to the database's offsets.
async fn try_late(read_side: &mut ReadSide, round: &str, guard: &str) -> anyhow::Result<u64> {
    let recoveries = "projector_recoveries_total";
    let before = read_side.sent.len();
    let mut process = park(read_side, round, guard).await?;
    let waiting: Vec<Line> = read_side.sent[before..].iter().filter(|line| line.vendor == bad()).cloned().collect();
    let recovered = metric(&process, recoveries).await?;
    act_as_late_try(read_side, &waiting).await?;
    read_side.rest(&[JDBC]).await?;
    let recovered = metric(&process, recoveries).await? - recovered;
    process.terminate(DEADLINE).await?;
    Ok(recovered)
}

pub(crate) async fn a_batch_that_passes_a_record_over_sees_a_try_that_comes_late() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("passedover").await?;
    // The guard must not depend on the default: such a transaction would not see what was committed while it waited.
    let database = read_side.installation.name();
    let set = format!("ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'");
    sqlx::query(AssertSqlSafe(set)).execute(&read_side.database).await?;
    let recovered = try_late(&mut read_side, "1", "").await?;
    check(&read_side).await?;
    ensure!(recovered > 0, "it did not notice the other try");

    try_late(&mut read_side, "2", WITHOUT_GUARD).await?;
    let (expected, found) = (read_side.expected().await?, read_side.rows().await?);
    let differences = Rows { billing: expected.billing, ..Rows::default() }.differences(&found);
    ensure!(!differences.is_empty(), "without the guard no record was lost: the instance passed none over");
    ensure!(differences.iter().all(|text| text.contains(&bad().to_string())), "{}", differences.join("\n"));
    read_side.remove().await
}

/// Moves the offsets of partitions, as a projector does that knows of parked rows or not, and undoes that. Returns how many.
async fn move_offsets(read_side: &ReadSide, partitions: &[i32], knows_parked_rows: bool) -> Result<u64, sqlx::Error> {
    let mut transaction = read_side.database.begin().await?;
    if knows_parked_rows {
        sqlx::query("SET LOCAL cart.knows_parked_rows = 'on'").execute(&mut *transaction).await?;
    }
    let moved = sqlx::query("UPDATE projection_offset SET next_offset = next_offset + 1 WHERE partition = ANY($1)")
        .bind(partitions)
        .execute(&mut *transaction)
        .await?;
    transaction.rollback().await?;
    Ok(moved.rows_affected())
}

pub(crate) async fn a_projector_that_knows_no_parked_rows_stops_at_them() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("tooold").await?;
    // It moves the offset of its partition.
    let mut process = park(&mut read_side, "", "").await?;
    let partition = partition_of_bad(&read_side);
    let partitions = i32::from(read_side.installation.partitions());
    let others: Vec<i32> = (0..partitions).filter(|other| *other != partition).collect();
    let moved = move_offsets(&read_side, &others, false).await?;
    ensure!(moved == others.len() as u64, "{moved} offsets of {others:?}, in which no row is parked, were moved");
    let moved = move_offsets(&read_side, &[partition], true).await?;
    ensure!(moved == 1, "a projector that knows of parked rows moved {moved} offsets");
    let Err(error) = move_offsets(&read_side, &[partition], false).await else {
        bail!("a projector that does not know of parked rows moved an offset past one");
    };
    let code = error.as_database_error().and_then(|error| error.code());
    ensure!(code.as_deref() == Some("55000") && error.to_string().contains("too old"), "{error}");
    process.terminate(DEADLINE).await?;
    read_side.remove().await
}
