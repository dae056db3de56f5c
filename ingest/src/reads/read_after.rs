//! Waiting until a read table includes a command.
//!
//! ```text
//! cart-commands ─▶ cart-processor ─▶ cart-events ─▶ item-purchased-events ─▶ item-purchased ─▶ vendor-billing, popular-items
//!    partition of the cart          the same partition                      partition of the vendor
//! ```
//!
//! The stages are waited for in turn. A stage commits its input offset after writing its output. Once it has committed past our
//! record, its output is in the next topic, and that topic's end is the offset that the next stage must reach. This end is
//! the end of everything written, not the last stable offset: a group's offsets can become visible before the markers of the
//! transaction that they belong to, and until then the transaction's records are behind the last stable offset.
//!
//! The last stage is the group of the table's generation that is read: `vendor-billing-g2` for generation 2.
//!
//! A row that is parked lacks purchases that its group has committed. So the parked rows are asked for after the wait (`vendors.rs`).
//!
//! What a table was seen to include is remembered for a few seconds only: `cartctl rebuild --in-place` empties a table and lets its group
//! begin anew. It waits for longer than that in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::contract::{Contract as _, ReadTable, group};
use cart::{CartCommand, CartEvent, Generation, PurchasedItem, VendorId};
use cassandra::read_models::INCLUSION_REMEMBERED;
use kafka::{Admin, KafkaArgs, partition_of};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::read_after_token::Token;
use super::watcher::{Seen, Target, Watcher};
use crate::metrics::READ_AFTER_SECONDS;
use crate::parked::{Parked, Waiting};
use crate::problem::Problem;

/// Maximum number of reads that wait at a time. They cost memory and connections here, and the brokers nothing.
const WAITS_MAX: usize = 1_000;

/// Maximum number of remembered pairs of partitions; twelve partitions of each topic make 288.
const INCLUDED_LEN_MAX: usize = 100_000;

/// Tracks the progress of the read tables.
#[derive(Debug)]
pub(super) struct Freshness {
    processors: Watcher,
    purchases: Watcher,
    tables: TableWatchers,
    purchase_partitions: Partitions,
    parked: Parked,
    waits: Semaphore,
    timeout: Duration,
    /// Saves the wait for clients that read repeatedly with one token.
    included: Mutex<HashMap<Place, Included>>,
}

/// What a command can be included in: a generation of a table, as far as it comes from a partition of the commands by a partition of
/// the purchases. A generation's number is never used again, but its table may be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    table: ReadTable,
    generation: Generation,
    commands: i32,
    purchases: i32,
}

/// The offset up to which all commands are included, and since when that is known.
#[derive(Debug, Clone, Copy)]
struct Included {
    offset: i64,
    seen_at: Instant,
}

impl Included {
    fn counts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen_at) < INCLUSION_REMEMBERED
    }
}

/// Watches the groups of the tables, each of the generation that was asked for last.
#[derive(Debug)]
struct TableWatchers {
    kafka: KafkaArgs,
    watchers: Mutex<HashMap<ReadTable, (Generation, Arc<Watcher>)>>,
}

impl TableWatchers {
    /// The watcher of an earlier generation ends when no read waits for it any more.
    fn of(&self, table: ReadTable, generation: Generation) -> std::io::Result<Arc<Watcher>> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, watcher)) = watchers.get(&table).filter(|(of, _)| *of == generation) {
            return Ok(watcher.clone());
        }
        let group = table.model().group_name(generation);
        let watcher = Arc::new(Watcher::start(&self.kafka, group, PurchasedItem::TOPIC)?);
        watchers.insert(table, (generation, watcher.clone()));
        Ok(watcher)
    }
}

/// The number of partitions of the purchases. Queried by the first wait: `projectors setup` may create the topic after ingest
/// has started.
#[derive(Debug)]
struct Partitions {
    admin: Arc<Admin>,
    topic: String,
    count: OnceCell<i32>,
}

impl Freshness {
    /// Starts the watchers; they connect at the first wait.
    pub(super) fn start(
        kafka: &KafkaArgs,
        admin: Arc<Admin>,
        parked: Parked,
        timeout: Duration,
    ) -> std::io::Result<Self> {
        let topic = kafka.prefixed(PurchasedItem::TOPIC);
        Ok(Self {
            processors: Watcher::start(kafka, group::CART_PROCESSOR.to_owned(), CartCommand::TOPIC)?,
            purchases: Watcher::start(kafka, group::ITEM_PURCHASED_EVENTS.to_owned(), CartEvent::TOPIC)?,
            tables: TableWatchers { kafka: kafka.clone(), watchers: Mutex::default() },
            purchase_partitions: Partitions { admin, topic, count: OnceCell::new() },
            parked,
            waits: Semaphore::new(WAITS_MAX),
            timeout,
            included: Mutex::default(),
        })
    }

    /// Waits until the vendor's rows in a generation of `table` include a command, unless they are parked. Returns the vendor's partition
    /// of the purchases.
    pub(super) async fn wait(
        &self,
        token: Token,
        vendor_id: VendorId,
        table: ReadTable,
        generation: Generation,
    ) -> Result<i32, Problem> {
        let Ok(_permit) = self.waits.try_acquire() else {
            return Err(Problem::unavailable("too many reads are waiting for their table; retry later"));
        };
        let started_at = Instant::now();
        let deadline = started_at + self.timeout;
        let partitions = self.purchase_partitions.count(deadline).await?;
        let vendor_partition = partition_of(vendor_id.to_string().as_bytes(), partitions);
        let place = Place { table, generation, commands: token.partition, purchases: vendor_partition };
        if self.includes(place, token.offset, Instant::now()) {
            return Ok(vendor_partition);
        }
        let last_stage = self.tables.of(table, generation).map_err(|error| {
            tracing::warn!(%error, "the group of a read table cannot be watched");
            unknown()
        })?;
        let stages = [
            (&self.processors, token.partition, Target::Record(token.offset)),
            (&self.purchases, token.partition, Target::Everything),
            (&last_stage, vendor_partition, Target::Everything),
        ];
        let mut are_all_decided = true;
        for (stage, partition, target) in stages {
            match stage.wait(partition, target, deadline).await {
                // The processors may have passed over it.
                Seen::Done if stage.group == group::CART_PROCESSOR => {
                    are_all_decided = self.is_decided(token, deadline).await?;
                }
                Seen::Done => {}
                Seen::Behind(records) => return Err(Problem::read_table_behind(&stage.group, records)),
                Seen::Unknown => return Err(unknown()),
                Seen::NoSuchRecord => {
                    let detail = "Read-After names a command that is not in the log";
                    return Err(Problem::invalid_header(detail));
                }
            }
        }
        READ_AFTER_SECONDS.with(&[]).record(started_at.elapsed());
        // An earlier command that waits must not count as included.
        if are_all_decided {
            // All stages were asked after the start.
            self.include(place, Included { offset: token.offset, seen_at: started_at });
        }
        Ok(vendor_partition)
    }

    /// Whether all commands up to this one are decided; fails if this one is not. After the processors have passed its offset.
    async fn is_decided(&self, token: Token, deadline: Instant) -> Result<bool, Problem> {
        let parked = self.parked.clone();
        let asked = tokio::task::spawn_blocking(move || parked.up_to(token.partition, token.offset));
        let asked = async { anyhow::Ok(timeout_at(deadline, asked).await???) };
        match asked.await {
            Ok(Waiting::None) => Ok(true),
            Ok(Waiting::Others) => Ok(false),
            Ok(Waiting::This(cart_id, reason)) => Err(Problem::read_table_behind_parked(cart_id, &reason)),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the parked carts are not known");
                Err(unknown())
            }
        }
    }

    fn included(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Included>> {
        self.included.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was seen lately that a command is included.
    fn includes(&self, place: Place, offset: i64, now: Instant) -> bool {
        let included = self.included().get(&place).copied();
        included.is_some_and(|included| included.offset >= offset && included.counts(now))
    }

    fn include(&self, place: Place, seen: Included) {
        let mut included = self.included();
        if included.len() >= INCLUDED_LEN_MAX {
            included.clear();
        }
        let newest = included.entry(place).or_insert(seen);
        if seen.offset >= newest.offset || !newest.counts(seen.seen_at) {
            *newest = seen;
        }
    }
}

impl Partitions {
    async fn count(&self, deadline: Instant) -> Result<i32, Problem> {
        let ask = async || {
            let (admin, topic) = (self.admin.clone(), self.topic.clone());
            Ok(tokio::task::spawn_blocking(move || admin.partitions(&topic)).await??)
        };
        let count = timeout_at(deadline, self.count.get_or_try_init(ask)).await;
        let result: anyhow::Result<&i32> = count.unwrap_or_else(|late| Err(late.into()));
        result.copied().map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "the partitions of the purchases are unknown");
            unknown()
        })
    }
}

fn unknown() -> Problem {
    Problem::unavailable("the progress of the read tables is unknown; retry later")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cart::{CartParked, LogEpoch};
    use kafka::{Codec, Registry};
    use tokio::runtime::Handle;

    use super::*;

    #[tokio::test]
    async fn a_read_does_not_wait_when_its_command_is_included_or_too_many_wait() {
        // No broker is there, and none is needed.
        let kafka = KafkaArgs::plain("127.0.0.1:1", "");
        let admin = Arc::new(Admin::new(&kafka).unwrap());
        let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).unwrap();
        let codec = Codec::registered(&registry, CartParked::TOPIC, CartParked::SCHEMA, 1).unwrap();
        let parked = Parked::new(&kafka, "", LogEpoch::FIRST, codec, Handle::current()).unwrap();
        let freshness = Freshness::start(&kafka, admin, parked, Duration::from_millis(50)).unwrap();
        freshness.purchase_partitions.count.set(1).unwrap();
        let (first, second) = (Generation::FIRST, Generation::new(2).unwrap());
        let billing = Place { table: ReadTable::BalanceByVendor, generation: first, commands: 3, purchases: 0 };
        let seen_at = Instant::now();
        freshness.include(billing, Included { offset: 20, seen_at });
        freshness.include(billing, Included { offset: 10, seen_at });
        let wait = async |offset, table, generation| {
            let vendor_id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
            let token = Token::parse(&format!("1-3-{offset}")).unwrap();
            freshness.wait(token, vendor_id, table, generation).await.map_err(|problem| format!("{problem:?}"))
        };
        assert_eq!(wait(20, ReadTable::BalanceByVendor, first).await, Ok(0), "its partition");
        // The table may have been emptied since.
        let later = seen_at + INCLUSION_REMEMBERED;
        assert!(freshness.includes(billing, 20, seen_at) && !freshness.includes(billing, 20, later));
        let not_included = [
            (21, ReadTable::BalanceByVendor, first),
            (20, ReadTable::ItemQuantityByDay, first),
            (20, ReadTable::BalanceByVendor, second),
        ];
        for (offset, table, generation) in not_included {
            assert!(wait(offset, table, generation).await.unwrap_err().contains("is unknown"));
        }
        let _all = freshness.waits.acquire_many(WAITS_MAX.try_into().unwrap()).await.unwrap();
        let refused = wait(20, ReadTable::BalanceByVendor, first).await.unwrap_err();
        assert!(refused.contains("too many reads are waiting"));
    }

    #[tokio::test]
    async fn the_group_that_is_watched_is_that_of_the_generation() {
        let tables = TableWatchers { kafka: KafkaArgs::plain("127.0.0.1:1", ""), watchers: Mutex::default() };
        let of = |number| {
            let generation = Generation::new(number).unwrap();
            tables.of(ReadTable::BalanceByVendor, generation).unwrap()
        };
        let first = of(1);
        assert!(Arc::ptr_eq(&first, &of(1)), "one thread a group");
        assert_eq!((first.group.as_str(), of(2).group.as_str()), ("vendor-billing", "vendor-billing-g2"));
        assert_eq!(Arc::strong_count(&first), 1, "the earlier one is kept only by those that wait for it");
    }
}
