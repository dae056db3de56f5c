//! Commands from a CSV file, plain or gzipped, one row at a time.
//!
//! Columns, found by the header's names in any order: `time` (RFC 3339), `member`, `action`, `product`, `vendor`, `name`,
//! `price`, `quantity`. Further columns are ignored, so a `--sent` file can be replayed too.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use csv::StringRecord;
use flate2::bufread::MultiGzDecoder;
use rust_decimal::Decimal;

use super::command::{Action, ActionKind, Command, Intended};

/// The columns, in the order in which the data set has them.
pub const COLUMNS: [&str; 8] = ["time", "member", "action", "product", "vendor", "name", "price", "quantity"];

const TIME: usize = 0;
const MEMBER: usize = 1;
const ACTION: usize = 2;
const PRODUCT: usize = 3;
const VENDOR: usize = 4;
const NAME: usize = 5;
const PRICE: usize = 6;
const QUANTITY: usize = 7;

/// The first two bytes of every gzip stream (RFC 1952, 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a file can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened.
    #[error("opening failed")]
    Open(#[source] std::io::Error),
    /// The header lacks a column.
    #[error("line 1: the header has no column {column:?}")]
    Header {
        /// The column that is missing.
        column: &'static str,
    },
    /// The file is no CSV, or no readable gzip.
    #[error("line {line}: not readable as CSV")]
    Csv {
        /// The line, counted from 1.
        line: u64,
        /// The cause.
        #[source]
        source: csv::Error,
    },
    /// A row is no command.
    #[error("line {line}: {fault}")]
    Row {
        /// The line, counted from 1.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A column that the action needs is empty.
    #[error("{action} needs a {column}")]
    Missing {
        /// The row's action.
        action: String,
        /// The empty column.
        column: &'static str,
    },
    /// Not a time.
    #[error("time {0:?} is not RFC 3339 (2010-12-01T08:25:53Z)")]
    Time(String),
    /// Not one of the four.
    #[error("action {0:?} is none of add, adjust, remove, checkout")]
    Action(String),
    /// Not an exact decimal.
    #[error("price {0:?} is not a decimal number")]
    Price(String),
    /// Not a whole number.
    #[error("quantity {0:?} is not a whole number")]
    Quantity(String),
}

/// Opens a file; it is gzipped if it begins like gzip, whatever its name.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, Error> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::Open)?);
    let gzipped = file.fill_buf().map_err(Error::Open)?.starts_with(&GZIP_MAGIC);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// The next row; false at the end. Of a quoted field that spans lines, the row's first line is named: that is where to look.
pub(super) fn read_record(rows: &mut csv::Reader<Box<dyn Read>>, row: &mut StringRecord) -> Result<bool, Error> {
    rows.read_record(row).map_err(|source| Error::Csv {
        line: source.position().map_or_else(|| rows.position().line(), csv::Position::line),
        source,
    })
}

/// A file that is read as its commands are taken. After an error it gives nothing more.
pub struct CsvFile {
    rows: csv::Reader<Box<dyn Read>>,
    places: [usize; COLUMNS.len()],
    row: StringRecord,
    failed: bool,
}

impl std::fmt::Debug for CsvFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvFile").field("places", &self.places).finish_non_exhaustive()
    }
}

impl CsvFile {
    /// Opens a file; it is gzipped if it begins like gzip, whatever its name.
    ///
    /// # Errors
    /// If it can't be opened or its header lacks a column.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_reader(open(path)?)
    }

    /// Reads plain CSV from anywhere.
    ///
    /// # Errors
    /// If the header can't be read or lacks a column.
    pub fn from_reader(reader: impl Read + 'static) -> Result<Self, Error> {
        let mut rows = csv::Reader::from_reader(Box::new(reader) as Box<dyn Read>);
        let header = rows.headers().map_err(|source| Error::Csv { line: 1, source })?;
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            *place = header.iter().position(|name| name == column).ok_or(Error::Header { column })?;
        }
        Ok(Self { rows, places, row: StringRecord::new(), failed: false })
    }

    fn read(&mut self) -> Result<Option<Command>, Error> {
        if !read_record(&mut self.rows, &mut self.row)? {
            return Ok(None);
        }
        let line = self.row.position().map_or(0, csv::Position::line);
        self.command().map(Some).map_err(|fault| Error::Row { line, fault })
    }

    fn command(&self) -> Result<Command, Fault> {
        let word = self.field(ACTION);
        let kind = ActionKind::of_word(word).ok_or_else(|| Fault::Action(word.to_owned()))?;
        let time = self.field(TIME);
        let at = DateTime::parse_from_rfc3339(time).map_err(|_| Fault::Time(time.to_owned()))?.with_timezone(&Utc);
        let action = match kind {
            ActionKind::Add => Action::Add {
                product: self.needed(PRODUCT)?.to_owned(),
                vendor: self.needed(VENDOR)?.to_owned(),
                name: self.needed(NAME)?.to_owned(),
                price: self.price()?,
                quantity: self.quantity()?,
            },
            ActionKind::Adjust => Action::Adjust { product: self.needed(PRODUCT)?.to_owned(), by: self.quantity()? },
            ActionKind::Remove => Action::Remove { product: self.needed(PRODUCT)?.to_owned() },
            ActionKind::Checkout => Action::Checkout,
        };
        let member = Arc::from(self.needed(MEMBER)?);
        Ok(Command { at, member, action, intended: Intended::Anything, reason: None })
    }

    fn field(&self, column: usize) -> &str {
        self.row.get(self.places[column]).unwrap_or_default()
    }

    fn needed(&self, column: usize) -> Result<&str, Fault> {
        match self.field(column) {
            "" => Err(Fault::Missing { action: self.field(ACTION).to_owned(), column: COLUMNS[column] }),
            value => Ok(value),
        }
    }

    fn price(&self) -> Result<Decimal, Fault> {
        let text = self.needed(PRICE)?;
        // Exact: a price with more digits than a decimal holds is refused here, never rounded.
        Decimal::from_str_exact(text).map_err(|_| Fault::Price(text.to_owned()))
    }

    fn quantity(&self) -> Result<i64, Fault> {
        let text = self.needed(QUANTITY)?;
        text.parse().map_err(|_| Fault::Quantity(text.to_owned()))
    }
}

impl Iterator for CsvFile {
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
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const HEADER: &str = "time,member,action,product,vendor,name,price,quantity\n";

    fn read(rows: &str) -> Vec<Result<Command, Error>> {
        let text = format!("{HEADER}{rows}");
        CsvFile::from_reader(std::io::Cursor::new(text)).expect("a good header").collect()
    }

    fn fault(rows: &str) -> String {
        let read = read(rows);
        let error = read.into_iter().next_back().expect("a row").expect_err("a bad row");
        error.to_string()
    }

    #[test]
    fn each_action_is_read_exactly() {
        let rows = "2010-12-01T08:25:53Z,17850,add,85123A,851,\"HOLDER, WHITE\",0.001,6\n\
                    2010-12-01T08:26:00Z,17850,adjust,85123A,,,,-2\n\
                    2010-12-01T09:27:00.250+01:00,17850,remove,85123A,,,,\n\
                    2010-12-01T08:28:00Z,17850,checkout,,,,,\n";
        let commands: Vec<Command> = read(rows).into_iter().map(|row| row.expect("a good row")).collect();
        let product = || "85123A".to_owned();
        assert_eq!(
            commands[0].action,
            Action::Add {
                product: product(),
                vendor: "851".to_owned(),
                name: "HOLDER, WHITE".to_owned(),
                price: Decimal::new(1, 3),
                quantity: 6
            }
        );
        assert_eq!(commands[1].action, Action::Adjust { product: product(), by: -2 });
        assert_eq!(commands[2].action, Action::Remove { product: product() });
        assert_eq!(commands[2].at.to_rfc3339(), "2010-12-01T08:27:00.250+00:00");
        assert_eq!(commands[3].action, Action::Checkout);
        assert!(commands.iter().all(|command| &*command.member == "17850"));
    }

    #[test]
    fn each_bad_row_is_named_with_its_line() {
        let good = "2010-12-01T08:25:53Z,1,checkout,,,,,\n";
        let cases = [
            ("2010-12-01T08:25:53Z,1,buy,,,,,\n", "line 3: action \"buy\" is none of add, adjust, remove, checkout"),
            ("yesterday,1,checkout,,,,,\n", "line 3: time \"yesterday\" is not RFC 3339 (2010-12-01T08:25:53Z)"),
            ("2010-12-01T08:25:53Z,,checkout,,,,,\n", "line 3: checkout needs a member"),
            ("2010-12-01T08:25:53Z,1,remove,,,,,\n", "line 3: remove needs a product"),
            ("2010-12-01T08:25:53Z,1,adjust,A,,,,\n", "line 3: adjust needs a quantity"),
            ("2010-12-01T08:25:53Z,1,adjust,A,,,,1.5\n", "line 3: quantity \"1.5\" is not a whole number"),
            ("2010-12-01T08:25:53Z,1,add,A,,N,1,1\n", "line 3: add needs a vendor"),
            ("2010-12-01T08:25:53Z,1,add,A,V,,1,1\n", "line 3: add needs a name"),
            ("2010-12-01T08:25:53Z,1,add,A,V,N,,1\n", "line 3: add needs a price"),
            ("2010-12-01T08:25:53Z,1,add,A,V,N,1e3x,1\n", "line 3: price \"1e3x\" is not a decimal number"),
            ("2010-12-01T08:25:53Z,1,checkout\n", "line 3: not readable as CSV"),
        ];
        for (bad, expected) in cases {
            assert_eq!(fault(&format!("{good}{bad}")), expected);
        }
    }

    #[test]
    fn a_bad_row_ends_the_reading() {
        let rows = read("x,1,checkout,,,,,\n2010-12-01T08:25:53Z,1,checkout,,,,,\n");
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = CsvFile::from_reader("time,member,action\n".as_bytes()).expect_err("columns are missing");
        assert_eq!(error.to_string(), "line 1: the header has no column \"product\"");
    }

    #[test]
    fn gzip_is_found_by_its_content_and_a_cut_one_is_an_error() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        writeln!(gzip, "{HEADER}2010-12-01T08:25:53Z,1,checkout,,,,,").expect("memory takes it");
        let bytes = gzip.finish().expect("memory takes it");
        let path = std::env::temp_dir().join(format!("client-gzip-{}.csv", std::process::id()));
        std::fs::write(&path, &bytes).expect("a temporary file");
        assert_eq!(CsvFile::open(&path).expect("a good file").filter_map(Result::ok).count(), 1);
        std::fs::write(&path, &bytes[..bytes.len() - 9]).expect("a temporary file");
        let cut: Result<Vec<Command>, Error> = CsvFile::open(&path).and_then(Iterator::collect);
        assert!(matches!(cut, Err(Error::Csv { .. })), "{cut:?}");
        std::fs::remove_file(&path).expect("it was there");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert!(matches!(CsvFile::open(Path::new("/no/such.csv")), Err(Error::Open(_))));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_a_file_has_is_commands_or_an_error(rows in r#"([0-9TZ:.\-]{0,22},m?,(add|adjust|remove|checkout|x)?,[a-z",]{0,9}\n?){0,5}"#, bytes: Vec<u8>) {
            // The first bad row ends the reading.
            let read = read(&rows);
            proptest::prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
            if let Ok(file) = CsvFile::from_reader(std::io::Cursor::new(bytes)) {
                drop(file.collect::<Vec<_>>());
            }
        }
    }
}
