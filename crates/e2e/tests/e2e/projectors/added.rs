//! A read model that was added the way docs/extending.md says (`src/bin/purchases_by_hour.rs`) includes each purchase once, although
//! its instances are killed and join in the middle of the work.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::ensure;
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use e2e::harness::{Installation, Process, free_address};
use uuid::Uuid;

use super::read_side::{DEADLINE, ReadSide};

const NAME: &str = "purchases-by-hour";

/// Purchases of each vendor and hour.
type Hours = BTreeMap<(Uuid, DateTime<Utc>), i64>;

async fn start(installation: &Installation, instance: &str) -> anyhow::Result<Process> {
    let address: SocketAddr = free_address()?;
    let address_text = address.to_string();
    let mut args = vec!["--instance", instance, "--admin-listen", &address_text];
    args.extend(["--session-timeout-ms", "2000", "--batch-len-max", "10"]);
    let mut process = installation.spawn_listening(&format!("{NAME}-{instance}"), NAME, args, address)?;
    process.ready(DEADLINE).await?;
    Ok(process)
}

async fn stored(installation: &Installation) -> anyhow::Result<Hours> {
    let session = cassandra::connect(installation.cassandra()).await?;
    let result = session.query_unpaged("SELECT vendorid, hour, purchases FROM purchases_by_hour", ()).await?;
    let rows = result.into_rows_result()?;
    let rows = rows.rows::<(Uuid, DateTime<Utc>, i64)>()?;
    Ok(rows.map(|row| row.map(|(vendor, hour, purchases)| ((vendor, hour), purchases))).collect::<Result<_, _>>()?)
}

pub(crate) async fn an_added_read_model_includes_each_purchase_once() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("added").await?;
    read_side.send(read_side.purchases(), read_side.lines(500))?;
    let load = read_side.start_load(read_side.purchases());
    let mut first = start(&read_side.installation, "a").await?;
    read_side.progress(&[NAME], 100).await?;
    first.kill9()?;
    let _second = start(&read_side.installation, "b").await?;
    read_side.progress(&[NAME], 200).await?;
    // Partitions move back in the middle of the work.
    let _first = start(&read_side.installation, "a").await?;
    read_side.progress_everywhere(&[NAME]).await?;
    read_side.finish(load).await?;
    read_side.rest(&[NAME]).await?;

    let mut expected = Hours::new();
    for line in &read_side.sent {
        *expected.entry((line.vendor, line.at.duration_trunc(TimeDelta::hours(1))?)).or_default() += 1;
    }
    let stored = stored(&read_side.installation).await?;
    ensure!(expected == stored, "the rows are {stored:?}, and must be {expected:?}");
    ensure!(expected.values().sum::<i64>() >= 500, "too few purchases: {expected:?}");
    read_side.remove().await
}
