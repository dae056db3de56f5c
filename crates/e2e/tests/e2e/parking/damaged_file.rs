//! A damaged file in Cassandra: the cart whose rows are in it is parked, and all others go on. When the file is whole again, that cart
//! goes on, too.
//!
//! Runs on servers of its own, alone: `scripts/test --own-servers`.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use e2e::harness::{DamagedFile, Installation, OwnServers, Server, State, wait_until};
use serde_json::json;
use tokio::task::block_in_place;
use uuid::Uuid;

use super::{DEADLINE, System};

/// As in the `cassandra.yaml` that Cassandra comes with. That of scripts/servers has no value, so its nodes ignore failures of a disk.
const SETTINGS: (&str, &str) = ("CASSANDRA_SETTINGS", "disk_failure_policy=stop");

const TABLE: &str = "cart_journal";

/// Commands of each cart before the damage: its rows are one part of a file.
const COMMANDS: usize = 3;

/// Fills carts. Returns the version of the last one.
async fn fill(system: &mut System, carts: &[Uuid]) -> anyhow::Result<i64> {
    let mut processor = system.processor("").await?;
    let mut newest = 0;
    for cart in carts {
        for _ in 0..COMMANDS {
            system.added(*cart).await?;
        }
        newest = version(system, *cart).await?;
    }
    processor.terminate(DEADLINE).await?;
    Ok(newest)
}

/// Stops Cassandra, and returns the new files with what carts were filled with. Two or three are too few to be compacted.
fn stop(system: &System, servers: &OwnServers) -> anyhow::Result<Vec<PathBuf>> {
    let keyspace = system.installation.name();
    let before = servers.table_files(keyspace, TABLE)?;
    servers.stop_cassandra()?;
    let after = servers.table_files(keyspace, TABLE)?;
    let files: Vec<PathBuf> = after.difference(&before).cloned().collect();
    ensure!(!files.is_empty(), "Cassandra has written no file of {TABLE} before it ended");
    Ok(files)
}

/// The version of a cart, once ingest is connected to Cassandra again.
async fn version(system: &System, cart: Uuid) -> anyhow::Result<i64> {
    wait_until("the cart to be shown", DEADLINE, async || {
        let shown = system.get(&format!("/cart/{cart}")).await.map_err(|error| format!("{error:#}"))?;
        shown["version"].as_i64().ok_or_else(|| shown.to_string())
    })
    .await
}

async fn go_on(system: &System, carts: &[Uuid]) -> anyhow::Result<()> {
    for cart in carts {
        system.added(*cart).await?;
    }
    Ok(())
}

pub(crate) async fn a_cart_in_a_damaged_file_is_parked_until_the_file_is_whole() -> anyhow::Result<()> {
    let servers = block_in_place(|| OwnServers::start_with_settings("damaged-file", &[SETTINGS]))?;
    let mut system = System::start_on(Installation::on("damaged", &servers)?).await?;
    let carts = system.carts(4);
    let (cart, others) = carts.split_first().context("a cart")?;
    fill(&mut system, others).await?;
    block_in_place(|| stop(&system, &servers).and_then(|_| servers.up()))?;
    let before = fill(&mut system, &[*cart]).await?;
    let damaged = block_in_place(|| {
        let files = stop(&system, &servers)?;
        let damaged = files.iter().map(|file| DamagedFile::damage(file)).collect::<anyhow::Result<Vec<_>>>()?;
        servers.up()?;
        anyhow::Ok(damaged)
    })?;

    // It has no cart in memory.
    let mut processor = system.processor("").await?;
    go_on(&system, others).await?;
    let (status, first) = system.add(*cart, Uuid::new_v4()).await?;
    ensure!(status == 202 && first["parked"] == true && first["reason"] == "journal-unreadable", "{status}: {first}");
    go_on(&system, others).await?;
    system.installation.becomes_parked(*cart, DEADLINE).await?;
    let (status, second) = system.add(*cart, Uuid::new_v4()).await?;
    ensure!(status == 202 && second["parked"] == true, "{status}: {second}");
    go_on(&system, others).await?;
    let parked = system.installation.parked().await?;
    ensure!(parked.len() == 1, "one file is damaged: {parked:?}");
    let log = servers.log(Server::Cassandra);
    ensure!(log.contains("CorruptSSTableException"), "Cassandra has not met the damaged file: {parked:?}");
    ensure!(block_in_place(|| servers.state(Server::Cassandra))? == State::Up, "Cassandra has stopped at the file");
    let id = cart.to_string();
    let tried = system.installation.cartctl(&["parked", "retry", &id], &[], DEADLINE).await?;
    tried.with(1, "0 live, 1 still parked").context("a try before the repair")?;

    block_in_place(|| {
        servers.stop_cassandra()?;
        damaged.into_iter().try_for_each(DamagedFile::repair)?;
        servers.up()
    })?;
    go_on(&system, others).await?;
    system.installation.retry_parked(*cart).await?;
    let after = version(&system, *cart).await?;
    ensure!(after == before + 2, "two commands have waited: version {after}, not {before} + 2");
    for command in [first, second] {
        let asked = system.status(*cart, &command).await?;
        ensure!(asked["status"] == "accepted", "{asked}");
    }
    let (status, answer) = system.add(*cart, Uuid::new_v4()).await?;
    ensure!(status == 200 && answer["version"] == after + 1, "it is live: {status}, {answer}");
    let (status, bought) = system.send(*cart, "/checkout", json!({})).await?;
    ensure!(status == 200, "{status}: {bought}");
    let report = system.clean("after the repair").await?;
    ensure!(report.counts.parked == 0 && system.installation.parked().await?.is_empty(), "{report}");
    processor.terminate(DEADLINE).await?;
    system.installation.remove().await
}
