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

/// Puts writes together that one node can carry out, in the order in which they come. `describe` tells a write's partition
/// key in `table` and about how many bytes it has.
pub fn groups<T, K: SerializeRow>(
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
    let mut full = Vec::new();
    let mut open: HashMap<Option<Uuid>, (Vec<T>, usize)> = HashMap::new();
    for write in writes {
        let (key, len) = describe(&write);
        let (group, group_len) = open.entry(home(&key)).or_default();
        if group.len() == GROUP_LEN_MAX || (!group.is_empty() && *group_len + len > GROUP_BYTES_MAX) {
            full.push(std::mem::take(group));
            *group_len = 0;
        }
        group.push(write);
        *group_len += len;
    }
    full.extend(open.into_values().map(|(group, _)| group));
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
