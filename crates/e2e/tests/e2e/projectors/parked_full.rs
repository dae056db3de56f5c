//! A partition with too many parked rows stops. Its rows are tried again while it is stopped, and after a restart it goes on.

use anyhow::ensure;
use cartctl::vendor_id;
use e2e::harness::wait_until;
use kafka::partition_of;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::oracle::Rows;
use super::read_side::{DEADLINE, JDBC, ReadSide, get};
use super::shop::Line;

/// The parked rows with which a partition goes on (`projectors::parking`).
const PARKED_MAX: usize = 100;

/// More rows than that.
const REJECTED: usize = PARKED_MAX + 5;

/// Vendors whose records are in the partition of another one.
fn neighbours(vendor: Uuid, partitions: u16) -> impl Iterator<Item = Uuid> {
    let partition_of = move |vendor: Uuid| partition_of(vendor.to_string().as_bytes(), partitions.into());
    let vendors = (0..).map(|number: u32| vendor_id(&format!("NEIGHBOUR{number}")));
    vendors.filter(move |neighbour| partition_of(*neighbour) == partition_of(vendor))
}

/// Lets PostgreSQL reject all rows of other vendors, by a trigger that it runs at the end of a transaction.
async fn reject_others(database: &PgPool, good: Uuid) -> anyhow::Result<()> {
    let function = format!(
        "CREATE FUNCTION only_good() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.vendor_id <> '{good}' THEN RAISE EXCEPTION 'another vendor'; END IF; RETURN NULL; END $$"
    );
    let trigger = "CREATE CONSTRAINT TRIGGER only_good AFTER INSERT OR UPDATE ON vendor_billing_g1 \
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION only_good()";
    sqlx::query(AssertSqlSafe(function)).execute(database).await?;
    sqlx::query(trigger).execute(database).await?;
    Ok(())
}

pub(crate) async fn a_partition_with_too_many_parked_rows_is_drained_by_retries() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("rowsfull").await?;
    let good = vendor_id("GOOD");
    let first: Vec<Line> = read_side.lines(10).into_iter().map(|line| Line { vendor: good, ..line }).collect();
    read_side.send(read_side.purchases(), first)?;
    let mut process = read_side.start_with(JDBC, "a", "")?;
    process.ready(DEADLINE).await?;
    read_side.rest(&[JDBC]).await?;

    reject_others(&read_side.database, good).await?;
    let vendors = neighbours(good, read_side.installation.partitions());
    let rejected = read_side.lines(REJECTED).into_iter().zip(vendors);
    let rejected = rejected.map(|(line, vendor)| Line { vendor, ..line }).collect();
    read_side.send(read_side.purchases(), rejected)?;
    wait_until("the partition to be stopped", DEADLINE, async || match get(&process, "/health/ready").await {
        Ok(text) if text.contains("one more fails") => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    let parked = read_side.installation.parked_rows().await?;
    // The whole batch of the row that is too many waits.
    ensure!((PARKED_MAX - 10..=PARKED_MAX).contains(&parked.len()), "{} rows are parked", parked.len());

    sqlx::query("DROP TRIGGER only_good ON vendor_billing_g1").execute(&read_side.database).await?;
    let retry = ["parked", "rows", "retry", "--all", "--wait-s", "170"];
    let live = format!("{} live, 0 still parked", parked.len());
    read_side.installation.cartctl(&retry, &[], DEADLINE).await?.with(0, &live)?;
    process.terminate(DEADLINE).await?;

    let mut process = read_side.start_with(JDBC, "b", "")?;
    process.ready(DEADLINE).await?;
    read_side.rest(&[JDBC]).await?;
    let (expected, found) = (read_side.expected().await?, read_side.rows().await?);
    let differences = Rows { billing: expected.billing, ..Rows::default() }.differences(&found);
    ensure!(differences.is_empty(), "vendor_billing is not right:\n{}", differences.join("\n"));
    process.terminate(DEADLINE).await?;
    read_side.remove().await
}
