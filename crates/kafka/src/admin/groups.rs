//! What groups have committed, and setting it.

use std::time::{Duration, Instant};

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::{ASK_AGAIN_PAUSE, Admin, REQUEST_TIMEOUT};
use crate::Error;

/// A member that died while it committed offsets leaves them undecided for the transaction's time-out (15 s), and until
/// the brokers look for such transactions the next time (each 10 s).
const UNDECIDED_MAX: Duration = Duration::from_secs(30);

impl Admin {
    /// The offset that a group has committed in each partition of `topic`; `None` where it has committed none.
    ///
    /// # Errors
    /// As [`Admin::partitions`]. It waits for a transaction that is about to commit offsets, at most half a minute;
    /// [`crate::GroupProgress::committed`] does not.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, Error> {
        let failed = |error| Error::kafka(format!("asking for the committed offsets of group {group}"), error);
        let consumer: BaseConsumer = self.args.client().set("group.id", group).create().map_err(failed)?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, self.partitions(topic)? - 1);
        let committed = committed_offsets(&consumer, &partitions).map_err(failed)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).collect())
    }

    /// Commits the beginning of `topic` for a group that has no offsets there and whose `output` has no record yet.
    ///
    /// Groups that write to Kafka start from committed offsets only: without any, 'from the beginning' would
    /// publish everything again. So the beginning is committed once, before the first record.
    ///
    /// # Errors
    /// When offsets are missing although `output` has records: they were lost, or expired.
    pub fn ensure_start(&self, group: &str, topic: &str, output: &str) -> Result<(), Error> {
        let operation = || format!("setting the first offsets of group {group} on {topic}");
        let consumer: BaseConsumer = self
            .args
            .client()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .map_err(|error| Error::kafka(operation(), error))?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_range(topic, 0, self.partitions(topic)? - 1);
        let missing =
            |list: &TopicPartitionList| list.elements().iter().any(|element| element.offset() == Offset::Invalid);
        let committed = |list: &TopicPartitionList| {
            committed_offsets(&consumer, list).map_err(|error| Error::kafka(operation(), error))
        };
        if !missing(&committed(&offsets)?) {
            return Ok(());
        }
        if self.watermarks(output)?.iter().any(|(_, end)| *end > 0) {
            return Err(Error::fatal(
                operation(),
                format!(
                    "group {group} has no offsets on some partitions of {topic}, although {output} has records: they were \
                     lost or have expired. Starting over would publish every record twice. Set them with \
                     kafka-consumer-groups --reset-offsets to where the group was, or republish into a new topic"
                ),
            ));
        }
        offsets.set_all_offsets(Offset::Offset(0)).map_err(|error| Error::kafka(operation(), error))?;
        match consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => Ok(()),
            // Another instance was quicker and has joined the group already.
            Err(_) if !missing(&committed(&offsets)?) => Ok(()),
            Err(error) => Err(Error::kafka(operation(), error)),
        }
    }

    /// Commits the first offset of those partitions of `topic` in which a group without members has none: for a log
    /// that takes another one's place, or has got more partitions. Offsets that were carried over stay.
    ///
    /// # Errors
    /// When the brokers are away, or the group has members: they must end first.
    pub fn start_new_log(&self, group: &str, topic: &str) -> Result<(), Error> {
        let operation = || format!("setting the first offsets of group {group} on the new {topic}");
        let failed = |error| Error::kafka(operation(), error);
        let mut offsets = TopicPartitionList::new();
        let known = self.committed(group, topic)?.into_iter().zip(self.watermarks(topic)?);
        for (partition, (_, (start, _))) in (0..).zip(known).filter(|(_, (committed, _))| committed.is_none()) {
            offsets.add_partition_offset(topic, partition, Offset::Offset(start)).map_err(failed)?;
        }
        self.commit_for(group, &offsets).map_err(failed)
    }

    /// Commits where a group without members goes on in `topic`: an offset a partition, from partition 0 on.
    ///
    /// # Errors
    /// When the brokers are away, or the group has members: they must end first.
    pub fn set_offsets(&self, group: &str, topic: &str, next: impl IntoIterator<Item = i64>) -> Result<(), Error> {
        let failed = |error| Error::kafka(format!("setting the offsets of group {group} on {topic}"), error);
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(next) {
            offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        }
        self.commit_for(group, &offsets).map_err(failed)
    }

    fn commit_for(&self, group: &str, offsets: &TopicPartitionList) -> Result<(), KafkaError> {
        if offsets.count() == 0 {
            return Ok(());
        }
        let consumer: BaseConsumer = self.args.client().set("group.id", group).create()?;
        consumer.commit(offsets, CommitMode::Sync)
    }

    /// Refuses when a group has members: what follows would get between their feet.
    ///
    /// # Errors
    /// When it has some, or the brokers are away.
    pub fn ensure_idle(&self, group: &str) -> Result<(), Error> {
        let operation = || format!("making sure that nobody works in group {group}");
        let groups = self.client.inner().fetch_group_list(Some(group), REQUEST_TIMEOUT);
        let groups = groups.map_err(|error| Error::kafka(operation(), error))?;
        match groups.groups().iter().map(|group| group.members().len()).sum() {
            0 => Ok(()),
            members => Err(Error::fatal(operation(), format!("it has {members} members; stop them first"))),
        }
    }

    /// Removes consumer groups with their offsets; they must have no members. One that is not there is fine.
    ///
    /// # Errors
    /// When the brokers are away or refuse.
    pub async fn remove_groups(&self, names: &[&str]) -> Result<(), Error> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let operation = |group: &str| format!("removing group {group}");
        let results = self.client.delete_groups(names, &options).await;
        for result in results.map_err(|error| Error::kafka(operation(&names.join(", ")), error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((group, code)) => return Err(Error::retry(operation(&group), code)),
            }
        }
        Ok(())
    }
}

/// A broker that is to become the group's coordinator may not know it yet: a new Kafka makes the topic of the offsets when it
/// is asked for the first time. So it is asked again.
fn committed_offsets(
    consumer: &BaseConsumer,
    partitions: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        let result = consumer.committed_offsets(partitions.clone(), UNDECIDED_MAX);
        let code = result.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        if code != Some(RDKafkaErrorCode::NotCoordinator) || Instant::now() > deadline {
            return result;
        }
        std::thread::sleep(ASK_AGAIN_PAUSE);
    }
}
