//! The smallest of the fault runs, of less than two minutes: each server is killed and restarted under load. Readiness comes back
//! by itself, nothing is lost, nothing is doubled. When each service is restarted, one after the other, no client meets an error.
//! Fail points and paused processes have tests of their own (`crash`, `guards`, `projectors`). `scripts/test --all` and
//! `scripts/faults` run the other kinds.

use std::time::Duration;

use e2e::faults::{Fault, Load, Plan, run};

pub(crate) async fn what_goes_away_and_returns_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let faults = vec![Fault::KillKafka, Fault::KillCassandra, Fault::KillPostgres, Fault::RollingRestart];
    let mut plan = Plan::of(faults, 1);
    let load = Load { rate: 100, rest: Duration::from_secs(1) };
    let summary = run("faults_smoke", &mut plan, &load).await?;
    assert!(summary.is_clean(), "{summary}");
    let client = &summary.report.as_ref().expect("it was checked").client;
    assert_eq!(client.unknown_happened + client.unknown_not, 0, "retries find out: {summary}");
    Ok(())
}
