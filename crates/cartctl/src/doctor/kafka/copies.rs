//! How many copies there are, and how many of them a write waits for.

use kafka::{Difference, PartitionReplicas, Settings};

use crate::doctor::report::Verdict;

/// With so many brokers there can be three copies, and everything is to have them.
const PRODUCTION_COPIES: usize = 3;

/// What a write waits for then: any one broker may be away, and what it had is on another.
const PRODUCTION_IN_SYNC: usize = 2;

/// The setting that lets a broker become the leader though it lacks acknowledged records.
pub(super) const UNCLEAN: &str = "unclean.leader.election.enable";

/// The settings of one topic that decide what a broker's loss costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Durability {
    pub(super) topic: String,
    /// The least of its partitions.
    pub(super) copies: usize,
    /// `min.insync.replicas`.
    pub(super) in_sync: usize,
    /// `unclean.leader.election.enable`.
    pub(super) unclean: bool,
}

impl Durability {
    /// From what the brokers say; `None` where the topic has no partition.
    pub(super) fn of(topic: &str, partitions: &[PartitionReplicas], settings: &Settings) -> Option<Self> {
        let copies =
            partitions.iter().filter(|partition| partition.topic == topic).map(|one| one.replicas.len()).min()?;
        let number = |name: &str| settings.get(name).and_then(|value| value.parse().ok());
        let unclean = settings.get(UNCLEAN).is_some_and(|value| value == "true");
        Some(Self { topic: topic.to_owned(), copies, in_sync: number("min.insync.replicas").unwrap_or(1), unclean })
    }
}

/// Judges the copies of topics, on a cluster of so many brokers. The worst decides.
pub(super) fn judge(topics: &[Durability], brokers: usize) -> Verdict {
    let mut limited = Vec::new();
    for topic in topics {
        let Durability { topic: name, copies, in_sync, .. } = topic;
        let found = format!("{name} has copies: {copies}, min.insync.replicas: {in_sync}, of brokers: {brokers}");
        if in_sync > copies {
            return Verdict::fails(
                format!("{found}: nothing can be written"),
                format!(
                    "kafka-configs.sh --alter --topic {name} --add-config min.insync.replicas={}",
                    copies.saturating_sub(1).max(1)
                ),
            );
        }
        if *copies >= PRODUCTION_COPIES && *in_sync < PRODUCTION_IN_SYNC {
            return Verdict::fails(
                format!("{found}: an acknowledged record may be on one broker only"),
                format!(
                    "kafka-configs.sh --alter --topic {name} --add-config min.insync.replicas={PRODUCTION_IN_SYNC}"
                ),
            );
        }
        if *copies < PRODUCTION_COPIES && brokers >= PRODUCTION_COPIES {
            return Verdict::fails(
                format!("{found}: the loss of a disk can lose records"),
                format!(
                    "add copies with kafka-reassign-partitions.sh, then set min.insync.replicas={PRODUCTION_IN_SYNC}"
                ),
            );
        }
        if *copies < PRODUCTION_COPIES || in_sync == copies {
            limited.push(format!("{name} ({copies}, {in_sync})"));
        }
    }
    if limited.is_empty() {
        let named: Vec<_> = topics.iter().map(|topic| topic.topic.as_str()).collect();
        return Verdict::holds(format!("three copies, of which two have each record: {}", named.join(", ")));
    }
    let found =
        format!("too few for production, of brokers: {brokers}; (copies, min.insync.replicas): {}", limited.join(", "));
    Verdict::limited(
        found,
        "fine for development: a lost disk is lost data, and while a broker is away nothing is written. In production use three \
         brokers, three copies and min.insync.replicas=2",
    )
}

/// Judges unclean elections: a broker that lacks the newest records may not become the leader.
pub(super) fn judge_elections(topics: &[Durability]) -> Verdict {
    let unclean: Vec<_> = topics.iter().filter(|topic| topic.unclean).map(|topic| topic.topic.as_str()).collect();
    let [first, ..] = unclean.as_slice() else {
        let named: Vec<_> = topics.iter().map(|topic| topic.topic.as_str()).collect();
        return Verdict::holds(format!("unclean.leader.election.enable=false for {}", named.join(", ")));
    };
    Verdict::fails(
        format!("unclean.leader.election.enable=true for {}", unclean.join(", ")),
        format!(
            "kafka-configs.sh --alter --topic {first} --add-config unclean.leader.election.enable=false, and so for each; or for all in the brokers' settings"
        ),
    )
}

/// Judges settings of topics that are not those of `setup`.
pub(super) fn judge_differences(differences: &[(String, Difference)], topics: usize) -> Verdict {
    if differences.is_empty() {
        return Verdict::holds(format!("{topics} topics have the settings of `setup`"));
    }
    let found = differences.iter().map(|(topic, difference)| {
        format!("{topic} has {}={}, not {}", difference.setting, difference.found, difference.wanted)
    });
    let commands: Vec<_> = differences.iter().map(|(_, difference)| difference.command.as_str()).collect();
    Verdict::fails(found.collect::<Vec<_>>().join("; "), commands.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, copies: usize, in_sync: usize) -> Durability {
        Durability { topic: name.to_owned(), copies, in_sync, unclean: false }
    }

    fn change(verdict: Verdict) -> String {
        match verdict {
            Verdict::Fails { found, change } => format!("fails: {found}: {change}"),
            Verdict::Limited { found, .. } => format!("limited: {found}"),
            Verdict::Holds { found } => format!("holds: {found}"),
            Verdict::NotSetUp { found } => found,
        }
    }

    #[test]
    fn production_is_three_copies_and_two_in_sync() {
        let verdict =
            |copies, in_sync, brokers| change(judge(&[topic("a", 3, 2), topic("t", copies, in_sync)], brokers));
        assert!(verdict(3, 2, 3).starts_with("holds"), "{}", verdict(3, 2, 3));
        assert!(verdict(5, 3, 5).starts_with("holds"));
        assert!(verdict(3, 1, 3).contains("--topic t --add-config min.insync.replicas=2"), "{}", verdict(3, 1, 3));
        assert!(verdict(1, 1, 3).contains("fails: t has copies: 1"), "{}", verdict(1, 1, 3));
        assert!(verdict(1, 2, 1).contains("nothing can be written"), "{}", verdict(1, 2, 1));
        assert!(verdict(3, 3, 3).starts_with("limited"), "a broker that is away stops all writes");
    }

    #[test]
    fn one_broker_is_a_warning() {
        let text = change(judge(&[topic("__transaction_state", 1, 1)], 1));
        assert_eq!(
            text,
            "limited: too few for production, of brokers: 1; (copies, min.insync.replicas): __transaction_state (1, 1)"
        );
    }

    #[test]
    fn the_settings_of_a_topic_are_those_of_its_worst_partition() {
        let partition = |partition, replicas: &[i32]| PartitionReplicas {
            topic: String::from("t"),
            partition,
            leader: 1,
            replicas: replicas.to_vec(),
            in_sync: replicas.to_vec(),
        };
        let settings = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "true")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let partitions = [partition(0, &[1, 2, 3]), partition(1, &[1])];
        let found = Durability::of("t", &partitions, &settings).expect("it has partitions");
        assert_eq!(found, Durability { unclean: true, ..topic("t", 1, 2) });
        assert_eq!(Durability::of("other", &partitions, &settings), None);
        assert!(
            change(judge_elections(&[found])).contains("--topic t --add-config unclean.leader.election.enable=false")
        );
        assert!(change(judge_elections(&[topic("t", 1, 1)])).starts_with("holds"));
    }
}
