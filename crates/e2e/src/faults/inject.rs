//! Doing harm, and undoing it.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;

use super::cluster;
use super::field::{Field, Place, SESSION_TIMEOUT, places};
use super::network::{self, FEW_BYTES, LATE};
use super::plan::{Fault, Plan};
use super::proxy::Link;
use super::{points, records, stores};
use crate::bench::meter::Meter;
use crate::harness::{Process, Server, Service, wait_until};

/// Where processes can be made to end, on both sides of their writes and commits.
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

/// How long a process may take to come to its fail point; there is work for it all the time.
pub(super) const CRASH_DEADLINE: Duration = Duration::from_secs(45);

/// A process must say within this time what it waits for, or lacks.
const SAYS_SO_DEADLINE: Duration = Duration::from_secs(30);

/// How a process ends at a fail point: `abort`.
const SIGABRT: i32 = 6;

/// How long a server is away, or stands still.
const AWAY: Duration = Duration::from_secs(5);

/// How long the broker stands still, and how much CPU time an ingest may use meanwhile: clients ask again.
const KAFKA_PAUSE: Duration = AWAY;
const WAITING_CPU_MS_MAX: f64 = 2_500.0;

/// How long a store stands still.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(60);

/// How many processors come and go in a storm, one a second.
const STORM_LEN: usize = 60;

/// The cart-processors that are only there for a while, beside the two of always.
const MORE_PROCESSORS: [&str; 4] = ["2", "3", "4", "5"];

/// How long two of one name run.
const TWINS_TIME: Duration = Duration::from_secs(10);

/// Too few for hundreds of clients.
const FEW_FILES: u64 = 64;

/// More than that.
const STRANGERS: usize = 300;

/// Does it, and undoes it; what exactly was done.
pub(super) async fn inject(field: &mut Field, fault: Fault, plan: &mut Plan) -> anyhow::Result<String> {
    let processors = || of("cart-processor");
    let projectors = || places().filter(|(service, _)| matches!(service, Service::Projector(_))).collect::<Vec<_>>();
    match fault {
        Fault::Quiet => tokio::time::sleep(AWAY).await,
        Fault::KillIngest => kill(field, plan.any(&of("ingest")), plan).await?,
        Fault::KillProcessor => kill(field, plan.any(&processors()), plan).await?,
        Fault::KillProjector => kill(field, plan.any(&projectors()), plan).await?,
        Fault::CrashPoint => return Ok(format!("{fault} {}", crash(field, plan).await?)),
        Fault::StopPoint => return Ok(format!("{fault} {}", points::stop(field, plan).await?)),
        Fault::StopInFlight => return Ok(format!("{fault} {}", points::stop_in_flight(field, plan).await?)),
        Fault::ClockOff => return Ok(format!("{fault} {}", points::clock_off(field, plan).await?)),
        Fault::FullDiskKafka => return stores::full_disk(field, fault, Server::Kafka, "cart-processor").await,
        Fault::FullDiskCassandra => return stores::full_disk(field, fault, Server::Cassandra, "cart-processor").await,
        Fault::FullDiskPostgres => {
            return stores::full_disk(field, fault, Server::Postgres, "vendor-billing-jdbc").await;
        }
        Fault::SlowRegistry => stores::slow_registry(field, plan).await?,
        Fault::RollingRestart => {
            for place in places() {
                field.terminate(place).await?;
                field.start(place)?;
                field.all_ready().await?;
            }
        }
        Fault::PauseProcessor => pause(field, plan.any(&processors())).await?,
        Fault::PauseProjector => pause(field, plan.any(&projectors())).await?,
        Fault::KillKafka => kill_server(field, Server::Kafka, "cart-processor").await?,
        Fault::KillCassandra => kill_server(field, Server::Cassandra, "cart-processor").await?,
        Fault::KillPostgres => kill_server(field, Server::Postgres, "vendor-billing-jdbc").await?,
        Fault::PauseKafka => pause_kafka(field).await?,
        Fault::PauseCassandra => pause_server(field, Server::Cassandra, LONG_PAUSE).await?,
        Fault::PausePostgres => pause_server(field, Server::Postgres, LONG_PAUSE).await?,
        Fault::EndConnections => {
            for _ in 0..10 {
                field.servers.end_connections().await?;
                tokio::time::sleep(AWAY / 10).await;
            }
        }
        Fault::PauseRegistry => pause_registry(field, plan).await?,
        Fault::ForeignTransaction => records::open_transaction(field).await?,
        Fault::AbortedTransactions => records::half_aborted(field).await?,
        Fault::Garbage => records::garbage(field).await?,
        Fault::Twins => twins(field, plan.any(&processors())).await?,
        Fault::Scale => scale(field).await?,
        Fault::FewDescriptors => few_descriptors(field, plan.any(&of("ingest"))).await?,
        Fault::Storm => {
            for n in 0..STORM_LEN {
                let place = processors()[n % 2];
                field.process(place)?.kill9()?;
                field.start(place)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Fault::LinkCut => return network::bad(field, fault, plan, Link::Cut).await,
        Fault::LinkSlow => return network::bad(field, fault, plan, Link::Slow(LATE)).await,
        Fault::LinkThrottled => return network::bad(field, fault, plan, Link::Throttled(FEW_BYTES)).await,
        Fault::LinkStill => return network::bad(field, fault, plan, Link::Still).await,
        Fault::LinkOneWay => return network::bad(field, fault, plan, Link::OneWay).await,
        Fault::LinkFlaps => return network::flaps(field, fault, plan).await,
        Fault::NoCommitAnswers => return network::no_commit_answers(field, fault, plan).await,
        Fault::LateCommitAnswers => return network::late_commit_answers(field, fault, plan).await,
        Fault::KillBroker => return cluster::kill_any_broker(field, fault, plan).await,
        Fault::KillGroupCoordinator => return cluster::kill_group_coordinator(field, fault).await,
        Fault::KillTransactionCoordinator => return cluster::kill_transaction_coordinator(field, fault, plan).await,
        Fault::MoveLeaders => cluster::move_leaders(field).await?,
        Fault::KillNode => return cluster::kill_node(field, fault, plan).await,
        Fault::PauseNode => return cluster::pause_node(field, fault, plan).await,
    }
    Ok(fault.to_string())
}

pub(super) fn of(service: &str) -> Vec<Place> {
    places().filter(|(known, _)| known.name() == service).collect()
}

async fn kill(field: &mut Field, place: Place, plan: &mut Plan) -> anyhow::Result<()> {
    field.process(place)?.kill9()?;
    tokio::time::sleep(Duration::from_millis(plan.below(2_000).into())).await;
    field.start(place)
}

/// Each service with each of its places.
pub(super) fn all_points() -> Vec<(&'static str, &'static str)> {
    CRASH_POINTS.iter().flat_map(|(service, points)| points.iter().map(|point| (*service, *point))).collect()
}

/// Where it crashed.
async fn crash(field: &mut Field, plan: &mut Plan) -> anyhow::Result<&'static str> {
    let (service, point) = plan.next_of("crash point", &all_points());
    let place = plan.any(&of(service));
    tracing::info!(service, point, "to crash");
    field.terminate(place).await?;
    field.start_with(place, &format!("{point}={}*off->return", plan.below(10)))?;
    let status = field.process(place)?.ended(CRASH_DEADLINE).await.with_context(|| format!("to crash at {point}"))?;
    ensure!(status.signal() == Some(SIGABRT), "{service} did not end at {point}: {status}");
    field.start(place)?;
    Ok(point)
}

async fn pause(field: &mut Field, place: Place) -> anyhow::Result<()> {
    field.process(place)?.pause()?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    Ok(field.process(place)?.resume()?)
}

/// Away until one that needs it has said so.
async fn kill_server(field: &mut Field, server: Server, who_needs_it: &str) -> anyhow::Result<()> {
    field.servers.kill9(server)?;
    field.unready(who_needs_it).await?;
    tokio::task::block_in_place(|| field.servers.up())
}

async fn pause_server(field: &mut Field, server: Server, time: Duration) -> anyhow::Result<()> {
    field.servers.pause(server)?;
    tokio::time::sleep(time).await;
    field.servers.resume(server)
}

/// The ingests, whose commands can't get into the log, wait: they do not spin.
async fn pause_kafka(field: &mut Field) -> anyhow::Result<()> {
    let mut meter = Meter::default();
    for place in of(Service::Ingest.name()) {
        meter.add(place.1, field.process(place)?.id(), false);
    }
    let before = meter.read();
    pause_server(field, Server::Kafka, KAFKA_PAUSE).await?;
    for (instance, used) in meter.read().since(&before).0 {
        tracing::info!(instance, used.cpu_ms, "an ingest has waited");
        let most = WAITING_CPU_MS_MAX;
        ensure!(used.cpu_ms < most, "ingest {instance} has used {} ms of CPU to wait {KAFKA_PAUSE:?}", used.cpu_ms);
    }
    Ok(())
}

async fn pause_registry(field: &mut Field, plan: &mut Plan) -> anyhow::Result<()> {
    field.servers.pause(Server::Registry)?;
    let place = plan.any(&of("cart-processor"));
    let before_len = field.process(place)?.log().len();
    field.process(place)?.kill9()?;
    field.start(place)?;
    let said = says(field.process(place)?, before_len, "schema registry, at most").await;
    field.servers.resume(Server::Registry)?;
    said
}

/// Waits until a process says something, behind what its log had before.
async fn says(process: &Process, before_len: usize, words: &str) -> anyhow::Result<()> {
    wait_until(&format!("a process to say '{words}'"), SAYS_SO_DEADLINE, async || {
        let log = process.log();
        let news = log.get(before_len..).unwrap_or_default();
        if news.contains(words) { Ok(()) } else { Err(news.to_owned()) }
    })
    .await
}

/// They fence each other; one gives up, or neither does.
async fn twins(field: &mut Field, place: Place) -> anyhow::Result<()> {
    let before_len = field.process(place)?.log().len();
    let mut twin = field.start_twin(place)?;
    // Both write to one log. Kafka's client says so: "Fenced", or "fenced by a newer instance".
    says(field.process(place)?, before_len, "enced").await?;
    tokio::time::sleep(TWINS_TIME).await;
    twin.kill9()?;
    // If it was the other one that gave up, or not.
    field.process(place)?.kill9()?;
    field.start(place)
}

async fn scale(field: &mut Field) -> anyhow::Result<()> {
    let always = of("cart-processor");
    field.dismiss(always[1]).await?;
    field.all_ready().await?;
    let more: Vec<Place> =
        std::iter::once(always[1]).chain(MORE_PROCESSORS.map(|instance| (always[1].0, instance))).collect();
    for place in &more {
        field.start(*place)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    field.all_ready().await?;
    for place in &more {
        field.dismiss(*place).await?;
    }
    field.all_ready().await?;
    field.start(always[1])
}

async fn few_descriptors(field: &mut Field, place: Place) -> anyhow::Result<()> {
    let process = field.process(place)?;
    let address = process.address().context("ingest has an address")?;
    let before_len = process.log().len();
    let before = process.limit_files(FEW_FILES)?;
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        // One that is not accepted waits in the kernel, or is refused.
        strangers.extend(tokio::time::timeout(AWAY / 100, TcpStream::connect(address)).await.into_iter().flatten());
    }
    let process = field.process(place)?;
    let lacked = says(process, before_len, "accepting a connection failed").await;
    tokio::time::sleep(AWAY).await;
    drop(strangers);
    process.limit_files(before)?;
    lacked
}
