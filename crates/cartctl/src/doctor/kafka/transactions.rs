//! What the brokers do with transactions and offsets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kafka::{
    Admin, ConsumerGroupMetadata, GroupConsumer, Instance, KafkaArgs, Message as _, OffsetReset, Recovery, TopicReader,
    TransactionalProducer,
};
use tokio::task::block_in_place;

use super::topics::{OTHER_BROKER, TIMEOUT, Topics, check, record};
use crate::doctor::report::{Check, Finding, Verdict};

const FENCING: Check = check(
    "fenced-producers",
    "a cart-processor that was paused commits beside its successor: events are published twice",
    "Describe and Write on the transactional id, and Write on the topic",
);
const STABLE_OFFSET: Check = check(
    "last-stable-offset",
    "readers see events of a transaction that is still open, and may be aborted",
    "Read and Write on the topic, Write on the transactional id",
);
const ABORTED: Check = check(
    "aborted-records-hidden",
    "events of aborted transactions are counted in the read tables",
    "Read and Write on the topic, Write on the transactional id",
);
const OFFSETS: Check = check(
    "offsets-in-transactions",
    "after a crash events are published twice, or not at all",
    "Read on the group, Write on the transactional id and the topic",
);
const FORMER_MEMBER: Check = check(
    "former-member-fenced",
    "a cart-processor that has lost a partition commits offsets for its new owner: commands are passed over or published twice",
    "Read on the group, Write on the transactional id and the topic",
);

pub(super) const CHECKS: [&Check; 5] = [&STABLE_OFFSET, &FENCING, &ABORTED, &OFFSETS, &FORMER_MEMBER];

/// Before the brokers are asked once more.
const PAUSE: Duration = Duration::from_millis(20);

/// As the services have it by default: a broker may refuse such a session (`group.min.session.timeout.ms`).
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries them out. The topic of dead letters has records already.
pub(super) fn run(args: &KafkaArgs, admin: &Admin, topics: &Topics) -> Vec<Finding> {
    let mut findings = Vec::new();
    match block_in_place(|| transactions(args, admin, topics)) {
        Ok([stable, fenced, aborted]) => {
            findings.push(Finding::new(&STABLE_OFFSET, Ok(stable)));
            findings.push(Finding::new(&FENCING, Ok(fenced)));
            findings.push(Finding::new(&ABORTED, Ok(aborted)));
        }
        Err(error) => {
            findings.extend([&STABLE_OFFSET, &FENCING, &ABORTED].map(|check| Finding::unknown(check, &error)));
        }
    }
    match block_in_place(|| offsets(args, admin, topics)) {
        Ok([together, former]) => {
            findings.push(Finding::new(&OFFSETS, Ok(together)));
            findings.push(Finding::new(&FORMER_MEMBER, Ok(former)));
        }
        Err(error) => findings.extend([&OFFSETS, &FORMER_MEMBER].map(|check| Finding::unknown(check, &error))),
    }
    findings
}

/// The committed records of a topic.
fn committed(args: &KafkaArgs, topic: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut reader = TopicReader::open_at_beginning(args, topic)?;
    let mut values = Vec::new();
    while let Some(message) = reader.next(TIMEOUT)? {
        values.push(message.payload().unwrap_or_default().to_vec());
    }
    Ok(values)
}

/// The end while a transaction is open; its producer when another one takes over; what readers see afterwards.
fn transactions(args: &KafkaArgs, admin: &Admin, topics: &Topics) -> anyhow::Result<[Verdict; 3]> {
    let connect = || TransactionalProducer::connect(args, &topics.name);
    let mut first = connect()?;
    let mut transaction = first.begin()?;
    transaction.send(&topics.log, &record(b"aborted".to_vec()))?;
    transaction.deliver()?;
    let (is_open, seen) = (admin.has_open_transaction(&topics.log)?, committed(args, &topics.log)?.len());
    let mut second = connect()?;
    let fenced = match transaction.commit_records() {
        Err(error) if error.is_fenced() => {
            Verdict::holds("after another producer had taken over, the first could not commit")
        }
        Err(error) => return Err(error).context("a producer that another one has replaced"),
        Ok(()) => Verdict::fails("a producer that another one had replaced could commit", OTHER_BROKER),
    };
    let mut transaction = second.begin()?;
    transaction.send(&topics.log, &record(b"committed".to_vec()))?;
    transaction.commit_records()?;
    let is_still_open = is_open_for(admin, &topics.log)?;
    let values = committed(args, &topics.log)?;
    let stable = match (is_open, seen, is_still_open) {
        (true, 0, false) => {
            Verdict::holds("committed readers stop where an open transaction begins, and go on at its end")
        }
        _ => Verdict::fails(
            format!("open: reported as open {is_open}, records seen {seen}; ended: reported as open {is_still_open}"),
            OTHER_BROKER,
        ),
    };
    let aborted = if values == [b"committed".to_vec()] {
        Verdict::holds("committed readers see the committed record, and not the aborted one")
    } else {
        Verdict::fails(format!("committed readers see {} records, not one", values.len()), OTHER_BROKER)
    };
    Ok([stable, fenced, aborted])
}

/// Whether a transaction stays open: its end reaches the topic a moment after the commit.
fn is_open_for(admin: &Admin, topic: &str) -> anyhow::Result<bool> {
    let deadline = Instant::now() + TIMEOUT;
    while admin.has_open_transaction(topic)? {
        if Instant::now() > deadline {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}

/// A transaction with consumed offsets of a member, then one of a member that has left.
fn offsets(args: &KafkaArgs, admin: &Admin, topics: &Topics) -> anyhow::Result<[Verdict; 2]> {
    let instance = Instance::named("doctor", topics.name.clone(), SESSION_TIMEOUT);
    let consumer = GroupConsumer::join(args, &instance, 0, &topics.dead, OffsetReset::CommittedOrBeginning)?;
    let next = read_one(&consumer)?;
    let mut producer = TransactionalProducer::connect(args, &topics.name)?;
    let in_group = || admin.committed(&topics.name, &topics.dead);
    let before = in_group()?;
    let former = consumer.group_metadata()?;
    copy(&mut producer, &consumer, topics, next, consumer.group_metadata()?)?;
    let after = in_group()?;
    let together = match (before.as_slice(), after.as_slice()) {
        ([None], [Some(committed)]) if *committed == next => Verdict::holds(format!(
            "the group had no offset before the transaction's commit, and offset {next} after it"
        )),
        _ => Verdict::fails(
            format!("before the commit the group had {before:?}, after it {after:?}, not {next}"),
            OTHER_BROKER,
        ),
    };
    // A list of offsets is made by the consumer, which is gone then.
    let offsets = consumer.offsets([(0, next + 1)])?;
    drop(consumer);
    let mut transaction = producer.begin()?;
    transaction.send(&topics.log, &record(b"by a former member".to_vec()))?;
    let refused = transaction.commit(offsets, former);
    let found = in_group()?;
    let former = match refused {
        Err(error) if error.recovery() == Recovery::AbortTransaction && found == after => {
            Verdict::holds("the brokers refuse the offsets of a member that has left its group")
        }
        Err(error) => return Err(error).context("a commit of a member that has left its group"),
        Ok(()) => Verdict::fails("a member that has left its group could commit offsets", OTHER_BROKER),
    };
    Ok([together, former])
}

/// Copies a record to the log, with the offset behind it.
fn copy(
    producer: &mut TransactionalProducer,
    consumer: &GroupConsumer,
    topics: &Topics,
    next: i64,
    member: ConsumerGroupMetadata,
) -> anyhow::Result<()> {
    let mut transaction = producer.begin()?;
    transaction.send(&topics.log, &record(b"copied".to_vec()))?;
    Ok(transaction.commit(consumer.offsets([(0, next)])?, member)?)
}

/// Polls until a record has come, and returns the offset behind it.
fn read_one(consumer: &GroupConsumer) -> anyhow::Result<i64> {
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        if let Some(message) = consumer.poll(Duration::from_millis(100))? {
            return Ok(message.offset() + 1);
        }
    }
    bail!("the consumer group got no record within {} s", TIMEOUT.as_secs())
}
