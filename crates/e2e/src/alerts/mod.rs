//! Whether every alert fires in the fault that it is for, in a real system with a real Prometheus, and whether none fires in a
//! quiet run. The binary `alerts`; `scripts/observability/check` starts it.
//!
//! The rules are those of `scripts/observability/alerts.yml`, with shorter times.

mod certificate;
mod faults;
mod prometheus;
mod system;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::harness::{root, wait_until};
use faults::FAULTS;
use prometheus::Prometheus;

/// How long nothing may fire.
const QUIET: Duration = Duration::from_secs(40);

/// The longest time that a fault takes until its alert fires: an age of 30 s, and some of the shortened times.
const FIRES_WITHIN: Duration = Duration::from_secs(120);

const READY_DEADLINE: Duration = Duration::from_secs(120);

/// The result of one fault.
#[derive(Debug)]
pub struct Fired {
    /// What was done.
    pub fault: &'static str,
    /// The alert that it is for.
    pub alert: &'static str,
    /// From the fault to the alert.
    pub after: Duration,
    /// What else fired by then.
    pub others: BTreeSet<String>,
}

/// Runs the quiet time, then each fault. `report` is called with each result.
///
/// # Errors
/// An alert fires that should not, or does not that should; or the system does not start.
pub async fn run(mut report: impl FnMut(&str, Option<&Fired>)) -> anyhow::Result<()> {
    let (mut system, targets) = system::start().await?;
    let prometheus = Prometheus::start(system.installation.folder(), &targets).await?;
    let all = prometheus.all().await?;
    let tested: BTreeSet<String> =
        FAULTS.iter().flat_map(|fault| fault.alerts).map(|name| (*name).to_owned()).collect();
    let untested: Vec<_> = all.difference(&tested).collect();
    ensure!(untested.is_empty(), "alerts without a fault: {untested:?}");

    quiet(&prometheus).await?;
    report(&format!("quiet for {} s: {} alerts silent", QUIET.as_secs(), all.len()), None);
    let expressions = panels(&prometheus).await?;
    report(&format!("{expressions} expressions of the dashboard have values"), None);
    for fault in &FAULTS {
        // An earlier one may have raised them too; it is healed.
        let known = silent(&prometheus, fault.alerts).await.with_context(|| format!("before: {}", fault.name))?;
        let started_at = Instant::now();
        let harm = (fault.inject)(&mut system).await.with_context(|| format!("injecting: {}", fault.name))?;
        for alert in fault.alerts {
            let firing = wait_until(alert, FIRES_WITHIN, async || match prometheus.firing().await {
                Ok(firing) if firing.contains(*alert) => Ok(firing),
                Ok(firing) => Err(format!("{firing:?}")),
                Err(error) => Err(format!("{error:#}")),
            });
            let firing = firing.await.with_context(|| format!("the alert for: {}", fault.name))?;
            let others = firing.difference(&known).filter(|other| *other != alert).cloned().collect();
            let fired = Fired { fault: fault.name, alert, after: started_at.elapsed(), others };
            report("fired", Some(&fired));
        }
        if harm.end(&system).await.with_context(|| format!("repairing: {}", fault.name))? {
            silent(&prometheus, fault.alerts).await.with_context(|| format!("after the repair of: {}", fault.name))?;
            report(&format!("repaired, and its alerts end: {}", fault.name), None);
        }
    }
    system.remove().await
}

/// Waits until none of these alerts fires. Returns those that do.
async fn silent(prometheus: &Prometheus, alerts: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let what = format!("{} to end", alerts.join(", "));
    wait_until(&what, FIRES_WITHIN, async || match prometheus.firing().await {
        Ok(firing) if alerts.iter().all(|alert| !firing.contains(*alert)) => Ok(firing),
        Ok(firing) => Err(format!("{firing:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

/// Whether every expression of the dashboard is understood and has a value; how many there are.
async fn panels(prometheus: &Prometheus) -> anyhow::Result<usize> {
    let path = root().join("scripts/observability/dashboard.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(path)?)?;
    let panels = dashboard["panels"].as_array().context("a list of panels")?;
    let mut count = 0;
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().context("an expression")?;
        let value = prometheus.query(expression).await?;
        ensure!(value.is_some(), "the dashboard shows nothing of {expression}");
        count += 1;
    }
    Ok(count)
}

/// Nothing fires. Members that have just started get their partitions first.
async fn quiet(prometheus: &Prometheus) -> anyhow::Result<()> {
    wait_until("the alerts of the start to end", READY_DEADLINE, async || match prometheus.firing().await {
        Ok(firing) if firing.is_empty() => Ok(()),
        Ok(firing) => Err(format!("{firing:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    let started_at = Instant::now();
    while started_at.elapsed() < QUIET {
        let firing = prometheus.firing().await?;
        ensure!(firing.is_empty(), "without a fault, {:?} after the start: {firing:?}", started_at.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
