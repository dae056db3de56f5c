//! A vendor's rows that cannot be kept are parked; all other rows are exact, and after the repair these are too.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them).

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use cart::contract::{READ_MODELS, ReadTable};
use cartctl::audit::{Kind, Report, Target, audit};
use cartctl::vendor_id;
use chrono::Datelike as _;
use e2e::harness::{Ended, Installation, Process, wait_until};
use uuid::Uuid;

use super::read_side::{DEADLINE, ReadSide, TABLES, get, metric};
use super::shop::Line;

/// The vendor whose rows take no record.
pub(super) fn bad() -> Uuid {
    vendor_id("V0")
}

pub(super) fn overflows() -> String {
    format!("row-overflows=return({})", bad())
}

/// Starts an instance of each projector of a table.
pub(super) async fn start(read_side: &ReadSide, instance: &str, fail_points: &str) -> anyhow::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for projector in TABLES {
        let mut process = read_side.start_with(projector, instance, fail_points)?;
        process.ready(DEADLINE).await?;
        processes.push(process);
    }
    Ok(processes)
}

pub(super) async fn terminate(processes: Vec<Process>) -> anyhow::Result<()> {
    for mut process in processes {
        process.terminate(DEADLINE).await?;
    }
    Ok(())
}

/// The rows of the bad vendor in a projector's table.
fn bad_rows(lines: &[Line], projector: &str) -> anyhow::Result<usize> {
    let table = READ_MODELS.iter().find(|model| model.group == projector).context("a read model")?.table;
    let lines = lines.iter().filter(|line| line.vendor == bad());
    let rows: BTreeSet<_> = lines
        .map(|line| match table {
            ReadTable::ItemQuantityByDay => (line.at.date_naive(), Some(line.product)),
            ReadTable::BalanceByVendor | ReadTable::VendorBilling => {
                (line.at.date_naive().with_day(1).unwrap_or_default(), None)
            }
        })
        .collect();
    Ok(rows.len())
}

/// Waits until the bad vendor's rows are parked, and compares all others with what was sent. Returns the number of parked rows.
async fn check_others(read_side: &ReadSide) -> anyhow::Result<usize> {
    read_side.rest(&TABLES).await?;
    let mut count = 0;
    for projector in TABLES {
        let parked = bad_rows(&read_side.sent, projector)?;
        read_side.installation.rows_become_parked(projector, parked, DEADLINE).await?;
        count += parked;
    }
    let others: Vec<Line> = read_side.sent.iter().filter(|line| line.vendor != bad()).cloned().collect();
    let differences = read_side.expected_of(&others).await?.differences(&read_side.rows().await?);
    ensure!(differences.is_empty(), "with parked rows:\n{}", differences.join("\n"));
    Ok(count)
}

pub(crate) async fn rows_that_cannot_be_kept_are_parked_and_the_others_are_exact() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("rowsparked").await?;
    read_side.send(read_side.purchases(), read_side.lines(72))?;
    let processes = start(&read_side, "a", &overflows()).await?;
    let count = check_others(&read_side).await?;
    let mut metrics = 0;
    for process in &processes {
        metrics += metric(process, "projector_parked_rows").await?;
        let readiness = get(process, "/health/ready").await?;
        ensure!(readiness.starts_with("ready"), "a projector with parked rows stays ready: {readiness}");
        let log = process.log();
        let is_error = |line: &str| line.contains("ERROR") && line.contains("a row is parked");
        ensure!(log.lines().any(is_error), "no error for the parked rows in {log}");
    }
    ensure!(metrics == count as u64, "the metrics have {metrics} parked rows, and {count} are listed");
    terminate(processes).await?;

    // The next owner knows of them, and passes over what comes.
    let processes = start(&read_side, "b", &overflows()).await?;
    read_side.send(read_side.purchases(), read_side.lines(72))?;
    let count = check_others(&read_side).await?;
    let vendor = bad().to_string();
    let args = ["parked", "rows", "retry", "--vendor", &vendor, "--wait-s", "60"];
    let tried = read_side.installation.cartctl(&args, &[], DEADLINE).await?;
    tried.with(1, &format!("0 live, {count} still parked")).context("a try before the repair")?;
    check_others(&read_side).await?;
    terminate(processes).await?;

    let processes = start(&read_side, "c", "").await?;
    read_side.installation.retry_parked_rows(count).await?;
    read_side.check_tables().await?;
    // They are live.
    read_side.send(read_side.purchases(), read_side.lines(72))?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    terminate(processes).await?;
    read_side.remove().await
}

/// Where a process dies: around the write of a marker, and then around what ends or moves it.
const CRASHES: [(&str, &str); 2] =
    [("parked-row-before-marker", "parked-row-added"), ("parked-row-after-marker", "parked-row-after-retry")];

/// Lets each projector die at a fail point.
async fn die(read_side: &ReadSide, instance: &str, fail_points: &str) -> anyhow::Result<()> {
    for projector in TABLES {
        let mut dies = read_side.start_with(projector, instance, fail_points)?;
        ensure!(!dies.ended(DEADLINE).await?.success(), "{projector} was to crash at {fail_points}");
    }
    Ok(())
}

/// Each projector dies while it parks rows, and again while it tries them.
pub(crate) async fn a_crash_while_rows_are_parked_or_tried_changes_nothing() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("rowscrash").await?;
    for (round, (crash, in_retry)) in CRASHES.into_iter().enumerate() {
        read_side.send(read_side.purchases(), read_side.lines(72))?;
        die(&read_side, &format!("dies{round}"), &format!("{};{crash}=return", overflows())).await?;
        let processes = start(&read_side, &format!("parks{round}"), &overflows()).await?;
        check_rows_of_round(&read_side).await?;
        terminate(processes).await?;

        let args = ["parked", "rows", "retry", "--all", "--wait-s", "0"];
        read_side.installation.cartctl(&args, &[], DEADLINE).await?.with(0, "requested another try")?;
        die(&read_side, &format!("tries{round}"), &format!("{in_retry}=return")).await?;
        let processes = start(&read_side, &format!("repairs{round}"), "").await?;
        all_live(&read_side).await?;
        read_side.rest(&TABLES).await?;
        read_side.check_tables().await?;
        terminate(processes).await?;
    }
    read_side.remove().await
}

pub(super) async fn all_live(read_side: &ReadSide) -> anyhow::Result<()> {
    wait_until("all rows to be live", DEADLINE, async || match read_side.installation.parked_rows().await {
        Ok(parked) if parked.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Waits until something is parked of each projector, and compares the rows of the other vendors.
async fn check_rows_of_round(read_side: &ReadSide) -> anyhow::Result<()> {
    read_side.rest(&TABLES).await?;
    let parked = read_side.installation.parked_rows().await?;
    for projector in TABLES {
        ensure!(parked.iter().any(|row| row["projector"] == projector), "{projector} has parked nothing: {parked:?}");
    }
    let (expected, found) = (read_side.expected().await?, read_side.rows().await?);
    let differences = expected.differences(&found);
    let of_others: Vec<_> = differences.iter().filter(|text| !text.contains(&bad().to_string())).collect();
    ensure!(of_others.is_empty(), "beside the parked rows: {of_others:?}");
    Ok(())
}

/// Each projector parks rows, and ends.
async fn park(read_side: &mut ReadSide, instance: &str) -> anyhow::Result<()> {
    read_side.send(read_side.purchases(), read_side.lines(72))?;
    let processes = start(read_side, instance, &overflows()).await?;
    check_rows_of_round(read_side).await?;
    terminate(processes).await
}

const RETRY: [&str; 6] = ["parked", "rows", "retry", "--all", "--wait-s", "60"];

/// Where `cartctl parked rows retry` dies: behind the request for the first row, and behind the one for the third.
const DEATHS: [&str; 2] = ["row-retry-requested=return", "row-retry-requested=2*off->return"];

async fn retry(read_side: &ReadSide, more: &[&str]) -> anyhow::Result<Ended> {
    read_side.installation.cartctl(&[&RETRY[..], more].concat(), &[], DEADLINE).await
}

/// No row is parked, and the tables have each record once.
async fn all_exact(read_side: &ReadSide, ended: impl IntoIterator<Item = Ended>, when: &str) -> anyhow::Result<()> {
    for ended in ended {
        ended.with(0, " live, 0 still parked").context(when.to_owned())?;
    }
    read_side.rest(&TABLES).await?;
    let parked = read_side.installation.parked_rows().await?;
    ensure!(parked.is_empty(), "{when}: {parked:?}");
    read_side.check_tables().await.context(when.to_owned())
}

pub(crate) async fn retries_that_are_killed_or_come_twice_add_each_record_once() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("rowstwice").await?;
    for (round, death) in DEATHS.into_iter().enumerate() {
        park(&mut read_side, &format!("parks{round}")).await?;
        let processes = start(&read_side, &format!("repairs{round}"), "").await?;
        read_side.installation.cartctl_dies(&RETRY, death, DEADLINE).await?;
        // Rows whose try was requested may be live by now.
        let repeated = retry(&read_side, &[]).await?;
        all_exact(&read_side, [repeated], &format!("after a repeat of a retry that died at {death}")).await?;
        terminate(processes).await?;
    }

    park(&mut read_side, "parks").await?;
    let not_in_time = ["parked", "rows", "retry", "--all", "--wait-s", "1", "--json"];
    let tried = read_side.installation.cartctl(&not_in_time, &[], DEADLINE).await?.with(2, "notTried")?.json()?;
    let still = tried["result"]["stillParked"].as_array().context("the rows")?.len();
    ensure!(tried["result"]["notTried"] == still && still > 0, "no projector runs: {tried}");
    let processes = start(&read_side, "repairs", "").await?;
    let (ann, bob) = tokio::try_join!(retry(&read_side, &["--by", "ann"]), retry(&read_side, &["--by", "bob"]))?;
    all_exact(&read_side, [ann, bob], "after two retries at once").await?;
    terminate(processes).await?;
    read_side.remove().await
}

/// Switches off that a retry in PostgreSQL names the position which it began with.
const WITHOUT_GUARD: &str = "guard-parked-position=return";

/// An instance of each projector stops with the records of a parked row in its hands. Another one takes its partitions over and adds
/// them. No record comes meanwhile, so that the offsets stay. Then the first one goes on.
async fn retry_late(read_side: &mut ReadSide, round: &str, guard: &str) -> anyhow::Result<()> {
    park(read_side, &format!("parks{round}")).await?;
    let args = ["parked", "rows", "retry", "--all", "--wait-s", "0"];
    read_side.installation.cartctl(&args, &[], DEADLINE).await?.with(0, "requested another try")?;

    let stop = format!("parked-row-before-retry=1*return(stop)->off;{guard}");
    let mut late = Vec::new();
    for projector in TABLES {
        late.push(read_side.start_with(projector, &format!("late{round}"), stop.trim_end_matches(';'))?);
    }
    for process in &late {
        wait_until("an instance to stop in a retry", DEADLINE, async || match process.state() {
            Some('T') => Ok(()),
            state => Err(format!("state {state:?}")),
        })
        .await?;
    }
    let owners = start(read_side, &format!("owns{round}"), "").await?;
    all_live(read_side).await?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;
    for process in &late {
        let before = process.log().lines().count();
        process.resume()?;
        wait_until("the late instance to join its group again", DEADLINE, async || {
            let log = process.log();
            let news: Vec<_> = log.lines().skip(before).collect();
            if news.iter().any(|line| line.contains("partitions assigned")) { Ok(()) } else { Err(news.join("\n")) }
        })
        .await?;
    }
    terminate(late).await?;
    terminate(owners).await
}

async fn audited(read_side: &ReadSide) -> anyhow::Result<Report> {
    let installation = &read_side.installation;
    let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
    audit(&Target::new(kafka, cassandra, installation.database()), &[], DEADLINE).await
}

/// The rows whose totals the audit finds wrong.
fn wrong_totals(report: &Report) -> Vec<&str> {
    let is_wrong = |kind| [Kind::TotalWrong, Kind::TotalStale, Kind::RowMissing].contains(&kind);
    report.findings.iter().filter(|one| is_wrong(one.kind)).map(|one| one.place.as_str()).collect()
}

pub(crate) async fn a_retry_that_comes_late_adds_nothing_twice() -> anyhow::Result<()> {
    let installation = Installation::new("rowslate")?;
    // The audit reads the topics of all services. Carts have no events here, so it does not expect the purchases; it adds them up.
    installation.setup().await?;
    let mut read_side = ReadSide::open(installation).await?;
    retry_late(&mut read_side, "1", "").await?;
    read_side.check_tables().await?;
    let report = audited(&read_side).await?;
    ensure!(wrong_totals(&report).is_empty(), "{report}");
    retry_late(&mut read_side, "2", WITHOUT_GUARD).await?;
    let report = audited(&read_side).await?;
    let wrong = wrong_totals(&report);
    let is_of_bad = |place: &&str| place.starts_with("PostgreSQL ") && place.contains(&bad().to_string());
    ensure!(!wrong.is_empty() && wrong.iter().all(is_of_bad), "without the guard: {report}");
    let differences = read_side.expected().await?.differences(&read_side.rows().await?);
    ensure!(!differences.is_empty(), "without the guard nothing was added twice: the late instance did not retry");
    ensure!(differences.iter().all(|text| text.contains(&bad().to_string())), "{}", differences.join("\n"));
    read_side.remove().await
}
