//! Doing harm, and undoing it.

use std::time::Duration;

use anyhow::ensure;
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, PurchasedItem};
use kafka::{Producer, Record, TransactionalProducer};

use super::field::{Field, Place, SESSION_TIMEOUT, places};
use super::plan::{Fault, Plan};
use crate::harness::{Server, Service};

/// Where processes can be made to end, on both sides of their writes and commits.
const CRASH_POINTS: [(&str, &[&str]); 5] = [
    ("item-purchased-events", &["purchases-in-transaction", "purchases-after-commit"]),
    (
        "cart-processor",
        &["processor-before-journal", "processor-after-journal", "processor-in-transaction", "processor-after-commit"],
    ),
    ("popular-items", &["totals-before-write", "totals-after-write"]),
    ("vendor-billing", &["totals-before-write", "totals-after-write"]),
    ("vendor-billing-jdbc", &["jdbc-before-transaction", "jdbc-in-transaction", "jdbc-after-commit"]),
];

/// How long a process may take to come to its fail point. If it gets no work it never does.
const CRASH_DEADLINE: Duration = Duration::from_secs(15);

/// How long a server is away, or stands still.
const AWAY: Duration = Duration::from_secs(5);

/// How many processors come and go in a storm.
const STORM_LEN: usize = 8;

pub(super) async fn inject(field: &mut Field, fault: Fault, plan: &mut Plan) -> anyhow::Result<()> {
    let processors = || of("cart-processor");
    let projectors = || places().filter(|(service, _)| matches!(service, Service::Projector(_))).collect::<Vec<_>>();
    match fault {
        Fault::Quiet => tokio::time::sleep(AWAY).await,
        Fault::KillIngest => kill(field, plan.any(&of("ingest")), plan).await?,
        Fault::KillProcessor => kill(field, plan.any(&processors()), plan).await?,
        Fault::KillProjector => kill(field, plan.any(&projectors()), plan).await?,
        Fault::CrashPoint => crash(field, plan).await?,
        Fault::RollingRestart => {
            for place in places() {
                field.terminate(place).await?;
                field.start(place)?;
                field.all_ready().await?;
            }
        }
        Fault::PauseProcessor => pause(field, plan.any(&processors())).await?,
        Fault::PauseProjector => pause(field, plan.any(&projectors())).await?,
        Fault::KillKafka => kill_server(field, Server::Kafka).await?,
        Fault::KillCassandra => kill_server(field, Server::Cassandra).await?,
        Fault::KillPostgres => kill_server(field, Server::Postgres).await?,
        Fault::PauseKafka => pause_server(field, Server::Kafka).await?,
        Fault::PauseCassandra => pause_server(field, Server::Cassandra).await?,
        Fault::EndConnections => {
            for _ in 0..10 {
                field.servers.end_connections().await?;
                tokio::time::sleep(AWAY / 10).await;
            }
        }
        Fault::PauseRegistry => {
            field.servers.pause(Server::Registry)?;
            let place = plan.any(&processors());
            field.process(place)?.kill9()?;
            field.start(place)?;
            tokio::time::sleep(AWAY).await;
            field.servers.resume(Server::Registry)?;
        }
        Fault::ForeignTransaction => foreign_transaction(field).await?,
        Fault::Garbage => garbage(field).await?,
        Fault::Storm => {
            for n in 0..STORM_LEN {
                let place = processors()[n % 2];
                field.process(place)?.kill9()?;
                field.start(place)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(())
}

fn of(service: &str) -> Vec<Place> {
    places().filter(|(known, _)| known.name() == service).collect()
}

async fn kill(field: &mut Field, place: Place, plan: &mut Plan) -> anyhow::Result<()> {
    field.process(place)?.kill9()?;
    tokio::time::sleep(Duration::from_millis(plan.below(2_000).into())).await;
    field.start(place)
}

async fn crash(field: &mut Field, plan: &mut Plan) -> anyhow::Result<()> {
    let (service, points) = plan.any(&CRASH_POINTS);
    let (place, point) = (plan.any(&of(service)), plan.any(points));
    tracing::info!(service, point, "to crash");
    field.terminate(place).await?;
    field.start_to_crash(place, &format!("{point}={}*off->return", plan.below(20)))?;
    match field.process(place)?.ended(CRASH_DEADLINE).await {
        Ok(status) => ensure!(!status.success(), "{service} ended well, not at {point}"),
        Err(_) => field.process(place)?.kill9()?,
    }
    field.start(place)
}

async fn pause(field: &mut Field, place: Place) -> anyhow::Result<()> {
    field.process(place)?.pause()?;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    Ok(field.process(place)?.resume()?)
}

async fn kill_server(field: &mut Field, server: Server) -> anyhow::Result<()> {
    field.servers.kill9(server)?;
    tokio::time::sleep(AWAY / 2).await;
    tokio::task::block_in_place(|| field.servers.up())
}

async fn pause_server(field: &mut Field, server: Server) -> anyhow::Result<()> {
    field.servers.pause(server)?;
    tokio::time::sleep(AWAY).await;
    field.servers.resume(server)
}

/// Left open: the broker aborts it when its time is over.
async fn foreign_transaction(field: &Field) -> anyhow::Result<()> {
    let kafka = field.installation().kafka().clone();
    let open = move || -> Result<(), kafka::Error> {
        let mut producer = TransactionalProducer::connect(&kafka, "somebody-else")?;
        let mut transaction = producer.begin()?;
        let record = Record { partition: Some(0), key: None, value: Some(b"not ours".to_vec()), headers: None };
        for topic in [CartEvent::TOPIC, PurchasedItem::TOPIC] {
            transaction.send(&kafka.prefixed(topic), &record)?;
        }
        transaction.deliver()
    };
    tokio::task::spawn_blocking(open).await??;
    Ok(())
}

async fn garbage(field: &Field) -> anyhow::Result<()> {
    let kafka = field.installation().kafka();
    let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
    for n in 0_u8..100 {
        let value = match n % 4 {
            0 => Some(vec![n; 300]),
            1 => Some(vec![0, 0, 0, 0, 1, n]),
            2 => None,
            _ => Some(vec![n; 1_000_000 / 16]),
        };
        let key = (n % 3 > 0).then(|| uuid::Uuid::from_u128(n.into()).to_string().into_bytes());
        producer.send(&Record { partition: None, key, value, headers: None })?.await?;
    }
    Ok(())
}
