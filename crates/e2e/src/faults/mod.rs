//! Faults under load: whatever dies, pauses or goes away, nothing is lost and nothing counted twice. The binary of that name.
//!
//! ```text
//! for each fault of the plan:   replay --record ─▶ ingest ... read tables
//!                                      │ meanwhile: inject, hold, heal, wait until all are ready again
//! at the end: audit ─▶ the log, the journal, the topics, the tables, and what each client was told
//! ```
//!
//! It has servers of its own ([`crate::harness::OwnServers`]), two of each of our services, and a plan that follows from a seed.

mod field;
mod inject;
mod plan;
mod summary;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::audit::{Target, audit};
use crate::harness::OwnServers;

pub use field::Field;
pub use plan::{Fault, Plan};
pub use summary::Summary;

/// After the last fault everything must have come to its end within transaction timeout (15 s), session timeout (3 s), and
/// what a busy machine needs to work off what has piled up.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);

/// How long and how hard a run is.
#[derive(Debug, Clone)]
pub struct Load {
    /// Commands that are sent around each fault.
    pub commands: u32,
    /// A second.
    pub rate: u32,
}

/// Carries out a plan, then checks everything.
///
/// # Errors
/// When something could not be started, or did not come back: that is a failure too. Findings are in the summary.
pub async fn run(name: &str, plan: &mut Plan, load: &Load) -> anyhow::Result<Summary> {
    let servers = OwnServers::start(&format!("{name}-servers")).context("starting the servers")?;
    let mut field = Field::open(name, servers).await?;
    let mut summary = Summary::new(plan.seed());
    let mut records: Vec<PathBuf> = Vec::new();
    while let Some(fault) = plan.next_fault() {
        let round = records.len();
        tracing::info!(round, %fault, "a round begins");
        let (mut replay, record) = field.replay(round, load)?;
        records.push(record);
        tokio::time::sleep(plan.pause()).await;
        inject::inject(&mut field, fault, plan).await.with_context(|| format!("{fault} in round {round}"))?;
        let healed_at = Instant::now();
        field.all_ready().await.with_context(|| format!("after {fault} in round {round}"))?;
        summary.injected(fault, healed_at.elapsed());
        // Retries of what was under way: a minute, then the client gives up and the command is one whose fate is unknown.
        replay.ended(SETTLE_DEADLINE).await.with_context(|| format!("the replay of round {round}"))?;
    }
    let healed_at = Instant::now();
    let installation = field.installation();
    let target = Target::new(
        installation.kafka().clone(),
        installation.cassandra().clone(),
        installation.database_url().to_owned(),
    );
    let report = audit(&target, &records, SETTLE_DEADLINE).await?;
    summary.checked(report, healed_at.elapsed(), field.vitals());
    field.close().await?;
    Ok(summary)
}
