//! Injects faults under load, and checks that no command is lost or counted twice. The binary of that name.
//!
//! ```text
//! for each fault of the plan:   replay --record ─▶ balancer ─▶ ingest ... read tables
//!                                      │ meanwhile: inject, hold, heal, wait until all are ready again
//! at the end: audit ─▶ the log, the journal, the topics, the tables, and what each client got
//! ```
//!
//! It has its own servers ([`crate::harness::OwnServers`]), each behind a [`Proxy`], two instances of each service, a load
//! balancer in front of the ingests, and a plan that follows from a seed. The run fails if a fault met no load, or did not
//! happen as planned. The faults of a cluster ([`Fault::is_for_cluster`]) are for three brokers and three Cassandra nodes,
//! without proxies. In those, and in a rolling restart, an error that a client gets also fails the run, although the replay
//! retries its command.

mod balancer;
mod client_outcomes;
mod cluster;
mod environment;
mod frames;
mod generations;
mod inject;
mod network;
mod parked;
mod parked_row;
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

pub(crate) use balancer::{Balancer, Endpoints};
pub use client_outcomes::ClientOutcomes;
pub use environment::FaultEnvironment;
pub use plan::{Fault, Load, Plan};
pub use proxy::{Link, Protocol, Proxy};
pub(crate) use readers::Readers;
pub use summary::{Injected, Summary};

/// How long all consumers may take to catch up after the last fault: transaction timeout (15 s), session timeout (3 s), and
/// 30 s.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(48);

/// How long all processes with work have waited for disks since the machine started; zero if the kernel does not count it.
fn waited_for_disks() -> Duration {
    procfs::IoPressure::current().map(|pressure| Duration::from_micros(pressure.full.total)).unwrap_or_default()
}

/// Executes a plan, then runs the audit.
///
/// # Errors
/// A server or service did not start or did not recover. Findings are in the summary.
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
    if is_cluster {
        cluster::doctor_finds_three_copies(&environment).await?;
    }
    let installation = environment.installation();
    let target = Target::new(installation.kafka().clone(), installation.cassandra().clone(), installation.database());
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
        let outcomes =
            environment.end_replay(replay).await.with_context(|| format!("after {done} in round {round}"))?;
        // Shown because stalled disks of the machine excuse slow outcomes.
        let disks = waited_for_disks().saturating_sub(disks);
        tracing::info!(round, done, ?recovery, ?disks, ?outcomes, "a round ends");
        summary.injected(&done, recovery, outcomes);
    }
    let ended_at = Instant::now();
    let sightings = watcher.stop().await?;
    let report = audit_with(&target, &records, CATCH_UP_DEADLINE, Some(&sightings)).await?;
    summary.checked(report, ended_at.elapsed(), environment.observed());
    environment.close().await?;
    Ok(summary)
}
