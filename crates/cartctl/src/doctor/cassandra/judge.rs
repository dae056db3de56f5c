//! What the answers of Cassandra's nodes mean.

use std::collections::HashMap;

use crate::doctor::report::Verdict;

/// How a keyspace is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyspace {
    pub(super) name: String,
    /// The class, and the copies by data centre.
    pub(super) replication: HashMap<String, String>,
    pub(super) durable_writes: bool,
}

impl Keyspace {
    /// The copies of a row in a data centre.
    pub(super) fn copies(&self, datacenter: &str) -> usize {
        let copies = self.replication.get(datacenter).or_else(|| self.replication.get("replication_factor"));
        copies.and_then(|copies| copies.parse().ok()).unwrap_or_default()
    }
}

/// With so many copies a quorum is there when one node is away.
const PRODUCTION_COPIES: usize = 3;

/// Judges a keyspace that is used in a data centre of so many nodes.
pub(super) fn keyspace(keyspace: &Keyspace, datacenter: &str, nodes: usize) -> Verdict {
    let (name, copies) = (&keyspace.name, keyspace.copies(datacenter));
    let alter = |copies: usize| {
        format!(
            "ALTER KEYSPACE {name} WITH replication = {{'class': 'NetworkTopologyStrategy', '{datacenter}': {copies}}}, then \
             `nodetool repair --full {name}` on each node"
        )
    };
    if !keyspace.durable_writes {
        return Verdict::fails(
            format!("keyspace {name} has durable_writes=false: a node that crashes loses what is in its memory"),
            format!("ALTER KEYSPACE {name} WITH durable_writes = true"),
        );
    }
    let found = format!("keyspace {name} has copies: {copies}, of nodes in data centre {datacenter}: {nodes}");
    if copies == 0 {
        let others = keyspace.replication.keys().filter(|key| *key != "class").cloned().collect::<Vec<_>>();
        return Verdict::fails(
            format!("{found}: no request at LOCAL_QUORUM can succeed. It is replicated to: {}", others.join(", ")),
            format!("set --cassandra-datacenter to one of these, or {}", alter(nodes.clamp(1, PRODUCTION_COPIES))),
        );
    }
    if copies > nodes {
        return Verdict::fails(
            format!("{found}: a quorum may not be there, and no node more may be away"),
            format!("add nodes, or {}", alter(nodes.max(1))),
        );
    }
    if copies < PRODUCTION_COPIES {
        return Verdict::limited(
            found,
            format!(
                "fine for development: while a node is away its rows can be neither read nor written, and a lost disk is lost data. \
                 In production: {}",
                alter(PRODUCTION_COPIES)
            ),
        );
    }
    Verdict::holds(found)
}

/// Judges `commitlog_sync` of each node, by its address, for rows with so many copies.
pub(super) fn commit_log(nodes: &[(String, String)], copies: usize) -> Verdict {
    let list = nodes.iter().map(|(node, sync)| format!("{sync} at {node}")).collect::<Vec<_>>().join(", ");
    let found = format!("commitlog_sync is {list}; copies of a row: {copies}");
    let is_periodic = nodes.iter().any(|(_, sync)| sync == "periodic");
    match (is_periodic, copies) {
        (false, _) => Verdict::holds(found),
        (true, 0 | 1) => Verdict::fails(
            format!("{found}: rows are acknowledged before they are on disk"),
            "set commitlog_sync: batch (or group) in cassandra.yaml and restart the node, or use three copies",
        ),
        (true, _) => Verdict::holds(format!("{found}: each acknowledged row is on another node too")),
    }
}

/// Judges tables, by their names, that delete rows by themselves after some seconds.
pub(super) fn time_to_live(tables: &[(String, i32)]) -> Verdict {
    let short: Vec<_> = tables.iter().filter(|(_, seconds)| *seconds != 0).collect();
    let [(first, _), ..] = short.as_slice() else {
        return Verdict::holds(format!("rows of {} tables are kept", tables.len()));
    };
    let found: Vec<_> =
        short.iter().map(|(table, seconds)| format!("{table} deletes rows after {seconds} s")).collect();
    Verdict::fails(found.join(", "), format!("ALTER TABLE {first} WITH default_time_to_live = 0, and so for each"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(replication: &[(&str, &str)]) -> Keyspace {
        let replication = replication.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Keyspace { name: String::from("shop"), replication, durable_writes: true }
    }

    fn in_datacenter(copies: &str) -> Keyspace {
        made(&[("class", "org.apache.cassandra.locator.NetworkTopologyStrategy"), ("dc1", copies)])
    }

    #[test]
    fn production_has_three_copies_in_the_data_centre_that_is_used() {
        assert!(matches!(keyspace(&in_datacenter("3"), "dc1", 3), Verdict::Holds { .. }));
        assert!(matches!(keyspace(&in_datacenter("1"), "dc1", 1), Verdict::Limited { .. }));
        assert!(matches!(keyspace(&in_datacenter("2"), "dc1", 3), Verdict::Limited { .. }));
        assert!(matches!(keyspace(&in_datacenter("3"), "dc1", 2), Verdict::Fails { .. }));
        assert!(matches!(
            keyspace(&made(&[("class", "SimpleStrategy"), ("replication_factor", "3")]), "dc1", 3),
            Verdict::Holds { .. }
        ));
        let Verdict::Fails { found, change } = keyspace(&in_datacenter("3"), "dc2", 3) else {
            panic!("another centre")
        };
        assert!(found.contains("replicated to: dc1") && change.contains("--cassandra-datacenter"), "{found}; {change}");
        let volatile = Keyspace { durable_writes: false, ..in_datacenter("3") };
        assert!(
            matches!(keyspace(&volatile, "dc1", 3), Verdict::Fails { change, .. } if change.contains("durable_writes = true"))
        );
    }

    #[test]
    fn rows_with_one_copy_are_on_disk_before_they_are_acknowledged() {
        let nodes =
            |syncs: &[&str]| syncs.iter().map(|sync| (String::from("n"), (*sync).to_owned())).collect::<Vec<_>>();
        assert!(matches!(commit_log(&nodes(&["batch"]), 1), Verdict::Holds { .. }));
        assert!(matches!(commit_log(&nodes(&["group", "batch"]), 1), Verdict::Holds { .. }));
        assert!(
            matches!(commit_log(&nodes(&["batch", "periodic"]), 1), Verdict::Fails { change, .. } if change.contains("commitlog_sync: batch"))
        );
        assert!(matches!(commit_log(&nodes(&["periodic"; 3]), 3), Verdict::Holds { .. }));
    }

    #[test]
    fn a_table_that_deletes_rows_is_named() {
        let tables = [(String::from("cart_journal"), 0), (String::from("balance_by_vendor"), 3600)];
        assert!(matches!(time_to_live(&tables[..1]), Verdict::Holds { .. }));
        assert!(
            matches!(time_to_live(&tables), Verdict::Fails { change, .. } if change.starts_with("ALTER TABLE balance_by_vendor"))
        );
    }
}
