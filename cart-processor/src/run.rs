//! Putting the processor together.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract, DEAD_LETTER_TOPIC, group};
use cart::{CartCommand, CartEvent, CartParked, CartReply};
use control::{ControlTopic, Follower, MemberControl};
use journal::Journal;
use kafka::{Admin, Codec, GroupConsumer, Instance, OffsetReset, Producer, Registry};
use service::{Metrics, Readiness, Shutdown, Startup, Store, probe, serve_admin, shutdown_signal, wait_for};
use tokio::runtime::Handle;

use crate::args::{Args, Cli, Command, TooNew};
use crate::commit_pacing::CommitPacing;
use crate::intake::CommandDecoder;
use crate::parking::retry::Reader as RetryReader;
use crate::parking::{Lots, ParkedTopic};
use crate::processor::{State, Worker};
use crate::publisher::{Publisher, Target};
use crate::reply::Replies;

/// The program. Runs until a signal, or sets up and ends. What ended it early is on standard error.
// The runtime is started here and not in `main.rs`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(cli: Cli) -> ExitCode {
    service::exit_code("cart-processor", run_command(cli).await)
}

async fn run_command(cli: Cli) -> anyhow::Result<()> {
    if let Some(Command::Setup(args)) = cli.command {
        args.log.init()?;
        return crate::setup::setup(&args).await;
    }
    cli.args.log.init()?;
    let metrics =
        Metrics::install("cart-processor", &[crate::METRICS, kafka::METRICS, trace::METRICS], &[kafka::collect_lag])?;
    let _tracing = cli.args.trace.start("cart-processor")?;
    run(cli.args, metrics, shutdown_signal()?).await
}

/// Runs until the shutdown. Waits at the start for what is not there yet.
///
/// # Errors
/// The failure that ended it early; an operator has to act.
async fn run(args: Args, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<()> {
    let readiness = Readiness::default();
    let startup = args.startup.start(&readiness);
    serve_admin(&args.admin, readiness.clone(), metrics, shutdown.clone()).await?;
    let parts = connect(&args, &startup, &readiness, &shutdown).await?;
    shutdown.started();
    // Room for every worker's end: at the shutdown they end together.
    let (ended, mut end) = tokio::sync::mpsc::channel(args.workers.into());
    for number in 0..args.workers {
        let (args, parts, readiness, shutdown) = (args.clone(), parts.clone(), readiness.clone(), shutdown.clone());
        let ended = ended.clone();
        let runtime = Handle::current();
        let work = move || {
            let work =
                || worker(&args, &parts, number, runtime, readiness, shutdown).and_then(|worker| Ok(worker.run()?));
            // A panic is a failure like another: nothing of the worker is used afterwards.
            let result = std::panic::catch_unwind(AssertUnwindSafe(work));
            let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("worker {number} panicked")));
            // After the first failure the receiver is gone: the process ends.
            drop(ended.try_send(result));
        };
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
    }
    drop(ended);
    startup.ready();
    // A worker ends by itself at the shutdown only, or when it can't go on: then the process ends, so that another
    // one takes over.
    let mut members: Vec<GroupConsumer> = Vec::new();
    while let Some(result) = end.recv().await {
        members.push(result?);
    }
    // They leave the group when all have published: each that leaves makes it rebalance, which would refuse the last offsets
    // of the others.
    tokio::task::block_in_place(|| drop(members));
    Ok(())
}

const MIB: usize = 1 << 20;

/// What the workers share.
#[derive(Clone)]
struct Parts {
    instance: Instance,
    reader: CommandDecoder,
    journal: Journal,
    replies: Replies,
    follower: Follower,
    parked: Codec<CartParked>,
}

async fn connect(args: &Args, startup: &Startup, readiness: &Readiness, shutdown: &Shutdown) -> anyhow::Result<Parts> {
    let kafka = &args.kafka;
    let admin = Admin::new(kafka)?;
    let opened = journal::open(kafka, &args.cassandra, &admin, startup).await?;
    let partitions = |name: &str| tokio::task::block_in_place(|| admin.partitions(&kafka.prefixed(name)));
    for topic in [CartEvent::TOPIC, CartParked::TOPIC] {
        let name = kafka.prefixed(topic);
        let count = partitions(topic).with_context(|| format!("topic {name} (run `cart-processor setup`)"))?;
        ensure!(
            count == opened.log.partitions,
            "{} has {} partitions and {name} has {count}: they must have the same",
            kafka.prefixed(CartCommand::TOPIC),
            opened.log.partitions,
        );
    }
    let registry = Registry::new(kafka)?;
    let parked = wait_for("the schema registry", startup, async || parking::codec(&registry).await).await?;
    let reply_partitions = partitions(CartReply::TOPIC)?;
    let instance = Instance::of(&args.member, kafka.prefixed(group::CART_PROCESSOR))?;
    kafka::start_transactions(instance.group());
    Store::Cassandra.start(&["journal_append", "journal_load", "journal_read"]);
    // Before the producers, which fence those of a namesake.
    tokio::task::block_in_place(|| admin.report_namesakes(&instance));
    let admin = Arc::new(admin);
    // Read to its end before a command is decided.
    let follower = wait_for("the topic cart-control", startup, async || {
        let topic = ControlTopic::open(kafka, &Registry::new(kafka)?, admin.clone()).await?;
        tokio::task::block_in_place(|| Follower::start(topic, shutdown.clone()))
    })
    .await?;
    let reader = CommandDecoder {
        group: kafka.prefixed(group::CART_PROCESSOR),
        commands: opened.commands,
        epoch: opened.epoch,
        partitions: opened.log.partitions,
        reply_partitions,
        runtime: Handle::current(),
        command_wait: crate::metrics::COMMAND_WAIT_SECONDS.with(&[]),
        too_new: args.too_new,
        control: Some(follower.clone()),
    };
    probe("Kafka", readiness, shutdown, admin, |admin| async move { admin.check().await });
    probe("Cassandra", readiness, shutdown, opened.session, |session| async move { cassandra::check(&session).await });
    let producer = Producer::transient(kafka, &kafka.prefixed(CartReply::TOPIC))?;
    let replies = Replies { journal: opened.journal.clone(), codec: opened.replies, producer };
    Ok(Parts { instance, reader, journal: opened.journal, replies, follower, parked })
}

fn worker(
    args: &Args,
    parts: &Parts,
    number: u16,
    runtime: Handle,
    readiness: Readiness,
    shutdown: Shutdown,
) -> anyhow::Result<Worker> {
    let kafka = &args.kafka;
    let target = Target {
        kafka: kafka.clone(),
        group: parts.instance.group().to_owned(),
        transactional_id: format!("{}-{number}", parts.instance.full_name()),
        events: kafka.prefixed(CartEvent::TOPIC),
        dead_letters: kafka.prefixed(DEAD_LETTER_TOPIC),
        parked: kafka.prefixed(CartParked::TOPIC),
    };
    // Before the group is joined: committed offsets are final only when what we left open is settled.
    let publisher = Publisher::start(target, readiness.clone(), shutdown.clone())?;
    let commands = kafka.prefixed(CartCommand::TOPIC);
    let consumer = GroupConsumer::join(kafka, &parts.instance, number, &commands, OffsetReset::Committed)?;
    let by = format!("{}-{number}", parts.instance.name());
    let (group, topic) = (group::CART_PROCESSOR, CartCommand::TOPIC);
    let control = MemberControl::new(parts.follower.clone(), readiness.clone(), group, topic, by);
    let (epoch, parked) = (parts.reader.epoch, parts.parked.clone());
    let parked = ParkedTopic::new(kafka, kafka.prefixed(CartParked::TOPIC), parked, epoch, runtime.clone())?;
    let retries = RetryReader {
        kafka: kafka.clone(),
        topic: commands.clone(),
        // What is tried has waited on purpose. Its cart is parked, so that it stops no partition.
        decoder: CommandDecoder {
            command_wait: metrics::Histogram::noop(),
            too_new: TooNew::Park,
            ..parts.reader.clone()
        },
        journal: parts.journal.clone(),
    };
    let pacing = CommitPacing::every(Duration::from_millis(args.commit_interval_ms));
    Ok(Worker {
        name: format!("worker {number}"),
        consumer,
        control,
        publisher,
        reader: parts.reader.clone(),
        journal: parts.journal.clone(),
        replies: parts.replies.clone(),
        parked,
        retries,
        events_topic: kafka.prefixed(CartEvent::TOPIC),
        cart_cache_len: args.cart_cache_mib as usize * MIB / usize::from(args.workers),
        pacing,
        runtime,
        readiness,
        shutdown,
        state: State::new(Lots::new(epoch)),
    })
}
