//! Two instances of each projector that keeps a table: partitions move between them while there is much to do, and one of
//! them may think that it has partitions which the other one has.

use e2e::harness::{Process, wait_until};

use super::read_side::{DEADLINE, JDBC, ReadSide, SESSION_TIMEOUT, TABLES, work};

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

/// Waits until each of these instances was given partitions so many times.
async fn assigned(processes: &[Process], times: usize) -> anyhow::Result<()> {
    for process in processes {
        wait_until("an instance to be given partitions", DEADLINE, async || {
            let log = process.log();
            // A rebalance that gives an instance nothing is told too.
            let given = |line: &&str| line.contains("partitions assigned") && !line.ends_with("[]");
            if log.lines().filter(given).count() >= times { Ok(()) } else { Err(log) }
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn what_comes_back_is_not_what_it_was() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("back").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let first = read_side.start(&TABLES, "a").await?;
    read_side.rest(&TABLES).await?;
    // Partitions go and come while nothing is done, so that no failed commit makes the first one forget what it knows.
    let mut second = read_side.start(&TABLES, "b").await?;
    assigned(&second, 1).await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    for process in &mut second {
        process.terminate(DEADLINE).await?;
    }
    assigned(&first, 2).await?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}

/// Pauses the only instance of `vendor-billing-jdbc` where it is most in the way: it has locked its offsets.
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
    // When the paused ones' sessions are over, the others have all partitions: what they do is newer than what those have
    // in hand.
    read_side.progress_everywhere(&TABLES).await?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;

    for process in &paused {
        process.resume()?;
    }
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    // It can only go on with everything when it has noticed, and forgotten what it had.
    for process in &mut others {
        process.terminate(DEADLINE).await?;
    }
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}

pub(crate) async fn an_instance_that_does_not_come_back_to_its_group_begins_anew() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("lost").await?;
    let mut instances = Vec::new();
    for projector in TABLES {
        // When it loses its partitions it does not tell librdkafka that it has heard of that, which waits for it then.
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
