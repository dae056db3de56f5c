//! Putting ingest together.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::Contract;
use cart::{CartCommand, CartReply};
use journal::Journal;
use kafka::{Admin, Codec, Follower, Lanes, Producer, Recovery, Registry};
use service::{Metrics, Readiness, Shutdown, probe, shutdown_signal, wait_for};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::api::routes::{Api, routes};
use crate::args::{Args, Cli, Command};
use crate::auth::Auth;
use crate::commands::Commands;
use crate::commands::lookup::Lookup;
use crate::commands::replies::{self, Waiters};
use crate::http::tls::Tls;
use crate::http::{Door, serve};
use crate::reads::{Log, Reads};

/// How long a command may wait for those before it, and as long again for its own delivery: by the time its client is told that
/// its outcome is not known, it is in the log or will not come there any more. One that came later would be carried out
/// after what the client did next: sent again, refused, and then accepted. librdkafka looks at such times each second, so
/// this holds from a reply timeout of two seconds on; with a shorter one it may come until then.
fn delivery_timeout(reply_timeout: Duration) -> Duration {
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
    const LEAST: Duration = Duration::from_millis(500);
    (reply_timeout.saturating_sub(LOOK_INTERVAL) / 2).max(LEAST)
}

/// How long the brokers may take to say where the replies end, each time they are asked.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Most connections that wait to be accepted; the kernel takes no more than `net.core.somaxconn`, which is 4,096 as a rule.
/// For whoever comes when they are so many, it is as if a packet got lost: they try again after a second.
const BACKLOG: u32 = 4_096;

/// All that have no labels: they are at 0 from the start.
const COUNTERS: [&str; 3] =
    ["ingest_connections_refused_total", "ingest_jwks_failures_total", "ingest_tls_failures_total"];

/// Of `ingest_responses_total`: those that an alert watches are at 0 from the start.
const ALERTED_STATUSES: [&str; 3] = ["500", "503", "504"];

/// The program. Sets up, or serves until a signal. What ended it early is on standard error.
// The runtime is started here and not in `main.rs`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(cli: Cli) -> ExitCode {
    service::exit_code("ingest", run_command(cli).await)
}

async fn run_command(cli: Cli) -> anyhow::Result<()> {
    if let Some(Command::Setup(args)) = cli.command {
        args.log.init()?;
        return crate::setup::setup(&args).await;
    }
    cli.args.log.init()?;
    let metrics = Metrics::install(&COUNTERS)?;
    for status in ALERTED_STATUSES {
        metrics::counter!("ingest_responses_total", "status" => status).increment(0);
    }
    run(cli.args, metrics, shutdown_signal()?).await
}

/// Serves until the shutdown. Waits at the start for what is not there yet.
///
/// # Errors
/// What ended it early.
async fn run(args: Args, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<()> {
    let readiness = Readiness::default();
    // What requests under way need goes on until the last is answered.
    let (end, ended) = Shutdown::channel();
    let auth = Auth::start(&args.auth, args.listen, args.startup.timeout(), ended.clone()).await?;
    let tls = Tls::start(&args.tls, ended.clone())?;
    let listener = listen(args.listen).with_context(|| format!("listening on {} (--listen)", args.listen))?;
    let api = connect(&args, &readiness, &ended).await?;
    shutdown.started();
    tracing::info!(address = %listener.local_addr()?, "serving carts");
    let body_len_max = args.body_len_max as usize;
    let door = Door { auth, cors: args.cors.layer(), tls, limits: args.limits, body_len_max };
    let log = api.commands.log.clone();
    serve(listener, routes(api, metrics), door, readiness, shutdown).await;
    // Clients may have gone, their commands have been taken.
    log.flush(args.limits.drain_timeout()).await.context("delivering the commands in flight")?;
    drop(end);
    Ok(())
}

/// As [`TcpListener::bind`], with room for more who wait to be accepted.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait until the connections of its predecessor are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn connect(args: &Args, readiness: &Readiness, end: &Shutdown) -> anyhow::Result<Api> {
    let kafka = &args.kafka;
    let timeout = args.startup.timeout();
    let admin = Admin::new(kafka)?;
    let (commands, reply_topic) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartReply::TOPIC));
    let identify = async |topic: &String| {
        let what = format!("topic {topic}");
        wait_for(&what, timeout, async || tokio::task::block_in_place(|| admin.identity(topic))).await
    };
    let identity = identify(&commands).await?;
    let reply_partition = replies::any_partition(identify(&reply_topic).await?.partitions);
    let session = wait_for("Cassandra", timeout, async || cassandra::connect(&args.cassandra).await).await?;
    let session = Arc::new(session);
    // A log that is another than the recorded one ends the start at once: waiting would not mend it.
    let epoch = wait_for("`cart-processor setup`", timeout, async || {
        match cassandra::log_epoch(&session, &commands, &identity).await {
            Err(another @ cassandra::LogNotRecorded::Another { .. }) => Ok(Err(another)),
            other => other.map(Ok),
        }
    })
    .await?
    .context("refusing to start")?;
    let registry = Registry::new(kafka)?;
    let codecs = async || {
        Ok::<_, kafka::Error>((
            journal::Codecs::register(&registry).await?,
            Codec::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?,
            Codec::register(&registry, CartReply::TOPIC, CartReply::SCHEMA).await?,
        ))
    };
    // A schema that does not fit will not fit later.
    let codecs = wait_for("the schema registry", timeout, async || match codecs().await {
        Err(error) if error.recovery() == Recovery::Fatal => Ok(Err(error)),
        other => other.map(Ok),
    });
    let (journal_codecs, command_codec, reply_codec) = codecs.await?.context("refusing to start")?;
    let journal =
        wait_for("the journal", timeout, async || Journal::open(session.clone(), journal_codecs.clone()).await).await?;
    let follow =
        async || tokio::task::block_in_place(|| Follower::open(kafka, &reply_topic, reply_partition, END_TIMEOUT));
    let follower = wait_for("the end of the replies", timeout, follow).await?;
    let admin = Arc::new(admin);
    probe("Kafka", readiness, end, admin.clone(), |admin| async move { admin.check().await });
    probe("Cassandra", readiness, end, session.clone(), |session| async move { cassandra::check(&session).await });
    let waiters = Waiters::at(reply_partition);
    {
        let (waiters, end) = (waiters.clone(), end.clone());
        let runtime = Handle::current();
        let read = move || replies::read(&follower, &reply_codec, &waiters, &runtime, &end);
        std::thread::Builder::new().name(String::from("replies")).spawn(read)?;
    }
    let log = Log { epoch, partitions: identity.partitions };
    let timeout = Duration::from_millis(args.read_after_timeout_ms);
    let reads = Reads::start(kafka, admin, log, journal.clone(), session, timeout)?;
    let lookup = Lookup {
        kafka: kafka.clone(),
        topic: commands.clone(),
        partitions: identity.partitions,
        epoch,
        codec: command_codec.clone(),
        journal: journal.clone(),
        looks: Lookup::semaphore(),
    };
    let reply_timeout = Duration::from_millis(args.reply_timeout_ms);
    let producer = Producer::durable_within(kafka, &commands, delivery_timeout(reply_timeout))?;
    Ok(Api {
        lookup,
        reads,
        commands: Commands {
            log: Lanes::start(&producer, identity.partitions),
            codec: command_codec,
            waiters,
            in_flight: Arc::new(Semaphore::new(args.commands_in_flight_max as usize)),
            reply_timeout,
        },
        journal,
        allow_client_time: args.allow_client_time,
        body_len_max: args.body_len_max as usize,
        body_timeout: Duration::from_millis(args.body_timeout_ms),
        bodies: Arc::new(Semaphore::new(args.bodies_len_max as usize)),
        readiness: readiness.clone(),
    })
}
