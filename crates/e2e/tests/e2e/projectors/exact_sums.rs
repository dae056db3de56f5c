//! Sums are exact, days are in UTC, and a row has its newest name.

use std::collections::BTreeMap;

use anyhow::Context as _;
use cartctl::{product_id, vendor_id};
use chrono::DateTime;
use rust_decimal::Decimal;

use super::read_side::{ReadSide, TABLES};
use super::shop::Line;
use super::writer::Writer;

/// Vendor, product, name, price in ten-thousandths, quantity, time.
const LINES: [(&str, &str, &str, i64, i32, &str); 14] = [
    ("A", "P", "TEA", 1, 3, "2025-12-31T23:59:59.999Z"),
    ("A", "P", "TEA, NEW", 1, 3, "2026-01-01T00:00:00Z"),
    // In other time zones these have another day, month and year.
    ("A", "P", "TEA, GREEN", 2, 1, "2026-01-01T00:59:59+01:00"),
    ("A", "P", "TEA, BLACK", 2, 1, "2025-12-31T19:00:00-05:00"),
    ("A", "Q", "GOLD", 9_999_999_999_999, 1_000_000, "2026-01-31T23:59:59.999999Z"),
    ("A", "Q", "GOLD", 9_999_999_999_999, 1_000_000, "2026-02-01T00:00:00Z"),
    ("A", "Q", "GOLD", 9_999_999_999_999, 1_000_000, "2026-02-01T00:00:00.000001Z"),
    ("A", "R", "SILVER", 1, 1, "2026-02-01T12:00:00Z"),
    // Binary fractions can't represent these.
    ("B", "P", "TEN CENTS", 1_000, 1, "2024-02-29T12:00:00Z"),
    ("B", "P", "TWENTY CENTS", 2_000, 1, "2024-02-29T13:00:00Z"),
    ("B", "P", "CENTS", 7_000, 1, "2024-03-01T00:00:00Z"),
    ("B", "Q", "CENTS", 3_000, 1, "2024-03-01T00:00:00Z"),
    ("B", "R", "A GIFT", 0, 5, "2024-04-30T12:00:00Z"),
    // An older purchase that is published later has the newest name.
    ("A", "P", "TEA, OLD", 1, 1, "2026-01-01T00:00:00Z"),
];

/// Vendor, year, month, balance.
const BALANCES: [(&str, i32, i32, &str); 6] = [
    // 3 x 0.0001 + 0.0002
    ("A", 2025, 12, "0.0005"),
    // 3 x 0.0001 + 0.0002 + 999999999.9999 x 1,000,000 + 0.0001
    ("A", 2026, 1, "999999999999900.0006"),
    // 2 x 999999999.9999 x 1,000,000 + 0.0001
    ("A", 2026, 2, "1999999999999800.0001"),
    ("B", 2024, 2, "0.3"),
    ("B", 2024, 3, "1"),
    ("B", 2024, 4, "0"),
];

/// Vendor, product, year, month, day, quantity, name.
const SOLD: [(&str, &str, i32, i32, i32, i64, &str); 9] = [
    ("A", "P", 2025, 12, 31, 4, "TEA, GREEN"),
    ("A", "P", 2026, 1, 1, 5, "TEA, OLD"),
    ("A", "Q", 2026, 1, 31, 1_000_000, "GOLD"),
    ("A", "Q", 2026, 2, 1, 2_000_000, "GOLD"),
    ("A", "R", 2026, 2, 1, 1, "SILVER"),
    ("B", "P", 2024, 2, 29, 2, "TWENTY CENTS"),
    ("B", "P", 2024, 3, 1, 1, "CENTS"),
    ("B", "Q", 2024, 3, 1, 1, "CENTS"),
    ("B", "R", 2024, 4, 30, 5, "A GIFT"),
];

fn lines() -> anyhow::Result<Vec<Line>> {
    let lines = (0..).zip(LINES).map(|(number, (vendor, product, name, price, quantity, at))| {
        Ok(Line {
            number,
            vendor: vendor_id(vendor),
            product: product_id(product),
            name: name.to_owned(),
            price,
            quantity,
            at: DateTime::parse_from_rfc3339(at).context(at)?.to_utc(),
        })
    });
    lines.collect()
}

pub(crate) async fn sums_are_exact_and_days_are_utc() -> anyhow::Result<()> {
    let mut read_side = ReadSide::set_up("exact").await?;
    let _processes = read_side.start(&TABLES, "a").await?;
    // One after the other, so that each is added to the stored row.
    tokio::task::block_in_place(|| {
        let mut writer = Writer::connect(read_side.installation.kafka(), "writer", read_side.purchases())?;
        lines()?.iter().try_for_each(|line| writer.commit(std::slice::from_ref(line)))
    })?;
    read_side.sent = lines()?;
    read_side.rest(&TABLES).await?;
    read_side.check_tables().await?;

    // The expected values of the oracle are also written out.
    let rows = read_side.rows().await?;
    let mut expected = BTreeMap::new();
    for (vendor, year, month, balance) in BALANCES {
        expected.insert((vendor_id(vendor), year, month), balance.parse::<Decimal>()?);
    }
    let cassandra: BTreeMap<_, _> = rows.months.iter().map(|(month, row)| (*month, row.balance)).collect();
    assert_eq!(cassandra, expected);
    assert_eq!(rows.billing, expected);

    let sold = SOLD.map(|(vendor, product, year, month, day, quantity, name)| {
        ((vendor_id(vendor), product_id(product), year, month, day), (quantity, name))
    });
    let found: BTreeMap<_, _> = rows.days.iter().map(|(day, row)| (*day, (row.quantity, row.name.as_str()))).collect();
    assert_eq!(found, BTreeMap::from(sold));
    read_side.remove().await
}
