//! Processes that stop themselves at a named place, or whose clocks are wrong.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::field::{Field, Place, SESSION_TIMEOUT};
use super::inject::{CRASH_DEADLINE, all_points, of};
use super::plan::Plan;
use super::proxy::Link;
use crate::harness::{Server, Service, wait_until};

/// Clocks that are a day ahead, and a day behind, in seconds.
const DAY_OFF: [&str; 2] = ["86400", "-86400"];

/// How long a link stands still at most, and goes on again, until whoever is to stop has a write on it. Well within a session.
const HOLD: Duration = Duration::from_millis(250);

/// How often that is tried: for a minute at most. There is work for everybody all the time, but not for each at every moment.
const HOLDS: usize = 120;

/// Who writes or commits where.
const WRITERS: [(Server, &str); 7] = [
    (Server::Cassandra, "cart-processor"),
    (Server::Cassandra, "popular-items"),
    (Server::Cassandra, "vendor-billing"),
    (Server::Postgres, "vendor-billing-jdbc"),
    (Server::Kafka, "cart-processor"),
    (Server::Kafka, "item-purchased-events"),
    (Server::Kafka, "popular-items"),
];

/// How long a process runs with such a clock.
const OFF_TIME: Duration = Duration::from_secs(10);

/// A service that is a member of a group stops with a write or a commit in its hands, another takes over, it goes on. Where.
pub(super) async fn stop(field: &mut Field, plan: &mut Plan) -> anyhow::Result<&'static str> {
    let members: Vec<_> = all_points().into_iter().filter(|(service, _)| *service != "ingest").collect();
    let (service, point) = plan.next_of("stop point", &members);
    let place = plan.any(&of(service));
    tracing::info!(service, point, "to stop");
    field.terminate(place).await?;
    field.start_with(place, &format!("{point}={}*off->1*return(stop)->off", plan.below(10)))?;
    let process = field.process(place)?;
    wait_until(&format!("{service} to stop at {point}"), CRASH_DEADLINE, async || match process.state() {
        Some('T') => Ok(()),
        state => Err(format!("its state is {state:?}")),
    })
    .await?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    process.resume()?;
    Ok(point)
}

/// A service that is a member of a group stops while a request of its own, and all else that is sent to that server, stands
/// still on the way, and then arrives; another takes over, it goes on. Where.
pub(super) async fn stop_in_flight(field: &mut Field, plan: &mut Plan) -> anyhow::Result<String> {
    let (server, service) = plan.next_of("in flight", &WRITERS);
    let place = plan.any(&of(service));
    tracing::info!(service, %server, "to stop with a request on the way");
    hold(field, server, place).await?;
    let paused = field.process(place)?.pause();
    field.link(server)?.set(Link::Open);
    paused?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    field.process(place)?.resume()?;
    Ok(format!("{service} to {server}"))
}

/// Lets the link to a server stand still when a write of this process is on it.
async fn hold(field: &mut Field, server: Server, place: Place) -> anyhow::Result<()> {
    for missed in 0..HOLDS {
        let addresses = field.process(place)?.local_addresses()?;
        let link = field.link(server)?;
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

/// An ingest or a cart-processor runs with a wrong clock for a while. Which, and how wrong.
pub(super) async fn clock_off(field: &mut Field, plan: &mut Plan) -> anyhow::Result<String> {
    let services: Vec<Place> =
        of(Service::Ingest.name()).into_iter().chain(of(Service::CartProcessor.name())).collect();
    let cases: Vec<_> = services.iter().flat_map(|place| DAY_OFF.map(|by| (*place, by))).collect();
    let (place, by) = plan.next_of("clock", &cases);
    field.terminate(place).await?;
    field.start_with(place, &format!("clock=return({by})"))?;
    field.all_ready().await.context("with a wrong clock")?;
    tokio::time::sleep(OFF_TIME).await;
    field.terminate(place).await?;
    field.start(place)?;
    Ok(format!("{} {by} s", place.0.name()))
}
