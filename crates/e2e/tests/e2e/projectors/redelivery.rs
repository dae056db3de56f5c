//! Redelivered records change nothing.

use cart::contract::{READ_MODELS, Store};

use super::read_side::{DEADLINE, ReadSide, TABLES};

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
    let in_kafka = READ_MODELS.iter().filter(|model| model.store == Store::Cassandra).map(|model| model.group);
    read_side.rest(&in_kafka.collect::<Vec<_>>()).await?;
    let differences = before.differences(&read_side.rows().await?);
    anyhow::ensure!(differences.is_empty(), "what came again changed the tables:\n{}", differences.join("\n"));
    // Those of PostgreSQL continue at the database's offset, which new records show.
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}
