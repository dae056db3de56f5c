//! Projectors wait for `setup`, and use existing tables.

use std::collections::HashSet;

use anyhow::ensure;
use cart::PurchasedItem;
use cart::contract::Contract as _;
use e2e::harness::{Installation, Process, Service, wait_until};
use futures::future::try_join_all;
use kafka::Registry;

use super::read_side::{self, BILLING, DEADLINE, EVENTS, ReadSide, TABLES, get};

async fn is_waiting(process: &Process) -> anyhow::Result<()> {
    wait_until("an instance to answer", DEADLINE, async || match get(process, "/health/ready").await {
        Ok(text) if text.contains("start: waiting for topic") => Ok(()),
        Ok(text) => Err(format!("it says {text}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

pub(crate) async fn projectors_may_be_started_before_setup() -> anyhow::Result<()> {
    let installation = Installation::new("early")?;
    // An existing database without tables is not set up.
    installation.create_database().await?;
    let mut impatient = installation.start(Service::Projector(BILLING), "impatient", &["--startup-timeout-s", "1"])?;
    let patient = Service::PROJECTORS.map(|projector| installation.start(projector, "patient", &[]));
    let mut processes = patient.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let status = impatient.ended(DEADLINE).await?;
    let words = impatient.log();
    ensure!(!status.success() && words.contains("`setup` creates it"), "it ended ({status}) with: {words}");
    for process in &processes {
        is_waiting(process).await?;
    }

    read_side::set_up(&installation).await?;
    for process in &mut processes {
        process.ready(DEADLINE).await?;
    }
    let mut read_side = ReadSide::open(installation).await?;
    read_side.send(read_side.events(), read_side.lines(200))?;
    read_side.rest(&[EVENTS]).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_topic().await?;
    read_side.check_tables().await?;

    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    // A second `setup` changes nothing.
    let before = read_side.rows().await?;
    read_side::set_up(&read_side.installation).await?;
    ensure!(before == read_side.rows().await?, "a second setup changed the tables");
    let mut processes = read_side.start(&[EVENTS], "a").await?;
    processes.extend(read_side.start(&TABLES, "a").await?);
    read_side.send(read_side.events(), read_side.lines(200))?;
    read_side.rest(&[EVENTS]).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_topic().await?;
    read_side.check_tables().await?;
    read_side.remove().await
}

/// Waiting does not bring them back.
pub(crate) async fn a_projector_whose_committed_offsets_are_lost_ends() -> anyhow::Result<()> {
    let read_side = ReadSide::set_up("offsetslost").await?;
    let mut lost = read_side.start_with(EVENTS, "a", "assignment-fails=1*return;offsets-lost=return")?;
    let status = lost.ended(DEADLINE).await?;
    let words = lost.log();
    let is_named = words.contains("no longer has any; `setup` shows what to do");
    ensure!(!status.success() && is_named, "it ended ({status}) with: {words}");
    read_side.remove().await
}

pub(crate) async fn concurrent_registrations_of_a_schema_succeed() -> anyhow::Result<()> {
    let installation = Installation::new("registry")?;
    let registry = Registry::new(installation.kafka())?;
    for topic in ["one", "two", "three", "four"] {
        let one = || registry.register(topic, PurchasedItem::SCHEMA);
        let ids: HashSet<_> = try_join_all((0..16).map(|_| one())).await?.into_iter().collect();
        ensure!(ids.len() == 1, "one schema has several ids: {ids:?}");
    }
    Ok(())
}
