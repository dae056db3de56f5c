//! Injects faults and heals them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::STAGES;
use tokio::net::TcpStream;

use super::cluster;
use super::environment::{FaultEnvironment, Place, SESSION_TIMEOUT, instances_of, places};
use super::network::{self, FEW_BYTES, LATE};
use super::plan::{Fault, LONG_PAUSE, Plan};
use super::proxy::Link;
use super::{generations, parked, parked_row, points, records, stores};
use crate::bench::meter::Meter;
use crate::harness::{Process, Server, Service, wait_until};

/// How long a process may take to log what it waits for.
const SAYS_SO_DEADLINE: Duration = Duration::from_secs(30);

/// How long a server is away or paused.
const AWAY: Duration = Duration::from_secs(5);

/// How long the broker is paused, and how much CPU time an ingest may use meanwhile, while clients retry.
const KAFKA_PAUSE: Duration = AWAY;
const WAITING_CPU_MS_MAX: f64 = 2_500.0;

/// How many processors are killed and restarted in a storm, one per second.
const STORM_LEN: usize = 60;

/// The additional cart-processors, beside the two permanent ones.
const MORE_PROCESSORS: [&str; 4] = ["2", "3", "4", "5"];

/// How long an operator's command may take, with a member that takes over.
const OPERATOR_DEADLINE: Duration = Duration::from_secs(90);

/// How long two processes of one name run.
const TWINS_TIME: Duration = Duration::from_secs(10);

/// A limit of open files that is too low for hundreds of clients.
const FEW_FILES: u64 = 64;

/// How many connections are opened, more than that limit.
const STRANGERS: usize = 300;

/// Injects a fault and heals it. Returns what exactly was done.
pub(super) async fn inject(
    environment: &mut FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let processors = || instances_of("cart-processor");
    let projectors = || places().filter(|(service, _)| matches!(service, Service::Projector(_))).collect::<Vec<_>>();
    match fault {
        Fault::Quiet => tokio::time::sleep(AWAY).await,
        Fault::KillIngest => kill(environment, plan.any(&instances_of("ingest")), plan).await?,
        Fault::KillProcessor => kill(environment, plan.any(&processors()), plan).await?,
        Fault::KillProjector => kill(environment, plan.any(&projectors()), plan).await?,
        Fault::CrashPoint => return Ok(format!("{fault} {}", points::crash(environment, plan).await?)),
        Fault::StopPoint => return Ok(format!("{fault} {}", points::stop(environment, plan).await?)),
        Fault::StopInFlight => return Ok(format!("{fault} {}", points::stop_in_flight(environment, plan).await?)),
        Fault::ClockOff => return Ok(format!("{fault} {}", points::clock_off(environment, plan).await?)),
        Fault::FullDiskKafka => return stores::full_disk(environment, fault, Server::Kafka, "cart-processor").await,
        Fault::FullDiskCassandra => {
            return stores::full_disk(environment, fault, Server::Cassandra, "cart-processor").await;
        }
        Fault::FullDiskPostgres => {
            return stores::full_disk(environment, fault, Server::Postgres, "vendor-billing-jdbc").await;
        }
        Fault::SlowRegistry => stores::slow_registry(environment, plan).await?,
        Fault::RollingRestart => {
            for place in places() {
                environment.terminate(place).await?;
                environment.start(place)?;
                environment.all_ready().await?;
            }
        }
        Fault::PauseProcessor => pause(environment, plan.any(&processors())).await?,
        Fault::PauseProjector => pause(environment, plan.any(&projectors())).await?,
        Fault::KillKafka => kill_server(environment, Server::Kafka, "cart-processor").await?,
        Fault::KillCassandra => kill_server(environment, Server::Cassandra, "cart-processor").await?,
        Fault::KillPostgres => kill_server(environment, Server::Postgres, "vendor-billing-jdbc").await?,
        Fault::PauseKafka => pause_kafka(environment).await?,
        Fault::PauseCassandra => pause_server(environment, Server::Cassandra, LONG_PAUSE).await?,
        Fault::PausePostgres => pause_server(environment, Server::Postgres, LONG_PAUSE).await?,
        Fault::EndConnections => {
            for _ in 0..10 {
                environment.servers.end_connections().await?;
                tokio::time::sleep(AWAY / 10).await;
            }
        }
        Fault::PauseRegistry => pause_registry(environment, plan).await?,
        Fault::ForeignTransaction => records::open_transaction(environment).await?,
        Fault::AbortedTransactions => records::half_aborted(environment).await?,
        Fault::Garbage => records::garbage(environment).await?,
        Fault::Twins => twins(environment, plan.any(&processors())).await?,
        Fault::Scale => scale(environment).await?,
        Fault::FewDescriptors => few_descriptors(environment, plan.any(&instances_of("ingest"))).await?,
        Fault::Storm => {
            for n in 0..STORM_LEN {
                let place = processors()[n % 2];
                environment.process(place)?.kill9()?;
                environment.start(place)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Fault::PauseGroup => return pause_group(environment, fault, plan).await,
        Fault::ParkCart => return parked::park_cart(environment, fault, plan).await,
        Fault::ParkRow => return parked_row::park_row(environment, fault, plan).await,
        Fault::RebuildSwitch => return generations::rebuild_switch(environment, fault, plan).await,
        Fault::LinkCut => return network::bad(environment, fault, plan, Link::Cut).await,
        Fault::LinkSlow => return network::bad(environment, fault, plan, Link::Slow(LATE)).await,
        Fault::LinkThrottled => return network::bad(environment, fault, plan, Link::Throttled(FEW_BYTES)).await,
        Fault::LinkStill => return network::bad(environment, fault, plan, Link::Still).await,
        Fault::LinkOneWay => return network::bad(environment, fault, plan, Link::OneWay).await,
        Fault::LinkFlaps => return network::flaps(environment, fault, plan).await,
        Fault::NoCommitAnswers => return network::no_commit_answers(environment, fault, plan).await,
        Fault::LateCommitAnswers => return network::late_commit_answers(environment, fault, plan).await,
        Fault::KillBroker => return cluster::kill_any_broker(environment, fault, plan).await,
        Fault::KillGroupCoordinator => return cluster::kill_group_coordinator(environment, fault).await,
        Fault::KillTransactionCoordinator => {
            return cluster::kill_transaction_coordinator(environment, fault, plan).await;
        }
        Fault::MoveLeaders => cluster::move_leaders(environment).await?,
        Fault::KillNode => return cluster::kill_node(environment, fault, plan).await,
        Fault::PauseNode => return cluster::pause_node(environment, fault, plan).await,
    }
    Ok(fault.to_string())
}

async fn kill(environment: &mut FaultEnvironment, place: Place, plan: &mut Plan) -> anyhow::Result<()> {
    environment.process(place)?.kill9()?;
    tokio::time::sleep(Duration::from_millis(plan.below(2_000).into())).await;
    environment.start(place)
}

async fn pause(environment: &mut FaultEnvironment, place: Place) -> anyhow::Result<()> {
    environment.process(place)?.pause()?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    Ok(environment.process(place)?.resume()?)
}

/// Kills a server, and restarts it once a service that needs it is not ready.
async fn kill_server(environment: &mut FaultEnvironment, server: Server, dependent: &str) -> anyhow::Result<()> {
    environment.servers.kill9(server)?;
    environment.unready(dependent).await?;
    tokio::task::block_in_place(|| environment.servers.up())
}

async fn pause_server(environment: &mut FaultEnvironment, server: Server, time: Duration) -> anyhow::Result<()> {
    environment.servers.pause(server)?;
    tokio::time::sleep(time).await;
    environment.servers.resume(server)
}

/// Pauses the broker, and checks that the ingests wait for it without using much CPU time.
async fn pause_kafka(environment: &mut FaultEnvironment) -> anyhow::Result<()> {
    let mut meter = Meter::default();
    for place in instances_of(Service::Ingest.name()) {
        meter.add(place.1, environment.process(place)?.id(), false);
    }
    let before = meter.read();
    pause_server(environment, Server::Kafka, KAFKA_PAUSE).await?;
    for (instance, used) in meter.read().since(&before).0 {
        tracing::info!(instance, used.cpu_ms, "an ingest has waited");
        let most = WAITING_CPU_MS_MAX;
        ensure!(used.cpu_ms < most, "ingest {instance} has used {} ms of CPU to wait {KAFKA_PAUSE:?}", used.cpu_ms);
    }
    Ok(())
}

async fn pause_registry(environment: &mut FaultEnvironment, plan: &mut Plan) -> anyhow::Result<()> {
    environment.servers.pause(Server::Registry)?;
    let place = plan.any(&instances_of("cart-processor"));
    let before_len = environment.process(place)?.log().len();
    environment.process(place)?.kill9()?;
    environment.start(place)?;
    let said = says(environment.process(place)?, before_len, "waiting for the schema registry").await;
    environment.servers.resume(Server::Registry)?;
    said
}

/// Waits until a process logs some words, after the first `before_len` bytes of its log.
async fn says(process: &Process, before_len: usize, words: &str) -> anyhow::Result<()> {
    wait_until(&format!("a process to say '{words}'"), SAYS_SO_DEADLINE, async || {
        let log = process.log();
        let news = log.get(before_len..).unwrap_or_default();
        if news.contains(words) { Ok(()) } else { Err(news.to_owned()) }
    })
    .await
}

/// Two processes of one name fence each other; one of them may end.
async fn twins(environment: &mut FaultEnvironment, place: Place) -> anyhow::Result<()> {
    let before_len = environment.process(place)?.log().len();
    let mut twin = environment.start_twin(place)?;
    // Both write to one log. Kafka's client logs "Fenced", or "fenced by a newer instance".
    says(environment.process(place)?, before_len, "enced").await?;
    tokio::time::sleep(TWINS_TIME).await;
    twin.kill9()?;
    // Whether it has ended or not.
    environment.process(place)?.kill9()?;
    environment.start(place)
}

/// Pauses a group while it works. A member that dies meanwhile has a successor that applies nothing either, which the audit
/// would not see; the test `projectors::control` does.
async fn pause_group(environment: &mut FaultEnvironment, fault: Fault, plan: &mut Plan) -> anyhow::Result<String> {
    let services: Vec<&str> = STAGES.iter().map(|stage| stage.group).collect();
    let service = plan.any(&services);
    let group = &environment.group(service);
    let pause = ["pause", group, "--reason", "a fault", "--by", "faults", "--wait", "60s"];
    environment.installation().run("pause", "cartctl", pause, OPERATOR_DEADLINE).await?;
    kill(environment, plan.any(&instances_of(service)), plan).await?;
    tokio::time::sleep(AWAY).await;
    let resume = ["resume", group, "--by", "faults", "--wait", "60s"];
    environment.installation().run("resume", "cartctl", resume, OPERATOR_DEADLINE).await?;
    Ok(format!("{fault} {service}"))
}

async fn scale(environment: &mut FaultEnvironment) -> anyhow::Result<()> {
    let always = instances_of("cart-processor");
    environment.dismiss(always[1]).await?;
    environment.all_ready().await?;
    let more: Vec<Place> =
        std::iter::once(always[1]).chain(MORE_PROCESSORS.map(|instance| (always[1].0, instance))).collect();
    for place in &more {
        environment.start(*place)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    environment.all_ready().await?;
    for place in &more {
        environment.dismiss(*place).await?;
    }
    environment.all_ready().await?;
    environment.start(always[1])
}

async fn few_descriptors(environment: &mut FaultEnvironment, place: Place) -> anyhow::Result<()> {
    let process = environment.process(place)?;
    let address = process.address().context("ingest has an address")?;
    let before_len = process.log().len();
    let before = process.limit_files(FEW_FILES)?;
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        // A connection that is not accepted waits in the kernel, or is refused.
        strangers.extend(tokio::time::timeout(AWAY / 100, TcpStream::connect(address)).await.into_iter().flatten());
    }
    let process = environment.process(place)?;
    let lacked = says(process, before_len, "accepting a connection failed").await;
    tokio::time::sleep(AWAY).await;
    drop(strangers);
    process.limit_files(before)?;
    lacked
}
