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

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cart::contract::{Contract as _, group};
use cart::{CartCommand, CartEvent, PurchasedItem, VendorId};
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

/// A read table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// `balance_by_vendor`.
    Billing,
    /// `item_quantity_by_day`.
    Quantities,
}

/// Tracks the progress of the read tables.
#[derive(Debug)]
pub(super) struct Freshness {
    processors: Watcher,
    purchases: Watcher,
    billing: Watcher,
    quantities: Watcher,
    purchase_partitions: Partitions,
    parked: Parked,
    waits: Semaphore,
    timeout: Duration,
    /// By table, partition of the commands and partition of the purchases: the offset up to which all commands are included.
    /// Saves the wait for clients that read repeatedly with one token.
    included: Mutex<HashMap<(Table, i32, i32), i64>>,
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
            processors: Watcher::start(kafka, group::CART_PROCESSOR, CartCommand::TOPIC)?,
            purchases: Watcher::start(kafka, group::ITEM_PURCHASED_EVENTS, CartEvent::TOPIC)?,
            billing: Watcher::start(kafka, group::VENDOR_BILLING, PurchasedItem::TOPIC)?,
            quantities: Watcher::start(kafka, group::POPULAR_ITEMS, PurchasedItem::TOPIC)?,
            purchase_partitions: Partitions { admin, topic, count: OnceCell::new() },
            parked,
            waits: Semaphore::new(WAITS_MAX),
            timeout,
            included: Mutex::default(),
        })
    }

    /// Waits until the vendor's rows in `table` include a command.
    pub(super) async fn wait(&self, token: Token, vendor_id: VendorId, table: Table) -> Result<(), Problem> {
        let Ok(_permit) = self.waits.try_acquire() else {
            return Err(Problem::unavailable("too many reads are waiting for their table; retry later"));
        };
        let started_at = Instant::now();
        let deadline = started_at + self.timeout;
        let partitions = self.purchase_partitions.count(deadline).await?;
        let vendor_partition = partition_of(vendor_id.to_string().as_bytes(), partitions);
        let key = (table, token.partition, vendor_partition);
        if self.included().get(&key).is_some_and(|included| *included >= token.offset) {
            return Ok(());
        }
        let stages = [
            (&self.processors, token.partition, Target::Record(token.offset)),
            (&self.purchases, token.partition, Target::Everything),
            (self.last_stage(table), vendor_partition, Target::Everything),
        ];
        let mut are_all_decided = true;
        for (stage, partition, target) in stages {
            match stage.wait(partition, target, deadline).await {
                // The processors may have passed over it.
                Seen::Done if stage.group == group::CART_PROCESSOR => {
                    are_all_decided = self.is_decided(token, deadline).await?;
                }
                Seen::Done => {}
                Seen::Behind(records) => return Err(Problem::read_table_behind(stage.group, records)),
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
            self.include(key, token.offset);
        }
        Ok(())
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

    fn last_stage(&self, table: Table) -> &Watcher {
        match table {
            Table::Billing => &self.billing,
            Table::Quantities => &self.quantities,
        }
    }

    fn included(&self) -> std::sync::MutexGuard<'_, HashMap<(Table, i32, i32), i64>> {
        self.included.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn include(&self, key: (Table, i32, i32), offset: i64) {
        let mut included = self.included();
        if included.len() >= INCLUDED_LEN_MAX {
            included.clear();
        }
        let newest = included.entry(key).or_insert(offset);
        *newest = offset.max(*newest);
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
        freshness.include((Table::Billing, 3, 0), 20);
        freshness.include((Table::Billing, 3, 0), 10);
        let wait = async |offset, table| {
            let vendor_id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
            let token = Token::parse(&format!("1-3-{offset}")).unwrap();
            freshness.wait(token, vendor_id, table).await.map_err(|problem| format!("{problem:?}"))
        };
        assert_eq!(wait(20, Table::Billing).await, Ok(()));
        for (offset, table) in [(21, Table::Billing), (20, Table::Quantities)] {
            assert!(wait(offset, table).await.unwrap_err().contains("is unknown"));
        }
        let _all = freshness.waits.acquire_many(WAITS_MAX.try_into().unwrap()).await.unwrap();
        assert!(wait(20, Table::Billing).await.unwrap_err().contains("too many reads are waiting"));
    }
}
