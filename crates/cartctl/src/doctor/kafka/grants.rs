//! Whether the users of the services have their ACLs, and whether others may write where that breaks a guarantee.

use std::collections::BTreeSet;

use cart::contract::Contract as _;
use cart::{CartCommand, CartParked, ControlRecord};
use kafka::{Acl, AclList, Admin, KafkaArgs, Operation, ResourceType};
use tokio::task::block_in_place;

use super::installation::AUTHORIZER_CLASS;
use super::topics::check;
use crate::doctor::report::{Check, Verdict};
use crate::doctor::users::{self, Excess, Held, command};
use crate::grants::{Service, Users, acls};

pub(super) const GRANTS: Check = check(
    "kafka-grants",
    "a service whose user lacks a grant does not start, or fails where it needs it; of a user with a grant too many an open transaction \
     can hold back all commands, or its records can stop and change what others do",
    "Describe and DescribeConfigs on the cluster",
);

/// As `cartctl grants --for` calls this server, for topics with this prefix.
fn server(args: &KafkaArgs) -> String {
    match args.topic_prefix.as_str() {
        "" => String::from("kafka"),
        prefix => format!("kafka --topic-prefix {prefix}"),
    }
}

/// The topics whose writers are few, with what another one can do.
const GUARDED: [(&str, &str); 3] = [
    (CartCommand::TOPIC, "a transaction that it leaves open holds back all commands behind it"),
    (ControlRecord::TOPIC, "it can pause groups, skip records and discard commands"),
    (CartParked::TOPIC, "it can mark carts as parked, and as not parked"),
];

/// Asks the brokers for their ACLs.
pub(super) async fn look(args: &KafkaArgs, users: &Users, admin: &Admin) -> anyhow::Result<Verdict> {
    if !has_authorizer(admin).await? {
        return Ok(Verdict::not_set_up(
            "the brokers have no authorizer (see `authorizer`): every client may do everything",
        ));
    }
    let listed = block_in_place(|| admin.acls())?;
    Ok(judge(args, users, &listed))
}

/// A broker that does not say which one it has may have one.
async fn has_authorizer(admin: &Admin) -> anyhow::Result<bool> {
    for broker in block_in_place(|| admin.brokers())? {
        let settings = admin.broker_settings(broker).await?;
        if settings.get(AUTHORIZER_CLASS).is_some_and(String::is_empty) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn judge(args: &KafkaArgs, users: &Users, listed: &AclList) -> Verdict {
    if listed.is_empty() {
        return Verdict::limited(
            "the brokers list no ACL: there is none, or the user of these settings may not list them",
            format!(
                "if there is none, {}; else run the doctor as a user with Describe on the cluster",
                command(&server(args), users, &[])
            ),
        );
    }
    let held = Service::ALL.map(|service| {
        let grants = acls(service, &users.of(service), args, false);
        Held::of(service, grants.iter().map(|grant| (text(grant), listed.give(grant))))
    });
    users::judge(&server(args), users, &held, &excess(args, users, listed))
}

/// Users that may write to a topic though no service of that name does.
fn excess(args: &KafkaArgs, users: &Users, listed: &AclList) -> Vec<Excess> {
    let mut excess = Vec::new();
    for (topic, effect) in GUARDED {
        let topic = args.prefixed(topic);
        let writers: BTreeSet<String> = Service::ALL
            .into_iter()
            .flat_map(|service| acls(service, &users.of(service), args, true))
            .filter(|grant| grant.operation == Operation::Write && grant.name == topic)
            .map(|grant| grant.principal)
            .collect();
        let others = listed.principals(ResourceType::Topic, &topic, Operation::Write);
        for other in others.into_iter().filter(|other| !writers.contains(*other)) {
            excess.push(Excess {
                found: format!("{other} may write to {topic}, and no service of that name does: {effect}"),
                change: format!(
                    "unless it is an administrator's, take Write on topic {topic} away from {other} (kafka-acls.sh --list --topic {topic} \
                     --resource-pattern-type match shows by which ACL it has it)"
                ),
            });
        }
    }
    excess
}

fn text(grant: &Acl) -> String {
    let kind = match grant.resource_type {
        ResourceType::Topic => "topic",
        ResourceType::Group => "group",
        ResourceType::TransactionalId => "transactional id",
    };
    let all = if grant.is_prefix { "*" } else { "" };
    format!("{:?} on {kind} {}{all}", grant.operation, grant.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> KafkaArgs {
        KafkaArgs::plain("", "http://127.0.0.1:1")
    }

    fn users() -> Users {
        Users::DEFAULT.parse().expect("the default")
    }

    fn all() -> Vec<Acl> {
        Service::ALL.into_iter().flat_map(|service| acls(service, &service.name(), &args(), false)).collect()
    }

    fn verdict(acls: Vec<Acl>) -> Verdict {
        judge(&args(), &users(), &acls.into_iter().collect())
    }

    fn write(user: &str, topic: &str) -> Acl {
        Acl {
            principal: format!("User:{user}"),
            resource_type: ResourceType::Topic,
            name: topic.to_owned(),
            is_prefix: false,
            operation: Operation::Write,
        }
    }

    #[test]
    fn each_grant_that_is_missing_is_named_with_its_user() {
        let all = all();
        assert!(matches!(verdict(all.clone()), Verdict::Holds { .. }));
        for missing in &all {
            let rest = all.iter().filter(|acl| *acl != missing).cloned().collect();
            let Verdict::Fails { found, change } = verdict(rest) else { panic!("{missing:?} is not named") };
            let user = missing.principal.trim_start_matches("User:");
            let name = format!("{user} lacks {}: ", text(missing));
            assert!(found.starts_with(&name), "{found} does not begin with {name}");
            assert_eq!(change, format!("cartctl grants --for kafka --of {user} --apply"));
        }
    }

    #[test]
    fn only_ingest_may_write_commands() {
        let commands = CartCommand::TOPIC;
        for user in ["audit", "cart-processor", "else"] {
            let with = [all(), vec![write(user, commands)]].concat();
            let Verdict::Limited { found, change } = verdict(with) else { panic!("{user} may write {commands}") };
            assert!(found.starts_with(&format!("User:{user} may write to {commands}")), "{found}");
            assert!(found.contains("holds back all commands") && change.contains("kafka-acls.sh"), "{found}: {change}");
        }
        // One for all names is one for each of the three topics.
        let Verdict::Limited { found, .. } = verdict([all(), vec![write("else", "*")]].concat()) else {
            panic!("a user may write everything")
        };
        assert_eq!(found.matches("User:else may write to").count(), GUARDED.len(), "{found}");
    }

    #[test]
    fn grants_of_the_live_pages_actions_and_of_other_topics_are_not_reported() {
        let operations = acls(Service::Console, "console", &args(), true);
        assert!(matches!(verdict([all(), operations].concat()), Verdict::Holds { .. }));
        assert!(matches!(verdict([all(), vec![write("else", "orders")]].concat()), Verdict::Holds { .. }));
    }

    #[test]
    fn an_empty_list_is_no_proof() {
        assert!(matches!(verdict(Vec::new()), Verdict::Limited { found, .. } if found.contains("may not list them")));
    }

    #[test]
    fn the_command_names_the_topics_prefix() {
        let args = KafkaArgs { topic_prefix: String::from("shop-"), ..args() };
        let Verdict::Limited { change, .. } = judge(&args, &users(), &AclList::default()) else { panic!("no ACL") };
        assert!(change.contains("cartctl grants --for kafka --topic-prefix shop- --apply"), "{change}");
    }
}
