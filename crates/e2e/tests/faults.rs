//! The smallest of the fault runs: each server is killed and restarted under load, and a cart-processor and a projector
//! stand still past their sessions. Readiness comes back by itself, nothing is lost, nothing is doubled.
//! `scripts/faults` runs the others.

use e2e::faults::{Fault, Load, Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_away_and_returns_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let faults = vec![
        Fault::KillKafka,
        Fault::KillCassandra,
        Fault::KillPostgres,
        Fault::PauseProcessor,
        Fault::PauseProjector,
        Fault::KillProcessor,
        Fault::ForeignTransaction,
    ];
    let count = faults.len();
    let mut plan = Plan::of(faults, 1);
    let summary = run("faults_smoke", &mut plan, &Load { commands: 600, rate: 100 }).await?;
    assert!(summary.is_clean(), "{summary}");
    let client = &summary.report.as_ref().expect("it was checked").client;
    assert_eq!(client.commands, 600 * count as u64, "{summary}");
    assert_eq!(client.unknown_happened + client.unknown_not, 0, "retries find out: {summary}");
    Ok(())
}
