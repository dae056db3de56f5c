//! Reads what a batch needs from the journal: carts that are not in memory, and rows of commands that were decided before.

use std::collections::HashMap;

use cart::{CartId, Position};
use futures::{StreamExt as _, stream};
use journal::LOAD_LEN_MAX;
use service::Store;

use super::Worker;
use crate::intake::ConsumedCommand;
use crate::metrics::CARTS_REDELIVERED;
use crate::parking::{Unread, read_guarded};
use crate::redelivery::RedeliveredRows;

/// Reads of redelivered carts that one worker has in flight.
const CASSANDRA_CONCURRENCY: usize = 128;

/// Loads that one worker has in flight, each of up to [`LOAD_LEN_MAX`] carts. It bounds what they take in memory before they are
/// carts: most is a few hundred kilobytes a load.
const LOADS_MAX: usize = 8;

impl Worker {
    /// Loads the carts that are not in memory: many in a round trip, and the round trips at the same time. Returns how many were
    /// loaded, and those whose own rows cannot be read, or for which the rules panic. Where there are some, each cart of their round
    /// trip is loaded alone, once.
    pub(super) async fn load(
        &mut self,
        carts: &[(CartId, Vec<ConsumedCommand>)],
    ) -> Result<(usize, Vec<(CartId, Unread)>), journal::Error> {
        let mut unknown: Vec<CartId> = Vec::new();
        let mut partitions: HashMap<CartId, i32> = HashMap::new();
        for (cart_id, commands) in carts {
            let partition = commands[0].partition;
            if !self.state.partitions.entry(partition).or_default().contains(*cart_id) {
                unknown.push(*cart_id);
                partitions.insert(*cart_id, partition);
            }
        }
        let (mut succeeded, mut failed) = (0, Vec::new());
        let mut len_max = LOAD_LEN_MAX;
        while !unknown.is_empty() {
            let journal = &self.journal;
            let mut loaded = stream::iter(unknown.chunks(len_max))
                .map(|ids| async move {
                    (ids, read_guarded(Store::Cassandra.time("journal_load", journal.load(ids))).await)
                })
                .buffer_unordered(LOADS_MAX);
            let mut alone = Vec::new();
            while let Some((cart_ids, carts)) = loaded.next().await {
                match carts? {
                    Ok(carts) => {
                        succeeded += carts.len();
                        for cart in carts {
                            if let Some(partition) = partitions.get(&cart.cart_id()) {
                                self.state.partitions.entry(*partition).or_default().insert(cart);
                            }
                        }
                    }
                    Err(unread) if cart_ids.len() == 1 => failed.extend(cart_ids.iter().copied().zip([unread])),
                    Err(_) => alone.extend_from_slice(cart_ids),
                }
            }
            drop(loaded);
            (unknown, len_max) = (alone, 1);
        }
        Ok((succeeded, failed))
    }

    /// Reads the journalled rows of commands that were decided before; and says of which carts they cannot be read.
    pub(super) async fn redelivered_rows(
        &mut self,
        carts: &[(CartId, Vec<ConsumedCommand>)],
    ) -> Result<(HashMap<CartId, RedeliveredRows>, Vec<(CartId, Unread)>), journal::Error> {
        let mut redelivered: Vec<(CartId, Position)> = Vec::new();
        for (cart_id, commands) in carts {
            let first = &commands[0];
            let newest = self.state.partitions.get_mut(&first.partition).and_then(|carts| carts.cart(*cart_id));
            if newest.is_some_and(|cart| first.position <= cart.position()) {
                redelivered.push((*cart_id, first.position));
            }
        }
        CARTS_REDELIVERED.with(&[]).increment(redelivered.len() as u64);
        let journal = &self.journal;
        let mut read = stream::iter(redelivered)
            .map(|(cart_id, position)| async move {
                let rows = journal.between(cart_id, position, Position::MAX);
                (cart_id, read_guarded(Store::Cassandra.time("journal_read", rows)).await)
            })
            .buffer_unordered(CASSANDRA_CONCURRENCY);
        let (mut histories, mut failed) = (HashMap::new(), Vec::new());
        while let Some((cart_id, rows)) = read.next().await {
            match rows? {
                Ok(rows) => drop(histories.insert(cart_id, RedeliveredRows::new(rows))),
                Err(unread) => failed.push((cart_id, unread)),
            }
        }
        Ok((histories, failed))
    }
}
