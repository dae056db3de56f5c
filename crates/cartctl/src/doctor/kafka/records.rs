//! What the brokers do with single records: their sizes, times, order, and how fast they are taken.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use kafka::{Admin, KafkaArgs, Message as _, Producer, TopicReader, TransactionalProducer, throttling};
use tokio::task::block_in_place;

use super::copies::UNCLEAN;
use super::topics::{OTHER_BROKER, TIMEOUT, Topics, check, record};
use crate::doctor::clock;
use crate::doctor::report::{Check, Finding, Verdict};

const TOPIC_IDS: Check = check(
    "topic-ids",
    "a topic that was recreated is taken for the old one: its commands count as decided, and have no effect",
    WRITE,
);
const IDEMPOTENCE: Check = check(
    "idempotent-producer",
    "a command that is sent again after a lost answer is in the log twice",
    "IdempotentWrite on the cluster, and Write on the topic",
);
const SIZES: Check = check(
    "record-sizes",
    "a large checkout's reply, a large command or its dead letter is refused for ever, and its partition stands still",
    WRITE,
);
const NEW_TOPICS: Check = check(
    "clean-elections-by-default",
    "a topic that is made anew, after a loss for example, elects leaders that lack acknowledged records",
    "DescribeConfigs on the topic",
);
const QUOTAS: Check = check(
    "no-quota",
    "the brokers make the services wait under load: answers are 202 or 503 while processes and disks are idle",
    "Read and Write on the topic",
);
const CLOCK: Check = check(
    "kafka-clock",
    "if it is this machine's clock that is wrong, and an ingest runs here: purchases are booked on the wrong day, and keys are forgotten too early or too late",
    "Read and Write on the topic",
);

pub(super) const CHECKS: [&Check; 6] = [&TOPIC_IDS, &IDEMPOTENCE, &SIZES, &NEW_TOPICS, &CLOCK, &QUOTAS];

const WRITE: &str = "Describe and Write on the topic";

/// What is produced at once to see a quota: brokers average over ten seconds, so less than 400 kB/s are noticed.
const BURST: usize = 4 * 1_024 * 1_024;

/// Tries it out with the first records of the topics.
pub(super) async fn first(args: &KafkaArgs, admin: &Admin, topics: &Topics) -> Vec<Finding> {
    vec![
        Finding::new(&TOPIC_IDS, block_in_place(|| topic_ids(admin, topics))),
        Finding::new(&IDEMPOTENCE, idempotence(args, topics).await),
    ]
}

/// Tries out the rest. The brokers may make a client wait for long after the burst, so that comes last.
pub(super) async fn last(args: &KafkaArgs, admin: &Admin, topics: &Topics) -> Vec<Finding> {
    vec![
        Finding::new(&SIZES, sizes(args, topics).await),
        Finding::new(&NEW_TOPICS, new_topics(admin, topics).await),
        Finding::new(&CLOCK, broker_clock(args, topics).await),
        Finding::new(&QUOTAS, block_in_place(|| quotas(args, topics))),
    ]
}

fn topic_ids(admin: &Admin, topics: &Topics) -> anyhow::Result<Verdict> {
    let ids = topics.all().map(|topic| admin.identity(topic).map(|identity| identity.topic_id));
    let ids = ids.into_iter().collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<_> = ids.iter().collect();
    if distinct.len() == ids.len() {
        return Ok(Verdict::holds(format!("each topic has an id of its own, such as {}", ids[0])));
    }
    Ok(Verdict::fails(format!("{} topics have {} ids", ids.len(), distinct.len()), OTHER_BROKER))
}

async fn idempotence(args: &KafkaArgs, topics: &Topics) -> anyhow::Result<Verdict> {
    let producer = Producer::durable_within(args, &topics.dead, TIMEOUT)?;
    let first = producer.send(&record(vec![1]))?.await?;
    let second = producer.send(&record(vec![2]))?.await?;
    ensure!(second == first + 1, "two records have the offsets {first} and {second}");
    Ok(Verdict::holds(
        "the brokers number the records of an idempotent producer, and acknowledge with all in-sync copies",
    ))
}

/// The largest records that the services write, by topic: librdkafka's default, a dead letter, a reply; each less its headers
/// and framing.
const LARGE: usize = 1_000_000 - 1_024;

const LARGE_DEAD_LETTER: usize = 2 * 1_024 * 1_024 - 1_024;

const LARGE_REPLY: usize = 8 * 1_024 * 1_024 - 1_024;

async fn sizes(args: &KafkaArgs, topics: &Topics) -> anyhow::Result<Verdict> {
    let value = |len| record(vec![0; len]);
    let command = Producer::durable_within(args, &topics.log, TIMEOUT)?.send(&value(LARGE))?.await;
    let reply = Producer::transient(args, &topics.replies)?.send(&value(LARGE_REPLY))?.await;
    let dead_letter = block_in_place(|| {
        let mut producer = TransactionalProducer::connect(args, &topics.name)?;
        let mut transaction = producer.begin()?;
        transaction.send(&topics.dead, &value(LARGE_DEAD_LETTER))?;
        transaction.commit_records()
    });
    let mut refused = Vec::new();
    for (what, len, result) in [
        ("a command or event", LARGE, command.map(drop)),
        ("a dead letter", LARGE_DEAD_LETTER, dead_letter),
        ("a reply", LARGE_REPLY, reply.map(drop)),
    ] {
        match result {
            Ok(()) => {}
            Err(error) if error.is_too_large() => refused.push(format!("{what} of {len} bytes")),
            Err(error) => return Err(error.into()),
        }
    }
    if refused.is_empty() {
        return Ok(Verdict::holds(format!(
            "{LARGE}, {LARGE_DEAD_LETTER} and {LARGE_REPLY} bytes are accepted, by topic"
        )));
    }
    Ok(Verdict::fails(
        format!("refused: {}", refused.join(", ")),
        "leave message.max.bytes of the brokers at its default (1048588) or above, and let topics raise max.message.bytes to 8388608",
    ))
}

async fn new_topics(admin: &Admin, topics: &Topics) -> anyhow::Result<Verdict> {
    let settings = admin.topic_settings(&topics.log).await?;
    let value = settings.get(UNCLEAN).with_context(|| format!("the topic has no setting {UNCLEAN}"))?;
    let found = format!("a new topic has {UNCLEAN}={value}");
    Ok(match value.as_str() {
        "false" => Verdict::holds(found),
        _ => Verdict::fails(found, format!("set {UNCLEAN}=false in the brokers' settings")),
    })
}

fn quotas(args: &KafkaArgs, topics: &Topics) -> anyhow::Result<Verdict> {
    let found = throttling(args, &topics.clock, BURST, TIMEOUT)?;
    let mib = BURST / (1_024 * 1_024);
    let ways = [("producing", found.producing), ("fetching", found.fetching)];
    let slowed: Vec<_> =
        ways.iter().filter(|(_, by)| !by.is_zero()).map(|(what, by)| format!("{what} by {by:?}")).collect();
    if slowed.is_empty() {
        return Ok(Verdict::holds(format!("{mib} MiB at once were not slowed down")));
    }
    Ok(Verdict::limited(
        format!("{mib} MiB at once were slowed down: {}", slowed.join(", ")),
        "raise the quotas of the services' users and client ids above the load that you expect: kafka-configs.sh --describe --entity-type users --entity-type clients shows them",
    ))
}

async fn broker_clock(args: &KafkaArgs, topics: &Topics) -> anyhow::Result<Verdict> {
    let producer = Producer::durable_within(args, &topics.clock, TIMEOUT)?;
    let before = clock::now_ms();
    let offset = producer.send(&record(b"now".to_vec()))?.await?;
    let after = clock::now_ms();
    let at = block_in_place(|| {
        let mut reader = TopicReader::open(args, &topics.clock, [(0, offset)])?;
        let message = reader.next(TIMEOUT)?;
        anyhow::Ok(message.and_then(|message| message.timestamp().to_millis()))
    })?;
    Ok(clock::judge(before, at.context("the record has no time")?, after))
}
