//! `item-purchased-events`: each purchase of the carts' events is on its topic once, committed, and keyed by vendor. Other
//! events and aborted ones are not there.

use std::ops::Range;

use super::read_side::{EVENTS, ReadSide, work};
use super::shop::Line;
use super::writer::Writer;

/// Numbers that no other line has.
const ABORTED: Range<u64> = 900_000..900_100;
const OTHERS: Range<u64> = 910_000..910_100;

pub(crate) async fn each_purchase_is_published_once_whatever_is_killed() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("purchases").await?;
    read_side.send(read_side.events(), read_side.lines(500))?;
    let mut processes = read_side.start(&[EVENTS], "a").await?;
    let load = read_side.start_load(read_side.events());
    // Aborted events around them, in all partitions.
    let aborted: Vec<_> = ABORTED.map(Line::of).collect();
    tokio::task::block_in_place(|| {
        Writer::connect(read_side.installation.kafka(), "aborted", read_side.events())?.abort(&aborted)
    })?;
    for _ in 0..3 {
        read_side.progress(&[EVENTS], 200).await?;
        processes[0].kill9()?;
        // Restarted under the same name, as by a supervisor: it aborts the open transaction of its predecessor.
        processes = read_side.start(&[EVENTS], "a").await?;
    }
    read_side.progress(&[EVENTS], 200).await?;
    read_side.finish(load).await?;
    read_side.rest(&[EVENTS]).await?;
    read_side.check_topic().await?;
    read_side.remove().await
}

pub(crate) async fn each_purchase_is_published_once_by_two_instances() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("moves").await?;
    read_side.send(read_side.events(), read_side.lines(500))?;
    let mut first = read_side.start(&[EVENTS], "a").await?;
    let load = read_side.start_load(read_side.events());
    read_side.progress(&[EVENTS], 200).await?;
    let second = read_side.start(&[EVENTS], "b").await?;
    work(&second, 50).await?;
    first[0].kill9()?;
    // No instance has the first one's name, so its open transaction has to time out.
    read_side.progress_everywhere(&[EVENTS]).await?;
    read_side.finish(load).await?;
    read_side.rest(&[EVENTS]).await?;

    // Offsets alone are only committed periodically. A rebalance before that must not lose them, since the group would seem
    // to lag until the next event.
    let others: Vec<_> = OTHERS.map(Line::of).collect();
    let kafka = read_side.installation.kafka();
    tokio::task::block_in_place(|| {
        let mut writer = Writer::connect(kafka, "others", read_side.other_events())?;
        let mut purchases = Writer::connect(kafka, "writer", read_side.events())?;
        purchases.commit(&read_side.lines(20))?;
        writer.commit(&others)?;
        read_side.assigned(&read_side.join_group(EVENTS)?)
    })?;
    read_side.sent.extend(read_side.lines(20));
    read_side.rest(&[EVENTS]).await?;
    read_side.check_topic().await?;
    read_side.remove().await
}
