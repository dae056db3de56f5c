//! `cartctl uninstall` deletes one installation, and nothing of another one on the same servers.

use std::time::Duration;

use anyhow::ensure;
use cart::CartCommand;
use cart::contract::Contract as _;
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::Admin;

const DEADLINE: Duration = Duration::from_secs(180);

async fn uninstall(installation: &Installation, decision: &str) -> anyhow::Result<Process> {
    let mut process = installation.spawn("uninstall", "cartctl", ["uninstall", decision])?;
    process.ended(DEADLINE).await?;
    Ok(process)
}

/// Which parts of an installation exist: its log, its journal, its database.
async fn is_there(installation: &Installation) -> (bool, bool, bool) {
    let commands = installation.kafka().prefixed(CartCommand::TOPIC);
    let topic =
        Admin::new(installation.kafka()).and_then(|admin| tokio::task::block_in_place(|| admin.partitions(&commands)));
    let keyspace = cassandra::connect(installation.cassandra()).await;
    let database = sqlx::PgPool::connect(installation.database_url()).await;
    (topic.is_ok(), keyspace.is_ok(), database.is_ok())
}

pub(crate) async fn an_installation_is_removed_and_its_neighbour_stays() -> anyhow::Result<()> {
    let (installation, neighbour) = (Installation::new("uninstall")?, Installation::new("neighbour")?);
    installation.setup().await?;
    neighbour.setup().await?;
    let mut processes = installation.start_all(&[(Service::CartProcessor, "0", &[])]).await?;

    let (admin, group) = (Admin::new(installation.kafka())?, installation.kafka().prefixed("cart-processor"));
    wait_until("the processor to join its group", DEADLINE, async || {
        match tokio::task::block_in_place(|| admin.ensure_idle(&group)) {
            Err(_) => Ok(()),
            Ok(()) => Err("the group has no members"),
        }
    })
    .await?;
    let refused = uninstall(&installation, "--yes").await?;
    ensure!(refused.log().contains("members; stop them first"), "{}", refused.log());
    let listed = uninstall(&installation, "--dry-run").await?;
    ensure!(
        listed.log().contains(installation.name()) && listed.log().contains("Nothing was deleted"),
        "{}",
        listed.log()
    );
    ensure!(is_there(&installation).await == (true, true, true), "nothing may be deleted yet");

    processes[0].terminate(DEADLINE).await?;
    for (option, foreign) in [
        ("--database-url", neighbour.database_url()),
        ("--cassandra-keyspace", &neighbour.cassandra().cassandra_keyspace),
    ] {
        let mut mixed = installation.spawn("mixed", "cartctl", ["uninstall", "--yes", option, foreign])?;
        let status = mixed.ended(DEADLINE).await?;
        let explained = mixed.log().contains("belongs to another installation");
        ensure!(status.code() == Some(2) && explained, "{option}: {status}, {}", mixed.log());
    }
    ensure!(is_there(&installation).await == (true, true, true), "a mixed installation is deleted in part");
    // A second run succeeds: a missing part is not an error.
    for _ in 0..2 {
        installation.run("uninstall", "cartctl", ["uninstall", "--yes"], DEADLINE).await?;
    }
    wait_until("the installation to be gone", DEADLINE, async || match is_there(&installation).await {
        (false, false, false) => Ok(()),
        seen => Err(format!("topic, keyspace, database: {seen:?}")),
    })
    .await?;
    ensure!(is_there(&neighbour).await == (true, true, true), "the neighbour keeps everything");
    neighbour.remove().await?;
    installation.remove().await
}
