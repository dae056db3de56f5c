//! Projectors are killed during their work, and continue where they were.

use super::read_side::{ReadSide, TABLES};

pub(crate) async fn a_killed_projector_continues_where_it_was() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("killed").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let load = read_side.start_load(read_side.purchases());
    let mut processes = read_side.start(&TABLES, "a").await?;
    for _ in 0..2 {
        read_side.progress(&TABLES, 200).await?;
        for process in &mut processes {
            process.kill9()?;
        }
        processes = read_side.start(&TABLES, "a").await?;
    }
    read_side.progress(&TABLES, 200).await?;
    read_side.finish(load).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    read_side.remove().await
}
