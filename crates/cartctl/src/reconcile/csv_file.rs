//! Reads CSV files, plain or gzipped.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

/// The first two bytes of every gzip stream (RFC 1952, 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a file of totals or of sent commands can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder can't be read.
    #[error("reading the folder {} failed", .path.display())]
    Folder {
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The folder does not have exactly one file of a kind.
    #[error("{} has {count} files named *.{kind}.csv or *.{kind}.csv.gz, not one", .path.display())]
    NotOneFile {
        /// The folder.
        path: PathBuf,
        /// The required end of the name.
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A file can't be opened.
    #[error("opening {} failed", .path.display())]
    Open {
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is not CSV with the required columns.
    #[error("reading {} failed", .path.display())]
    Csv {
        path: PathBuf,
        /// The place and the reason.
        #[source]
        source: csv::Error,
    },
    /// A row is invalid.
    #[error("{}, line {line}: {reason}", .path.display())]
    Row {
        /// The file.
        path: PathBuf,
        line: u64,
        reason: String,
    },
    /// The files of one folder contradict each other.
    #[error("the files in {} contradict each other: {reason}", .path.display())]
    Contradiction {
        /// The folder.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
}

/// Passes each row of a file, with its line number, to `take`.
pub(super) fn for_each_row<T: serde::de::DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(u64, T) -> Result<(), String>,
) -> Result<(), Error> {
    let open = |source| Error::Open { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(open)?);
    let is_gzip = file.fill_buf().map_err(open)?.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let failed = |source| Error::Csv { path: path.to_owned(), source };
    let mut rows = csv::Reader::from_reader(reader);
    let header = rows.headers().map_err(failed)?.clone();
    let mut record = csv::StringRecord::new();
    while rows.read_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = record.deserialize(Some(&header)).map_err(failed)?;
        take(line, row).map_err(|reason| Error::Row { path: path.to_owned(), line, reason })?;
    }
    Ok(())
}

/// Parses a decimal number exactly.
pub(super) fn decimal(text: &str) -> Result<rust_decimal::Decimal, String> {
    rust_decimal::Decimal::from_str_exact(text).map_err(|_| format!("'{text}' is not a decimal number"))
}
