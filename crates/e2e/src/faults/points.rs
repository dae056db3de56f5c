//! Faults of processes at named places (fail points), and of their clocks.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::environment::{FaultEnvironment, Place, SESSION_TIMEOUT, instances_of};
use super::plan::Plan;
use super::proxy::Link;
use crate::harness::{Server, Service, wait_until};

/// The fail points of each service, on both sides of its writes and commits.
const CRASH_POINTS: [(&str, &[&str]); 6] = [
    ("ingest", &["ingest-before-log", "ingest-after-log", "ingest-before-answer"]),
    (
        "item-purchased-events",
        &[
            "purchases-before-transaction",
            "purchases-in-transaction",
            "transaction-with-offsets",
            "purchases-after-commit",
        ],
    ),
    (
        "cart-processor",
        &[
            "processor-before-journal",
            "processor-before-replies",
            "processor-after-journal",
            "processor-before-transaction",
            "processor-in-transaction",
            "transaction-with-offsets",
            "processor-after-commit",
        ],
    ),
    ("popular-items", &["totals-before-write", "totals-after-write", "totals-after-commit"]),
    ("vendor-billing", &["totals-before-write", "totals-after-write", "totals-after-commit"]),
    ("vendor-billing-jdbc", &["jdbc-before-transaction", "jdbc-in-transaction", "jdbc-after-commit"]),
];

/// How long a process under load may take to reach its fail point.
const CRASH_DEADLINE: Duration = Duration::from_secs(45);

/// How a process ends at a fail point: `abort`.
const SIGABRT: i32 = 6;

/// The offsets of clocks that are a day ahead, and a day behind, in seconds.
const DAY_OFF: [&str; 2] = ["86400", "-86400"];

/// How long a link is held at most, and then released, in each attempt to catch a write on it. Well below the session timeout.
const HOLD: Duration = Duration::from_millis(250);

/// How many attempts there are: for a minute at most. A process under load does not have a write in flight at every moment.
const HOLDS: usize = 120;

/// The services that write to or commit in each server.
const WRITERS: [(Server, &str); 7] = [
    (Server::Cassandra, "cart-processor"),
    (Server::Cassandra, "popular-items"),
    (Server::Cassandra, "vendor-billing"),
    (Server::Postgres, "vendor-billing-jdbc"),
    (Server::Kafka, "cart-processor"),
    (Server::Kafka, "item-purchased-events"),
    (Server::Kafka, "popular-items"),
];

/// How long a process runs with a wrong clock.
const OFF_TIME: Duration = Duration::from_secs(10);

/// Each service with each of its fail points.
fn all_points() -> Vec<(&'static str, &'static str)> {
    CRASH_POINTS.iter().flat_map(|(service, points)| points.iter().map(|point| (*service, *point))).collect()
}

/// A service crashes at a fail point. Returns the fail point.
pub(super) async fn crash(environment: &mut FaultEnvironment, plan: &mut Plan) -> anyhow::Result<&'static str> {
    let (service, point) = plan.next_of("crash point", &all_points());
    let place = plan.any(&instances_of(service));
    tracing::info!(service, point, "to crash");
    environment.terminate(place).await?;
    environment.start_with(place, &format!("{point}={}*off->return", plan.below(10)))?;
    let status =
        environment.process(place)?.ended(CRASH_DEADLINE).await.with_context(|| format!("to crash at {point}"))?;
    ensure!(status.signal() == Some(SIGABRT), "{service} did not end at {point}: {status}");
    environment.start(place)?;
    Ok(point)
}

/// A member of a group stops before or after a write or a commit, another one takes over, and it continues. Returns the fail
/// point.
pub(super) async fn stop(environment: &mut FaultEnvironment, plan: &mut Plan) -> anyhow::Result<&'static str> {
    let members: Vec<_> = all_points().into_iter().filter(|(service, _)| *service != "ingest").collect();
    let (service, point) = plan.next_of("stop point", &members);
    let place = plan.any(&instances_of(service));
    tracing::info!(service, point, "to stop");
    environment.terminate(place).await?;
    environment.start_with(place, &format!("{point}={}*off->1*return(stop)->off", plan.below(10)))?;
    let process = environment.process(place)?;
    wait_until(&format!("{service} to stop at {point}"), CRASH_DEADLINE, async || match process.state() {
        Some('T') => Ok(()),
        state => Err(format!("its state is {state:?}")),
    })
    .await?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    process.resume()?;
    Ok(point)
}

/// A member of a group stops while the requests to a server, one of its own among them, are held; then they arrive, another
/// member takes over, and it continues. Returns the service and the server.
pub(super) async fn stop_in_flight(environment: &mut FaultEnvironment, plan: &mut Plan) -> anyhow::Result<String> {
    let (server, service) = plan.next_of("in flight", &WRITERS);
    let place = plan.any(&instances_of(service));
    tracing::info!(service, %server, "to stop with a request on the way");
    hold(environment, server, place).await?;
    let paused = environment.process(place)?.pause();
    environment.link(server)?.set(Link::Open);
    paused?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    environment.process(place)?.resume()?;
    Ok(format!("{service} to {server}"))
}

/// Holds the link to a server while a write of this process is on it.
async fn hold(environment: &mut FaultEnvironment, server: Server, place: Place) -> anyhow::Result<()> {
    for missed in 0..HOLDS {
        let addresses = environment.process(place)?.local_addresses()?;
        let link = environment.link(server)?;
        link.set(Link::Still);
        let held = wait_until("a write on the way", HOLD, async || match link.held_writers() {
            held if held.is_disjoint(&addresses) => Err(format!("{} writes of others", held.len())),
            _ => Ok(()),
        });
        if held.await.is_ok() {
            tracing::info!(missed, "a write is on the way");
            return Ok(());
        }
        link.set(Link::Open);
        tokio::time::sleep(HOLD).await;
    }
    bail!("{}-{} had no write on the way to {server}", place.0.name(), place.1)
}

/// An ingest or a cart-processor runs with a wrong clock for a while. Returns the service and the offset.
pub(super) async fn clock_off(environment: &mut FaultEnvironment, plan: &mut Plan) -> anyhow::Result<String> {
    let services: Vec<Place> =
        instances_of(Service::Ingest.name()).into_iter().chain(instances_of(Service::CartProcessor.name())).collect();
    let cases: Vec<_> = services.iter().flat_map(|place| DAY_OFF.map(|by| (*place, by))).collect();
    let (place, by) = plan.next_of("clock", &cases);
    environment.terminate(place).await?;
    environment.start_with(place, &format!("clock=return({by})"))?;
    environment.all_ready().await.context("with a wrong clock")?;
    tokio::time::sleep(OFF_TIME).await;
    environment.terminate(place).await?;
    environment.start(place)?;
    Ok(format!("{} {by} s", place.0.name()))
}

#[cfg(test)]
mod tests {
    use cart::contract::STAGES;

    use super::*;

    #[test]
    fn every_stage_is_killed_and_its_writes_are_cut() {
        for stage in STAGES {
            assert!(
                CRASH_POINTS.iter().any(|(service, _)| *service == stage.group),
                "CRASH_POINTS lack {}",
                stage.group
            );
            assert!(WRITERS.iter().any(|(_, service)| *service == stage.group), "WRITERS lack {}", stage.group);
        }
    }
}
