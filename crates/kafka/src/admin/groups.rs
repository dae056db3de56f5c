//! What groups have committed, and setting it; who their members are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::{Offset, TopicPartitionList};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::{ASK_AGAIN_PAUSE, Admin, CHECK_TIMEOUT, REQUEST_TIMEOUT};
use crate::client_id::ClientId;
use crate::client_log::PlainConsumer;
use crate::instance::host_name;
use crate::{Error, Instance};

/// A member that died while it committed offsets leaves them undecided for the transaction's time-out (15 s), and until
/// the brokers look for such transactions the next time (each 10 s).
const UNDECIDED_MAX: Duration = Duration::from_secs(30);

/// How long it is waited for at a time, before a look whether the user may not know.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// How long the client's queue is read. Without a time the wrapper stops at a line of the log, which may stand before an error.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(1);

impl Admin {
    /// The offset that a group has committed in each partition of `topic`; `None` where it has committed none.
    ///
    /// # Errors
    /// As [`Admin::partitions`]. It waits for a transaction that is about to commit offsets, at most half a minute;
    /// [`crate::GroupProgress::committed`] does not.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, Error> {
        let failed = |error| Error::in_group(group, format!("reading the committed offsets of group {group}"), error);
        let consumer: PlainConsumer = self.args.client().set("group.id", group).create().map_err(failed)?;
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
        let consumer: PlainConsumer = self
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
            committed_offsets(&consumer, list).map_err(|error| Error::in_group(group, operation(), error))
        };
        if !missing(&committed(&offsets)?) {
            return Ok(());
        }
        if self.watermarks(output)?.iter().any(|(_, end)| *end > 0) {
            return Err(Error::fatal(
                operation(),
                format!(
                    "group {group} has no offsets on some partitions of {topic}, although {output} has records: the \
                     offsets were lost or have expired. Starting at the beginning would publish every record twice. \
                     Set the offsets to the last position of the group with kafka-consumer-groups --reset-offsets, \
                     or republish into a new topic"
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
    /// If the brokers do not respond, or the group has members: stop them first.
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
    /// If the brokers do not respond, or the group has members: stop them first.
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
        let consumer: PlainConsumer = self.args.client().set("group.id", group).create()?;
        consumer.commit(offsets, CommitMode::Sync)
    }

    /// The names of all consumer groups that the brokers know and the user may see.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn groups(&self) -> Result<BTreeSet<String>, Error> {
        let groups = self.client().inner().fetch_group_list(None, REQUEST_TIMEOUT);
        let groups = groups.map_err(|error| Error::kafka(String::from("listing the consumer groups"), error))?;
        Ok(groups.groups().iter().map(|group| group.name().to_owned()).collect())
    }

    /// Refuses when a group has members: what follows would get between their feet.
    ///
    /// # Errors
    /// When it has some, or the brokers do not respond.
    pub fn ensure_idle(&self, group: &str) -> Result<(), Error> {
        let operation = || format!("checking that group {group} has no members");
        let groups = self.client().inner().fetch_group_list(Some(group), REQUEST_TIMEOUT);
        let groups = groups.map_err(|error| Error::kafka(operation(), error))?;
        match groups.groups().iter().map(|group| group.members().len()).sum() {
            0 => Ok(()),
            members => Err(Error::fatal(operation(), format!("it has {members} members; stop them first"))),
        }
    }

    /// Logs which other processes are members of the instance's group under its name: two live ones fence each other's
    /// transactions. Call it before the instance joins. It never keeps a process from starting: the namesake may be this one's
    /// dead predecessor, whose session has not timed out yet.
    pub fn report_namesakes(&self, instance: &Instance) {
        let (group, name) = (instance.group(), instance.name());
        let groups = match self.client().inner().fetch_group_list(Some(group), CHECK_TIMEOUT) {
            Ok(groups) => groups,
            Err(error) => return tracing::debug!(group, %error, "the group's members are not known"),
        };
        let members = groups.groups().iter().flat_map(|group| group.members());
        for Namesake { host, pid, address } in namesakes(members.map(member), name) {
            if has_ended(&host, pid) {
                tracing::info!(
                    instance = name,
                    group,
                    pid,
                    "this instance's earlier process is still a member, but has ended: its partitions are reassigned when \
                     its session times out"
                );
            } else {
                tracing::warn!(
                    instance = name,
                    group,
                    pid,
                    host,
                    address,
                    "this instance is already a member. If that process is alive, one of the two may be fenced: start each \
                     with its own --instance. If it has ended, its session times out by itself"
                );
            }
        }
    }

    /// Removes consumer groups with their offsets; they must have no members. One that is not there is fine. Waits for a group
    /// whose last member has just left: it is empty only when the rebalance that follows is over.
    ///
    /// # Errors
    /// If the brokers do not respond, or refuse.
    pub async fn remove_groups(&self, names: &[&str]) -> Result<(), Error> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let operation = |group: &str| format!("removing group {group}");
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let results = self.client().delete_groups(names, &options).await;
            let mut is_rebalancing = false;
            for result in results.map_err(|error| Error::kafka(operation(&names.join(", ")), error))? {
                match result {
                    Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                    Err((_, RDKafkaErrorCode::NonEmptyGroup)) if Instant::now() < deadline => is_rebalancing = true,
                    Err((group, code)) => return Err(Error::retry(operation(&group), code)),
                }
            }
            if !is_rebalancing {
                return Ok(());
            }
            tokio::time::sleep(ASK_AGAIN_PAUSE).await;
        }
    }
}

/// A process that is a member under a name, whichever of its workers.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Namesake {
    host: String,
    pid: u32,
    /// Where the brokers see it.
    address: String,
}

/// A member's client id and address.
fn member(info: &GroupMemberInfo) -> (&str, &str) {
    (info.client_id(), info.client_host().trim_start_matches('/'))
}

fn namesakes<'a>(members: impl Iterator<Item = (&'a str, &'a str)>, name: &str) -> BTreeSet<Namesake> {
    let known = members.filter_map(|(client_id, address)| Some((ClientId::parse(client_id)?, address)));
    let namesakes = known.filter(|(id, _)| id.instance == name);
    namesakes.map(|(id, address)| Namesake { host: id.host, pid: id.pid, address: address.to_owned() }).collect()
}

/// Whether that process is known to have ended. Not of another host's; nor of one with our own number, which is another
/// container with this host name, or was the predecessor in this one.
fn has_ended(host: &str, pid: u32) -> bool {
    if host != host_name() || pid == std::process::id() {
        return false;
    }
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// A broker that is to become the group's coordinator may not know it yet: a new Kafka makes the topic of the offsets when it
/// is asked for the first time. So it is asked again.
fn committed_offsets(
    consumer: &PlainConsumer,
    partitions: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    let deadline = Instant::now() + UNDECIDED_MAX;
    loop {
        let error = match consumer.committed_offsets(partitions.clone(), LOOK_TIME) {
            Ok(committed) => return Ok(committed),
            Err(error) => error,
        };
        // librdkafka looks for a coordinator until the end, also when the user may not ask for it. The queue has the reason.
        while let Some(reported) = consumer.poll(QUEUE_TIMEOUT) {
            match reported {
                Err(denied) if denied.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                    return Err(denied);
                }
                Ok(_) | Err(_) => {}
            }
        }
        let passes = [RDKafkaErrorCode::NotCoordinator, RDKafkaErrorCode::OperationTimedOut];
        if !error.rdkafka_error_code().is_some_and(|code| passes.contains(&code)) || Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(ASK_AGAIN_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_is_a_process_with_the_same_name() {
        let members = [
            ("myhost-0-0@myhost:7", "127.0.0.1"),
            ("myhost-0-1@myhost:7", "127.0.0.1"),
            ("myhost-1-0@myhost:8", "127.0.0.1"),
            ("myhost-0-0@other:9", "10.0.0.2"),
            ("rdkafka", "127.0.0.1"),
        ];
        let namesake = |host: &str, pid, address: &str| Namesake { host: host.into(), pid, address: address.into() };
        let expected = [namesake("myhost", 7, "127.0.0.1"), namesake("other", 9, "10.0.0.2")];
        assert!(namesakes(members.into_iter(), "myhost-0").into_iter().eq(expected));
        assert!(namesakes(members.into_iter(), "myhost").is_empty());
    }

    #[test]
    fn a_process_of_this_host_is_known_to_have_ended() {
        let mut ended = std::process::Command::new("true").spawn().expect("a process");
        assert!(!has_ended(&host_name(), ended.id()), "before it is waited for");
        ended.wait().expect("its end");
        assert!(has_ended(&host_name(), ended.id()));
        assert!(!has_ended("elsewhere", ended.id()), "that another host's has ended is not known");
        assert!(!has_ended(&host_name(), 1), "it may not be signalled, but is there");
        assert!(!has_ended(&host_name(), std::process::id()));
    }
}
