//! Links that go bad, and become good again.

use std::time::Duration;

use anyhow::ensure;

use super::environment::FaultEnvironment;
use super::plan::{Fault, Plan};
use super::proxy::Link;
use crate::harness::{Server, wait_until};

/// How long a link is bad.
const BAD: Duration = Duration::from_secs(10);

/// How much later everything comes.
pub(super) const LATE: Duration = Duration::from_millis(200);

/// Bytes a second; a fetch of a few hundred events takes more than a second then.
pub(super) const FEW_BYTES: u32 = 32 * 1_024;

/// How often a link that flaps is cut, and how long each time.
const FLAPS: (u32, Duration) = (10, Duration::from_millis(500));

/// Longer than a commit is waited for (20 s), so that the producer is a new one when the answer comes.
const TOO_LATE: Duration = Duration::from_secs(25);

/// Answers to commits come all the time.
const COMMIT_DEADLINE: Duration = Duration::from_secs(60);

/// The registry is not asked while processes run.
const ASKED: [Server; 3] = [Server::Kafka, Server::Cassandra, Server::Postgres];

/// Those that have transactions.
const COMMITTING: [Server; 2] = [Server::Kafka, Server::Postgres];

/// One link is bad for a while; which.
pub(super) async fn bad(environment: &FaultEnvironment, fault: Fault, plan: &mut Plan, link: Link) -> anyhow::Result<String> {
    let server = plan.any(&ASKED);
    tracing::info!(%server, ?link, "a link goes bad");
    environment.link(server)?.set(link);
    tokio::time::sleep(BAD).await;
    environment.link(server)?.set(Link::Open);
    Ok(format!("{fault} {server}"))
}

/// One link is cut again and again.
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

/// Answers to commits are lost.
pub(super) async fn no_commit_answers(environment: &FaultEnvironment, fault: Fault, plan: &mut Plan) -> anyhow::Result<String> {
    let server = plan.any(&COMMITTING);
    commits(environment, server, Link::NoCommitAnswers, BAD).await?;
    Ok(format!("{fault} {server}"))
}

/// Answers to commits come too late.
pub(super) async fn late_commit_answers(environment: &FaultEnvironment, fault: Fault, plan: &mut Plan) -> anyhow::Result<String> {
    let server = plan.any(&COMMITTING);
    commits(environment, server, Link::LateCommitAnswers(TOO_LATE), TOO_LATE).await?;
    Ok(format!("{fault} {server}"))
}

/// Until an answer was met, and for a while.
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
