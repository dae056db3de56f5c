//! What the log has for the rows between two offsets.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use cart::PurchasedItem;
use cart::contract::{Contract as _, ReadModel};
use kafka::{Admin, Codec, KafkaArgs, Message as _, Registry, TopicReader};
use tokio::runtime::Handle;

use super::rows::{Change, Changes, RowKey};
use crate::skips::{self, SkippedRecord};
use crate::topic::SILENCE_MAX;

/// Most records between the two generations: they are kept in memory, some 200 bytes each.
const RECORDS_MAX: i64 = 2_000_000;

/// Offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: i64,
    pub(super) to: i64,
}

/// The purchases of each row in these ranges (by partition), without records that the read model skips. Also their number.
pub(super) async fn changes(
    kafka: &KafkaArgs,
    model: ReadModel,
    ranges: &BTreeMap<i32, Range>,
) -> anyhow::Result<(Changes, u64)> {
    let records: i64 = ranges.values().map(|range| range.to - range.from).sum();
    ensure!(
        records <= RECORDS_MAX,
        "the generations are {records} records apart, more than {RECORDS_MAX}: wait until the one that is behind has caught up"
    );
    if records <= 0 {
        return Ok((Changes::new(), 0));
    }
    let codec =
        Codec::<PurchasedItem>::register(&Registry::new(kafka)?, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?;
    let skips = skips::load(kafka).await?;
    let runtime = Handle::current();
    tokio::task::block_in_place(|| read(kafka, model, ranges, &codec, &skips, &runtime))
}

fn read(
    kafka: &KafkaArgs,
    model: ReadModel,
    ranges: &BTreeMap<i32, Range>,
    codec: &Codec<PurchasedItem>,
    skips: &[SkippedRecord],
    runtime: &Handle,
) -> anyhow::Result<(Changes, u64)> {
    let topic = kafka.prefixed(PurchasedItem::TOPIC);
    let mut unread: BTreeMap<i32, Range> = ranges.clone();
    unread.retain(|_, range| range.from < range.to);
    let mut reader =
        TopicReader::open(kafka, &topic, unread.iter().map(|(partition, range)| (*partition, range.from)))?;
    let (mut changes, mut count) = (Changes::new(), 0);
    // Behind the last record of a range there may be only markers of transactions, which are not read.
    let mut ended = Vec::new();
    loop {
        unread.retain(|partition, range| {
            let has_ended = reader.has_reached_end(*partition);
            if has_ended {
                ended.push((*partition, *range));
            }
            !has_ended
        });
        if unread.is_empty() {
            break;
        }
        let Some(message) = reader.next(SILENCE_MAX)? else { continue };
        let (partition, offset) = (message.partition(), message.offset());
        let Some(Range { to, .. }) = unread.get(&partition).copied() else { continue };
        // At the end of a partition that is written all the time there is always a next record.
        if offset + 1 >= to {
            unread.remove(&partition);
        }
        let is_skipped = skips.iter().any(|skip| skip.is_of(model.group, PurchasedItem::TOPIC, partition, offset));
        if offset >= to || is_skipped {
            continue;
        }
        let purchase = codec
            .decode_or_fetch_blocking(message.payload().unwrap_or_default(), runtime)?
            .with_context(|| format!("reading {topic}/{partition}/{offset}"))?;
        let row = changes.entry(RowKey::of(model.table, &purchase)).or_default();
        row.push(Change::of(model.table, offset, &purchase));
        count += 1;
    }
    if !ended.is_empty() {
        let watermarks = Admin::new(kafka)?.watermarks(&topic)?;
        for (partition, Range { to, .. }) in ended {
            let end = usize::try_from(partition).ok().and_then(|partition| watermarks.get(partition));
            let end = end.map_or(0, |(_, end)| *end);
            ensure!(
                end >= to,
                "{topic}/{partition} ends at {end}, and a table has records up to {to}: the log has lost some"
            );
        }
    }
    Ok((changes, count))
}
