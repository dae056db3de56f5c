//! Switching, back, again, and dropping, under load with readers on every row.

use anyhow::ensure;
use cart::contract::group::POPULAR_ITEMS;

use e2e::harness::{Process, Service};

use super::readers::{READ_TIMEOUT_MS, Readers};
use super::{cartctl, generation, keep_first, rebuild, switch};
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};

/// Each goes by a pointer of its own age.
const READERS: usize = 2;

pub(crate) async fn readers_see_no_fall_while_generations_are_switched() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("generations").await?;
    read_side.send(read_side.purchases(), read_side.lines(400))?;
    let load = read_side.start_load(read_side.purchases());
    let mut first = keep_first(&read_side).await?;
    let ingests = ingests(&read_side).await?;
    let urls = ingests.iter().filter_map(Process::address).map(|address| format!("http://{address}")).collect();
    let readers = Readers::start(&read_side.installation, READERS, urls).await?;

    let mut second = Vec::new();
    for model in TABLES {
        second.push(rebuild(&read_side, model, "2", &[]).await?);
        cartctl(&read_side, &["diff", model], &[]).await?.with(0, "0 different, 0 missing, 0 extra")?;
    }
    a_generation_that_is_not_current_is_refused(&read_side, &mut second).await?;

    for model in TABLES {
        let args = ["drop", model, "--generation", "2"];
        cartctl(&read_side, &args, &[]).await?.with(1, "has members")?;
        switch(&read_side, &[model, "--to", "2", "--accept-diff", "none", "--by", "ops"]).await?;
        ensure!(read_side.active(model).await?.get() == 2, "{model} was not switched");
        // A repeat changes nothing.
        switch(&read_side, &[model, "--to", "2", "--accept-diff", "none"]).await?.with(0, "already")?;
        switch(&read_side, &[model, "--back"]).await?.with(0, "readers see generation 1 after 2")?;
        switch(&read_side, &[model, "--to", "2", "--accept-diff", "none"]).await?;
        cartctl(&read_side, &["drop", model, "--generation", "2"], &[]).await?.with(1, "see generation 2")?;
    }

    read_side.finish(load).await?;
    for model in TABLES {
        read_side.rest(&[model]).await?;
        cartctl(&read_side, &["diff", model, "1", "2"], &[]).await?.with(0, "diff none")?;
    }
    // What readers see: the tables of generation 1 in Cassandra, which other programs know by name, and the view, which shows generation 2.
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;

    for (model, process) in TABLES.into_iter().zip(&mut first) {
        process.terminate(DEADLINE).await?;
        let args = ["drop", model, "--generation", "1"];
        cartctl(&read_side, &[&args[..], &["--dry-run"]].concat(), &[]).await?.with(0, "would be deleted")?;
        ensure!(read_side.generations(model).await? == [generation(1)?, generation(2)?], "a dry run has deleted");
        cartctl(&read_side, &args, &[]).await?.with(0, "are deleted")?;
        cartctl(&read_side, &args, &[]).await?.with(0, "has no table of generation 1")?;
        ensure!(read_side.generations(model).await? == [generation(2)?], "generation 1 of {model} is still there");
        cartctl(&read_side, &["switch", model, "--back"], &[]).await?.with(1, "has no generation 1")?;
    }
    // The table that a dropped generation had is not created again.
    read_side.installation.run("setup-again", "projectors", ["setup"], DEADLINE).await?;
    for model in TABLES {
        ensure!(read_side.generations(model).await? == [generation(2)?], "setup has created generation 1 of {model}");
    }
    let reads = readers.finish().await?;
    ensure!(reads > 20, "there were only {reads} reads");
    drop((second, ingests));
    read_side.remove().await
}

/// Two `ingest`s, each with a pointer of its own age. Nothing is sent to them but reads.
async fn ingests(read_side: &ReadSide) -> anyhow::Result<Vec<Process>> {
    for binary in ["cart-processor", "ingest"] {
        read_side.installation.run(&format!("{binary}-setup"), binary, ["setup"], DEADLINE).await?;
    }
    let timeout_ms = READ_TIMEOUT_MS.to_string();
    let args = ["--cassandra-request-timeout-ms", &timeout_ms];
    read_side.installation.start_all(&[(Service::Ingest, "0", &args), (Service::Ingest, "1", &args)]).await
}

async fn a_generation_that_is_not_current_is_refused(
    read_side: &ReadSide,
    second: &mut [Process],
) -> anyhow::Result<()> {
    let args = ["switch", POPULAR_ITEMS, "--to", "2", "--accept-diff", "none"];
    for group in ["popular-items-g2", POPULAR_ITEMS] {
        let pause = ["pause", group, "--reason", "index build", "--by", "ops", "--wait", "60s"];
        cartctl(read_side, &pause, &[]).await?.with(0, "is paused")?;
        cartctl(read_side, &args, &[]).await?.with(1, "is paused by ops (index build)")?;
        cartctl(read_side, &["resume", group, "--wait", "60s"], &[]).await?.with(0, "goes on")?;
    }
    let popular = TABLES.iter().position(|table| *table == POPULAR_ITEMS).unwrap_or_default();
    second[popular].terminate(DEADLINE).await?;
    cartctl(read_side, &args, &[]).await?.with(1, "popular-items-g2 does not run")?;
    second[popular] = super::keep(read_side, POPULAR_ITEMS, "2").await?;
    let args = ["switch", POPULAR_ITEMS, "--to", "7", "--accept-diff", "none"];
    cartctl(read_side, &args, &[]).await?.with(1, "has no generation 7")?;
    cartctl(read_side, &["switch", POPULAR_ITEMS, "--back"], &[]).await?.with(1, "have not seen another generation")?;
    Ok(())
}
