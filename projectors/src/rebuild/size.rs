//! How much room another generation takes.

use scylla::client::session::Session;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::Statement;
use serde::Serialize;
use sqlx::PgPool;

use super::refused::refuse;

/// In the tables of each node, of the ranges that it is the first one for: over all nodes, one copy. Each user may read it.
const IN_CASSANDRA: &str = "SELECT mean_partition_size, partitions_count FROM system.size_estimates \
    WHERE keyspace_name = ? AND table_name = ?";
/// With its indexes; `NULL` where there is no such table.
const IN_POSTGRES: &str = "SELECT pg_total_relation_size(to_regclass($1::text))";

const MIB: u64 = 1 << 20;

/// Of a range: the mean size of its partitions in bytes, and how many there are.
type Estimate = (Option<i64>, Option<i64>);

/// The room that the active generation takes, so about what another one will, and what is free for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Size {
    /// Bytes; in Cassandra those of one copy. `None`: the store does not know it.
    pub(super) table_bytes: Option<u64>,
    /// Bytes. `None`: not known, since no store says it.
    pub(super) free_bytes: Option<u64>,
}

impl Size {
    pub(super) fn new(table_bytes: anyhow::Result<Option<u64>>, free_mib: Option<u32>) -> Self {
        let table_bytes = table_bytes.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the size of the active table could not be found out");
            None
        });
        Self { table_bytes, free_bytes: free_mib.map(|free| u64::from(free) * MIB) }
    }

    pub(super) fn log(&self) {
        let mib = |bytes: Option<u64>| bytes.map_or_else(|| String::from("unknown"), |bytes| in_mib(bytes).to_string());
        tracing::info!(
            table_mib = mib(self.table_bytes),
            free_mib = mib(self.free_bytes),
            "another generation takes about as much room as the active one"
        );
    }

    /// Where it is known how much is free: refuses if the new table would take more than half of that, or if its size is not known.
    pub(super) fn check(&self, is_accepted: bool) -> anyhow::Result<()> {
        let Some(free) = self.free_bytes.filter(|_| !is_accepted) else { return Ok(()) };
        let Some(table) = self.table_bytes else {
            return refuse(String::from(
                "the size of the active table is not known, so that of the new one is not: find it out (Cassandra makes its estimate every \
                 five minutes), or pass --yes",
            ));
        };
        if table <= free / 2 {
            return Ok(());
        }
        refuse(format!(
            "the new table takes about {} MiB, more than half of the {} MiB that are free: make room, drop another generation, or \
             pass --yes",
            in_mib(table),
            in_mib(free)
        ))
    }
}

/// Rounded up.
fn in_mib(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

/// Asks every node. `None`: one of them has no estimate; Cassandra makes it every five minutes, of what is on disk.
pub(super) async fn in_cassandra(session: &Session, table: &str) -> anyhow::Result<Option<u64>> {
    let keyspace = session.get_keyspace().map(|name| name.to_string()).unwrap_or_default();
    let nodes = session.get_cluster_state();
    let mut of_nodes = Vec::new();
    for node in nodes.get_nodes_info() {
        let mut select = Statement::new(IN_CASSANDRA);
        let of_node = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node.clone()), None);
        select.set_load_balancing_policy(Some(of_node));
        let estimates = session.query_unpaged(select, (keyspace.as_str(), table)).await?.into_rows_result()?;
        let ranges = estimates.rows::<Estimate>()?.collect::<Result<Vec<_>, _>>()?;
        of_nodes.push(node_bytes(ranges));
    }
    Ok(total(of_nodes))
}

/// `None`: the node has no estimate. It may have many rows all the same.
fn node_bytes(ranges: Vec<Estimate>) -> Option<u64> {
    if ranges.is_empty() { None } else { Some(ranges.into_iter().map(range_bytes).sum()) }
}

/// Of all nodes. `None`: that of one of them is not known, or there are none.
fn total(of_nodes: Vec<Option<u64>>) -> Option<u64> {
    if of_nodes.is_empty() { None } else { of_nodes.into_iter().sum() }
}

fn range_bytes((mean_partition_size, partitions): Estimate) -> u64 {
    let [size, count] = [mean_partition_size, partitions].map(|n| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
    size.saturating_mul(count)
}

pub(super) async fn in_postgres(pool: &PgPool, table: &str) -> anyhow::Result<Option<u64>> {
    let bytes: Option<i64> = sqlx::query_scalar(IN_POSTGRES).bind(table).fetch_one(pool).await?;
    Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_what_is_free_is_refused_and_an_unknown_size() {
        let size = |table, free| Size::new(Ok(table), free);
        assert!(size(Some(50 * MIB), Some(100)).check(false).is_ok());
        let refused = size(Some(50 * MIB + 1), Some(100)).check(false).map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|text| text.contains("51 MiB") && text.contains("--yes")), "{refused:?}");
        assert!(size(Some(50 * MIB + 1), Some(100)).check(true).is_ok(), "--yes");
        assert!(size(Some(u64::MAX), None).check(false).is_ok() && size(None, None).check(false).is_ok());
        let unknown = size(None, Some(100)).check(false).map_err(|error| error.to_string());
        assert!(
            unknown.as_ref().is_err_and(|text| text.contains("not known") && text.contains("--yes")),
            "{unknown:?}"
        );
        assert!(size(None, Some(100)).check(true).is_ok(), "--yes");
        assert_eq!(Size::new(Err(anyhow::anyhow!("no answer")), Some(1)), size(None, Some(1)));
    }

    #[test]
    fn a_size_is_known_where_each_node_has_an_estimate() {
        assert_eq!(node_bytes(vec![(Some(200), Some(3)), (Some(10), Some(1))]), Some(610));
        assert_eq!((node_bytes(vec![(Some(0), Some(0))]), node_bytes(Vec::new())), (Some(0), None));
        assert_eq!(total(vec![Some(1), Some(2)]), Some(3));
        assert_eq!((total(vec![Some(1), None]), total(Vec::new())), (None, None));
    }

    #[test]
    fn a_range_without_an_estimate_takes_nothing() {
        assert_eq!(range_bytes((Some(200), Some(3))), 600);
        assert_eq!((range_bytes((None, Some(3))), range_bytes((Some(-1), Some(3)))), (0, 0));
    }
}
