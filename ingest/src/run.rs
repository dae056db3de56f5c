//! Builds ingest and runs it until the shutdown.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::Contract;
use cart::{CartCommand, CartEvent, CartReply};
use control::{ControlTopic, Follower};
use kafka::{Admin, Codec, PartitionBatcher, Producer, Registry, TailConsumer};
use service::{Metrics, Readiness, Shutdown, Startup, Store, probe, serve_admin, shutdown_signal, wait_for};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::api::{Api, BodyLimits, routes};
use crate::args::{Args, Cli, Command};
use crate::auth::Auth;
use crate::commands::{CommandLookup, Commands, Waiters, random_partition, read_replies};
use crate::http::{ConnectionPolicy, FixedLimits, Tls, raise_open_files, serve};
use crate::parked::Parked;
use crate::reads::{ActiveGenerations, CommandLog, EventStreams, Reads};

/// The delivery timeout of the producer: the maximum wait of a command for the commands before it, and again for its own
/// delivery. So at the end of the reply timeout, when its client gets a 504, a command is in the log or never will be. A command
/// that was appended later would take effect after what the client did next. librdkafka checks timeouts once a second, so
/// this holds for reply timeouts of two seconds and more; with a shorter one a command may be appended up to two seconds after it
/// was sent.
fn delivery_timeout(reply_timeout: Duration) -> Duration {
    const CHECK_INTERVAL: Duration = Duration::from_secs(1);
    const TIMEOUT_MIN: Duration = Duration::from_millis(500);
    (reply_timeout.saturating_sub(CHECK_INTERVAL) / 2).max(TIMEOUT_MIN)
}

/// Maximum wait of each query for the end of the replies.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of connections that wait to be accepted; the kernel limits it to `net.core.somaxconn`, usually 4,096.
/// Beyond it a connection attempt is dropped like a lost packet, and the client retries after a second.
const BACKLOG: u32 = 4_096;

/// Time between two checks that the producer of commands can still send.
const PRODUCER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `ingest`: sets up, or serves until a signal. An error is printed on standard error.
// The runtime is started here and not in `main.rs`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(cli: Cli, limits: FixedLimits) -> ExitCode {
    service::exit_code("ingest", run_command(cli, limits).await)
}

async fn run_command(cli: Cli, limits: FixedLimits) -> anyhow::Result<()> {
    if let Some(Command::Setup(args)) = cli.command {
        args.log.init()?;
        return crate::setup::setup(&args).await;
    }
    cli.args.log.init()?;
    let metrics = Metrics::install("ingest", &[crate::METRICS, trace::METRICS], &[])?;
    let _tracing = cli.args.trace.start("ingest")?;
    crate::metrics::start();
    Store::Cassandra.start(&["journal_read", "table_read", "parked_read"]);
    run(cli.args, limits, metrics, shutdown_signal()?).await
}

/// Serves until the shutdown. Waits at the start for servers that are not ready yet.
async fn run(args: Args, fixed_limits: FixedLimits, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<()> {
    raise_open_files(args.limits.connections_max);
    let readiness = Readiness::default();
    let startup = args.startup.start(&readiness);
    // Background tasks that requests in flight need go on until the last response.
    let (end, ended) = Shutdown::channel();
    serve_admin(&args.admin, readiness.clone(), metrics, ended.clone()).await?;
    let auth = Auth::start(&args.auth, args.listen, &startup, ended.clone()).await?;
    let tls = Tls::start(&args.tls, ended.clone())?;
    let listener = listen(args.listen).with_context(|| format!("listening on {} (--listen)", args.listen))?;
    let (api, producer) = connect(&args, fixed_limits, &startup, &readiness, &ended).await?;
    shutdown.started();
    startup.ready();
    tracing::info!(address = %listener.local_addr()?, "serving carts");
    let policy = ConnectionPolicy { auth, cors: args.cors.layer(), tls, limits: args.limits, fixed_limits };
    let log = api.commands.log.clone();
    // Ends the service in the same orderly way as a signal.
    let (stop, stopping) = Shutdown::channel();
    let watched = async {
        let result = watch_producer(&producer, shutdown).await;
        drop(stop);
        result
    };
    let ((), watched) = tokio::join!(serve(listener, routes(api), policy, readiness, stopping), watched);
    // Also commands whose clients have disconnected.
    let flushed = log.flush(args.limits.drain_timeout()).await;
    drop(end);
    // A producer that has ended delivers nothing: its reason comes first.
    watched.context("the producer of commands has ended: correct the cause, then start the service again")?;
    flushed.context("delivering the commands in flight")
}

/// Returns at the shutdown, or with the error that has ended the producer: no command would be accepted from then on.
async fn watch_producer(producer: &Producer, mut shutdown: Shutdown) -> Result<(), kafka::Error> {
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(PRODUCER_CHECK_INTERVAL) => producer.check()?,
        }
    }
}

/// As [`TcpListener::bind`], with a longer queue of connections that wait to be accepted.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart does not wait until the kernel has forgotten the connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn connect(
    args: &Args,
    limits: FixedLimits,
    startup: &Startup,
    readiness: &Readiness,
    end: &Shutdown,
) -> anyhow::Result<(Api, Producer)> {
    let kafka = &args.kafka;
    let admin = Admin::new(kafka)?;
    let opened = journal::open(kafka, &args.cassandra, &admin, startup).await?;
    let (commands, reply_topic) = (kafka.prefixed(CartCommand::TOPIC), kafka.prefixed(CartReply::TOPIC));
    let reply_log = wait_for(&format!("topic {reply_topic}"), startup, async || {
        tokio::task::block_in_place(|| admin.identity(&reply_topic))
    })
    .await?;
    let reply_partition = random_partition(reply_log.partitions);
    let waiters = follow_replies(args, startup, &reply_topic, reply_partition, opened.replies, end).await?;
    let admin = Arc::new(admin);
    probe("Kafka", readiness, end, admin.clone(), |admin| async move { admin.check().await });
    let (session, journal, codec) = (opened.session, opened.journal, opened.commands);
    probe("Cassandra", readiness, end, session.clone(), |session| async move { cassandra::check(&session).await });
    let (epoch, partitions) = (opened.epoch, opened.log.partitions);
    let log = CommandLog { epoch, partitions };
    let parked = parking::codec(&Registry::new(kafka)?).await.context("registering the schema of cart-parked")?;
    let parked = Parked::new(kafka, &commands, epoch, parked, Handle::current())?;
    let control = wait_for("the topic cart-control", startup, async || {
        let topic = ControlTopic::open(kafka, &Registry::new(kafka)?, admin.clone()).await?;
        tokio::task::block_in_place(|| Follower::open(topic))
    })
    .await?;
    let read_after_timeout = Duration::from_millis(args.read_after_timeout_ms);
    let generations = wait_for("the active generations of the read tables", startup, async || {
        ActiveGenerations::read(session.clone()).await
    })
    .await?;
    generations.follow(end.clone());
    let tables = (session, generations);
    let reads = Reads::start(kafka, admin, log, journal.clone(), tables, parked.clone(), read_after_timeout)?;
    let (streams_max, idle_timeout) = (args.limits.event_streams_max, args.limits.idle_timeout());
    // It has as many partitions as the commands.
    let events = (kafka.prefixed(CartEvent::TOPIC), partitions);
    let event_streams = EventStreams::new(kafka, events, journal.clone(), streams_max, idle_timeout, end.clone());
    let lookup = CommandLookup::new(kafka, &commands, partitions, epoch, codec.clone(), journal, (parked, control));
    let reply_timeout = Duration::from_millis(args.reply_timeout_ms);
    let producer = Producer::durable_within(kafka, &commands, delivery_timeout(reply_timeout))?;
    let commands = Commands {
        log: PartitionBatcher::start(&producer, partitions),
        codec,
        waiters,
        in_flight: Arc::new(Semaphore::new(limits.commands_in_flight_max)),
        reply_timeout,
    };
    let body_limits = BodyLimits {
        len_max: limits.body_len_max,
        timeout: limits.body_timeout,
        memory: Arc::new(Semaphore::new(args.bodies_len_max as usize)),
    };
    let allow_client_time = args.allow_client_time;
    let readiness = readiness.clone();
    Ok((Api { commands, lookup, reads, event_streams, allow_client_time, body_limits, readiness }, producer))
}

/// Starts a thread that reads the replies of one partition from its end on.
async fn follow_replies(
    args: &Args,
    startup: &Startup,
    topic: &str,
    partition: i32,
    codec: Codec<CartReply>,
    end: &Shutdown,
) -> anyhow::Result<Waiters> {
    let partitions = partition..partition + 1;
    let open = async || {
        tokio::task::block_in_place(|| TailConsumer::open(&args.kafka, topic, partitions.clone(), END_TIMEOUT))
    };
    let follower = wait_for("the end of the replies", startup, open).await?;
    let waiters = Waiters::at(partition);
    let (registered, runtime, end) = (waiters.clone(), Handle::current(), end.clone());
    let read = move || read_replies(&follower, &codec, &registered, &runtime, &end);
    std::thread::Builder::new().name(String::from("replies")).spawn(read)?;
    Ok(waiters)
}
