//! A server that is away is named, and what does not need it goes on.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use e2e::faults::{Link, Protocol, Proxy};
use e2e::harness::{Installation, Service, free_address};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::super::http::api::{Api, DEADLINE, PATIENT, PROCESSOR, item};
use super::{Console, balances, state};

/// A proxy in front of a server that others use too.
async fn proxy(server: &str) -> anyhow::Result<(Proxy, SocketAddr)> {
    let server = tokio::net::lookup_host(server).await?.next().with_context(|| format!("no address of {server}"))?;
    let listen = free_address()?;
    Ok((Proxy::start(listen, server, Protocol::Other).await?, listen))
}

/// The states of Kafka, Cassandra and PostgreSQL.
fn states(frame: &Value) -> Value {
    ["Kafka", "Cassandra", "PostgreSQL"].map(|server| state(frame, server)[0].clone()).into_iter().collect()
}

/// The balances of the only vendor after so many checkouts, with these states of the tables.
fn line(bought: u32, cassandra: &str, postgres: &str) -> Value {
    let counted = (u64::from(bought) * 25).to_string();
    let cell = |state: &str| if state == "equal" { json!([counted, state]) } else { json!([null, state]) };
    json!([[Uuid::from_u128(1), counted, cell(cassandra), cell(postgres)]])
}

pub(crate) async fn a_server_that_is_away_is_named_and_the_others_are_shown() -> anyhow::Result<()> {
    let installation = Installation::new("console_away")?;
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> = vec![PROCESSOR, (Service::Ingest, "0", &PATIENT)];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let mut processes = installation.start_all(&services).await?;
    let api = Api::new(&processes[1]);
    let buy = async || {
        let cart = api.cart();
        cart.add(1, 10).await?.done();
        cart.checkout().await?.done();
        anyhow::Ok(())
    };

    let database: PgConnectOptions = installation.database_url().parse()?;
    let (postgres, postgres_address) = proxy(&format!("{}:{}", database.get_host(), database.get_port())).await?;
    let (cassandra, cassandra_address) = proxy(&installation.cassandra().cassandra_nodes[0]).await?;
    let through = database.host(&postgres_address.ip().to_string()).port(postgres_address.port());
    let (database_url, nodes) = (through.to_url_lossy().to_string(), cassandra_address.to_string());
    let ingest_url = format!("http://{}", processes[1].address().context("an address")?);
    let args = ["--ingest-url", &ingest_url, "--database-url", &database_url, "--cassandra-nodes", &nodes];
    let console = Console::start(&installation, "console", &args).await?;
    let shows = |frame: &Value| json!([states(frame), balances(frame)]);

    buy().await?;
    let all = json!([["up", "up", "up"], line(1, "equal", "equal")]);
    console.shows("all servers", shows, &all).await?;

    postgres.set(Link::Cut);
    buy().await?;
    let without = json!([["up", "up", "away"], line(2, "equal", "notYet")]);
    let frame = console.shows("PostgreSQL to be away", shows, &without).await?;
    let servers = frame["servers"].as_array().into_iter().flatten();
    let error = servers.filter(|known| known["name"] == "PostgreSQL").find_map(|known| known["error"].as_str());
    ensure!(
        error.is_some_and(|error| error.contains("projection_offset") || error.contains("vendor_billing")),
        "{frame}"
    );
    postgres.set(Link::Open);
    cassandra.set(Link::Cut);
    buy().await?;
    let without = json!([["up", "away", "up"], line(3, "notYet", "equal")]);
    console.shows("Cassandra to be away, and PostgreSQL to be back", shows, &without).await?;
    cassandra.set(Link::Open);
    let back = json!([["up", "up", "up"], line(3, "equal", "equal")]);
    console.shows("Cassandra to be back", shows, &back).await?;

    // The page comes up without Kafka, and without ingest.
    let nowhere = free_address()?.to_string();
    let lost = Console::start(&installation, "without-kafka", &["--kafka-bootstrap-servers", &nowhere]).await?;
    lost.shows("Kafka to be away", states, &json!(["away", "up", "up"])).await?;
    processes[1].kill9()?;
    console.shows("ingest to be away", |frame| state(frame, "ingest"), &json!(["away"])).await?;
    let path = format!("{}/api/shop/{}/items", console.url, Uuid::new_v4());
    let answer = console.client.post(path).json(&item(1, 1)).send().await?;
    ensure!(answer.status() == 502, "{answer:?}");
    console.shows("the others", shows, &back).await?;

    drop((console, lost));
    for process in &mut processes[2..] {
        process.terminate(DEADLINE).await?;
    }
    drop(processes);
    installation.remove().await
}
