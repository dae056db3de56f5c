//! A comparison as it is printed.

use std::collections::BTreeMap;
use std::fmt;

use cart::contract::{ReadModel, ReadTable};
use cart::{Generation, PurchasedItem, contract::Contract as _};
use serde::Serialize;
use uuid::Uuid;

use super::compare::{Comparison, Difference};
use super::rows::Value;
use crate::ListedRow;

/// Most differences in the text; JSON has all.
const PRINTED_MAX: usize = 20;

/// What two generations of a read model have.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    pub model: &'static str,
    /// The generations that were compared, and their tables.
    pub generations: [i32; 2],
    pub tables: [String; 2],
    pub rows_equal: u64,
    pub rows_different: usize,
    /// Rows that only the first has.
    pub rows_missing: usize,
    /// Rows that only the second has.
    pub rows_extra: usize,
    /// What the totals are of.
    pub unit: &'static str,
    /// The sums of all rows.
    pub totals: [String; 2],
    /// Purchases that were added to rows of the generation that was behind.
    pub rolled_forward: u64,
    /// By generation and partition: those of them that belong to a row.
    #[serde(skip)]
    pub(super) added: [BTreeMap<i32, u64>; 2],
    /// Rows that are parked in one of the generations: they lack records, and are not compared.
    pub rows_parked: usize,
    /// The parked rows.
    pub parked: Vec<ListedRow>,
    /// `none` without differences and parked rows.
    pub digest: String,
    pub differences: Vec<DifferentRow>,
}

/// A row that is not the same in both.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DifferentRow {
    pub vendor: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<Uuid>,
    /// The day or the month (UTC).
    pub period: String,
    /// `null` where there is no such row.
    pub values: [Option<RowValue>; 2],
    pub partition: i32,
    /// The values are those before this offset of item-purchased.
    pub before_offset: i64,
}

/// A row's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowValue {
    pub total: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Diff {
    pub(super) fn new(
        model: ReadModel,
        generations: [Generation; 2],
        comparison: &Comparison,
        rolled_forward: u64,
    ) -> Self {
        let differences = &comparison.differences;
        let count = |is_there: [bool; 2]| {
            differences.iter().filter(|found| found.values.each_ref().map(Option::is_some) == is_there).count()
        };
        Self {
            model: model.group,
            generations: generations.map(Generation::get),
            tables: generations.map(|generation| model.table_name(generation)),
            rows_equal: comparison.equal,
            rows_different: count([true, true]),
            rows_missing: count([true, false]),
            rows_extra: count([false, true]),
            unit: match model.table {
                ReadTable::ItemQuantityByDay => "pieces",
                ReadTable::BalanceByVendor | ReadTable::VendorBilling => "balance",
            },
            totals: comparison.totals.map(|total| total.to_string()),
            rolled_forward,
            added: comparison.added.clone(),
            rows_parked: comparison.parked.len(),
            parked: Vec::new(),
            digest: comparison.digest().unwrap_or_else(|| String::from("none")),
            differences: differences.iter().map(DifferentRow::of).collect(),
        }
    }

    /// 0 without differences and parked rows.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.differences.is_empty() || self.rows_parked > 0)
    }
}

impl DifferentRow {
    fn of(difference: &Difference) -> Self {
        let Difference { key, partition, before, values } = difference;
        let value = |value: &Option<Value>| {
            value.as_ref().map(|Value { total, name }| RowValue { total: total.to_string(), name: name.clone() })
        };
        Self {
            vendor: key.vendor(),
            product: key.product(),
            period: key.period(),
            values: values.each_ref().map(value),
            partition: *partition,
            before_offset: *before,
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, generations: [first, second], tables, totals, unit, .. } = self;
        writeln!(f, "{model}: generation {first} ({}), then {second} ({})", tables[0], tables[1])?;
        writeln!(
            f,
            "  {} rows equal, {} different, {} missing, {} extra; {unit} {} → {}",
            self.rows_equal, self.rows_different, self.rows_missing, self.rows_extra, totals[0], totals[1]
        )?;
        for row in &self.parked {
            writeln!(f, "  not compared: {row}")?;
        }
        for row in self.differences.iter().take(PRINTED_MAX) {
            writeln!(f, "  {row}")?;
        }
        if let Some(more) = self.differences.len().checked_sub(PRINTED_MAX).filter(|more| *more > 0) {
            writeln!(f, "  and {more} more (--json has all)")?;
        }
        write!(f, "  diff {}", self.digest)
    }
}

impl fmt::Display for DifferentRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vendor {}", self.vendor)?;
        if let Some(product) = self.product {
            write!(f, " product {product}")?;
        }
        let [first, second] = &self.values;
        write!(f, " {}: {} → {}", self.period, shown(first.as_ref()), shown(second.as_ref()))?;
        if let [Some(RowValue { name: Some(first), .. }), Some(RowValue { name: Some(second), .. })] = &self.values
            && first != second
        {
            write!(f, ", {first:?} → {second:?}")?;
        }
        write!(f, " (before {}/{}/{})", PurchasedItem::TOPIC, self.partition, self.before_offset)
    }
}

fn shown(value: Option<&RowValue>) -> &str {
    value.map_or("no row", |value| &value.total)
}

#[cfg(test)]
mod tests {
    use cart::contract::READ_MODELS;

    use super::*;
    use crate::generations::rows::RowKey;
    use crate::totals::DayKey;
    use crate::{product_id, vendor_id};

    #[test]
    fn a_diff_names_each_different_row() {
        let [vendor, product] = [vendor_id("V"), product_id("P")];
        let key = RowKey::Day(DayKey { vendor, product, year: 2026, month: 3, day: 7 });
        let value = |total: i64, name: &str| Some(Value { total: total.into(), name: Some(name.to_owned()) });
        let values = [value(12, "mug"), value(9, "cup")];
        let found = Difference { key, partition: 3, before: 1_204, values };
        let differences = vec![found.clone(); 21];
        let comparison =
            Comparison { equal: 120, differences, totals: [500.into(), 497.into()], ..Comparison::default() };
        let generations = [Generation::FIRST, Generation::new(2).expect("a generation")];
        let diff = Diff::new(READ_MODELS[0], generations, &comparison, 0);
        let text = diff.to_string();
        let row = format!(
            "vendor {vendor} product {product} 2026-03-07: 12 → 9, \"mug\" → \"cup\" (before item-purchased/3/1204)"
        );
        assert_eq!(text.lines().nth(1), Some("  120 rows equal, 21 different, 0 missing, 0 extra; pieces 500 → 497"));
        assert_eq!(text.matches(&row).count(), PRINTED_MAX);
        assert!(text.contains("and 1 more (--json has all)\n  diff sha256:"), "{text}");
        assert_eq!(diff.exit_code(), 1);
        let gone =
            Comparison { differences: vec![Difference { values: [value(1, "mug"), None], ..found }], ..comparison };
        let diff = Diff::new(READ_MODELS[0], generations, &gone, 0);
        assert!(diff.to_string().contains("2026-03-07: 1 → no row (before"), "{diff}");
        assert_eq!((diff.rows_different, diff.rows_missing, diff.rows_extra), (0, 1, 0));
    }
}
