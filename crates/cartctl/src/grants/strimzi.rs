//! Kafka's grants as the resources of Strimzi's user operator.

use std::collections::BTreeMap;
use std::io::{self, Write};

use kafka::ResourceType;

use super::acls::of;
use super::args::Args;
use super::service::Service;

pub(super) fn print(args: &Args, services: &[Service], out: &mut impl Write) -> io::Result<()> {
    for service in services {
        let user = args.user.of(*service);
        writeln!(
            out,
            "---\n\
             apiVersion: kafka.strimzi.io/v1beta2\n\
             kind: KafkaUser\n\
             metadata:\n  \
               name: {user}\n  \
               labels:\n    \
                 strimzi.io/cluster: {}\n\
             spec:\n  \
               authentication:\n    \
                 type: scram-sha-512\n  \
               authorization:\n    \
                 type: simple\n    \
                 acls:",
            args.strimzi_cluster
        )?;
        let mut resources: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for acl in of(args, *service) {
            let operations = resources.entry((acl.resource_type, acl.is_prefix, acl.name)).or_default();
            operations.push(format!("{:?}", acl.operation));
        }
        for ((resource_type, is_prefix, name), operations) in resources {
            let kind = match resource_type {
                ResourceType::Topic => "topic",
                ResourceType::Group => "group",
                ResourceType::TransactionalId => "transactionalId",
            };
            let pattern = if is_prefix { "prefix" } else { "literal" };
            writeln!(out, "      - resource: {{ type: {kind}, name: '{name}', patternType: {pattern} }}")?;
            writeln!(out, "        operations: [{}]", operations.join(", "))?;
        }
    }
    Ok(())
}
