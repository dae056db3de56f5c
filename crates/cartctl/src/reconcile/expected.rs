//! Expected totals from three CSV files in a folder. The part of their names before the first dot does not matter.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::Deserialize;

use super::csv_file::{Error, decimal, for_each_row};
use crate::totals::{DayKey, Labels, MonthKey, Sold, Totals};
use crate::{product_id, vendor_id};

#[derive(Deserialize)]
struct MonthRow {
    vendor: String,
    year: i32,
    month: i32,
    balance: String,
}

#[derive(Deserialize)]
struct DayRow {
    vendor: String,
    product: String,
    year: i32,
    month: i32,
    day: i32,
    quantity: i64,
    names: String,
}

#[derive(Deserialize)]
struct TotalRow {
    what: String,
    value: String,
}

/// Reads the three files of a folder, and checks that they agree with each other.
///
/// # Errors
/// A file is missing, can't be read, or contradicts the others.
pub fn read(folder: &Path) -> Result<(Totals, Labels), Error> {
    let mut totals = Totals::default();
    let mut labels = Labels::default();
    for_each_row(&file(folder, "balance_by_vendor_month")?, |_, row: MonthRow| {
        let vendor = vendor_id(&row.vendor);
        labels.insert(vendor, &row.vendor);
        let key = MonthKey { vendor, year: row.year, month: row.month };
        let earlier = totals.months.insert(key, decimal(&row.balance)?);
        earlier.map_or(Ok(()), |_| Err("this vendor and month are repeated".to_owned()))
    })?;
    for_each_row(&file(folder, "item_quantity_by_vendor_day")?, |_, row: DayRow| {
        let (vendor, product) = (vendor_id(&row.vendor), product_id(&row.product));
        labels.insert(vendor, &row.vendor);
        labels.insert(product, &row.product);
        let key = DayKey { vendor, product, year: row.year, month: row.month, day: row.day };
        let names = row.names.split('|').map(str::to_owned).collect();
        let earlier = totals.days.insert(key, Sold { quantity: row.quantity, names });
        earlier.map_or(Ok(()), |_| Err("this vendor, product and day are repeated".to_owned()))
    })?;
    let mut named = HashMap::new();
    for_each_row(&file(folder, "totals")?, |_, row: TotalRow| {
        named.insert(row.what, decimal(&row.value)?);
        Ok(())
    })?;
    let contradiction = |reason| Error::Contradiction { path: folder.to_owned(), reason };
    check(&totals, &named).map_err(contradiction)?;
    totals.purchases = match named.get("event:ItemPurchased") {
        None => None,
        Some(count) => {
            Some(u64::try_from(*count).map_err(|_| contradiction(format!("{count} is not a number of purchases")))?)
        }
    };
    Ok((totals, labels))
}

fn check(totals: &Totals, named: &HashMap<String, Decimal>) -> Result<(), String> {
    for (what, sum) in [
        ("total:balance", totals.balance()),
        ("total:quantity", totals.quantity().into()),
        ("rows:balance_by_vendor_month", totals.months.len().into()),
        ("rows:item_quantity_by_vendor_day", totals.days.len().into()),
    ] {
        if let Some(named) = named.get(what).filter(|named| **named != sum) {
            return Err(format!("the totals have {what} {named}, but the rows add up to {sum}"));
        }
    }
    Ok(())
}

fn file(folder: &Path, kind: &'static str) -> Result<PathBuf, Error> {
    let failed = |source| Error::Folder { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // `X.kind.csv`, where X is any text, or empty.
        let is_kind = [".csv", ".csv.gz"].iter().any(|ending| {
            let stem = name.strip_suffix(ending);
            stem.is_some_and(|stem| stem == kind || stem.strip_suffix(kind).is_some_and(|prefix| prefix.ends_with('.')))
        });
        if is_kind {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Error::NotOneFile { path: folder.to_owned(), kind, count }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::Write as _;

    use super::*;

    const MONTHS: &str = "vendor,year,month,balance\nV1,2026,1,10.003\nV2,2026,1,0.5\n";
    const DAYS: &str = "vendor,product,year,month,day,quantity,names\n\
                        V1,P1,2026,1,2,5,ONE|\"ONE, NEW\"\nV2,P2,2026,1,31,1,TWO\n";
    const DAYS_QUOTED: &str = "vendor,product,year,month,day,quantity,names\n\
                        V1,P1,2026,1,2,5,\"ONE|ONE, NEW\"\nV2,P2,2026,1,31,1,TWO\n";
    const TOTALS: &str = "what,value\nevent:ItemPurchased,3\ntotal:balance,10.503\ntotal:quantity,6\n\
                          rows:balance_by_vendor_month,2\nrows:item_quantity_by_vendor_day,2\n";

    /// Makes a folder for one test, with these files.
    fn folder(test: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("e2e-expected-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        for (name, text) in files {
            if name.ends_with(".gz") {
                let file = fs::File::create(folder.join(name)).expect("a temporary file");
                let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                gzip.write_all(text.as_bytes()).and_then(|()| gzip.finish()).expect("the file takes it");
            } else {
                fs::write(folder.join(name), text).expect("a temporary file");
            }
        }
        folder
    }

    #[test]
    fn reads_the_totals_from_three_files() {
        let files = [
            ("x.balance_by_vendor_month.csv", MONTHS),
            ("x.item_quantity_by_vendor_day.csv.gz", DAYS_QUOTED),
            ("x.totals.csv", TOTALS),
            ("README.md", "not one of them"),
        ];
        let folder = folder("good", &files);
        let (totals, labels) = read(&folder).expect("good files");
        fs::remove_dir_all(folder).expect("it is ours");
        let vendor = vendor_id("V1");
        assert_eq!(totals.purchases, Some(3));
        assert_eq!(totals.months[&MonthKey { vendor, year: 2026, month: 1 }].to_string(), "10.003");
        let key = DayKey { vendor, product: product_id("P1"), year: 2026, month: 1, day: 2 };
        assert_eq!(totals.days[&key].names, BTreeSet::from(["ONE".to_owned(), "ONE, NEW".to_owned()]));
        assert_eq!(labels.text(vendor), format!("V1 ({vendor})"));
    }

    #[test]
    fn names_invalid_files() {
        let good = [
            ("x.balance_by_vendor_month.csv", MONTHS),
            ("x.item_quantity_by_vendor_day.csv", DAYS_QUOTED),
            ("x.totals.csv", TOTALS),
        ];
        let mut count = 0;
        let mut error_with = |place: usize, name: &'static str, text: &str| {
            let mut files = good.map(|(name, text)| (name, text.to_owned()));
            files[place] = (name, text.to_owned());
            count += 1;
            let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let folder = folder(&format!("bad{count}"), &files);
            let error = read(&folder).expect_err("a bad file");
            fs::remove_dir_all(folder).expect("it is ours");
            format!("{:#}", anyhow::Error::from(error))
        };
        assert!(error_with(0, "other.csv", MONTHS).contains("has 0 files named *.balance_by_vendor_month.csv"));
        assert!(error_with(1, good[1].0, DAYS).contains("x.item_quantity_by_vendor_day.csv"));
        let wrong_total = TOTALS.replace("10.503", "10.504");
        assert!(error_with(2, good[2].0, &wrong_total).contains("total:balance 10.504, but the rows add up to 10.503"));
        let repeated = format!("{MONTHS}V1,2026,1,1\n");
        assert!(error_with(0, good[0].0, &repeated).contains("line 4: this vendor and month are repeated"));
        assert!(error_with(0, good[0].0, &MONTHS.replace("10.003", "1e1")).contains("'1e1' is not a decimal number"));
    }
}
