//! The source of the commands.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::args::Args;
use super::command::Command;
use super::csv_file::{self, CsvFile};
use super::raw_rows::RawRows;
use super::rows::Rows;
use super::shop::Shop;

/// A file or the made-up shop.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf, Box<CsvFile>),
    Rows(PathBuf, Box<RawRows>),
    Shop(Box<Shop>),
}

impl Source {
    pub(crate) fn open(args: &Args) -> anyhow::Result<Self> {
        if let Some(path) = &args.file {
            let file = CsvFile::open(path).with_context(|| format!("{} cannot be replayed", path.display()))?;
            return Ok(Self::File(path.clone(), Box::new(file)));
        }
        if let Some(path) = &args.rows {
            let rows = RawRows::open(path).with_context(|| format!("{} cannot be replayed", path.display()))?;
            return Ok(Self::Rows(path.clone(), Box::new(rows)));
        }
        ensure!(args.from_line.is_none(), "--from-line needs a file: add --file or --rows");
        ensure!(
            !args.expect_no_refusals || args.shop.refused_share == 0.0,
            "--expect-no-refusals cannot be met by a shop that breaks rules on purpose: add --refused-share 0"
        );
        Ok(Self::Shop(Box::new(Shop::new(&args.shop)?)))
    }

    /// The number of the last line that was read; `None` for the made-up shop.
    pub(crate) fn line(&mut self) -> Option<u64> {
        self.rows().map(|rows| rows.line())
    }

    /// Skips the rows before a line, and returns their number.
    pub(crate) fn skip_to(&mut self, line: u64) -> Result<u64, csv_file::Error> {
        self.rows().map_or(Ok(0), |rows| rows.skip_to(line))
    }

    fn rows(&mut self) -> Option<&mut Rows> {
        match self {
            Self::File(_, file) => Some(file.rows()),
            Self::Rows(_, rows) => Some(rows.rows()),
            Self::Shop(_) => None,
        }
    }
}

impl Iterator for Source {
    type Item = Result<Command, csv_file::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::File(_, file) => file.next(),
            Self::Rows(_, rows) => rows.next(),
            Self::Shop(shop) => shop.next().map(Ok),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) | Self::Rows(path, _) => path.display().fmt(f),
            Self::Shop(_) => f.write_str("the generated shop"),
        }
    }
}
