//! Two instances of each projector that keeps a table: partitions move between them under load, and one of them may still use
//! partitions that the other one has.

use e2e::harness::{Process, wait_until};

use super::read_side::{DEADLINE, JDBC, ReadSide, SESSION_TIMEOUT, TABLES, metric, work};

pub(crate) async fn partitions_move_in_the_middle_of_the_work() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("shared").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let load = read_side.start_load(read_side.purchases());
    let mut first = read_side.start(&TABLES, "a").await?;
    read_side.progress(&TABLES, 200).await?;
    let mut second = read_side.start(&TABLES, "b").await?;
    work(&second, 50).await?;
    for process in &mut second {
        process.kill9()?;
    }
    read_side.progress_everywhere(&TABLES).await?;
    let second = read_side.start(&TABLES, "b").await?;
    work(&second, 50).await?;
    for process in &mut first {
        process.kill9()?;
    }
    read_side.progress_everywhere(&TABLES).await?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}

/// Waits until each of these instances has at least so many partitions.
async fn assigned(processes: &[Process], partitions: u64) -> anyhow::Result<()> {
    for process in processes {
        wait_until("an instance to be given partitions", DEADLINE, async || {
            match metric(process, "cart_assigned_partitions").await {
                Ok(assigned) if assigned >= partitions => Ok(()),
                Ok(assigned) => Err(format!("it has {assigned} of {partitions}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn a_reassigned_partition_reloads_its_totals() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("back").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let first = read_side.start(&TABLES, "a").await?;
    read_side.rest(&TABLES).await?;
    // Partitions move while nothing is processed, so that no failed commit makes the first instance drop its totals.
    let mut second = read_side.start(&TABLES, "b").await?;
    assigned(&second, 1).await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    for process in &mut second {
        process.terminate(DEADLINE).await?;
    }
    assigned(&first, read_side.installation.partitions().into()).await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}

/// Pauses the only instance of `vendor-billing-jdbc` at the worst place: while it holds the lock on its offsets.
async fn pause_in_transaction(read_side: &ReadSide, process: &Process) -> anyhow::Result<()> {
    const OPEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND state = 'idle in transaction' AND backend_xid IS NOT NULL";
    wait_until("the instance to be paused inside a transaction", DEADLINE, async || {
        process.pause().map_err(|error| error.to_string())?;
        let open: Result<i64, _> = sqlx::query_scalar(OPEN).fetch_one(&read_side.database).await;
        if matches!(open, Ok(1)) {
            return Ok(());
        }
        process.resume().map_err(|error| error.to_string())?;
        Err(format!("open transactions: {open:?}"))
    })
    .await
}

pub(crate) async fn an_instance_that_was_paused_does_no_harm() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("zombies").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let load = read_side.start_load(read_side.purchases());
    let paused = read_side.start(&TABLES, "a").await?;
    work(&paused, 50).await?;
    for (projector, process) in TABLES.iter().zip(&paused) {
        if *projector == JDBC { pause_in_transaction(&read_side, process).await? } else { process.pause()? }
    }
    let mut others = read_side.start(&TABLES, "b").await?;
    // After the paused instances' sessions have timed out, the others have all partitions, and their writes are newer than
    // those of the paused ones.
    read_side.progress_everywhere(&TABLES).await?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;

    for process in &paused {
        process.resume()?;
    }
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    // The resumed instance can only process all partitions after it has noticed the rebalance and dropped its totals.
    for process in &mut others {
        process.terminate(DEADLINE).await?;
    }
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}

pub(crate) async fn an_instance_stuck_in_a_rebalance_joins_its_group_again() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("lost").await?;
    let mut instances = Vec::new();
    for projector in TABLES {
        // When it loses its partitions it does not acknowledge that to librdkafka, which waits for it.
        instances.push(read_side.start_with(projector, "a", "guard-unassign=1*return")?);
    }
    for instance in &mut instances {
        instance.ready(DEADLINE).await?;
    }
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    for instance in &instances {
        instance.pause()?;
    }
    tokio::time::sleep(2 * SESSION_TIMEOUT).await;
    for instance in &instances {
        instance.resume()?;
    }
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    for instance in &instances {
        wait_until("an instance to begin anew", DEADLINE, async || match instance.log() {
            log if log.contains("joining it again") => Ok(()),
            log => Err(log),
        })
        .await?;
    }
    read_side.rest(&TABLES).await?;
    for instance in &mut instances {
        instance.terminate(DEADLINE).await?;
    }
    read_side.check_tables().await?;
    read_side.remove().await
}
