//! A shop's raw, uncleaned rows: each is sent as an item that is added to the customer's cart. Many are invalid commands; the
//! outcomes are counted by the row's reason.
//!
//! The columns are those of UCI's "Online Retail", found by the header's names: `StockCode`, `Description`, `Quantity`,
//! `InvoiceDate` (RFC 3339), `UnitPrice`, `CustomerID`, and optionally `reason`. The vendor is the first three characters of
//! the stock code.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cart::{InvalidItem, Price};
use rust_decimal::Decimal;

use super::command::{Action, Command, Intended};
use super::rows::{self, Error, Fault, Row, Rows};

const COLUMNS: [&str; 6] = ["StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"];

const REASON: &str = "reason";

/// How many characters of a stock code are the vendor's label.
const VENDOR_LEN: usize = 3;

/// An iterator over the rows of a file. It ends after an error.
#[derive(Debug)]
pub(super) struct RawRows {
    rows: Rows,
    places: [usize; COLUMNS.len()],
    reason: Option<usize>,
    reasons: BTreeSet<Arc<str>>,
    failed: bool,
}

impl RawRows {
    /// Opens a file, plain or gzipped.
    ///
    /// # Errors
    /// If it can't be opened or its header lacks a column.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::new(Rows::open(path)?)
    }

    fn new(rows: Rows) -> Result<Self, Error> {
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            *place = rows.place(column)?;
        }
        let reason = rows.place(REASON).ok();
        Ok(Self { rows, places, reason, reasons: BTreeSet::new(), failed: false })
    }

    pub(super) fn rows(&mut self) -> &mut Rows {
        &mut self.rows
    }

    /// One shared text per reason.
    fn intern(&mut self, reason: &str) -> Arc<str> {
        match self.reasons.get(reason) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = Arc::from(reason);
                self.reasons.insert(new.clone());
                new
            }
        }
    }
}

impl Iterator for RawRows {
    type Item = Result<Command, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let (places, reason) = (self.places, self.reason);
        let read = self.rows.next()?.and_then(|row| {
            let reason = reason.map_or_else(|| "none given".to_owned(), |place| row.field(place).to_owned());
            Ok((command(row, places)?, reason))
        });
        self.failed = read.is_err();
        let read = read.map(|(command, reason)| Command { reason: Some(self.intern(&reason)), ..command });
        Some(read.map_err(|fault| Error::Line { line: self.rows.line(), fault }))
    }
}

fn command(row: &Row, places: [usize; COLUMNS.len()]) -> Result<Command, Fault> {
    let [product, name, quantity, time, price, member] = places.map(|place| row.field(place));
    let at = rows::time(time)?;
    let product = rows::name("StockCode", product)?;
    let action = Action::Add {
        vendor: product.chars().take(VENDOR_LEN).collect(),
        product,
        name: rows::name("Description", name)?,
        price: raw_price(price)?,
        quantity: rows::quantity(quantity)?,
    };
    let member = Arc::from(rows::name("CustomerID", member)?);
    Ok(Command { at, member, action, intended: Intended::Anything, reason: None })
}

/// Parses a number that may be an invalid price: negative, too large or too precise. It is sent, for the service to reject.
fn raw_price(text: &str) -> Result<Decimal, Fault> {
    text.parse::<Price>().map(Price::get).or_else(|reason| {
        let is_number =
            matches!(reason, InvalidItem::PriceNegative | InvalidItem::PriceTooPrecise | InvalidItem::PriceTooLarge);
        let number = if is_number { Decimal::from_str_exact(text).ok() } else { None };
        number.ok_or_else(|| Fault::Price { text: text.to_owned(), reason })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Vec<Result<Command, Error>> {
        Rows::from_reader(text.as_bytes()).and_then(RawRows::new).expect("a good header").collect()
    }

    #[test]
    fn a_row_is_not_corrected() {
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
        // Without a customer and a name.
        assert_eq!((&*rows[1].member, rows[1].reason.as_deref()), ("", Some("")));
        let (product, price) = ("D".to_owned(), Decimal::new(0, 1));
        assert_eq!(
            rows[1].action,
            Action::Add { vendor: product.clone(), product, name: String::new(), price, quantity: 0 }
        );
    }

    #[test]
    fn sends_an_invalid_price_and_rejects_a_text() {
        for (text, price) in [
            ("-11062.06", Decimal::new(-1_106_206, 2)),
            ("1.00001", Decimal::new(100_001, 5)),
            ("1000000000", Decimal::from(1_000_000_000)),
            ("0.0", Decimal::ZERO),
            ("4.65", Decimal::new(465, 2)),
        ] {
            assert_eq!(raw_price(text).expect("a number"), price, "{text}");
        }
        for text in ["", "1_000", "-1_000", "1_", "-", "--1", "1,5", "abc", "1e400"] {
            assert!(raw_price(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_an_invalid_row() {
        let rows =
            read("StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID\nD,,x,2010-12-01T09:49:00Z,1,1\n");
        let error = rows.into_iter().next().expect("a row").expect_err("a bad one");
        assert_eq!(error.to_string(), "line 2: quantity \"x\" is not a whole number");
        let error =
            Rows::from_reader("StockCode\n".as_bytes()).and_then(RawRows::new).expect_err("columns are missing");
        assert_eq!(error.to_string(), "line 1: the header has no column \"Description\"");
    }
}
