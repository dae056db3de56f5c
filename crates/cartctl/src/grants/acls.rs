//! Kafka's grants: ACLs.
//!
//! `Read` and `Write` include `Describe`. An idempotent producer needs no `IdempotentWrite` on the cluster: since Kafka 3.0 `Write`
//! on a topic suffices.

use std::collections::BTreeMap;
use std::io::{self, Write};

use cart::contract::{Contract as _, DEAD_LETTER_TOPIC, READ_MODELS, ReadModel, ReadTable, STAGES, group};
use cart::{CartCommand, CartEvent, CartParked, CartReply, ControlRecord, PurchasedItem};
use kafka::{Acl, Admin, KafkaArgs, Operation, ResourceType};

use super::args::Args;
use super::service::Service::{
    self, Audit, CartProcessor, Console, Ingest, ItemPurchasedEvents, Operator, PopularItems, Setup, VendorBilling,
    VendorBillingJdbc,
};

const COMMANDS: &str = CartCommand::TOPIC;
const EVENTS: &str = CartEvent::TOPIC;
const REPLIES: &str = CartReply::TOPIC;
const PURCHASES: &str = PurchasedItem::TOPIC;
const DEAD_LETTERS: &str = DEAD_LETTER_TOPIC;
const CONTROL: &str = ControlRecord::TOPIC;
const PARKED: &str = CartParked::TOPIC;
const TOPICS: [&str; 7] = [COMMANDS, EVENTS, REPLIES, DEAD_LETTERS, PARKED, PURCHASES, CONTROL];

/// What a grant is on, without the installation's prefix.
#[derive(Debug, Clone, Copy)]
enum Resource {
    Topic(&'static str),
    /// All of the installation's topics.
    EachTopic,
    Group(&'static str),
    /// The groups of a read model's later generations: each has a name that begins so.
    LaterGroups(ReadTable),
    /// All of the pipeline's groups, of all generations.
    EachGroup,
    /// The group that clients name which read a topic without a group, with this ending: nothing is committed there, but librdkafka
    /// asks for its coordinator.
    GroupOfTopic(&'static str, &'static str),
    TransactionalId(&'static str),
    /// All whose names begin so.
    TransactionalIds(&'static str),
}

use ReadTable::{BalanceByVendor, ItemQuantityByDay, VendorBilling as BillingView};
use Resource::{EachGroup, EachTopic, Group, GroupOfTopic, LaterGroups, Topic, TransactionalId, TransactionalIds};

type Row = (Operation, Resource, &'static [Service]);

use Operation::{Create, Delete, Describe, DescribeConfigs, Read, Write as Produce};

/// All but [`Setup`].
const READERS_OF_CONTROL: &[Service] = &[
    Ingest,
    CartProcessor,
    ItemPurchasedEvents,
    PopularItems,
    VendorBilling,
    VendorBillingJdbc,
    Console,
    Audit,
    Operator,
];

/// The grants. Only `ingest` may write `cart-commands`: an open transaction of another producer would hold back its readers.
const TABLE: &[Row] = &[
    // `setup` makes the topics, and compares the settings of those that exist. It commits where the two groups begin that publish:
    // for that it needs to read their topics.
    (Create, EachTopic, &[Setup]),
    (DescribeConfigs, EachTopic, &[Setup]),
    (Describe, Topic(REPLIES), &[Setup]),
    (Describe, Topic(DEAD_LETTERS), &[Setup]),
    (Describe, Topic(PURCHASES), &[Setup]),
    (Describe, Topic(CONTROL), &[Setup]),
    // `ingest` searches a command of which it is asked what became of it.
    (Produce, Topic(COMMANDS), &[Ingest]),
    (Read, Topic(COMMANDS), &[Setup, Ingest, CartProcessor, Console, Audit, Operator]),
    // `ingest` wakes event streams by it. `cartctl republish` fills it anew.
    (Produce, Topic(EVENTS), &[CartProcessor, Operator]),
    (Read, Topic(EVENTS), &[Setup, Ingest, ItemPurchasedEvents, Console, Audit, Operator]),
    (Produce, Topic(REPLIES), &[CartProcessor]),
    (Read, Topic(REPLIES), &[Ingest, Console, Audit, Operator]),
    (Produce, Topic(DEAD_LETTERS), &[CartProcessor]),
    (Read, Topic(DEAD_LETTERS), &[Audit, Operator]),
    // The markers are the cart-processor's; an operator requests another try.
    (Describe, Topic(PARKED), &[Setup]),
    (Produce, Topic(PARKED), &[CartProcessor, Operator]),
    (Read, Topic(PARKED), &[Ingest, CartProcessor, Console, Audit, Operator]),
    // `ingest` looks for records that a table does not have yet (Read-After). `cartctl resume-purchases` adds what is missing.
    (Produce, Topic(PURCHASES), &[ItemPurchasedEvents, Operator]),
    (Read, Topic(PURCHASES), &[Ingest, PopularItems, VendorBilling, VendorBillingJdbc, Console, Audit, Operator]),
    // Members follow what operators want, and answer; `ingest` answers which commands were discarded. Kafka does not distinguish the
    // records of the topic: a service that is taken over could also write a pause, which `cartctl log` shows.
    (
        Produce,
        Topic(CONTROL),
        &[CartProcessor, ItemPurchasedEvents, PopularItems, VendorBilling, VendorBillingJdbc, Operator],
    ),
    (Read, Topic(CONTROL), READERS_OF_CONTROL),
    (Delete, EachTopic, &[Operator]),
    // Members, and those that set a group's offsets.
    (Read, Group(group::CART_PROCESSOR), &[Setup, CartProcessor, Operator]),
    (Read, Group(group::ITEM_PURCHASED_EVENTS), &[Setup, ItemPurchasedEvents, Operator]),
    (Read, Group(group::POPULAR_ITEMS), &[PopularItems, Operator]),
    (Read, Group(group::VENDOR_BILLING), &[VendorBilling, Operator]),
    (Read, Group(group::VENDOR_BILLING_JDBC), &[VendorBillingJdbc, Operator]),
    (Read, LaterGroups(ItemQuantityByDay), &[PopularItems, Operator]),
    (Read, LaterGroups(BalanceByVendor), &[VendorBilling, Operator]),
    (Read, LaterGroups(BillingView), &[VendorBillingJdbc, Operator]),
    // Those that watch how far a group is.
    (Describe, Group(group::CART_PROCESSOR), &[Ingest]),
    (Describe, Group(group::ITEM_PURCHASED_EVENTS), &[Ingest]),
    (Describe, Group(group::POPULAR_ITEMS), &[Ingest]),
    (Describe, Group(group::VENDOR_BILLING), &[Ingest]),
    (Describe, LaterGroups(ItemQuantityByDay), &[Ingest]),
    (Describe, LaterGroups(BalanceByVendor), &[Ingest]),
    (Describe, EachGroup, &[Console, Audit]),
    (Delete, EachGroup, &[Operator]),
    // Those that read without a group.
    (Describe, GroupOfTopic(COMMANDS, "reader"), &[Ingest, CartProcessor, Console, Audit, Operator]),
    (Describe, GroupOfTopic(EVENTS, "reader"), &[Console, Audit, Operator]),
    (Describe, GroupOfTopic(REPLIES, "reader"), &[Console, Audit, Operator]),
    (Describe, GroupOfTopic(DEAD_LETTERS, "reader"), &[Audit, Operator]),
    (
        Describe,
        GroupOfTopic(PURCHASES, "reader"),
        &[PopularItems, VendorBilling, VendorBillingJdbc, Console, Audit, Operator],
    ),
    (Describe, GroupOfTopic(CONTROL, "reader"), READERS_OF_CONTROL),
    (Describe, GroupOfTopic(PARKED, "reader"), &[Ingest, CartProcessor, Console, Audit, Operator]),
    (Describe, GroupOfTopic(REPLIES, "follower"), &[Ingest]),
    (Describe, GroupOfTopic(EVENTS, "follower"), &[Ingest]),
    // Behind the group's name comes the instance's.
    (Produce, TransactionalIds("cart-processor-"), &[CartProcessor]),
    (Produce, TransactionalIds("item-purchased-events-"), &[ItemPurchasedEvents]),
    (Produce, TransactionalId("cart-processor-republish"), &[Operator]),
    (Produce, TransactionalId("item-purchased-events-resume"), &[Operator]),
];

/// What operators' actions at the live page need besides. Kafka does not tell a request of an operator from a marker of the cart-processor
/// in `cart-parked`, so the console has these only where such actions are allowed.
const OPERATIONS: &[Row] = &[(Produce, Topic(CONTROL), &[Console]), (Produce, Topic(PARKED), &[Console])];

impl Resource {
    /// The kind, and the names, each with whether it is a prefix.
    fn names(self) -> (ResourceType, Vec<(String, bool)>) {
        let exactly = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), false)).collect();
        let later = |model: ReadModel| (model.later_groups(), true);
        match self {
            Topic(name) => (ResourceType::Topic, exactly(&[name])),
            EachTopic => (ResourceType::Topic, exactly(&TOPICS)),
            Group(name) => (ResourceType::Group, exactly(&[name])),
            LaterGroups(table) => (ResourceType::Group, vec![later(table.model())]),
            EachGroup => {
                let first = STAGES.iter().map(|stage| (stage.group.to_owned(), false));
                (ResourceType::Group, first.chain(READ_MODELS.map(later)).collect())
            }
            GroupOfTopic(topic, ending) => (ResourceType::Group, exactly(&[&format!("{topic}-{ending}")])),
            TransactionalId(name) => (ResourceType::TransactionalId, exactly(&[name])),
            TransactionalIds(prefix) => (ResourceType::TransactionalId, vec![(prefix.to_owned(), true)]),
        }
    }
}

/// The grants of a service's user, as ACLs with full names; with those for operators' actions at the live page, if `has_operations`.
#[must_use]
pub fn acls(service: Service, user: &str, kafka: &KafkaArgs, has_operations: bool) -> Vec<Acl> {
    let mut acls = Vec::new();
    let more = if has_operations { OPERATIONS } else { &[] };
    for (operation, resource, _) in TABLE.iter().chain(more).filter(|(_, _, services)| services.contains(&service)) {
        let (resource_type, names) = resource.names();
        acls.extend(names.into_iter().map(|(name, is_prefix)| Acl {
            principal: format!("User:{user}"),
            resource_type,
            name: kafka.prefixed(&name),
            is_prefix,
            operation: *operation,
        }));
    }
    acls
}

/// The grants that are meant.
pub(super) fn of(args: &Args, service: Service) -> Vec<Acl> {
    acls(service, &args.user.of(service), &args.kafka, args.has_operations())
}

pub(super) fn change(args: &Args, services: &[Service]) -> Result<(), kafka::Error> {
    let acls: Vec<_> = services.iter().flat_map(|service| of(args, *service)).collect();
    let admin = Admin::new(&args.kafka)?;
    tokio::task::block_in_place(|| if args.remove { admin.remove_acls(&acls) } else { admin.create_acls(&acls) })
}

/// Grants with the same operation on resources of one kind are one command.
pub(super) fn print(args: &Args, services: &[Service], out: &mut impl Write) -> io::Result<()> {
    for service in services {
        let user = args.user.of(*service);
        writeln!(out, "# {}", service.name())?;
        let mut commands: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for acl in of(args, *service) {
            commands.entry((acl.resource_type, acl.is_prefix, acl.operation)).or_default().push(acl.name);
        }
        for ((resource_type, is_prefix, operation), names) in commands {
            let option = match resource_type {
                ResourceType::Topic => "--topic",
                ResourceType::Group => "--group",
                ResourceType::TransactionalId => "--transactional-id",
            };
            write!(
                out,
                "kafka-acls.sh --bootstrap-server {} --command-config admin.properties --add --allow-principal 'User:{user}' \
                 --operation {operation:?}",
                args.kafka.kafka_bootstrap_servers
            )?;
            if is_prefix {
                write!(out, " --resource-pattern-type prefixed")?;
            }
            for name in names {
                write!(out, " {option} '{name}'")?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cart::Generation;
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        kafka: KafkaArgs,
    }

    #[test]
    fn only_ingest_may_write_commands() {
        let writers: Vec<_> = TABLE
            .iter()
            .filter(|(operation, resource, _)| {
                let (resource_type, names) = resource.names();
                *operation == Produce
                    && resource_type == ResourceType::Topic
                    && names.iter().any(|(name, _)| name == COMMANDS)
            })
            .flat_map(|(_, _, services)| services.iter())
            .collect();
        assert_eq!(writers, [&Ingest]);
    }

    #[test]
    fn each_group_of_the_pipeline_has_a_user_that_may_read_its_topic() {
        let kafka = Cli::parse_from(["test", "--topic-prefix", "shop-"]).kafka;
        for stage in STAGES {
            let service: Service = clap::ValueEnum::from_str(stage.group, false).expect("a service of that name");
            let may = |operation, resource_type, name: &str| {
                let name = kafka.prefixed(name);
                acls(service, stage.group, &kafka, false)
                    .iter()
                    .any(|acl| acl.operation == operation && acl.resource_type == resource_type && acl.name == name)
            };
            assert!(may(Read, ResourceType::Group, stage.group), "{stage:?}");
            assert!(may(Read, ResourceType::Topic, stage.topic), "{stage:?}");
            for operation in [Read, Produce] {
                assert!(may(operation, ResourceType::Topic, CONTROL), "{stage:?} follows and answers");
            }
        }
    }

    #[test]
    fn a_projector_may_join_the_groups_of_all_generations_and_no_other() {
        let kafka = Cli::parse_from(["test", "--topic-prefix", "shop-"]).kafka;
        for model in READ_MODELS {
            let service: Service = clap::ValueEnum::from_str(model.group, false).expect("a service of that name");
            let groups = acls(service, model.group, &kafka, false);
            let may = |group: &str| {
                let covers = |acl: &Acl| acl.name == group || acl.is_prefix && group.starts_with(&acl.name);
                let of_groups = groups.iter().filter(|acl| acl.resource_type == ResourceType::Group);
                of_groups.filter(|acl| acl.operation == Read).any(covers)
            };
            for other in READ_MODELS {
                for number in [1, 2, 999] {
                    let group = other.group_name(Generation::new(number).expect("a generation"));
                    assert_eq!(may(&kafka.prefixed(&group)), other == model, "{} and {group}", model.group);
                }
            }
        }
    }

    #[test]
    fn the_live_page_may_write_only_where_operators_may_act() {
        let kafka = Cli::parse_from(["test", "--topic-prefix", "shop-"]).kafka;
        let written = |has_operations| {
            let acls = acls(Console, "console", &kafka, has_operations).into_iter();
            acls.filter(|acl| acl.operation == Produce).map(|acl| acl.name).collect::<Vec<_>>()
        };
        assert_eq!(written(false), [""; 0]);
        assert_eq!(written(true), ["shop-cart-control", "shop-cart-parked"]);
        for service in Service::ALL.into_iter().filter(|service| *service != Console) {
            assert_eq!(acls(service, "u", &kafka, true), acls(service, "u", &kafka, false), "{service:?}");
        }
    }

    #[test]
    fn no_grant_is_given_twice_or_by_another() {
        let kafka = Cli::parse_from(["test", "--topic-prefix", "shop-"]).kafka;
        for service in Service::ALL {
            let acls = acls(service, "u", &kafka, true);
            for (index, acl) in acls.iter().enumerate() {
                let includes = |other: &Acl| {
                    other == acl
                        || acl.operation == Describe
                            && matches!(other.operation, Read | Produce | Delete)
                            && (other.resource_type, &other.name) == (acl.resource_type, &acl.name)
                };
                let other = acls.iter().enumerate().find(|(other, acl)| *other != index && includes(acl));
                assert!(other.is_none(), "{service:?}: {acl:?} and {other:?}");
            }
        }
    }
}
