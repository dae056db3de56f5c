//! The smallest fault run, of less than two minutes: each server is killed and restarted under load. The services recover by
//! themselves, and nothing is lost or doubled. In a rolling restart of the services no client gets an error.
//! Fail points and paused processes have tests of their own (`crash`, `guards`, `projectors`). `scripts/test --all` and
//! `scripts/faults` run the other kinds.

use std::time::Duration;

use e2e::faults::{Fault, Load, Plan, run};

pub(crate) async fn killed_servers_and_restarts_lose_and_double_nothing() -> anyhow::Result<()> {
    let faults = vec![Fault::KillKafka, Fault::KillCassandra, Fault::KillPostgres, Fault::RollingRestart];
    let mut plan = Plan::of(faults, 1);
    let load = Load { rate: 100, rest: Duration::from_secs(1) };
    let summary = run("faults_smoke", &mut plan, &load).await?;
    assert!(summary.is_clean(), "{summary}");
    let client = &summary.report.as_ref().expect("it was checked").client;
    assert_eq!(client.unknown_happened + client.unknown_not, 0, "retries find out: {summary}");
    Ok(())
}
