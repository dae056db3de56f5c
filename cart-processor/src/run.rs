//! Putting the processor together.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, CartReply, LogEpoch};
use journal::Journal;
use kafka::{Admin, Codec, GroupConsumer, Instance, Producer, Recovery, Registry, StartAt};
use service::{Metrics, Readiness, Shutdown, probe, serve_admin, shutdown_signal, wait_for};
use tokio::runtime::Handle;

use crate::GROUP;
use crate::args::{Args, Cli, Command};
use crate::commit_pacing::CommitPacing;
use crate::intake::Reader;
use crate::processor::{Settings, State, Worker};
use crate::publisher::{Publisher, Target};
use crate::reply::Replies;

/// All of them: they are at 0 from the start.
const COUNTERS: [&str; 7] = [
    "processor_carts_redelivered_total",
    "processor_commands_rejected_total",
    "processor_commands_total",
    "processor_dead_letters_total",
    "processor_recoveries_total",
    "processor_replies_lost_total",
    "processor_transactions_failed_total",
];

/// The program. Runs until a signal, or sets up or recovers and ends. What ended it early is on standard error.
// The runtime is started here and not in `main.rs`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(cli: Cli) -> ExitCode {
    service::exit_code("cart-processor", run_command(cli).await)
}

async fn run_command(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => {}
        Some(Command::Setup(args)) => {
            args.log.init()?;
            return crate::setup::setup(&args).await;
        }
        Some(Command::Republish(args)) => {
            args.log.init()?;
            return crate::recovery::republish(&args).await;
        }
        Some(Command::RestoreJournal(args)) => {
            args.log.init()?;
            return crate::recovery::restore_journal(&args).await;
        }
    }
    cli.args.log.init()?;
    let metrics = Metrics::install(&COUNTERS)?;
    run(cli.args, metrics, shutdown_signal()?).await
}

/// Runs until the shutdown. Waits at the start for what is not there yet.
///
/// # Errors
/// What ended it early: nobody can mend it without looking.
async fn run(args: Args, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<()> {
    let readiness = Readiness::default();
    readiness.down("start", "connecting");
    serve_admin(&args.admin, readiness.clone(), metrics, shutdown.clone()).await?;
    let parts = connect(&args, &readiness, &shutdown).await?;
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
            // After a failure nobody listens any more; the others end with it.
            drop(ended.try_send(result));
        };
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
    }
    drop(ended);
    readiness.up("start");
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
    reader: Reader,
    journal: Journal,
    replies: Replies,
}

async fn connect(args: &Args, readiness: &Readiness, shutdown: &Shutdown) -> anyhow::Result<Parts> {
    let kafka = &args.kafka;
    let timeout = args.startup.timeout();
    let admin = Admin::new(kafka)?;
    let commands = kafka.prefixed(CartCommand::TOPIC);
    let identity = wait_for(&format!("topic {commands}"), timeout, async || {
        tokio::task::block_in_place(|| admin.identity(&commands))
    })
    .await?;
    let session = wait_for("Cassandra", timeout, async || cassandra::connect(&args.cassandra).await).await?;
    let session = Arc::new(session);
    let epoch = log_epoch(args, &session, &commands, &identity).await?;
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
    let partitions = |name: &str| tokio::task::block_in_place(|| admin.partitions(&kafka.prefixed(name)));
    let event_partitions = partitions(CartEvent::TOPIC)?;
    ensure!(
        event_partitions == identity.partitions,
        "{commands} has {} partitions and {} has {event_partitions}: they must have the same",
        identity.partitions,
        kafka.prefixed(CartEvent::TOPIC),
    );
    let reader = Reader {
        commands: command_codec,
        epoch,
        partitions: identity.partitions,
        reply_partitions: partitions(CartReply::TOPIC)?,
        runtime: Handle::current(),
    };
    let instance = Instance::of(&args.member, kafka.prefixed(GROUP))?;
    // Before the producers, which fence those of a namesake.
    tokio::task::block_in_place(|| admin.report_namesakes(&instance));
    probe("Kafka", readiness, shutdown, Arc::new(admin), |admin| async move { admin.check().await });
    probe("Cassandra", readiness, shutdown, session, |session| async move { cassandra::check(&session).await });
    let producer = Producer::transient(kafka, &kafka.prefixed(CartReply::TOPIC))?;
    let replies = Replies { journal: journal.clone(), codec: reply_codec, producer };
    Ok(Parts { instance, reader, journal, replies })
}

/// A log that is another than the recorded one ends the start at once: waiting would not mend it.
async fn log_epoch(
    args: &Args,
    session: &scylla::client::session::Session,
    commands: &str,
    identity: &kafka::LogIdentity,
) -> anyhow::Result<LogEpoch> {
    let epoch = wait_for("`cart-processor setup`", args.startup.timeout(), async || {
        match cassandra::log_epoch(session, commands, identity).await {
            Err(another @ cassandra::LogNotRecorded::Another { .. }) => Ok(Err(another)),
            other => other.map(Ok),
        }
    })
    .await?;
    epoch.context("refusing to start")
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
        transactional_id: format!("{}-{number}", parts.instance.full_name()),
        events: kafka.prefixed(CartEvent::TOPIC),
        dead_letters: kafka.prefixed(DEAD_LETTER_TOPIC),
    };
    // Before the group is joined: committed offsets are final only when what we left open is settled.
    let publisher = Publisher::start(target, readiness.clone(), shutdown.clone())?;
    let commands = kafka.prefixed(CartCommand::TOPIC);
    let consumer = GroupConsumer::join(kafka, &parts.instance, number, &commands, StartAt::Committed)?;
    let settings = Settings {
        batch_len_max: args.batch_len_max as usize,
        outbox_len_max: args.outbox_len_max as usize,
        cart_cache_len: args.cart_cache_mib as usize * MIB / usize::from(args.workers),
    };
    let pacing = CommitPacing::every(Duration::from_millis(args.commit_interval_ms));
    Ok(Worker {
        name: format!("worker {number}"),
        consumer,
        publisher,
        reader: parts.reader.clone(),
        journal: parts.journal.clone(),
        replies: parts.replies.clone(),
        settings,
        pacing,
        runtime,
        readiness,
        shutdown,
        state: State::default(),
    })
}
