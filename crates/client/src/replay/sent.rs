//! The `--sent` file: every command that was sent, with its outcome.
//!
//! A row is written when its command has an answer or is given up. A member has one command in flight at a time, so its rows
//! are in the order in which they were executed. Rows of different members are in no order.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use chrono::SecondsFormat;
use flate2::Compression;
use flate2::write::GzEncoder;
use uuid::Uuid;

use super::attempt::Answer;
use super::command::{Action, Command};
use super::csv_file::COLUMNS;

/// Why the file is incomplete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It can't be created.
    #[error("creating the file of sent commands failed")]
    Create(#[source] io::Error),
    /// A row could not be written.
    #[error("writing the file of sent commands failed")]
    Write(#[source] csv::Error),
    /// Its end could not be written.
    #[error("finishing the file of sent commands failed")]
    Finish(#[source] io::Error),
}

/// The file while it is written.
#[derive(Debug)]
pub(crate) struct SentFile {
    rows: csv::Writer<Sink>,
}

#[derive(Debug)]
enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl SentFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let file = BufWriter::new(File::create(path).map_err(Error::Create)?);
        let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
        // Fast: this is compressed on the cores that are being measured.
        let sink = if is_gzip { Sink::Gzip(GzEncoder::new(file, Compression::fast())) } else { Sink::Plain(file) };
        let mut rows = csv::Writer::from_writer(sink);
        rows.write_record(COLUMNS.into_iter().chain(["outcome", "command_id"])).map_err(Error::Write)?;
        Ok(Self { rows })
    }

    pub(crate) fn write(&mut self, command: &Command, answer: &Answer, id: Option<Uuid>) -> Result<(), Error> {
        let mut price_text = String::new();
        let mut quantity_text = String::new();
        let (product, vendor, name) = match &command.action {
            Action::Add { product, vendor, name, price, quantity } => {
                price_text = price.to_string();
                quantity_text = quantity.to_string();
                (product.as_str(), vendor.as_str(), name.as_str())
            }
            Action::Adjust { product, by } => {
                quantity_text = by.to_string();
                (product.as_str(), "", "")
            }
            Action::Remove { product } => (product.as_str(), "", ""),
            Action::Checkout => ("", "", ""),
        };
        let time = command.at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let outcome = match answer {
            Answer::Accepted => "accepted",
            Answer::Refused { code, .. } => code,
            Answer::Unanswered { .. } => "unanswered",
        };
        let mut id_buffer = Uuid::encode_buffer();
        let id = id.map_or("", |id| id.hyphenated().encode_lower(&mut id_buffer));
        let action = command.action.kind().as_str();
        let row = [&time, &*command.member, action, product, vendor, name, &price_text, &quantity_text, outcome, id];
        self.rows.write_record(row).map_err(Error::Write)
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        let sink = self.rows.into_inner().map_err(|error| Error::Finish(error.into_error()))?;
        let mut file = match sink {
            Sink::Plain(file) => file,
            Sink::Gzip(gzip) => gzip.finish().map_err(Error::Finish)?,
        };
        file.flush().map_err(Error::Finish)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(gzip) => gzip.flush(),
        }
    }
}
