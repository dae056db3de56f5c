//! `cartctl diff`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use cart::Generation;
use kafka::KafkaArgs;

use super::args::DiffArgs;
use super::compare::compare;
use super::log::{Range, changes};
use super::report::Diff;
use super::rows::{RowKey, Rows};
use super::store::ModelStore;

/// Compares two generations.
///
/// # Errors
/// If a server does not respond, there is no such generation, or one is too far behind.
pub async fn diff(args: &DiffArgs) -> anyhow::Result<Diff> {
    let store = ModelStore::open(&args.system, args.model).await?;
    let active = store.pointer().await?.active;
    let existing = store.generations().await?;
    let name = args.model.group;
    let first = args.generation.unwrap_or(active);
    let second = match args.with {
        Some(with) => with,
        None => existing.iter().rev().find(|generation| **generation != active).copied().with_context(|| {
            format!("{name} has only generation {active}: `cartctl rebuild {name}` builds another one beside it")
        })?,
    };
    for generation in [first, second] {
        ensure!(existing.contains(&generation), "{name} has no generation {generation}");
    }
    compare_generations(&store, &args.system.kafka, [first, second]).await
}

pub(super) async fn compare_generations(
    store: &ModelStore,
    kafka: &KafkaArgs,
    generations: [Generation; 2],
) -> anyhow::Result<Diff> {
    let [first, second] = &store.rows(generations).await?;
    let partitions = store.identity.partitions;
    let partition_of = |key: &RowKey| kafka::partition_of(key.vendor().to_string().as_bytes(), partitions);
    let ranges = ranges([first, second], partitions, partition_of);
    let (changes, rolled_forward) = changes(kafka, store.model, &ranges).await?;
    let comparison = compare([first, second], &changes, partition_of);
    Ok(Diff::new(store.model, generations, &comparison, rolled_forward))
}

/// From the offset up to which both tables are complete, to that of the row that is furthest.
fn ranges(tables: [&Rows; 2], partitions: i32, partition_of: impl Fn(&RowKey) -> i32) -> BTreeMap<i32, Range> {
    let next = |table: &Rows, partition| table.next.get(&partition).copied().unwrap_or_default();
    let range = |partition| {
        let [first, second] = tables.map(|table| next(table, partition));
        (partition, Range { from: first.min(second), to: first.max(second) })
    };
    let mut ranges: BTreeMap<i32, Range> = (0..partitions).map(range).collect();
    for (key, row) in tables.iter().flat_map(|table| &table.rows) {
        if let Some(range) = ranges.get_mut(&partition_of(key)) {
            range.to = range.to.max(row.next);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generations::rows::{Row, Value};
    use crate::totals::MonthKey;
    use crate::vendor_id;

    #[test]
    fn the_log_is_read_from_where_the_first_table_ends_to_the_furthest_row() {
        let key = RowKey::Month(MonthKey { vendor: vendor_id("V"), year: 2026, month: 11 });
        let row = |next| BTreeMap::from([(key, Row { value: Value::default(), next })]);
        let rows = |of: BTreeMap<RowKey, Row>, next: [i64; 2]| Rows {
            rows: of.into_iter().collect(),
            next: (0..).zip(next).collect(),
        };
        let (first, second) = (rows(row(12), [10, 7]), rows(row(9), [11, 7]));
        let found = ranges([&first, &second], 2, |_| 0);
        assert_eq!(found, BTreeMap::from([(0, Range { from: 10, to: 12 }), (1, Range { from: 7, to: 7 })]));
    }
}
