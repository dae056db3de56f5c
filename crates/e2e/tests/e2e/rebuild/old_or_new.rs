//! Reads rows while their table is replaced: at any moment each is as it was or as it is to be.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use cart::contract::ReadTable;
use e2e::harness::{Ended, wait_until};
use futures::TryStreamExt as _;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{ended, stopped};
use crate::projectors::oracle::{Day, Month};
use crate::projectors::read_side::{DEADLINE, ReadSide};

/// Some rows are written, and others are not.
const IN_THE_MIDDLE: &str = "replace-row=20*off->1*return(stop)";

/// Reads that are waited for in the middle of the copy. The first one may have begun before.
const READS: u32 = 10;

#[derive(Debug, Default)]
struct Shared {
    reads: AtomicU32,
    stop: AtomicBool,
}

/// A task that reads rows again and again, until it has read a wrong one.
pub(super) struct Reader {
    shared: Arc<Shared>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Reader {
    /// Starts with the rows as they are, and as they are to be.
    pub(super) fn start<K, V, F>(
        [was, to_be]: [BTreeMap<K, V>; 2],
        read: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        K: Ord + Debug + Send + Sync + 'static,
        V: PartialEq + Debug + Send + Sync + 'static,
        F: Future<Output = anyhow::Result<BTreeMap<K, V>>> + Send + 'static,
    {
        let shared = Arc::<Shared>::default();
        let of_task = shared.clone();
        let task = tokio::spawn(async move {
            while !of_task.stop.load(Ordering::Relaxed) {
                let found = read().await?;
                if let Some(wrong) = neither(&found, &was, &to_be) {
                    bail!(wrong);
                }
                of_task.reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { shared, task }
    }

    /// Replaces the table with `cartctl`, which stops in the middle until the rows were read some times. Returns how that has ended.
    pub(super) async fn while_replaced(self, read_side: &ReadSide, args: &[&str]) -> anyhow::Result<Ended> {
        let copying = stopped(read_side, IN_THE_MIDDLE, args).await?;
        let before = self.shared.reads.load(Ordering::Relaxed);
        wait_until("the rows to be read in the middle of the copy", DEADLINE, async || {
            let reads = self.shared.reads.load(Ordering::Relaxed) - before;
            // A reader that has ended says below what it has read.
            if reads >= READS || self.task.is_finished() { Ok(()) } else { Err(format!("there were {reads} reads")) }
        })
        .await?;
        copying.resume()?;
        let ended = ended(copying).await?;
        self.shared.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the reader panicked")??;
        Ok(ended)
    }
}

/// A row that is neither as it was nor as it is to be. Where it was, or is to be, a row may not be missing.
fn neither<K, V>(found: &BTreeMap<K, V>, was: &BTreeMap<K, V>, to_be: &BTreeMap<K, V>) -> Option<String>
where
    K: Ord + Debug,
    V: PartialEq + Debug,
{
    let is_neither = |key: &K| found.get(key) != was.get(key) && found.get(key) != to_be.get(key);
    let key = was.keys().chain(to_be.keys()).chain(found.keys()).find(|key| is_neither(key))?;
    let (found, was, to_be) = (found.get(key), was.get(key), to_be.get(key));
    Some(format!("{key:?} is {found:?} during the copy, it was {was:?} and is to be {to_be:?}"))
}

/// The pieces of a vendor by day.
pub(super) async fn quantities(session: &Session, vendor: Uuid) -> anyhow::Result<BTreeMap<Day, i64>> {
    let table = ReadTable::ItemQuantityByDay.name();
    let select =
        format!("SELECT productid, year, month, day, quantity FROM {table} WHERE vendorid = ? ALLOW FILTERING");
    let pager = session.query_iter(select, (vendor,)).await?;
    let mut found = pager.rows_stream::<(Uuid, i32, i32, i32, i64)>()?;
    let mut rows = BTreeMap::new();
    while let Some((product, year, month, day, quantity)) = found.try_next().await? {
        rows.insert((vendor, product, year, month, day), quantity);
    }
    Ok(rows)
}

/// The balances of all vendors.
pub(super) async fn balances(session: &Session) -> anyhow::Result<BTreeMap<Month, Decimal>> {
    let table = ReadTable::BalanceByVendor.name();
    let select = format!("SELECT vendorid, year, month, CAST(balance AS text) FROM {table}");
    let pager = session.query_iter(select, ()).await?;
    let mut found = pager.rows_stream::<(Uuid, i32, i32, String)>()?;
    let mut rows = BTreeMap::new();
    while let Some((vendor, year, month, balance)) = found.try_next().await? {
        rows.insert((vendor, year, month), Decimal::from_str_exact(&balance)?);
    }
    Ok(rows)
}
