//! Writes to many partitions, put together into requests.
//!
//! What a write costs a node is mostly the request that brings it. An unlogged batch brings many; each partition of it is
//! still written as one mutation, all or nothing, and they share an fsync of the commit log. A batch goes to a node that has
//! a copy of all of its partitions, so nothing is passed on.

use std::collections::HashMap;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

/// Most partitions of a request. Each is written by a thread of the node's (`concurrent_writes`) that waits for the disk, and
/// the first are answered with the last.
const GROUP_LEN_MAX: usize = 24;

/// Most bytes of a request with several partitions: well below what Cassandra refuses by default
/// (`batch_size_fail_threshold`, 50 KiB).
const GROUP_BYTES_MAX: usize = 24 * 1_024;

/// Puts writes together that one node can carry out, in the order in which they come: those of one partition should follow
/// each other. `describe` returns a write's partition key in `table` and its approximate bytes.
pub fn groups<T, K: SerializeRow + PartialEq>(
    session: &Session,
    table: &str,
    writes: impl IntoIterator<Item = T>,
    describe: impl Fn(&T) -> (K, usize),
) -> Vec<Vec<T>> {
    let state = session.get_cluster_state();
    let keyspace = session.get_keyspace().unwrap_or_default();
    let is_one_node = state.get_nodes_info().len() == 1;
    let home = |key: &K| -> Option<Uuid> {
        if is_one_node {
            return None;
        }
        // A table that the driver does not know yet: any node takes it.
        let replicas = state.get_endpoints(&keyspace, table, key).unwrap_or_default();
        replicas.first().map(|(node, _)| node.host_id)
    };
    grouped(writes, describe, home)
}

/// Writes for one request.
struct Group<T, K> {
    writes: Vec<T>,
    len: usize,
    partitions: usize,
    newest: Option<K>,
}

impl<T, K> Default for Group<T, K> {
    fn default() -> Self {
        Self { writes: Vec::new(), len: 0, partitions: 0, newest: None }
    }
}

fn grouped<T, K: PartialEq>(
    writes: impl IntoIterator<Item = T>,
    describe: impl Fn(&T) -> (K, usize),
    home: impl Fn(&K) -> Option<Uuid>,
) -> Vec<Vec<T>> {
    let mut full = Vec::new();
    let mut open: HashMap<Option<Uuid>, Group<T, K>> = HashMap::new();
    for write in writes {
        let (key, len) = describe(&write);
        let group = open.entry(home(&key)).or_default();
        let is_new = group.newest.as_ref() != Some(&key);
        let is_full = group.len + len > GROUP_BYTES_MAX || (is_new && group.partitions == GROUP_LEN_MAX);
        if is_full && !group.writes.is_empty() {
            full.push(std::mem::take(group).writes);
        }
        group.partitions += usize::from(is_new || group.writes.is_empty());
        group.newest = Some(key);
        group.writes.push(write);
        group.len += len;
    }
    full.extend(open.into_values().map(|group| group.writes));
    full
}

/// Writes a group of rows in one request. `insert` must be idempotent: it may be sent more than once.
///
/// # Errors
/// When no node answers in time; any of the rows may have been written.
pub async fn write_rows<R: SerializeRow>(
    session: &Session,
    insert: &PreparedStatement,
    rows: Vec<R>,
) -> Result<(), ExecutionError> {
    match rows.as_slice() {
        [] => {}
        [row] => drop(session.execute_unpaged(insert, row).await?),
        _ => {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            rows.iter().for_each(|_| batch.append_statement(insert.clone()));
            drop(session.batch(&batch, rows).await?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the groups of these writes: partition keys and bytes.
    fn sizes(writes: impl IntoIterator<Item = (u128, usize)>, nodes: u128) -> Vec<usize> {
        let home = |key: &u128| Some(Uuid::from_u128(key % nodes));
        let mut sizes: Vec<_> = grouped(writes, |write| *write, home).iter().map(Vec::len).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_group_has_so_many_partitions_and_bytes_of_one_node() {
        assert_eq!(sizes((0..24).map(|key| (key, 100)), 1), [24]);
        assert_eq!(sizes((0..25).map(|key| (key, 100)), 1), [1, 24]);
        assert_eq!(sizes((0..25).map(|key| (key, 100)), 2), [12, 13]);
        let rows_of_each = |count: u128| (0..24 * count).map(move |row| (row / count, 100));
        assert_eq!(sizes(rows_of_each(10), 1), [240], "rows of one partition are one mutation");
        assert_eq!(sizes(rows_of_each(20), 1), [235, 245], "24 KiB");
        assert_eq!(sizes([(1, 50_000), (1, 50_000), (2, 1)], 1), [1, 1, 1], "one too large for any goes alone");
    }
}
