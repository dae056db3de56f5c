//! `cartctl switch --in-place`: gives the table of generation 1, whose name other programs know, the rows of the active generation.
//!
//! Readers of that name see rows all the time, each as it was or as it is in the active generation. Nothing is paused: a row that is copied
//! includes every record before the offset that the active generation's group had committed, and says up to which one. From there on
//! the projector of generation 1 goes on, as after a crash. Before the first copy its group is moved back to that offset, if it was
//! further: after a crash in between, no record is passed over.
//!
//! Rows of both tables may be of one position and differ. So the copies have later write timestamps than all that was written before
//! (`cassandra::read_models::raise_write_base`), and so has what the projector writes afterwards. What is deleted is older than both.
//! So a late write of an old instance loses to a copy, and to what was deleted. Where the table never had its row, that row stays: the old
//! instances are to be stopped for good before.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use cart::contract::{Contract as _, ReadModel, ReadTable, Store};
use cart::{Generation, LogEpoch, Position, PurchasedItem};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::statement::Statement;
use serde::Serialize;
use service::shutdown_signal;
use tokio::task::block_in_place;

use super::args::SwitchArgs;
use super::claim::{Claim, other_run, others_ended_unpaused};
use super::compared::Compared;
use super::guards::parked;
use super::reading::{CONCURRENCY, DAY, DayColumns, MONTH, MonthColumns, PAGE_ROWS, Reading};
use super::store::{Connection, ModelStore};
use crate::operate::{Kafka, Outcome};

/// Rows that are read before they are written: a page.
const CHUNK_ROWS: usize = 2_000;

/// What was replaced.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    model: &'static str,
    /// The generation whose rows the first one has now.
    of: i32,
    table: String,
    is_dry_run: bool,
    copied: u64,
    deleted: u64,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, of, table, is_dry_run, copied, deleted } = self;
        if *is_dry_run {
            return write!(f, "table {table} would get the rows of generation {of}; nothing was changed (--dry-run)");
        }
        write!(
            f,
            "table {table} has the rows of generation {of}: {copied} copied, {deleted} others deleted\n  start `projectors {model}`, which \
             keeps it current, with the program that keeps generation {of}"
        )
    }
}

/// Replaces the rows of the first generation's table.
///
/// # Errors
/// If a server does not respond, or the copy is not what it should be: then it is to be repeated.
pub async fn replace(args: &SwitchArgs) -> anyhow::Result<Outcome<Replaced>> {
    let model = args.model;
    if model.store != Store::Cassandra {
        let view = model.table.name();
        return Ok(Outcome::Refused(format!("other programs read the view {view}, which `cartctl switch` replaces")));
    }
    let kafka = Kafka::connect(&args.system.kafka).await?;
    let store = Arc::new(ModelStore::open(&args.system, model).await?);
    let pointer = match others_ended_unpaused(&kafka, &store).await? {
        Ok(pointer) => pointer,
        Err(at_work) => return Ok(Outcome::Refused(at_work)),
    };
    let (first, active, name) = (Generation::FIRST, pointer.active, model.group);
    if active == first {
        return Ok(Outcome::Refused(format!("readers of {name} see generation 1, whose table has that name")));
    }
    if !store.generations().await?.contains(&first) {
        return Ok(Outcome::Refused(format!("{name} has no generation 1, so no program reads its table by that name")));
    }
    let group = model.group_name(first);
    if block_in_place(|| kafka.admin.has_members(&kafka.args.prefixed(&group)))? {
        return Ok(Outcome::Refused(format!("group {group} has members: stop its projector first")));
    }
    // Copies of parked rows would lack records without a marker; and markers of the first generation are of its own rows.
    for generation in [active, first] {
        if let Some(reason) = parked(&model.group_name(generation), &store.parked(generation).await?) {
            return Ok(Outcome::Refused(reason));
        }
    }
    let mut replaced = Replaced {
        model: name,
        of: active.get(),
        table: model.table_name(first),
        is_dry_run: args.dry_run,
        copied: 0,
        deleted: 0,
    };
    if !args.dry_run {
        let mut signal = shutdown_signal()?;
        signal.started();
        let by = format!("{} with `cartctl switch --in-place`", args.by);
        let died = pointer.claim.map(|claim| claim.run);
        let Some(claim) = Claim::take(&store, died, &by).await? else {
            return Ok(Outcome::Refused(other_run(&store).await?));
        };
        // A run that has died may have changed it until its claim was taken over.
        let now = store.decided_pointer().await?.active;
        if now != active {
            claim.release().await;
            return Ok(Outcome::Refused(format!("readers of {name} see generation {now} by now: run it again")));
        }
        let copied = tokio::select! {
            copied = copy(&kafka, &store, active, &claim) => copied,
            () = signal.requested() => Err(anyhow!("interrupted: the table may have rows of both generations, run it again")),
        };
        claim.release().await;
        (replaced.copied, replaced.deleted) = copied?;
    }
    Ok(Outcome::Done(replaced))
}

/// Returns how many rows were copied and deleted.
async fn copy(kafka: &Kafka, store: &ModelStore, active: Generation, claim: &Claim) -> anyhow::Result<(u64, u64)> {
    let Connection::Cassandra(session, epoch) = &store.connection else { bail!("the table is not in Cassandra") };
    let model = store.model;
    // Before the first row: after a crash the projector must not write with an earlier base.
    let raised = cassandra::read_models::raise_write_base(session, model, claim.run).await?;
    fail_points::crash_point("replace-raised");
    let base = if fail_points::is_off("guard-write-base") { 0 } else { raised };
    let mut reading = Reading::begin(store).await?;
    // Before the rows: they include every record before it.
    let next = reading.next(active).await?;
    let committed = reading.next(Generation::FIRST).await?;
    reading.end().await?;
    // After the offsets: of a row that is parked later all records before them are in it.
    if let Some(reason) = parked(&model.group_name(active), &store.parked(active).await?) {
        bail!(reason);
    }
    // A projector that was started meanwhile may not know the new base: then it is a member, and this fails.
    set_offsets(kafka, model, earlier(&next, &committed))
        .context("nothing was copied: run it again while the projector of generation 1 is stopped")?;
    let tables = Tables {
        session,
        from: model.table_name(active),
        to: model.table_name(Generation::FIRST),
        times: Times { epoch: *epoch, base },
    };
    let counts = match model.table {
        ReadTable::ItemQuantityByDay => tables.copy_days().await?,
        ReadTable::BalanceByVendor => tables.copy_months().await?,
        ReadTable::VendorBilling => bail!("{model} is not in Cassandra"),
    };
    fail_points::crash_point("replace-copied");
    // Fails if the projector was started meanwhile: it may have read rows before they were replaced.
    set_offsets(kafka, model, next)
        .context("the copy is not complete: run it again while the projector of generation 1 is stopped")?;
    fail_points::crash_point("replace-offsets-set");
    let diff = Compared::whole(store, &kafka.args, [Generation::FIRST, active]).await?.diff();
    ensure!(diff.digest == "none", "the copy is not what it should be: run it again\n{diff}");
    Ok(counts)
}

/// Moves the group of generation 1. Fails while it has members.
fn set_offsets(kafka: &Kafka, model: ReadModel, next: BTreeMap<i32, i64>) -> Result<(), kafka::Error> {
    let group = kafka.args.prefixed(&model.group_name(Generation::FIRST));
    let topic = kafka.args.prefixed(PurchasedItem::TOPIC);
    block_in_place(|| kafka.admin.set_offsets(&group, &topic, next.into_values()))
}

/// The lower offset of each partition: rows that are partly copied include all records before it.
fn earlier(copied: &BTreeMap<i32, i64>, committed: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
    let lower = |(partition, next): (&i32, &i64)| {
        (*partition, committed.get(partition).map_or(*next, |committed| *next.min(committed)))
    };
    copied.iter().map(lower).collect()
}

/// Write timestamps of a replacement.
#[derive(Debug, Clone, Copy)]
struct Times {
    epoch: LogEpoch,
    base: i16,
}

impl Times {
    /// Of what is deleted: later than all that was written with an earlier base, and earlier than what is copied.
    fn deleted_at(self) -> i64 {
        Position::new(self.epoch, 0).timestamp(self.base) - 2
    }

    /// Of a copy. A row of an earlier log was not changed in this one; the next record may be the log's first.
    fn copied_at(self, position: i64) -> i64 {
        let (start, position) = (Position::new(self.epoch, 0), Position::from(position));
        if position < start { start.timestamp(self.base) - 1 } else { position.timestamp(self.base) }
    }
}

/// The tables of one model, of the same columns.
struct Tables<'a> {
    session: &'a Session,
    from: String,
    to: String,
    times: Times,
}

impl Tables<'_> {
    async fn copy_days(&self) -> anyhow::Result<(u64, u64)> {
        let Self { session, from, to, .. } = self;
        let insert = format!("INSERT INTO {to} ({DAY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?");
        let mut insert = session.prepare(insert).await.with_context(|| format!("writing table {to}"))?;
        insert.set_is_idempotent(true);
        let delete = format!(
            "DELETE FROM {to} USING TIMESTAMP ? WHERE vendorid = ? AND productid = ? AND year = ? AND month = ? AND day = ?"
        );
        let mut delete = session.prepare(delete).await.with_context(|| format!("writing table {to}"))?;
        delete.set_is_idempotent(true);
        let (insert, delete) = (&insert, &delete);
        let copied = self
            .each(format!("SELECT {DAY} FROM {from}"), |row: DayColumns| async move {
                let (vendor, product, year, month, day, quantity, name, position) = row;
                let position = position.with_context(|| format!("a row of {from} lacks its position"))?;
                let at = self.times.copied_at(position);
                let values = (vendor, product, year, month, day, quantity, name, position, at);
                session.execute_unpaged(insert, values).await?;
                anyhow::Ok(Some((vendor, product, year, month, day)))
            })
            .await?;
        let copied = &copied;
        let deleted = self
            .each(format!("SELECT {DAY} FROM {to}"), |row: DayColumns| async move {
                let (vendor, product, year, month, day, ..) = row;
                if copied.contains(&(vendor, product, year, month, day)) {
                    return anyhow::Ok(None);
                }
                session.execute_unpaged(delete, (self.times.deleted_at(), vendor, product, year, month, day)).await?;
                anyhow::Ok(Some((vendor, product, year, month, day)))
            })
            .await?;
        Ok((count(copied), count(&deleted)))
    }

    async fn copy_months(&self) -> anyhow::Result<(u64, u64)> {
        let Self { session, from, to, .. } = self;
        let insert = format!("INSERT INTO {to} ({MONTH}) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?");
        let mut insert = session.prepare(insert).await.with_context(|| format!("writing table {to}"))?;
        insert.set_is_idempotent(true);
        let delete = format!("DELETE FROM {to} USING TIMESTAMP ? WHERE vendorid = ? AND year = ? AND month = ?");
        let mut delete = session.prepare(delete).await.with_context(|| format!("writing table {to}"))?;
        delete.set_is_idempotent(true);
        let (insert, delete) = (&insert, &delete);
        let copied = self
            .each(format!("SELECT {MONTH} FROM {from}"), |row: MonthColumns| async move {
                let (vendor, year, month, balance, position) = row;
                let position = position.with_context(|| format!("a row of {from} lacks its position"))?;
                let at = self.times.copied_at(position);
                session.execute_unpaged(insert, (vendor, year, month, balance, position, at)).await?;
                anyhow::Ok(Some((vendor, year, month)))
            })
            .await?;
        let copied = &copied;
        let deleted = self
            .each(format!("SELECT {MONTH} FROM {to}"), |row: MonthColumns| async move {
                let (vendor, year, month, ..) = row;
                if copied.contains(&(vendor, year, month)) {
                    return anyhow::Ok(None);
                }
                session.execute_unpaged(delete, (self.times.deleted_at(), vendor, year, month)).await?;
                anyhow::Ok(Some((vendor, year, month)))
            })
            .await?;
        Ok((count(copied), count(&deleted)))
    }

    /// Writes something for each row of a table, many at the same time. Returns the keys of the rows for which something was written.
    async fn each<R, K, F>(&self, select: String, write: impl Fn(R) -> F) -> anyhow::Result<HashSet<K>>
    where
        R: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
        K: Eq + Hash,
        F: Future<Output = anyhow::Result<Option<K>>>,
    {
        let select = Statement::new(select).with_page_size(PAGE_ROWS);
        let pager = self.session.query_iter(select, ()).await?;
        let mut rows = pager.rows_stream::<R>()?;
        let mut written = HashSet::new();
        let mut is_complete = false;
        while !is_complete {
            let mut chunk = Vec::new();
            while chunk.len() < CHUNK_ROWS && !is_complete {
                match rows.try_next().await? {
                    Some(row) => chunk.push(row),
                    None => is_complete = true,
                }
            }
            let mut writes = stream::iter(chunk).map(&write).buffer_unordered(CONCURRENCY);
            while let Some(key) = writes.try_next().await? {
                fail_points::crash_point("replace-row");
                written.extend(key);
            }
        }
        Ok(written)
    }
}

fn count<K>(keys: &HashSet<K>) -> u64 {
    u64::try_from(keys.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_copy_the_group_goes_back_to_what_the_copies_include() {
        let copied = BTreeMap::from([(0, 10), (1, 10), (2, 10)]);
        let committed = BTreeMap::from([(0, 12), (1, 7), (2, 10)]);
        assert_eq!(earlier(&copied, &committed), BTreeMap::from([(0, 10), (1, 7), (2, 10)]));
    }

    #[test]
    fn copies_win_over_all_that_was_written_before_and_lose_to_what_comes() {
        let epoch = |number| LogEpoch::new(number).expect("an epoch");
        let last = Position::new(epoch(2), 1 << 40);
        for base in [1, 2] {
            let times = Times { epoch: epoch(2), base };
            let before = last.timestamp(base - 1);
            let old = times.copied_at(Position::new(epoch(1), 7).get());
            let new = times.copied_at(Position::new(epoch(2), 0).get());
            assert!(before < times.deleted_at() && times.deleted_at() < old && old < new, "base {base}");
            // As the projector writes the first record of the log, and the next one after a copied row.
            assert_eq!(new, Position::new(epoch(2), 0).timestamp(base));
            assert!(times.copied_at(last.get()) < Position::new(epoch(2), last.offset() + 1).timestamp(base));
        }
        // A later epoch of the log with the same base.
        assert!(last.timestamp(1) < Position::new(epoch(3), 0).timestamp(1));
    }
}
