//! The progress of a consumer group: markers and aborted records of transactions do not count.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::harness::Installation;
use kafka::{
    Admin, GroupConsumer, GroupProgress, Instance, KafkaArgs, Message as _, OffsetReset, Record, TopicSpec,
    TransactionalProducer,
};
use tokio::task::block_in_place;

use super::api::DEADLINE;

/// The broker's state of the only partition.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    end: i64,
    last_stable_offset: i64,
    committed: Option<i64>,
    /// The first record at or after the committed offset.
    first: Option<i64>,
}

fn look(progress: &GroupProgress) -> Result<Look, kafka::Error> {
    let committed = progress.committed([0])?.get(&0).copied();
    let first =
        progress.first_records(&BTreeMap::from([(0, committed.unwrap_or(0))]))?.get(&0).map(|first| first.offset);
    Ok(Look { end: progress.bounds(0)?.1, last_stable_offset: progress.last_stable_offset(0)?, committed, first })
}

fn record() -> Record {
    Record { partition: Some(0), key: None, value: Some(b"a record".to_vec()), headers: None }
}

fn follow(kafka: &KafkaArgs, topic: &str) -> Result<(), kafka::Error> {
    let group = kafka.prefixed("group");
    let progress = GroupProgress::new(kafka, &group, topic)?;
    let instance = Instance::named("test", group, Duration::from_secs(6));
    let consumer = GroupConsumer::join(kafka, &instance, 0, topic, OffsetReset::CommittedOrBeginning)?;
    let connect = || TransactionalProducer::connect(kafka, &kafka.prefixed("transactions"));
    assert_eq!(look(&progress)?, Look { end: 0, last_stable_offset: 0, committed: None, first: None });

    let mut producer = connect()?;
    let mut transaction = producer.begin()?;
    transaction.send(topic, &record())?;
    transaction.deliver()?;
    let open = Look { end: 1, last_stable_offset: 0, committed: None, first: None };
    assert_eq!(look(&progress)?, open, "it may be committed or aborted");
    transaction.commit_records()?;
    assert_eq!(
        look(&progress)?,
        Look { end: 2, last_stable_offset: 2, committed: None, first: Some(0) },
        "and a marker"
    );

    let deadline = std::time::Instant::now() + DEADLINE;
    let read = loop {
        assert!(std::time::Instant::now() < deadline, "the record does not come");
        if let Some(message) = consumer.poll(Duration::from_millis(100))? {
            break message.offset();
        }
    };
    consumer.commit(&consumer.offsets([(0, read + 1)])?)?;
    let done = Look { end: 2, last_stable_offset: 2, committed: Some(1), first: None };
    assert_eq!(look(&progress)?, done, "nothing is left, below the end");

    let mut transaction = producer.begin()?;
    transaction.send(topic, &record())?;
    transaction.deliver()?;
    drop(transaction);
    drop(producer);
    // The successor aborts it.
    let mut producer = connect()?;
    let aborted = Look { end: 4, last_stable_offset: 4, committed: Some(1), first: None };
    assert_eq!(look(&progress)?, aborted, "what was aborted is not left either");

    let mut transaction = producer.begin()?;
    transaction.send(topic, &record())?;
    transaction.commit_records()?;
    assert_eq!(look(&progress)?, Look { end: 6, last_stable_offset: 6, committed: Some(1), first: Some(4) });
    Ok(())
}

pub(crate) async fn progress_passes_over_markers_and_aborted_records() -> anyhow::Result<()> {
    let installation = Installation::new("progress")?;
    let kafka = installation.kafka();
    let topic = kafka.prefixed("topic");
    let admin = Admin::new(kafka)?;
    admin.ensure_topics(&[TopicSpec { name: topic.clone(), partitions: 1, replication: 1, config: &[] }]).await?;
    block_in_place(|| follow(kafka, &topic))?;
    admin.remove_topics(&[&topic]).await?;
    Ok(std::fs::remove_dir(installation.folder())?)
}
