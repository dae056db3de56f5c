//! Faults of the links to the servers.

use std::time::Duration;

use anyhow::ensure;

use super::environment::FaultEnvironment;
use super::plan::{Fault, Plan};
use super::proxy::Link;
use crate::harness::{Server, wait_until};

/// How long a link is disturbed.
const BAD: Duration = Duration::from_secs(10);

/// The delay of a slow link.
pub(super) const LATE: Duration = Duration::from_millis(200);

/// Bytes per second of a throttled link; a fetch of a few hundred events takes more than a second.
pub(super) const FEW_BYTES: u32 = 32 * 1_024;

/// How often a flapping link is cut, and for how long each time.
const FLAPS: (u32, Duration) = (10, Duration::from_millis(500));

/// Longer than the timeout of a commit (20 s), so that there is a new producer when the answer comes.
const TOO_LATE: Duration = Duration::from_secs(25);

/// How long it may take until an answer to a commit is disturbed.
const COMMIT_DEADLINE: Duration = Duration::from_secs(60);

/// The servers that are used while processes run; the registry is not.
const ASKED: [Server; 3] = [Server::Kafka, Server::Cassandra, Server::Postgres];

/// The servers that have transactions.
const COMMITTING: [Server; 2] = [Server::Kafka, Server::Postgres];

/// Disturbs one link for a while, and returns which.
pub(super) async fn bad(
    environment: &FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
    link: Link,
) -> anyhow::Result<String> {
    let server = plan.any(&ASKED);
    tracing::info!(%server, ?link, "a link goes bad");
    environment.link(server)?.set(link);
    tokio::time::sleep(BAD).await;
    environment.link(server)?.set(Link::Open);
    Ok(format!("{fault} {server}"))
}

/// Cuts one link repeatedly.
pub(super) async fn flaps(environment: &FaultEnvironment, fault: Fault, plan: &mut Plan) -> anyhow::Result<String> {
    let server = plan.any(&ASKED);
    for _ in 0..FLAPS.0 {
        environment.link(server)?.set(Link::Cut);
        tokio::time::sleep(FLAPS.1).await;
        environment.link(server)?.set(Link::Open);
        tokio::time::sleep(FLAPS.1).await;
    }
    Ok(format!("{fault} {server}"))
}

/// Loses answers to commits.
pub(super) async fn no_commit_answers(
    environment: &FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let server = plan.any(&COMMITTING);
    commits(environment, server, Link::NoCommitAnswers, BAD).await?;
    Ok(format!("{fault} {server}"))
}

/// Delays answers to commits beyond their timeout.
pub(super) async fn late_commit_answers(
    environment: &FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let server = plan.any(&COMMITTING);
    commits(environment, server, Link::LateCommitAnswers(TOO_LATE), TOO_LATE).await?;
    Ok(format!("{fault} {server}"))
}

/// Disturbs a link until an answer to a commit was hit, and for a while longer.
async fn commits(environment: &FaultEnvironment, server: Server, link: Link, time: Duration) -> anyhow::Result<()> {
    let proxy = environment.link(server)?;
    let before = proxy.commit_answers();
    proxy.set(link);
    let met = wait_until("an answer to a commit", COMMIT_DEADLINE, async || match proxy.commit_answers() {
        answers if answers > before => Ok(()),
        answers => Err(answers),
    });
    let met = met.await;
    tokio::time::sleep(time).await;
    proxy.set(Link::Open);
    ensure!(met.is_ok(), "no answer to a commit came by: {met:?}");
    Ok(())
}
