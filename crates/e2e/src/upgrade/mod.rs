//! Upgrades a running system from an older build to today's, and rolls it back, under load. The binary of that name;
//! `scripts/upgrade-test` builds the older one and starts it.
//!
//! ```text
//! older: setup, two of each service ◀─ balancer ◀─ replay, readers
//!   today's setup ─▶ one after the other, but TOGETHER: projectors, ingests, cart-processors ─▶ today's
//!                    one after the other: cart-processors, ingests, projectors ─▶ older
//! at the end: today's audit
//! ```
//!
//! The order is that of docs/deployment.md, and the reverse. `running` has the processes and the load.

mod running;

use std::path::Path;
use std::time::Duration;

use cart::contract::group;

use crate::harness::{Installation, Service};

pub use running::{Build, Environments, Outcome, Running};

/// An instance from before parked rows that took over a partition with them would add newer records to them (docs/deployment.md,
/// "Upgrade").
const TOGETHER: [Service; 2] = [Service::Projector(group::POPULAR_ITEMS), Service::Projector(group::VENDOR_BILLING)];

/// What an upgrade and the way back did.
#[derive(Debug)]
pub struct Summary {
    pub upgrade_took: Duration,
    pub back_took: Duration,
    pub outcome: Outcome,
}

/// Upgrades a system of the build in this folder to today's and rolls it back, with so many commands a second.
///
/// # Errors
/// A server is unavailable, or a process does not start or end in time. What clients or the audit find is in the summary.
pub async fn upgrade(older: &Path, rate: u32) -> anyhow::Result<Summary> {
    let older = Build { name: "older", folder: Some(older.to_owned()) };
    let today = Build::of_today();
    let installation = Installation::new("upgrade")?;
    installation.create_database().await?;
    older.setup(&installation).await?;
    let mut running = Running::start(&installation, &older, &Environments::new(), rate, 1).await?;
    today.setup(&installation).await?;
    let upgrade_took = running.replace_all(&today, &TOGETHER).await?;
    let back_took = running.put_back(&older).await?;
    let outcome = running.finish().await?;
    // What went wrong is in the logs.
    if outcome.findings.is_empty() {
        installation.remove().await?;
    }
    Ok(Summary { upgrade_took, back_took, outcome })
}
