//! Full disks, and a slow registry.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::{Executor as _, PgConnection};

use super::environment::FaultEnvironment;
use super::plan::{Fault, Plan};
use super::proxy::Link;
use crate::harness::{Server, Service, State};

/// What a server logs on a full disk: the kernel's message, or, if it writes to mapped memory, the signal that ended it.
const NO_ROOM: [&str; 2] = ["No space left on device", "SIGBUS"];

/// More files of the write-ahead log than PostgreSQL has in reserve with the settings of `scripts/services`.
const WAL_FILES_MAX: u32 = 20;

/// How long a server may take to recover once there is room again; after that it is restarted.
const COME_BACK: Duration = Duration::from_secs(20);

/// The delay of the registry: its answers still come within its clients' timeout (5 s).
const REGISTRY_LATE: Duration = Duration::from_secs(1);

/// How long a start with a slow registry may take, with a dozen requests to it.
const SLOW_START_DEADLINE: Duration = Duration::from_secs(60);

/// Fills a server's disk until a service that needs it is not ready, then frees it. Restarts a server that has ended or
/// hangs, as a supervisor would. Returns how it came back.
pub(super) async fn full_disk(
    environment: &mut FaultEnvironment,
    fault: Fault,
    server: Server,
    dependent: &str,
) -> anyhow::Result<String> {
    // Connect before: a new connection may need room and fail, although the server continues.
    let connection = if server == Server::Postgres { Some(environment.servers.database().await?) } else { None };
    let disk = tokio::task::block_in_place(|| environment.servers.fill_disk(server))?;
    if let Some(connection) = connection {
        use_up_wal(connection).await;
    }
    let noticed = environment.unready(dependent).await;
    tokio::task::block_in_place(|| disk.free())?;
    noticed?;
    Ok(format!("{fault}: {server} {}", tokio::task::block_in_place(|| come_back(environment, server))?))
}

/// Uses up the files of the write-ahead log that PostgreSQL may have in reserve, which the load alone would do more slowly.
async fn use_up_wal(mut connection: PgConnection) {
    for used in 0..WAL_FILES_MAX {
        let go_on_in_a_new_one = "SELECT pg_logical_emit_message(false, 'full disk', 'x'), pg_switch_wal()";
        if let Err(error) = connection.execute(go_on_in_a_new_one).await {
            return tracing::info!(used, %error, "PostgreSQL begins no new file of its log");
        }
    }
}

fn come_back(environment: &FaultEnvironment, server: Server) -> anyhow::Result<&'static str> {
    let start = Instant::now();
    let state = loop {
        match environment.servers.state(server)? {
            State::Silent if start.elapsed() < COME_BACK => std::thread::sleep(Duration::from_millis(200)),
            state @ (State::Up | State::Silent | State::Down) => break state,
        }
    };
    let log = environment.servers.log(server);
    ensure!(NO_ROOM.iter().any(|words| log.contains(words)), "{server} did not say that it had no room:\n{log}");
    let how = match state {
        State::Up => return Ok("went on by itself"),
        State::Down => "had ended and was started again",
        State::Silent => {
            environment.servers.kill9(server)?;
            "stood and was started again"
        }
    };
    environment.servers.up().map(|()| how)
}

/// Restarts a cart-processor while every answer of the registry is delayed, and checks that it gets ready.
pub(super) async fn slow_registry(environment: &mut FaultEnvironment, plan: &mut Plan) -> anyhow::Result<()> {
    let place = (Service::CartProcessor, plan.any(&super::environment::INSTANCES));
    let before = environment.link(Server::Registry)?.late_pieces();
    environment.link(Server::Registry)?.set(Link::Slow(REGISTRY_LATE));
    environment.process(place)?.kill9()?;
    environment.start(place)?;
    let ready = environment.process(place)?.ready(SLOW_START_DEADLINE).await;
    environment.link(Server::Registry)?.set(Link::Open);
    ready.context("starting with a slow registry")?;
    let late = environment.link(Server::Registry)?.late_pieces() - before;
    ensure!(late > 0, "the registry was not asked while it was slow");
    Ok(())
}
