//! `vendor-billing-jdbc`: the database has the next offset, not Kafka or an instance's memory.

use anyhow::ensure;
use cartctl::vendor_id;
use e2e::harness::wait_until;
use kafka::{Admin, partition_of};
use rust_decimal::Decimal;

use super::oracle::Rows;
use super::read_side::{DEADLINE, JDBC, ReadSide, metric};
use super::shop::Line;
use crate::metrics::lag;

/// Lines of one vendor and month, which are one row.
const SECOND_OWNERS_LINES: usize = 20;

/// Checks only `vendor_billing`, since the other projectors do not run.
pub(crate) async fn check(read_side: &ReadSide) -> anyhow::Result<()> {
    let (expected, found) = (read_side.expected().await?, read_side.rows().await?);
    let differences = Rows { billing: expected.billing, ..Rows::default() }.differences(&found);
    ensure!(differences.is_empty(), "vendor_billing is not right:\n{}", differences.join("\n"));
    Ok(())
}

/// Sets the database to a restored backup from before the first purchase.
async fn restore(read_side: &ReadSide) -> anyhow::Result<()> {
    let mut transaction = read_side.database.begin().await?;
    sqlx::query("UPDATE projection_offset SET next_offset = 0").execute(&mut *transaction).await?;
    sqlx::query("DELETE FROM vendor_billing").execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

/// Waits until the instance waits for a row that the test has locked.
pub(crate) async fn wants_our_row(read_side: &ReadSide) -> anyhow::Result<()> {
    wait_until("the instance to want the row that we have locked", DEADLINE, async || {
        let waiting: Result<i64, _> = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&read_side.database)
        .await;
        match waiting {
            Ok(1) => Ok(()),
            Ok(waiting) => Err(format!("{waiting} wait")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// Acts as another instance that has applied the next records, and commits while the instance under test is in its transaction.
async fn act_as_second_owner(read_side: &mut ReadSide) -> anyhow::Result<()> {
    let vendor = vendor_id("V0");
    let lines: Vec<_> = read_side.lines(SECOND_OWNERS_LINES);
    let lines: Vec<_> = lines.into_iter().map(|line| Line { vendor, at: Line::of(0).at, ..line }).collect();
    let amount: i64 = lines.iter().map(|line| line.price * i64::from(line.quantity)).sum();
    let ends = tokio::task::block_in_place(|| {
        Admin::new(read_side.installation.kafka())?.watermarks(&read_side.purchases_topic())
    })?;
    let partition = partition_of(vendor.to_string().as_bytes(), i32::try_from(ends.len())?);
    let next_offset = ends[usize::try_from(partition)?].1 + lines.len() as i64;

    let mut transaction = read_side.database.begin().await?;
    let moved = sqlx::query("UPDATE projection_offset SET next_offset = $1 WHERE partition = $2")
        .bind(next_offset)
        .bind(partition)
        .execute(&mut *transaction)
        .await?;
    ensure!(moved.rows_affected() == 1, "partition {partition} has {} offsets", moved.rows_affected());
    let added = sqlx::query("UPDATE vendor_billing SET balance = balance + $1 WHERE vendor_id = $2 AND month = 12")
        .bind(Decimal::new(amount, 4))
        .bind(vendor)
        .execute(&mut *transaction)
        .await?;
    ensure!(added.rows_affected() == 1, "vendor {vendor} has {} rows", added.rows_affected());
    read_side.send(read_side.purchases(), lines)?;
    wants_our_row(read_side).await?;
    Ok(transaction.commit().await?)
}

pub(crate) async fn the_database_has_the_next_offset() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("guard").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let mut processes = read_side.start(&[JDBC], "a").await?;
    read_side.rest(&[JDBC]).await?;
    check(&read_side).await?;
    let recoveries = "projector_recoveries_total";
    let before = metric(&processes[0], recoveries).await?;

    act_as_second_owner(&mut read_side).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    read_side.rest(&[JDBC]).await?;
    check(&read_side).await?;
    ensure!(metric(&processes[0], recoveries).await? > before, "it did not notice the other owner");

    // While the instance runs: it notices at the next record, and applies everything again.
    restore(&read_side).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    read_side.rest(&[JDBC]).await?;
    check(&read_side).await?;
    processes[0].terminate(DEADLINE).await?;

    // While it is stopped: the group's offsets are ahead of the database's, and there are records at both.
    restore(&read_side).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    let _processes = read_side.start(&[JDBC], "a").await?;
    read_side.rest(&[JDBC]).await?;
    check(&read_side).await?;
    read_side.remove().await
}

/// Another session locks the offsets for longer than the statement timeout.
pub(crate) async fn a_database_that_does_not_answer_is_retried() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("unanswered").await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    let mut processes = read_side.start(&[JDBC], "a").await?;
    read_side.rest(&[JDBC]).await?;
    let recoveries = "projector_recoveries_total";
    let before = metric(&processes[0], recoveries).await?;

    let mut transaction = read_side.database.begin().await?;
    sqlx::query("SELECT next_offset FROM projection_offset FOR UPDATE").fetch_all(&mut *transaction).await?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    wait_until("the projector to give its statement up", DEADLINE, async || {
        match metric(&processes[0], recoveries).await {
            Ok(now) if now > before => Ok(()),
            Ok(now) => Err(format!("{now} recoveries, {before} before")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    let (records, seconds) = lag(&processes[0]).await?;
    ensure!(records >= 1.0 && seconds >= 20.0, "behind by {records} records and {seconds} s after a timeout of 30 s");
    transaction.rollback().await?;

    read_side.rest(&[JDBC]).await?;
    wait_until("the projector to be behind by nothing", DEADLINE, async || match lag(&processes[0]).await {
        Ok((0.0, 0.0)) => Ok(()),
        lag => Err(format!("{lag:?}")),
    })
    .await?;
    check(&read_side).await?;
    processes[0].terminate(DEADLINE).await?;
    read_side.remove().await
}
