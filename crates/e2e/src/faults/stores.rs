//! Disks that get full, and a registry that is slow.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::{Executor as _, PgConnection};

use super::environment::FaultEnvironment;
use super::plan::{Fault, Plan};
use super::proxy::Link;
use crate::harness::{Server, Service, State};

/// What a server says of a full disk: the kernel's words, or, where it writes by way of mapped memory, the signal that ended it.
const NO_ROOM: [&str; 2] = ["No space left on device", "SIGBUS"];

/// More files of the write-ahead log than PostgreSQL has in reserve where it keeps none on purpose, as `scripts/services` has it.
const WAL_FILES_MAX: u32 = 20;

/// How long a server may take to see that there is room again, before it is started again.
const COME_BACK: Duration = Duration::from_secs(20);

/// A registry so late still answers within the time-out of its clients (5 s), which ask it several times.
const REGISTRY_LATE: Duration = Duration::from_secs(1);

/// How long a start with such a registry may take: a dozen questions.
const SLOW_START_DEADLINE: Duration = Duration::from_secs(60);

/// Full until who needs the store has said that it is not ready. Then there is room again; a server that has ended because of
/// it, or stands, is started again as whoever looks after it would. How it came back.
pub(super) async fn full_disk(
    environment: &mut FaultEnvironment,
    fault: Fault,
    server: Server,
    who_needs_it: &str,
) -> anyhow::Result<String> {
    // Before, since a new connection may want room too, and fail where the server goes on.
    let connection = if server == Server::Postgres { Some(environment.servers.database().await?) } else { None };
    let disk = tokio::task::block_in_place(|| environment.servers.fill_disk(server))?;
    if let Some(connection) = connection {
        use_up_wal(connection).await;
    }
    let noticed = environment.unready(who_needs_it).await;
    tokio::task::block_in_place(|| disk.free())?;
    noticed?;
    Ok(format!("{fault}: {server} {}", tokio::task::block_in_place(|| come_back(environment, server))?))
}

/// PostgreSQL may have a file of its write-ahead log in reserve. More load would use it up too, in more time.
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

/// A cart-processor is started while every answer of the registry is late: it gets ready all the same.
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
