//! The rows of a CSV file, plain or gzipped: a header, then one row per line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use cart::{InvalidItem, InvalidTime, Price, parse_time, whole_number};
use chrono::{DateTime, Utc};
use csv_core::ReadRecordResult;

use super::gunzip::{self, Gunzip};
use crate::text::{LINE_LEN_MAX, LineError, Lines, nfc};

/// The maximum number of columns, more than any file of commands has.
const COLUMNS_MAX: usize = 100;

/// Why a file can't be read further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened.
    #[error("opening failed")]
    Open(#[source] io::Error),
    /// The header lacks a column.
    #[error("line 1: the header has no column {column:?}")]
    Header {
        /// The column that is missing.
        column: &'static str,
    },
    /// A line is not a row, or the row is not a command.
    #[error("line {line}: {fault}")]
    Line {
        /// The line, counted from 1.
        line: u64,
        /// The reason.
        fault: Fault,
    },
    /// The file has no line to start at.
    #[error("the run cannot start at line {line}: the file has {lines} lines")]
    TooShort {
        /// The requested line.
        line: u64,
        /// The number of lines.
        lines: u64,
    },
}

/// Why a line is invalid.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not text, or can't be read.
    #[error(transparent)]
    Text(#[from] LineError),
    /// A quote is open at the line's end.
    #[error("a quote is not closed; a value cannot span lines")]
    Quote,
    /// The row has fewer or more fields than the header.
    #[error("the row has {found} fields, the header has {expected}")]
    Fields {
        /// The row's number of fields.
        found: usize,
        /// The header's number of fields.
        expected: usize,
    },
    /// There are more columns than can be read.
    #[error("there are more than {COLUMNS_MAX} columns")]
    Columns,
    /// A column that the action needs is empty.
    #[error("{action} needs a {column}")]
    Missing {
        /// The row's action.
        action: String,
        /// The empty column.
        column: &'static str,
    },
    /// A name with a character that can't be shown.
    #[error("{column} {text:?} has a control character")]
    Control { column: &'static str, text: String },
    /// An invalid time.
    #[error("time {text:?}: {reason}")]
    Time { text: String, reason: InvalidTime },
    /// An unknown action.
    #[error("action {0:?} is not one of add, adjust, remove, checkout")]
    Action(String),
    /// An invalid price.
    #[error("price {text:?}: {reason}")]
    Price { text: String, reason: InvalidItem },
    /// A quantity that is not a whole number.
    #[error("quantity {0:?} is not a whole number")]
    Quantity(String),
}

/// A file that is read row by row.
pub(super) struct Rows {
    lines: Lines<Box<dyn BufRead>>,
    line: u64,
    row: Row,
    header: Vec<String>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("line", &self.line).field("header", &self.header).finish_non_exhaustive()
    }
}

impl Rows {
    /// Opens a file. Gzip is recognised by its first bytes, not by the name.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::Open)?);
        let is_gzip = file.fill_buf().map_err(Error::Open)?.starts_with(&gunzip::MAGIC);
        if is_gzip {
            Self::from_reader(BufReader::with_capacity(1 << 16, Gunzip::new(file)))
        } else {
            Self::from_reader(file)
        }
    }

    /// Reads plain CSV.
    pub(super) fn from_reader(reader: impl BufRead + 'static) -> Result<Self, Error> {
        let lines = Lines::new(Box::new(reader) as Box<dyn BufRead>);
        let mut rows = Self { lines, line: 0, row: Row::new(), header: Vec::new() };
        if let Some(read) = rows.read() {
            let line = rows.line;
            read.map_err(|fault| Error::Line { line, fault })?;
            rows.header = (0..rows.row.len).map(|place| rows.row.field(place).to_owned()).collect();
        }
        Ok(rows)
    }

    /// The index of this column.
    pub(super) fn place(&self, column: &'static str) -> Result<usize, Error> {
        self.header.iter().position(|name| name == column).ok_or(Error::Header { column })
    }

    /// The number of the last line that was read, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Reads the next row.
    pub(super) fn next(&mut self) -> Option<Result<&Row, Fault>> {
        match self.read()? {
            Err(fault) => Some(Err(fault)),
            Ok(()) if self.row.len != self.header.len() => {
                Some(Err(Fault::Fields { found: self.row.len, expected: self.header.len() }))
            }
            Ok(()) => Some(Ok(&self.row)),
        }
    }

    /// Skips the rows before a line, valid or not, and returns their number.
    pub(super) fn skip_to(&mut self, line: u64) -> Result<u64, Error> {
        let mut rows = 0;
        while self.line + 1 < line {
            let Some((number, text)) = self.lines.next() else {
                return Err(Error::TooShort { line, lines: self.line });
            };
            self.line = number;
            match text {
                Ok("") => {}
                Err(error @ LineError::Read(_)) => return Err(Error::Line { line: number, fault: error.into() }),
                Ok(_) | Err(_) => rows += 1,
            }
        }
        Ok(rows)
    }

    /// Reads the next line that is not empty.
    fn read(&mut self) -> Option<Result<(), Fault>> {
        loop {
            let (number, line) = self.lines.next()?;
            self.line = number;
            match line {
                Ok("") => {}
                Ok(line) => return Some(self.row.split(line)),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

/// The fields of a line.
pub(super) struct Row {
    csv: csv_core::Reader,
    line: Vec<u8>,
    text: Vec<u8>,
    ends: [usize; COLUMNS_MAX],
    len: usize,
}

impl Row {
    fn new() -> Self {
        let text = vec![0; LINE_LEN_MAX + 1];
        Self { csv: csv_core::Reader::new(), line: Vec::new(), text, ends: [0; COLUMNS_MAX], len: 0 }
    }

    fn split(&mut self, line: &str) -> Result<(), Fault> {
        self.line.clear();
        self.line.extend_from_slice(line.as_bytes());
        self.line.push(b'\n');
        self.csv.reset();
        let (result, _, _, len) = self.csv.read_record(&self.line, &mut self.text, &mut self.ends);
        self.len = len;
        match result {
            ReadRecordResult::Record => Ok(()),
            // The parser waits for the end of a quoted field.
            ReadRecordResult::InputEmpty => Err(Fault::Quote),
            ReadRecordResult::OutputEndsFull => Err(Fault::Columns),
            // Not reached: the buffers hold a whole line, and an empty line is not split.
            ReadRecordResult::OutputFull | ReadRecordResult::End => Err(LineError::TooLong.into()),
        }
    }

    /// A field; empty if there is none.
    pub(super) fn field(&self, place: usize) -> &str {
        let Some(end) = self.ends[..self.len].get(place) else { return "" };
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        // Always text, since it is split at commas and quotes.
        std::str::from_utf8(&self.text[begin..*end]).unwrap_or_default()
    }
}

/// Converts a name to Unicode NFC, in which it is sent and hashed to an id. Rejects control characters.
pub(super) fn name(column: &'static str, text: &str) -> Result<String, Fault> {
    if text.contains(char::is_control) {
        return Err(Fault::Control { column, text: text.to_owned() });
    }
    Ok(nfc(text).into_owned())
}

pub(super) fn time(text: &str) -> Result<DateTime<Utc>, Fault> {
    parse_time(text).map_err(|reason| Fault::Time { text: text.to_owned(), reason })
}

pub(super) fn price(text: &str) -> Result<Price, Fault> {
    text.parse().map_err(|reason| Fault::Price { text: text.to_owned(), reason })
}

/// Parses a quantity. The service checks the limits.
pub(super) fn quantity(text: &str) -> Result<i64, Fault> {
    whole_number(text).ok_or_else(|| Fault::Quantity(text.to_owned()))
}
