//! A shop's raw rows, before anybody has cleaned them: each is sent as it is, as the item that it says was added to the
//! customer's cart. Most are no good command; what the service makes of each is counted by the reason that the row has.
//!
//! Columns, as UCI's "Online Retail" has them, found by the header's names: `StockCode`, `Description`, `Quantity`, `InvoiceDate`
//! (RFC 3339), `UnitPrice`, `CustomerID`; beside them `reason`, which may be absent. The vendor is the stock code's first
//! three characters.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use csv::StringRecord;
use rust_decimal::Decimal;

use super::command::{Action, Command, Intended};
use super::csv_file::{self, Error, Fault};

const COLUMNS: [&str; 6] = ["StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"];

const REASON: &str = "reason";

/// What a stock code has of its vendor, in characters.
const VENDOR_LEN: usize = 3;

/// A file that is read as its rows are taken. After an error it gives nothing more.
pub(super) struct RawRows {
    rows: csv::Reader<Box<dyn Read>>,
    places: [usize; COLUMNS.len()],
    reason: Option<usize>,
    reasons: BTreeSet<Arc<str>>,
    row: StringRecord,
    failed: bool,
}

impl std::fmt::Debug for RawRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawRows").field("places", &self.places).finish_non_exhaustive()
    }
}

impl RawRows {
    /// Opens a file, plain or gzipped.
    ///
    /// # Errors
    /// If it can't be opened or its header lacks a column.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::from_reader(csv_file::open(path)?)
    }

    fn from_reader(reader: Box<dyn Read>) -> Result<Self, Error> {
        let mut rows = csv::Reader::from_reader(reader);
        let header = rows.headers().map_err(|source| Error::Csv { line: 1, source })?;
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            *place = header.iter().position(|name| name == column).ok_or(Error::Header { column })?;
        }
        let reason = header.iter().position(|name| name == REASON);
        Ok(Self { rows, places, reason, reasons: BTreeSet::new(), row: StringRecord::new(), failed: false })
    }

    fn read(&mut self) -> Result<Option<Command>, Error> {
        if !csv_file::read_record(&mut self.rows, &mut self.row)? {
            return Ok(None);
        }
        let line = self.row.position().map_or(0, csv::Position::line);
        self.command().map(Some).map_err(|fault| Error::Row { line, fault })
    }

    fn command(&mut self) -> Result<Command, Fault> {
        let [product, name, quantity, time, price, member] =
            self.places.map(|place| self.row.get(place).unwrap_or_default());
        let at = DateTime::parse_from_rfc3339(time).map_err(|_| Fault::Time(time.to_owned()))?.with_timezone(&Utc);
        let action = Action::Add {
            product: product.to_owned(),
            vendor: product.chars().take(VENDOR_LEN).collect(),
            name: name.to_owned(),
            price: Decimal::from_str_exact(price).map_err(|_| Fault::Price(price.to_owned()))?,
            quantity: quantity.parse().map_err(|_| Fault::Quantity(quantity.to_owned()))?,
        };
        let member = Arc::from(member);
        let reason = self.reason.and_then(|place| self.row.get(place)).unwrap_or("none given");
        let reason = match self.reasons.get(reason) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = Arc::from(reason);
                self.reasons.insert(new.clone());
                new
            }
        };
        Ok(Command { at, member, action, intended: Intended::Anything, reason: Some(reason) })
    }
}

impl Iterator for RawRows {
    type Item = Result<Command, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Vec<Result<Command, Error>> {
        RawRows::from_reader(Box::new(text.as_bytes())).expect("a good header").collect()
    }

    #[test]
    fn a_row_is_taken_as_it_is() {
        let rows = read(
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country,reason\n\
             C5,35004C,\"BIRDS, FLYING\",-1,2010-12-01T09:49:00Z,4.65,15311,United Kingdom,cancelled\n\
             5,D,,0,2010-12-01T09:49:00Z,0.0,,,\n",
        );
        let rows: Vec<_> = rows.into_iter().map(|row| row.expect("a good row")).collect();
        assert_eq!((&*rows[0].member, rows[0].reason.as_deref()), ("15311", Some("cancelled")));
        let (product, vendor, name) = ("35004C".to_owned(), "350".to_owned(), "BIRDS, FLYING".to_owned());
        let price = Decimal::new(465, 2);
        assert_eq!(rows[0].action, Action::Add { product, vendor, name, price, quantity: -1 });
        // Nobody's, and without a name.
        assert_eq!((&*rows[1].member, rows[1].reason.as_deref()), ("", Some("")));
        let (product, price) = ("D".to_owned(), Decimal::new(0, 1));
        assert_eq!(
            rows[1].action,
            Action::Add { vendor: product.clone(), product, name: String::new(), price, quantity: 0 }
        );
    }

    #[test]
    fn what_is_no_row_is_named() {
        let rows =
            read("StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID\nD,,x,2010-12-01T09:49:00Z,1,1\n");
        let error = rows.into_iter().next().expect("a row").expect_err("a bad one");
        assert_eq!(error.to_string(), "line 2: quantity \"x\" is not a whole number");
        let error = RawRows::from_reader(Box::new("StockCode\n".as_bytes())).expect_err("columns are missing");
        assert_eq!(error.to_string(), "line 1: the header has no column \"Description\"");
    }
}
