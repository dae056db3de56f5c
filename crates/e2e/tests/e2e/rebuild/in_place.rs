//! The table whose name other programs know gets the rows of another generation, without a moment in which it is empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cart::contract::ReadTable;
use cart::contract::group::POPULAR_ITEMS;
use cart::{LogEpoch, Position};
use cartctl::vendor_id;
use e2e::harness::{Process, Service, wait_until};
use rust_decimal::Decimal;
use scylla::client::session::Session;
use uuid::Uuid;

use super::old_or_new::{Reader, balances, quantities};
use super::{SESSION, cartctl, ended, rebuild, start_cartctl, stopped, switch};
use crate::projectors::oracle::{Balance, Day, Month};
use crate::projectors::read_side::{BILLING, DEADLINE, ReadSide, TABLES};
use crate::projectors::shop::Line;

const IN_PLACE: [&str; 3] = ["switch", POPULAR_ITEMS, "--in-place"];

const EMPTY: [&str; 3] = ["rebuild", POPULAR_ITEMS, "--in-place"];

const SECOND: &str = "popular-items-g2";

/// As [`IN_PLACE`] and [`SECOND`], of the other table in Cassandra.
const MONTHS_IN_PLACE: [&str; 3] = ["switch", BILLING, "--in-place"];
const SECOND_MONTHS: &str = "vendor-billing-g2";

/// Where a replacement is killed: before the first row, when some are written, behind the last one, and when the group is moved.
const PLACES: [&str; 4] =
    ["replace-raised=return", "replace-row=20*off->return", "replace-copied=return", "replace-offsets-set=return"];

/// Read tables at rest, of which a program with a mistake keeps one.
struct Miscounted {
    read_side: ReadSide,
    /// The purchases of the vendor who is counted twice.
    alone: Vec<Line>,
    /// The projectors of the other tables.
    others: Vec<Process>,
    /// The projector that counts twice.
    first: Process,
}

impl Miscounted {
    async fn start(name: &str, model: &'static str, vendor: Uuid) -> anyhow::Result<Self> {
        let mut read_side = ReadSide::set_up(name).await?;
        let alone: Vec<Line> = read_side.lines(40).into_iter().map(|line| Line { vendor, ..line }).collect();
        read_side.send(read_side.purchases(), alone.clone())?;
        read_side.send(read_side.purchases(), read_side.lines(200))?;
        let others = TABLES.into_iter().filter(|other| *other != model);
        let others: Vec<_> = others.map(|other| (Service::Projector(other), "a", &SESSION[..])).collect();
        let others = read_side.installation.start_all(&others).await?;
        let miscounts = [("FAILPOINTS", format!("counts-twice=return({vendor})"))];
        let mut first = read_side.installation.start_with(Service::Projector(model), "a", &SESSION, &miscounts)?;
        first.ready(DEADLINE).await?;
        read_side.rest(&TABLES).await?;
        Ok(Self { read_side, alone, others, first })
    }
}

/// Lets readers see generation 2, which differs.
async fn accept_second(read_side: &ReadSide, model: &str) -> anyhow::Result<()> {
    let diff = cartctl(read_side, &["diff", model, "--json"], &[]).await?.json()?;
    let digest = diff["digest"].as_str().context("a digest")?;
    switch(read_side, &[model, "--to", "2", "--accept-diff", digest]).await.map(drop)
}

/// All pieces of a vendor in the table that other programs know.
async fn pieces(session: &Session, vendor: Uuid) -> anyhow::Result<i64> {
    let table = ReadTable::ItemQuantityByDay.name();
    let select = format!("SELECT sum(quantity) FROM {table} WHERE vendorid = ? ALLOW FILTERING");
    let rows = session.query_unpaged(select, (vendor,)).await?.into_rows_result()?;
    let (total,) = rows.maybe_first_row::<(Option<i64>,)>()?.context("a sum")?;
    Ok(total.unwrap_or_default())
}

/// What an instance of generation 1 writes that was paused before the replacement, and goes on after it: its rows, at their positions.
async fn write_late(session: &Session, vendor: Uuid) -> anyhow::Result<()> {
    let table = ReadTable::ItemQuantityByDay.name();
    let select =
        format!("SELECT productid, year, month, day, position FROM {table} WHERE vendorid = ? LIMIT 1 ALLOW FILTERING");
    let rows = session.query_unpaged(select, (vendor,)).await?.into_rows_result()?;
    let row = rows.maybe_first_row::<(Uuid, i32, i32, i32, i64)>()?.context("a row of the vendor")?;
    let (product, year, month, day, position) = row;
    let insert = format!(
        "INSERT INTO {table} (vendorid, productid, year, month, day, quantity, position) VALUES (?, ?, ?, ?, ?, 999999, ?) \
         USING TIMESTAMP ?"
    );
    // The late one may be further than the rest was.
    let at = position + 1_000_000;
    session.query_unpaged(insert, (vendor, product, year, month, day, position, at)).await?;
    Ok(())
}

/// Runs the projector of generation 1 until it has applied some records.
async fn keep_for_a_while(read_side: &ReadSide, instance: &str) -> anyhow::Result<()> {
    let service = Service::Projector(POPULAR_ITEMS);
    let processes = read_side.installation.start_all(&[(service, instance, &SESSION[..])]).await?;
    read_side.progress(&[POPULAR_ITEMS], 20).await?;
    for mut process in processes {
        process.terminate(DEADLINE).await?;
    }
    Ok(())
}

/// Reads the rows of the vendor who was counted twice while the table is replaced.
async fn each_row_is_old_or_new(read_side: &ReadSide, vendor: Uuid, alone: &[Line]) -> anyhow::Result<()> {
    let session = Arc::new(cassandra::connect(&read_side.installation.cassandra().patient()).await?);
    let was = quantities(&session, vendor).await?;
    let once = read_side.expected_of(alone).await?.days;
    let once: BTreeMap<Day, i64> = once.into_iter().map(|(day, row)| (day, row.quantity)).collect();
    let twice: BTreeMap<Day, i64> = once.iter().map(|(day, quantity)| (*day, 2 * quantity)).collect();
    ensure!(!once.is_empty() && was == twice, "the rows are {was:?}, not {twice:?}");
    let reader = Reader::start([was, once], move || {
        let session = session.clone();
        async move { quantities(&session, vendor).await }
    });
    reader.while_replaced(read_side, &IN_PLACE).await?.with(0, "has the rows of generation 2")?;
    Ok(())
}

/// One that is interrupted leaves no claim. The projector runs between a replacement that is killed and its repeat.
async fn killed_replacements_are_repeated(
    read_side: &ReadSide,
    session: &Session,
    (vendor, sold): (Uuid, i64),
) -> anyhow::Result<()> {
    let mut interrupted = stopped(read_side, "replace-raised=return(stop)", &IN_PLACE).await?;
    // The signal waits until the process goes on.
    interrupted.interrupt()?;
    interrupted.resume()?;
    ended(interrupted).await?.with(2, "interrupted: the table may have rows of both generations")?;
    let repeat = cartctl(read_side, &IN_PLACE, &[]).await?;
    repeat.with(0, "has the rows of generation 2")?.without("taken over")?;
    for (round, place) in PLACES.iter().enumerate() {
        read_side.installation.cartctl_dies(&IN_PLACE, place, DEADLINE).await?;
        keep_for_a_while(read_side, &format!("killed{round}")).await?;
        let repeat = cartctl(read_side, &IN_PLACE, &[]).await?;
        repeat.with(0, "has the rows of generation 2")?.with(0, "it is taken over after 10 s")?;
        ensure!(pieces(session, vendor).await? == sold, "after a kill at {place}");
    }
    Ok(())
}

/// Generation 1 is further than the rows that are copied. After a kill its projector begins where these end.
async fn no_record_is_passed_over_after_a_kill(read_side: &ReadSide) -> anyhow::Result<()> {
    let pause = ["pause", SECOND, "--reason", "a backlog", "--wait", "60s"];
    cartctl(read_side, &pause, &[]).await?.with(0, "is paused")?;
    keep_for_a_while(read_side, "further").await?;
    read_side.installation.cartctl_dies(&IN_PLACE, "replace-copied=return", DEADLINE).await?;
    keep_for_a_while(read_side, "after-the-kill").await?;
    cartctl(read_side, &["resume", SECOND, "--wait", "60s"], &[]).await?.with(0, "goes on")?;
    read_side.progress(&[SECOND], 20).await?;
    cartctl(read_side, &["diff", POPULAR_ITEMS], &[]).await?.with(0, "diff none")?;
    Ok(())
}

/// A `cartctl rebuild --in-place` is stopped for so long that another operator's drop takes it for dead. Then it goes on.
async fn a_rebuild_that_was_taken_for_dead_keeps_the_table(
    read_side: &ReadSide,
    session: &Session,
    vendor: Uuid,
) -> anyhow::Result<()> {
    let before = pieces(session, vendor).await?;
    let emptying = stopped(read_side, "emptying-reset=return(stop)", &EMPTY).await?;
    let drop_second = ["drop", POPULAR_ITEMS, "--generation", "2"];
    let dropping = stopped(read_side, "drop-claimed=return(stop)", &drop_second).await?;
    emptying.resume()?;
    ended(emptying).await?.with(1, "popular-items is changed by")?;
    ensure!(before > 0 && pieces(session, vendor).await? == before, "the table was emptied");
    dropping.resume()?;
    ended(dropping).await?.with(0, "are deleted")?;
    Ok(())
}

/// The second would empty the table behind the offsets of a projector that is started when the first has ended.
async fn of_two_rebuilds_in_place_the_second_is_refused(
    read_side: &ReadSide,
    session: &Session,
    vendor: Uuid,
) -> anyhow::Result<()> {
    let mut interrupted = stopped(read_side, "emptying-claimed=return(stop)", &EMPTY).await?;
    // The signal waits until the process goes on.
    interrupted.interrupt()?;
    interrupted.resume()?;
    ended(interrupted).await?.with(2, "interrupted: the table was not emptied")?;
    ensure!(pieces(session, vendor).await? > 0, "the table was emptied");

    let first = stopped(read_side, "emptying-claimed=return(stop)", &EMPTY).await?;
    let second = start_cartctl(read_side, &EMPTY, &[])?;
    wait_until("the second rebuild to find the first", DEADLINE, async || {
        let log = second.log();
        if log.contains("another run has the claim") { Ok(()) } else { Err(log) }
    })
    .await?;
    first.resume()?;
    ended(second).await?.with(1, "popular-items is emptied by another")?;
    ended(first).await?.with(0, "the table is empty")?.without("another run has the claim")?;
    ensure!(pieces(session, vendor).await? == 0, "the table was not emptied");
    Ok(())
}

pub(crate) async fn a_table_known_by_name_gets_the_rows_of_another_generation() -> anyhow::Result<()> {
    let vendor = vendor_id("ALONE");
    let started = Miscounted::start("in_place", POPULAR_ITEMS, vendor).await?;
    let Miscounted { mut read_side, alone, others, mut first } = started;
    let sold: i64 = alone.iter().map(|line| i64::from(line.quantity)).sum();
    let session = cassandra::connect(read_side.installation.cassandra()).await?;
    ensure!(pieces(&session, vendor).await? == 2 * sold, "it is not counted twice");

    let mut second = rebuild(&read_side, POPULAR_ITEMS, "2", &[]).await?;
    cartctl(&read_side, &IN_PLACE, &[]).await?.with(1, "see generation 1")?;
    accept_second(&read_side, POPULAR_ITEMS).await?;
    first.terminate(DEADLINE).await?;
    let load = read_side.start_load(read_side.purchases());
    read_side.progress(&[SECOND], 20).await?;

    // With the timestamps of before, of two values of one position the larger one stays.
    let guard_off = [("FAILPOINTS", String::from("guard-write-base=return"))];
    cartctl(&read_side, &IN_PLACE, &guard_off).await?.with(2, "the copy is not what it should be")?;
    ensure!(pieces(&session, vendor).await? == 2 * sold, "the copy without a base has won");

    each_row_is_old_or_new(&read_side, vendor, &alone).await?;
    ensure!(pieces(&session, vendor).await? == sold, "the copy that was read has not won");
    killed_replacements_are_repeated(&read_side, &session, (vendor, sold)).await?;
    no_record_is_passed_over_after_a_kill(&read_side).await?;
    cartctl(&read_side, &[&IN_PLACE[..], &["--dry-run"]].concat(), &[]).await?.with(0, "nothing was changed")?;
    cartctl(&read_side, &IN_PLACE, &[]).await?.with(0, "has the rows of generation 2")?;
    ensure!(pieces(&session, vendor).await? == sold, "the copy has not won");
    write_late(&session, vendor).await?;
    ensure!(pieces(&session, vendor).await? == sold, "a late write has won");

    let popular = Service::Projector(POPULAR_ITEMS);
    let again = read_side.installation.start_all(&[(popular, "b", &SESSION[..])]).await?;
    read_side.progress(&[POPULAR_ITEMS], 20).await?;
    cartctl(&read_side, &IN_PLACE, &[]).await?.with(1, "has members")?;
    read_side.finish(load).await?;
    // More of the vendor: the rows that were replaced are added to.
    let more: Vec<Line> = read_side.lines(5).into_iter().map(|line| Line { vendor, ..line }).collect();
    read_side.send(read_side.purchases(), more)?;
    read_side.rest(&TABLES).await?;
    read_side.rest(&[SECOND]).await?;
    read_side.check_tables().await?;
    cartctl(&read_side, &["diff", POPULAR_ITEMS], &[]).await?.with(0, "diff none")?;
    switch(&read_side, &[POPULAR_ITEMS, "--to", "1", "--accept-diff", "none"]).await?;
    second.terminate(DEADLINE).await?;
    for mut process in again {
        process.terminate(DEADLINE).await?;
    }
    a_rebuild_that_was_taken_for_dead_keeps_the_table(&read_side, &session, vendor).await?;
    of_two_rebuilds_in_place_the_second_is_refused(&read_side, &session, vendor).await?;
    drop((others, first, session));
    read_side.remove().await
}

/// Writes a wrong balance as an instance of generation 1 writes its rows: at a position.
async fn write_month(session: &Session, (vendor, year, month): Month, position: i64) -> anyhow::Result<()> {
    let table = ReadTable::BalanceByVendor.name();
    let insert = format!(
        "INSERT INTO {table} (vendorid, year, month, balance, position) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
    );
    let balance = cassandra::decimal_to_cql(Decimal::from(999_999));
    session.query_unpaged(insert, (vendor, year, month, balance, position, position)).await?;
    Ok(())
}

/// A row that generation 2 lacks is deleted, and late writes of generation 1 lose. Meanwhile all rows are read.
pub(crate) async fn balances_known_by_name_are_those_of_another_generation() -> anyhow::Result<()> {
    let vendor = vendor_id("ALONE");
    let started = Miscounted::start("in_place_months", BILLING, vendor).await?;
    let Miscounted { mut read_side, alone, others, mut first } = started;
    let once = read_side.expected_of(&alone).await?.months;
    let found = read_side.rows().await?.months;
    let is_twice = |(month, row): (&Month, &Balance)| {
        found.get(month).is_some_and(|found| found.balance == row.balance + row.balance)
    };
    ensure!(!once.is_empty() && once.iter().all(is_twice), "they are not counted twice: {once:?}, {found:?}");
    let session = cassandra::connect(read_side.installation.cassandra()).await?;
    let (surplus, surplus_at) = ((vendor_id("SURPLUS"), 2026, 1), Position::new(LogEpoch::FIRST, 0).get());
    write_month(&session, surplus, surplus_at).await?;

    let mut second = rebuild(&read_side, BILLING, "2", &[]).await?;
    accept_second(&read_side, BILLING).await?;
    first.terminate(DEADLINE).await?;
    let to_be = read_side.expected().await?.months.into_iter().map(|(month, row)| (month, row.balance)).collect();
    let reading = Arc::new(cassandra::connect(&read_side.installation.cassandra().patient()).await?);
    let was = balances(&reading).await?;
    let reader = Reader::start([was, to_be], move || {
        let session = reading.clone();
        async move { balances(&session).await }
    });
    reader.while_replaced(&read_side, &MONTHS_IN_PLACE).await?.with(0, " copied, 1 others deleted")?;
    read_side.check_tables().await?;
    write_month(&session, surplus, surplus_at).await?;
    for (month, row) in &once {
        // The late one may be further than the rest was.
        write_month(&session, *month, row.position + 1_000_000).await?;
    }
    read_side.check_tables().await?;

    // The projector of generation 1 goes on with the rows that were replaced.
    let again = read_side.installation.start_all(&[(Service::Projector(BILLING), "b", &SESSION[..])]).await?;
    let more: Vec<Line> = read_side.lines(5).into_iter().map(|line| Line { vendor, ..line }).collect();
    read_side.send(read_side.purchases(), more)?;
    read_side.rest(&TABLES).await?;
    read_side.rest(&[SECOND_MONTHS]).await?;
    read_side.check_tables().await?;
    cartctl(&read_side, &["diff", BILLING], &[]).await?.with(0, "diff none")?;
    second.terminate(DEADLINE).await?;
    drop((again, others, first, session));
    read_side.remove().await
}
