//! Parked rows of a generation are not compared: they are named, and count as a difference. Nothing is switched to them.

use anyhow::{Context as _, ensure};
use cart::contract::group::POPULAR_ITEMS;
use cartctl::vendor_id;

use super::{cartctl, rebuild, switch};
use crate::projectors::read_side::{DEADLINE, ReadSide};
use crate::projectors::shop::Line;

pub(crate) async fn parked_rows_count_as_a_difference_and_nothing_is_switched_to_them() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("parked_switch").await?;
    let vendor = vendor_id("ALONE");
    let alone: Vec<Line> = read_side.lines(10).into_iter().map(|line| Line { vendor, ..line }).collect();
    read_side.send(read_side.purchases(), alone)?;
    read_side.send(read_side.purchases(), read_side.lines(100))?;
    let mut first = read_side.start_with(POPULAR_ITEMS, "a", &format!("row-overflows=return({vendor})"))?;
    first.ready(DEADLINE).await?;
    read_side.rest(&[POPULAR_ITEMS]).await?;

    // The generation beside it is the repair, which is to be accepted.
    let mut second = rebuild(&read_side, POPULAR_ITEMS, "2", &[]).await?;
    let diff = cartctl(&read_side, &["diff", POPULAR_ITEMS, "--json"], &[]).await?.with(1, "")?.json()?;
    let digest = diff["digest"].as_str().context("a digest")?;
    let parked = diff["rowsParked"].as_u64().context("a number")?;
    let is_named = diff["parked"][0]["projector"] == POPULAR_ITEMS && digest.starts_with("sha256:");
    ensure!(parked > 0 && is_named && diff["differences"] == serde_json::json!([]), "{diff}");
    let to_second = ["switch", POPULAR_ITEMS, "--to", "2", "--accept-diff"];
    cartctl(&read_side, &[&to_second[..], &["none"]].concat(), &[]).await?.with(1, "not compared")?;
    switch(&read_side, &[POPULAR_ITEMS, "--to", "2", "--accept-diff", digest]).await?;

    let back = ["switch", POPULAR_ITEMS, "--back", "--accept-diff", digest];
    cartctl(&read_side, &back, &[]).await?.with(1, "parked, and lack")?;
    first.terminate(DEADLINE).await?;
    let in_place = ["switch", POPULAR_ITEMS, "--in-place"];
    cartctl(&read_side, &in_place, &[]).await?.with(1, "parked, and lack")?;

    let mut first = read_side.start_with(POPULAR_ITEMS, "b", "")?;
    first.ready(DEADLINE).await?;
    read_side.installation.retry_parked_rows(usize::try_from(parked)?).await?;
    cartctl(&read_side, &["diff", POPULAR_ITEMS], &[]).await?.with(0, "diff none")?;
    switch(&read_side, &[POPULAR_ITEMS, "--to", "1", "--accept-diff", "none"]).await?;
    first.terminate(DEADLINE).await?;
    second.terminate(DEADLINE).await?;
    read_side.remove().await
}
