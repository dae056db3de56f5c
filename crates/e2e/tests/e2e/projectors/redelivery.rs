//! Redelivered records change nothing.

use super::read_side::{BILLING, DEADLINE, JDBC, POPULAR, ReadSide, TABLES};

pub(crate) async fn redelivered_records_change_nothing() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("again").await?;
    read_side.send(read_side.purchases(), read_side.lines(1_000))?;
    let mut processes = read_side.start(&TABLES, "a").await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }

    let before = read_side.rows().await?;
    for projector in TABLES {
        read_side.reset_group(projector)?;
    }
    let _processes = read_side.start(&TABLES, "a").await?;
    // Their offsets are in Kafka, so they process everything again.
    read_side.rest(&[POPULAR, BILLING]).await?;
    let differences = before.differences(&read_side.rows().await?);
    anyhow::ensure!(differences.is_empty(), "what came again changed the tables:\n{}", differences.join("\n"));
    // The third one continues at the database's offset, which new records show.
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&[POPULAR, BILLING, JDBC]).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}
