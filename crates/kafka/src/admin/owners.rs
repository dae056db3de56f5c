//! Which member of a group has which partition.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::groups::GroupList;

use super::{Admin, CHECK_TIMEOUT, REQUEST_TIMEOUT};
use crate::Error;

impl Admin {
    /// The client ids of a group's members by the partitions of `topic` that they have. A partition without a member is missing; so
    /// are all while the group rebalances.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn owners(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, String>, Error> {
        let groups = self.members(group, CHECK_TIMEOUT)?;
        let members = groups.groups().iter().flat_map(|group| group.members());
        let owned = members.flat_map(|member| {
            let partitions = assigned(member.assignment().unwrap_or_default(), topic).unwrap_or_default();
            partitions.into_iter().map(|partition| (partition, member.client_id().to_owned()))
        });
        Ok(owned.collect())
    }

    /// Whether a group has members, also while it rebalances.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn has_members(&self, group: &str) -> Result<bool, Error> {
        Ok(self.members(group, REQUEST_TIMEOUT)?.groups().iter().any(|group| !group.members().is_empty()))
    }

    fn members(&self, group: &str, timeout: Duration) -> Result<GroupList, Error> {
        let failed = |error| Error::kafka(format!("listing the members of group {group}"), error);
        self.client().inner().fetch_group_list(Some(group), timeout).map_err(failed)
    }
}

/// The partitions of a topic in a `ConsumerProtocolAssignment`
/// (<https://github.com/apache/kafka/blob/trunk/clients/src/main/resources/common/message/ConsumerProtocolAssignment.json>):
/// a version, then each topic with its partitions. `None` for bytes of another form.
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let mut fields = Fields(bytes);
    let _version = fields.take::<2>()?;
    let mut partitions = Vec::new();
    for _ in 0..fields.int()? {
        let is_topic = fields.text()? == topic.as_bytes();
        for _ in 0..fields.int()? {
            let partition = fields.int()?;
            if is_topic {
                partitions.push(partition);
            }
        }
    }
    Some(partitions)
}

/// What is left of a message in Kafka's protocol.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(i16::from_be_bytes(self.take()?)).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_partitions_of_a_topic() {
        let topic = |name: &str, partitions: &[i32]| {
            let len = i16::try_from(name.len()).expect("short").to_be_bytes();
            let count = i32::try_from(partitions.len()).expect("few").to_be_bytes();
            let partitions = partitions.iter().flat_map(|partition| partition.to_be_bytes());
            len.into_iter().chain(name.bytes()).chain(count).chain(partitions).collect::<Vec<u8>>()
        };
        // Version 1, two topics; behind them the data of the assignor.
        let bytes = [&[0, 1, 0, 0, 0, 2][..], &topic("a", &[7]), &topic("b", &[0, 300]), &[0xff; 4]].concat();
        assert_eq!(assigned(&bytes, "b"), Some(vec![0, 300]));
        assert_eq!(assigned(&bytes, "c"), Some(vec![]));
        for len in 0..bytes.len() - 4 {
            assert_eq!(assigned(&bytes[..len], "b"), None, "the first {len} bytes");
        }
    }
}
