//! Faults under load: whatever dies, pauses or goes away, nothing is lost and nothing counted twice. The binary of that name.
//!
//! ```text
//! for each fault of the plan:   replay --record ─▶ balancer ─▶ ingest ... read tables
//!                                      │ meanwhile: inject, hold, heal, wait until all are ready again
//! at the end: audit ─▶ the log, the journal, the topics, the tables, and what each client got
//! ```
//!
//! It has servers of its own ([`crate::harness::OwnServers`]), each behind a [`Proxy`], two of each of our services, a load balancer
//! before the ingests, and a plan that follows from a seed. A fault that met no load, or did not happen as planned, is a
//! failure. The faults of a cluster ([`Fault::is_for_cluster`]) come to three brokers and three Cassandra nodes, without
//! proxies. An error that a client meets in those, or in a rolling restart, is a failure too, although the replay sends its
//! command again.

mod balancer;
mod client_outcomes;
mod cluster;
mod environment;
mod frames;
mod inject;
mod network;
mod plan;
mod points;
mod process_monitor;
mod proxy;
mod readers;
mod records;
mod stores;
mod summary;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use procfs::Current as _;

use crate::harness::{HOW_TO_MOUNT, OwnServers, may_mount};
use cartctl::audit::{Target, Watcher, audit_with};

pub use client_outcomes::ClientOutcomes;
pub use environment::FaultEnvironment;
pub use plan::{Fault, Load, Plan};
pub use proxy::{Link, Protocol, Proxy};
pub use summary::{Injected, Summary};

/// After the last fault everything must have come to its end within this time: transaction timeout (15 s), session timeout
/// (3 s), and 30 s.
const SETTLE_DEADLINE: Duration = Duration::from_secs(48);

/// For how long everything that had work waited for disks, since the machine started; zero where the kernel does not tell.
fn waited_for_disks() -> Duration {
    procfs::IoPressure::current().map(|pressure| Duration::from_micros(pressure.full.total)).unwrap_or_default()
}

/// Carries out a plan, then checks everything.
///
/// # Errors
/// When something could not be started, or did not come back: that is a failure too. Findings are in the summary.
pub async fn run(name: &str, plan: &mut Plan, load: &Load) -> anyhow::Result<Summary> {
    let folder = format!("{name}-servers");
    let is_cluster = plan.is_for_cluster();
    let servers = if is_cluster {
        OwnServers::start_cluster(&folder)
    } else if plan.needs_disks() {
        ensure!(may_mount(), "{HOW_TO_MOUNT}");
        OwnServers::start_on_disks(&folder)
    } else {
        OwnServers::start(&folder)
    };
    let servers = servers.context("starting the servers")?;
    let mut environment = FaultEnvironment::open(name, servers).await?;
    let installation = environment.installation();
    let target = Target::new(
        installation.kafka().clone(),
        installation.cassandra().clone(),
        installation.database_url().to_owned(),
    );
    let watcher = Watcher::start(&target);
    let mut summary = Summary::new(plan.seed(), is_cluster);
    let mut records: Vec<PathBuf> = Vec::new();
    while let Some(fault) = plan.next_fault() {
        let (round, disks) = (records.len(), waited_for_disks());
        tracing::info!(round, %fault, "a round begins");
        ensure!(fault == Fault::Quiet || fault.is_for_cluster() == is_cluster, "{fault} needs other servers");
        let replay = environment.replay(round, load)?;
        records.push(replay.record.clone());
        tokio::time::sleep(plan.pause()).await;
        let done =
            inject::inject(&mut environment, fault, plan).await.with_context(|| format!("{fault} in round {round}"))?;
        let healed_at = Instant::now();
        environment.all_ready().await.with_context(|| format!("after {done} in round {round}"))?;
        let recovery = healed_at.elapsed();
        tokio::time::sleep(load.rest).await;
        let outcomes = environment.end_replay(replay).await.with_context(|| format!("after {done} in round {round}"))?;
        // A machine whose disks stood is an excuse, which has to be shown.
        let disks = waited_for_disks().saturating_sub(disks);
        tracing::info!(round, done, ?recovery, ?disks, ?outcomes, "a round ends");
        summary.injected(&done, recovery, outcomes);
    }
    let ended_at = Instant::now();
    let sightings = watcher.stop().await?;
    let report = audit_with(&target, &records, SETTLE_DEADLINE, Some(&sightings)).await?;
    summary.checked(report, ended_at.elapsed(), environment.observed());
    environment.close().await?;
    Ok(summary)
}
