//! The installation's own topics, the brokers' own ones, and the brokers' settings.

use anyhow::Context as _;
use cart::contract::{Contract as _, DEAD_LETTER_SETTINGS, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartEvent, CartParked, CartReply, ControlRecord, PurchasedItem};
use kafka::{Admin, Difference, KafkaArgs, PartitionReplicas, Settings, differences};
use tokio::task::block_in_place;

use super::copies::{self, Durability};
use crate::doctor::report::{Check, Finding, Server, Verdict};

const TOPICS: Check = Check {
    server: Server::Kafka,
    name: "topic-settings",
    without_it: "commands, events or purchases are deleted after a while, so nothing can be rebuilt from them; or records of clocks that are off, or large ones, are refused",
    needs: "DescribeConfigs on its topics",
};
const PARTITIONS: Check = Check {
    server: Server::Kafka,
    name: "partitions",
    without_it: "an event cannot go to the partition number of its command, and the services do not start",
    needs: "Describe on its topics",
};
const COPIES: Check = Check {
    server: Server::Kafka,
    name: "topic-copies",
    without_it: "the loss of one broker loses commands that were answered with 200, or stops every write",
    needs: "Describe and DescribeConfigs on its topics",
};
const ELECTIONS: Check = Check {
    server: Server::Kafka,
    name: "clean-elections",
    without_it: "a broker that lacks acknowledged commands becomes the leader: they are lost, and their offsets get other commands",
    needs: "DescribeConfigs on its topics",
};
const TRANSACTION_COPIES: Check = Check {
    server: Server::Kafka,
    name: "transaction-state-copies",
    without_it: "the loss of one broker loses the state of transactions: committed events or offsets may be undone, or partitions blocked",
    needs: "Describe and DescribeConfigs on the topic __transaction_state",
};
const OFFSET_COPIES: Check = Check {
    server: Server::Kafka,
    name: "offset-copies",
    without_it: "the loss of one broker loses committed offsets: the services do not start until an operator has set them",
    needs: "Describe and DescribeConfigs on the topic __consumer_offsets",
};
const RETENTION: Check = Check {
    server: Server::Kafka,
    name: "offset-retention",
    without_it: "services that are stopped for longer find their offsets deleted, and do not start until an operator has set them",
    needs: "DescribeConfigs on the cluster",
};
const AUTO_CREATE: Check = Check {
    server: Server::Kafka,
    name: "no-automatic-topics",
    without_it: "a wrong --topic-prefix makes topics with the brokers' settings, in place of an error",
    needs: "DescribeConfigs on the cluster",
};

const AUTHORIZER: Check = Check {
    server: Server::Kafka,
    name: "authorizer",
    without_it: "every client that reaches the brokers may write to cart-commands: a transaction that it leaves open holds back all commands behind it",
    needs: "DescribeConfigs on the cluster",
};

pub(super) const CHECKS: [&Check; 9] = [
    &TOPICS,
    &PARTITIONS,
    &COPIES,
    &ELECTIONS,
    &TRANSACTION_COPIES,
    &OFFSET_COPIES,
    &RETENTION,
    &AUTO_CREATE,
    &AUTHORIZER,
];

/// The topics with what `setup` asks for them.
const OURS: [(&str, &[(&str, &str)]); 7] = [
    (CartCommand::TOPIC, CartCommand::SETTINGS),
    (CartEvent::TOPIC, CartEvent::SETTINGS),
    (CartReply::TOPIC, CartReply::SETTINGS),
    (PurchasedItem::TOPIC, PurchasedItem::SETTINGS),
    (DEAD_LETTER_TOPIC, DEAD_LETTER_SETTINGS),
    (ControlRecord::TOPIC, ControlRecord::SETTINGS),
    (CartParked::TOPIC, CartParked::SETTINGS),
];

/// Compaction deletes all but a key's newest record. `setup` leaves it to the brokers, whose default is right.
const NOT_COMPACTED: &[(&str, &str)] = &[("cleanup.policy", "delete")];

/// How long replies are kept is a matter of disks alone.
const OF_REPLIES: [&str; 2] = ["retention.ms", "segment.ms"];

/// The brokers' topics, which exist since the first transaction with offsets.
const TRANSACTION_STATE: &str = "__transaction_state";
const OFFSETS: &str = "__consumer_offsets";

/// The brokers' setting that says who may do what.
pub(super) const AUTHORIZER_CLASS: &str = "authorizer.class.name";

/// Of offsets, in minutes: Kafka's default is a week.
const WEEK_MIN: u64 = 7 * 24 * 60;

/// What is known of the cluster.
struct Cluster<'a> {
    admin: &'a Admin,
    brokers: Vec<i32>,
    partitions: Vec<PartitionReplicas>,
}

impl Cluster<'_> {
    async fn durability(&self, topic: &str) -> anyhow::Result<Durability> {
        let settings = self.admin.topic_settings(topic).await?;
        Durability::of(topic, &self.partitions, &settings).with_context(|| format!("topic {topic} has no partitions"))
    }

    fn partitions_of(&self, topic: &str) -> usize {
        self.partitions.iter().filter(|partition| partition.topic == topic).count()
    }
}

/// Looks at them. The brokers' own topics are there, since the trials came before.
pub(super) async fn check(args: &KafkaArgs, admin: &Admin) -> Vec<Finding> {
    let known = block_in_place(|| anyhow::Ok((admin.brokers()?, admin.copies()?)));
    let (brokers, partitions) = match known {
        Ok(known) => known,
        Err(error) => return vec![Finding::new(&COPIES, Err(error))],
    };
    let cluster = Cluster { admin, brokers, partitions };
    let mut findings = ours(args, &cluster).await;
    for (check, topic) in [(&TRANSACTION_COPIES, TRANSACTION_STATE), (&OFFSET_COPIES, OFFSETS)] {
        let durability = cluster.durability(topic).await;
        let verdict = durability.map(|durability| copies::judge(&[durability], cluster.brokers.len()));
        findings.push(Finding::new(check, verdict));
    }
    match broker_settings(&cluster).await {
        Ok(settings) => {
            findings.push(Finding::new(&RETENTION, retention(&settings)));
            findings.push(Finding::new(&AUTO_CREATE, Ok(auto_create(&settings))));
            findings.push(Finding::new(&AUTHORIZER, Ok(authorizer(&settings))));
        }
        Err(error) => {
            findings.extend([&RETENTION, &AUTO_CREATE, &AUTHORIZER].map(|check| Finding::unknown(check, &error)))
        }
    }
    findings
}

async fn ours(args: &KafkaArgs, cluster: &Cluster<'_>) -> Vec<Finding> {
    let named = OURS.map(|(name, wanted)| (args.prefixed(name), wanted));
    let missing: Vec<_> = named.iter().filter(|(topic, _)| cluster.partitions_of(topic) == 0).collect();
    let checks = [&TOPICS, &PARTITIONS, &COPIES, &ELECTIONS];
    if let [(topic, _), ..] = missing.as_slice() {
        let verdict = if missing.len() == named.len() {
            Verdict::not_set_up(format!(
                "there is no topic {topic}, nor any other of this prefix: run the three `setup`s"
            ))
        } else {
            Verdict::fails(format!("topic {topic} does not exist, others of this prefix do"), MISSING)
        };
        return checks.map(|check| Finding::new(check, Ok(verdict.clone()))).into();
    }
    let replies = args.prefixed(CartReply::TOPIC);
    let parked = args.prefixed(CartParked::TOPIC);
    let looked_at = async {
        let (mut differing, mut durable) = (Vec::new(), Vec::new());
        for (topic, wanted) in &named {
            let settings = cluster.admin.topic_settings(topic).await?;
            // Of the parked carts only the newest record counts.
            let uncompacted = if *topic == parked { &[] } else { NOT_COMPACTED };
            let all =
                differences(topic, &settings, wanted).into_iter().chain(differences(topic, &settings, uncompacted));
            let is_wrong = |one: &Difference| !(*topic == replies && OF_REPLIES.contains(&one.setting));
            differing.extend(all.filter(is_wrong).map(|one| (topic.clone(), one)));
            let of_topic = Durability::of(topic, &cluster.partitions, &settings);
            durable.push(of_topic.with_context(|| format!("topic {topic} has no partitions"))?);
        }
        anyhow::Ok((differing, durable))
    };
    match looked_at.await {
        Ok((differing, durable)) => vec![
            Finding::new(&TOPICS, Ok(copies::judge_differences(&differing, named.len()))),
            Finding::new(&PARTITIONS, Ok(partitions(&named[0].0, &named[1].0, cluster))),
            Finding::new(&COPIES, Ok(copies::judge(&durable, cluster.brokers.len()))),
            Finding::new(&ELECTIONS, Ok(copies::judge_elections(&durable))),
        ],
        Err(error) => checks.map(|check| Finding::unknown(check, &error)).into(),
    }
}

/// What to do about a topic that is missing beside others.
const MISSING: &str =
    "if this is a new installation, run the three `setup`s; else follow docs/operations.md, \"Recover after a loss\"";

fn partitions(commands: &str, events: &str, cluster: &Cluster<'_>) -> Verdict {
    let (of_commands, of_events) = (cluster.partitions_of(commands), cluster.partitions_of(events));
    let found = format!("{commands} has {of_commands} partitions, {events} has {of_events}");
    if of_commands == of_events {
        return Verdict::holds(found);
    }
    Verdict::fails(
        found,
        format!(
            "make {events} anew with {of_commands} partitions, as after its loss (docs/operations.md, \"Recover after a loss\")"
        ),
    )
}

async fn broker_settings(cluster: &Cluster<'_>) -> anyhow::Result<Vec<(i32, Settings)>> {
    let mut all = Vec::new();
    for broker in &cluster.brokers {
        all.push((*broker, cluster.admin.broker_settings(*broker).await?));
    }
    Ok(all)
}

/// The shortest retention of all brokers decides.
fn retention(brokers: &[(i32, Settings)]) -> anyhow::Result<Verdict> {
    let minutes = |settings: &Settings| settings.get("offsets.retention.minutes")?.parse::<u64>().ok();
    let shortest = brokers.iter().filter_map(|(_, settings)| minutes(settings)).min();
    let shortest = shortest.context("no broker says its offsets.retention.minutes")?;
    let found =
        format!("offsets.retention.minutes={shortest}: services may be stopped for {} days", shortest / (24 * 60));
    if shortest > WEEK_MIN {
        return Ok(Verdict::holds(found));
    }
    Ok(Verdict::limited(
        found,
        "set offsets.retention.minutes in the brokers' settings to longer than any stop, such as 5256000",
    ))
}

fn auto_create(brokers: &[(i32, Settings)]) -> Verdict {
    let is_on = |settings: &Settings| settings.get("auto.create.topics.enable").is_some_and(|value| value == "true");
    match brokers.iter().find(|(_, settings)| is_on(settings)) {
        None => Verdict::holds("auto.create.topics.enable=false"),
        Some((broker, _)) => Verdict::limited(
            format!("auto.create.topics.enable=true on broker {broker}"),
            "set auto.create.topics.enable=false in the brokers' settings",
        ),
    }
}

fn authorizer(brokers: &[(i32, Settings)]) -> Verdict {
    const CHANGE: &str =
        "set authorizer.class.name in the brokers' settings, and give the grants of `cartctl grants --for kafka`";
    let class = |settings: &Settings| settings.get(AUTHORIZER_CLASS).cloned();
    let classes: Vec<_> = brokers.iter().map(|(broker, settings)| (broker, class(settings))).collect();
    if let Some((broker, _)) = classes.iter().find(|(_, class)| class.as_deref() == Some("")) {
        return Verdict::limited(format!("broker {broker} has no {AUTHORIZER_CLASS}: fine for development"), CHANGE);
    }
    match classes.iter().find_map(|(_, class)| class.as_deref()) {
        Some(class) => Verdict::holds(format!("{AUTHORIZER_CLASS}={class}")),
        // A hosted one may keep it to itself.
        None => Verdict::limited(
            format!("the brokers do not say their {AUTHORIZER_CLASS}"),
            "find out who may write to cart-commands",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(name: &str, values: &[&str]) -> Vec<(i32, Settings)> {
        (1..).zip(values).map(|(id, value)| (id, [(name.to_owned(), (*value).to_owned())].into())).collect()
    }

    #[test]
    fn the_shortest_retention_of_offsets_decides() {
        let verdict = |values: &[&str]| retention(&brokers("offsets.retention.minutes", values)).expect("a number");
        assert!(matches!(verdict(&["5256000", "5256000"]), Verdict::Holds { .. }));
        let Verdict::Limited { found, .. } = verdict(&["5256000", "10080"]) else { panic!("one has a week") };
        assert!(found.contains("7 days"), "{found}");
        assert!(retention(&brokers("other", &["1"])).is_err());
    }

    #[test]
    fn one_broker_that_makes_topics_is_named() {
        let verdict = |values: &[&str]| auto_create(&brokers("auto.create.topics.enable", values));
        assert!(matches!(verdict(&["false", "false"]), Verdict::Holds { .. }));
        assert!(matches!(verdict(&["false", "true"]), Verdict::Limited { found, .. } if found.contains("broker 2")));
    }

    #[test]
    fn one_broker_without_an_authorizer_is_named() {
        let class = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        let verdict = |values: &[&str]| authorizer(&brokers("authorizer.class.name", values));
        assert!(matches!(verdict(&[class, class]), Verdict::Holds { .. }));
        assert!(matches!(verdict(&[class, ""]), Verdict::Limited { found, .. } if found.contains("broker 2")));
        let hidden = authorizer(&brokers("other", &["1"]));
        assert!(matches!(hidden, Verdict::Limited { found, .. } if found.contains("do not say")));
    }
}
