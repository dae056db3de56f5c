//! A generation that was built by a program with a mistake.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use cart::contract::group::{POPULAR_ITEMS, VENDOR_BILLING_JDBC};
use cartctl::vendor_id;
use e2e::harness::wait_until;
use rust_decimal::Decimal;
use serde_json::Value;

use super::{cartctl, rebuild};
use crate::projectors::oracle::Rows;
use crate::projectors::read_side::{DEADLINE, ReadSide, TABLES};
use crate::projectors::shop::Line;

/// Lines of the vendor whom the program counts twice.
const MISCOUNTED_LINES: usize = 40;

/// Product (where the table has it), day or month, and total of each row.
type Totals = BTreeMap<(Option<String>, String), Decimal>;

fn expected(model: &str, rows: &Rows) -> Totals {
    if model == POPULAR_ITEMS {
        let row = |(&(_, product, year, month, day), sold): (
            &(_, uuid::Uuid, i32, i32, i32),
            &crate::projectors::oracle::Sold,
        )| {
            let key = (Some(product.to_string()), format!("{year}-{month:02}-{day:02}"));
            (key, Decimal::from(sold.quantity))
        };
        return rows.days.iter().map(row).collect();
    }
    rows.billing.iter().map(|((_, year, month), balance)| ((None, format!("{year}-{month:02}")), *balance)).collect()
}

/// The differing rows, with the total of the first generation. In the second it is twice that.
fn found(diff: &Value, vendor: &str) -> anyhow::Result<Totals> {
    let rows = diff["differences"].as_array().context("a list")?;
    let row = |row: &Value| {
        ensure!(row["vendor"] == vendor, "another vendor's row: {row}");
        let total = |side: usize| {
            let total = row["values"][side]["total"].as_str().with_context(|| row.to_string())?;
            Decimal::from_str_exact(total).with_context(|| row.to_string())
        };
        ensure!(total(1)? == total(0)? + total(0)?, "it is not counted twice: {row}");
        let period = row["period"].as_str().context("a period")?.to_owned();
        Ok(((row["product"].as_str().map(str::to_owned), period), total(0)?))
    };
    rows.iter().map(row).collect()
}

pub(crate) async fn a_generation_that_miscounts_is_named_row_by_row_and_refused() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("miscount").await?;
    let vendor = vendor_id("ALONE");
    let alone: Vec<_> = read_side.lines(MISCOUNTED_LINES).into_iter().map(|line| Line { vendor, ..line }).collect();
    read_side.send(read_side.purchases(), alone.clone())?;
    read_side.send(read_side.purchases(), read_side.lines(200))?;
    let load = read_side.start_load(read_side.purchases());
    let mut processes = read_side.start(&TABLES, "a").await?;
    let of_vendor = read_side.expected_of(&alone).await?;

    for model in TABLES {
        let miscounts = [("FAILPOINTS", format!("counts-twice=return({vendor})"))];
        processes.push(rebuild(&read_side, model, "2", &miscounts).await?);
        let mut digests = BTreeSet::new();
        for _ in 0..2 {
            let diff = cartctl(&read_side, &["diff", model, "--json"], &[]).await?.with(1, "sha256:")?.json()?;
            let found = found(&diff, &vendor.to_string())?;
            ensure!(found == expected(model, &of_vendor), "of {of_vendor:?}: {diff}");
            ensure!(diff["rowsEqual"].as_u64().is_some_and(|rows| rows > 0), "{diff}");
            digests.insert(diff["digest"].as_str().context("a digest")?.to_owned());
        }
        let [digest] = digests.iter().collect::<Vec<_>>()[..] else {
            anyhow::bail!("the digest changes while other rows do: {digests:?}")
        };
        let text = cartctl(&read_side, &["diff", model, "1", "2"], &[]).await?.with(1, digest)?.output;
        ensure!(text.contains(&format!("vendor {vendor}")), "{text}");

        let other = format!("sha256:{}", "0".repeat(64));
        for accepted in ["none", &other] {
            let args = ["switch", model, "--to", "2", "--accept-diff", accepted];
            cartctl(&read_side, &args, &[])
                .await?
                .with(1, "the difference is not the accepted one")?
                .with(1, digest)?;
        }
        let args = ["switch", model, "--to", "2", "--accept-diff", digest, "--dry-run"];
        cartctl(&read_side, &args, &[]).await?.with(0, "nothing was changed")?;
        ensure!(read_side.active(model).await?.get() == 1, "a refused switch of {model} has changed what readers see");
    }

    // What an operator accepts is what readers see.
    let digest = cartctl(&read_side, &["diff", VENDOR_BILLING_JDBC, "--json"], &[]).await?.json()?;
    let digest = digest["digest"].as_str().context("a digest")?;
    let args = ["switch", VENDOR_BILLING_JDBC, "--to", "2", "--accept-diff", digest, "--reason", "a test"];
    cartctl(&read_side, &args, &[]).await?.with(0, "readers see generation 2 after 1")?;
    let select = "SELECT sum(balance) FROM vendor_billing WHERE vendor_id = $1";
    let total: Decimal = sqlx::query_scalar(select).bind(vendor).fetch_one(&read_side.database).await?;
    let once: Decimal = of_vendor.billing.values().sum();
    ensure!(total == once + once, "the view has {total}, not {once} twice");
    let log = cartctl(&read_side, &["log"], &[]).await?.output;
    let of_switch = |line: &str| {
        line.contains("cartctl switch of vendor-billing-jdbc to generation 2, run ") && line.contains(": a test")
    };
    ensure!(log.lines().any(of_switch), "{log}");
    // A projector of an earlier version must not add to this generation.
    let written = sqlx::query("UPDATE vendor_billing SET balance = 0").execute(&read_side.database).await;
    ensure!(written.is_err(), "the view of generation 2 can be written through");
    // The difference is another one after each purchase: an operator who returns accepts any.
    let args = ["switch", VENDOR_BILLING_JDBC, "--back"];
    cartctl(&read_side, &args, &[]).await?.with(1, "the difference is not the accepted one")?;
    let to_first = ["switch", VENDOR_BILLING_JDBC, "--to", "1", "--accept-diff", "any"];
    cartctl(&read_side, &to_first, &[]).await?.with(1, "with --back only")?;
    cartctl(&read_side, &[&args[..], &["--accept-diff", "any"]].concat(), &[])
        .await?
        .with(0, "readers see generation 1 after 2")?;
    // A projector of an earlier version goes on with its own table.
    sqlx::query("UPDATE vendor_billing SET balance = 0 WHERE false").execute(&read_side.database).await?;

    read_side.finish(load).await?;
    // A repaired program would go on with the same rows.
    let args = ["rebuild", VENDOR_BILLING_JDBC, "--dry-run"];
    wait_until("a rebuild to be refused", DEADLINE, async || {
        let refused = cartctl(&read_side, &args, &[]).await.and_then(|ended| ended.with(1, "generation 2 is built"));
        refused.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await?;
    drop(processes);
    read_side.remove().await
}
