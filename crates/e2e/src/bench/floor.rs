//! The floor: the same hops with nothing in them. HTTP, a record on a topic, a consumer, one prepared insert, a record
//! on a reply topic, the answer. No rules, no Avro, no transactions, nothing that survives a crash.
//!
//! ```text
//! HTTP ─▶ front ─▶ floor-commands ─▶ worker ─▶ Cassandra floor_journal
//!           ▲                          │  └──▶ floor-events (backlog only)
//!           └────── floor-replies ◀────┘
//! ```
//!
//! It has two processes, as the system has at least, and the same partitions, acks and client settings. It batches as the
//! system does: commands are produced by [`PartitionBatcher`], and the waiting commands of a cart are one single-partition batch (with
//! one command at a time, one insert). A bare floor does not batch: each command is one `send` and one insert.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cassandra::{CassandraArgs, KeyspaceArgs};
use kafka::{
    Admin, GroupConsumer, Instance, KafkaArgs, Message as _, OffsetReset, PartitionBatcher, Producer, Record,
    TailConsumer, TopicArgs,
};
use scylla::client::session::Session;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;
use warp::http::StatusCode;
use warp::{Filter as _, Reply as _};

pub(crate) const COMMANDS: &str = "floor-commands";
pub(crate) const EVENTS: &str = "floor-events";
pub(crate) const REPLIES: &str = "floor-replies";
const GROUP: &str = "floor-worker";

const POLL: Duration = Duration::from_millis(100);
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// There is one front.
const REPLY_PARTITION: i32 = 0;

/// The processor's default.
const BATCH_LEN_MAX: usize = 1_024;

/// The interval of the processor's transactions under load.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// Concurrent requests to Cassandra, at its highest throughput.
const CASSANDRA_CONCURRENCY: usize = 256;

/// The length of the head of a command and its reply: its number, and the partition for the reply.
const HEADER_LEN: usize = 12;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS floor_journal (\
    cart_id uuid, position bigint, event blob, PRIMARY KEY (cart_id, position))";
const INSERT: &str = "INSERT INTO floor_journal (cart_id, position, event) VALUES (?, ?, ?)";

/// The HTTP side.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FrontArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Address of the API and its health
    #[arg(long)]
    listen: SocketAddr,
    /// Hand each command to the client at once
    #[arg(long)]
    bare: bool,
}

/// The consuming side.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
    /// Publish each command's bytes to the events topic too
    #[arg(long)]
    publish: bool,
    /// Threads that consume
    #[arg(long)]
    workers: u16,
    /// Insert each command alone
    #[arg(long)]
    bare: bool,
}

/// Makes the topics and the table.
pub(crate) async fn setup(kafka: &KafkaArgs, cassandra: &CassandraArgs, partitions: u16) -> anyhow::Result<()> {
    let topics = TopicArgs { topic_partitions: partitions.into(), topic_replication: 1 };
    let specs = [COMMANDS, EVENTS, REPLIES].map(|topic| topics.spec(kafka.prefixed(topic), &[]));
    Admin::new(kafka)?.ensure_topics(&specs).await?;
    cassandra::ensure_keyspace(cassandra, &KeyspaceArgs { cassandra_replication: 1 }).await?;
    let session = cassandra::connect(&cassandra.patient()).await?;
    session.query_unpaged(CREATE, ()).await.context("creating table floor_journal")?;
    Ok(())
}

/// Removes the topics; the table goes with its keyspace.
pub(crate) async fn remove(kafka: &KafkaArgs) -> anyhow::Result<()> {
    let topics = [COMMANDS, EVENTS, REPLIES].map(|topic| kafka.prefixed(topic));
    Ok(Admin::new(kafka)?.remove_topics(&topics.each_ref().map(String::as_str)).await?)
}

/// Waits until the workers, which commit periodically, have committed all commands.
pub(crate) async fn committed(kafka: &KafkaArgs, deadline: Duration) -> anyhow::Result<()> {
    let (group, topic) = (kafka.prefixed(GROUP), kafka.prefixed(COMMANDS));
    let (admin, started_at) = (Admin::new(kafka)?, Instant::now());
    loop {
        let (next, ends) =
            tokio::task::block_in_place(|| anyhow::Ok((admin.committed(&group, &topic)?, admin.watermarks(&topic)?)))?;
        if next.iter().zip(&ends).all(|(next, (_, end))| next.unwrap_or_default() == *end) {
            return Ok(());
        }
        ensure!(started_at.elapsed() < deadline, "{group} has committed {next:?} of {ends:?}, and no more");
        tokio::time::sleep(POLL).await;
    }
}

/// The waiting requests by command.
#[derive(Debug, Default)]
struct Waiters {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>,
    next: AtomicU64,
}

/// Serves until it is killed.
pub(crate) async fn front(args: &FrontArgs) -> anyhow::Result<()> {
    let waiters = Arc::new(Waiters::default());
    let replies = args.kafka.prefixed(REPLIES);
    let follower = tokio::task::block_in_place(|| {
        TailConsumer::open(&args.kafka, &replies, REPLY_PARTITION..REPLY_PARTITION + 1, SESSION_TIMEOUT)
    })?;
    let reader = waiters.clone();
    std::thread::Builder::new().name(String::from("replies")).spawn(move || read_replies(&follower, &reader))?;
    let commands = args.kafka.prefixed(COMMANDS);
    let producer = Producer::durable(&args.kafka, &commands)?;
    let log = if args.bare {
        Log::Bare(producer)
    } else {
        let partitions = tokio::task::block_in_place(|| Admin::new(&args.kafka)?.identity(&commands))?.partitions;
        Log::PartitionBatcher(PartitionBatcher::start(&producer, partitions))
    };
    let ready = warp::path!("health" / "ready").map(StatusCode::default);
    #[expect(clippy::disallowed_methods, reason = "only this bench sends something here")]
    let body = warp::body::bytes();
    let cart = warp::path("cart").and(warp::path::param::<Uuid>()).and(body).then(move |cart: Uuid, body| {
        let (waiters, log) = (waiters.clone(), log.clone());
        async move {
            answer(&waiters, &log, cart, body).await.unwrap_or_else(|| StatusCode::SERVICE_UNAVAILABLE.into_response())
        }
    });
    let listener = tokio::net::TcpListener::bind(args.listen).await.context("listening")?;
    warp::serve(ready.or(cart)).incoming(listener).run().await;
    Ok(())
}

/// How commands are produced.
#[derive(Debug, Clone)]
enum Log {
    PartitionBatcher(PartitionBatcher),
    Bare(Producer),
}

impl Log {
    /// Returns when the record is appended; `None` if it can't be sent or delivered.
    async fn append(&self, record: Record) -> Option<()> {
        match self {
            Self::PartitionBatcher(batcher) => batcher.send(record).ok()?.await.ok()?,
            Self::Bare(producer) => producer.send(&record).ok()?.await.ok()?,
        };
        Some(())
    }
}

async fn answer(waiters: &Waiters, log: &Log, cart: Uuid, body: impl AsRef<[u8]>) -> Option<warp::reply::Response> {
    let number = waiters.next.fetch_add(1, Ordering::Relaxed);
    let (sender, reply) = oneshot::channel();
    waiters.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
    let value = value(number, REPLY_PARTITION, body.as_ref());
    let key = Some(cart.to_string().into_bytes());
    // Wait for the delivery, as for a command.
    log.append(Record { partition: None, key, value: Some(value), headers: None }).await?;
    Some(reply.await.ok()?.into_response())
}

/// A command's number, the partition for its reply (no reply if below 0), and its bytes.
pub(crate) fn value(number: u64, partition: i32, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_LEN + body.len());
    value.extend(number.to_be_bytes());
    value.extend(partition.to_be_bytes());
    value.extend(body);
    value
}

fn read_replies(follower: &TailConsumer, waiters: &Waiters) {
    loop {
        let value = follower.poll(POLL).ok().flatten().and_then(|message| message.payload().map(<[u8]>::to_vec));
        let Some((number, _, body)) = value.as_deref().and_then(split) else { continue };
        let sender = waiters.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(sender) = sender {
            drop(sender.send(body.to_vec()));
        }
    }
}

fn split(value: &[u8]) -> Option<(u64, i32, &[u8])> {
    let (number, rest) = value.split_first_chunk::<8>()?;
    let (partition, body) = rest.split_first_chunk::<4>()?;
    Some((u64::from_be_bytes(*number), i32::from_be_bytes(*partition), body))
}

/// The state that the threads share.
#[derive(Clone)]
struct Parts {
    session: Arc<Session>,
    insert: PreparedStatement,
    replies: Producer,
    events: Option<Producer>,
    under_way: Arc<Semaphore>,
}

/// A record: its offset and value.
type Received = (i64, Vec<u8>);

/// Works until it is killed.
pub(crate) async fn worker(args: &WorkerArgs) -> anyhow::Result<()> {
    let session = Arc::new(cassandra::connect(&args.cassandra).await?);
    let insert = session.prepare(INSERT).await.context("preparing the insert")?;
    let events = args.publish.then(|| Producer::durable(&args.kafka, &args.kafka.prefixed(EVENTS))).transpose()?;
    let replies = Producer::transient(&args.kafka, &args.kafka.prefixed(REPLIES))?;
    let under_way = Arc::new(Semaphore::new(CASSANDRA_CONCURRENCY));
    let parts = Parts { session, insert, replies, events, under_way };
    let runtime = tokio::runtime::Handle::current();
    let instance = Instance::named("bench", args.kafka.prefixed(GROUP), SESSION_TIMEOUT);
    let topic = args.kafka.prefixed(COMMANDS);
    for number in 0..args.workers {
        let consumer = GroupConsumer::join(&args.kafka, &instance, number, &topic, OffsetReset::CommittedOrBeginning)?;
        let (parts, runtime) = (parts.clone(), runtime.clone());
        let mut next = Next { offsets: BTreeMap::new(), committed_at: Instant::now() };
        let batch_len_max = if args.bare { 1 } else { BATCH_LEN_MAX };
        let consume = move || loop {
            for (cart, records) in commit_and_poll(&consumer, &mut next, batch_len_max) {
                // A worker with many commands in flight does not read more, as in the system.
                let Ok(permit) = runtime.block_on(parts.under_way.clone().acquire_owned()) else { return };
                let parts = parts.clone();
                runtime.spawn(async move {
                    parts.work(cart, records).await;
                    drop(permit);
                });
            }
        };
        std::thread::Builder::new().name(String::from("worker")).spawn(consume)?;
    }
    std::future::pending().await
}

/// The next offset of each partition.
struct Next {
    offsets: BTreeMap<i32, i64>,
    committed_at: Instant,
}

/// The waiting commands by cart, up to the limit. Commits the offsets that it has read periodically: a floor may lose commands.
fn commit_and_poll(consumer: &GroupConsumer, next: &mut Next, batch_len_max: usize) -> HashMap<Uuid, Vec<Received>> {
    if next.committed_at.elapsed() > COMMIT_INTERVAL && !next.offsets.is_empty() {
        let offsets = consumer.offsets(std::mem::take(&mut next.offsets));
        if let Err(error) = offsets.and_then(|offsets| consumer.commit(&offsets)) {
            note(&error.into());
        }
        next.committed_at = Instant::now();
    }
    let mut carts: HashMap<Uuid, Vec<Received>> = HashMap::new();
    let mut wait = POLL;
    for _ in 0..batch_len_max {
        let Ok(Some(message)) = consumer.poll(wait) else { break };
        wait = Duration::ZERO;
        let key = message.key().and_then(|key| Uuid::try_parse_ascii(key).ok());
        if let (Some(cart), Some(value)) = (key, message.payload()) {
            carts.entry(cart).or_default().push((message.offset(), value.to_vec()));
            next.offsets.insert(message.partition(), message.offset() + 1);
        }
    }
    drop(consumer.assignment_events());
    carts
}

impl Parts {
    async fn work(&self, cart: Uuid, records: Vec<Received>) {
        while let Err(error) = self.insert(cart, &records).await {
            note(&error);
            tokio::time::sleep(POLL).await;
        }
        for (_, value) in records {
            let Some((_, partition, _)) = split(&value) else { continue };
            let record = |partition, key| Record { partition, key, value: Some(value.clone()), headers: None };
            if let Some(events) = &self.events {
                send(events, &record(None, Some(cart.to_string().into_bytes()))).await;
            }
            if partition >= 0 {
                send(&self.replies, &record(Some(partition), None)).await;
            }
        }
    }

    async fn insert(&self, cart: Uuid, records: &[Received]) -> anyhow::Result<()> {
        if let [(offset, value)] = records {
            self.session.execute_unpaged(&self.insert, (cart, offset, value)).await?;
            return Ok(());
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        let mut rows = Vec::with_capacity(records.len());
        for (offset, value) in records {
            batch.append_statement(self.insert.clone());
            rows.push((cart, offset, value));
        }
        self.session.batch(&batch, rows).await?;
        Ok(())
    }
}

/// Queues a record; if the queue is full, waits for room.
async fn send(producer: &Producer, record: &Record) {
    loop {
        match producer.send(record) {
            Ok(delivery) => return drop(delivery),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Logs a failure.
fn note(error: &anyhow::Error) {
    use std::io::Write as _;
    writeln!(std::io::stderr().lock(), "floor: {error:#}").unwrap_or_default();
}
