//! The clients' requests and answers: the files that `replay --record` writes, one JSON object per line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use uuid::Uuid;

/// A command with all attempts to send it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentCommand {
    pub cart_id: Uuid,
    /// The command's id, which follows from its idempotency key.
    pub command_id: Uuid,
    /// The attempts in order; empty if the command was never sent.
    pub attempts: Vec<Attempt>,
}

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "result")]
pub enum Attempt {
    /// 200: executed.
    Accepted {
        /// The id in the answer.
        command_id: Uuid,
        /// The session in the answer.
        session_id: Uuid,
        /// The version in the answer.
        version: i64,
        /// The item or items in the answer.
        items: Vec<AnsweredItem>,
    },
    /// A rule or a check rejected it.
    Rejected {
        /// The last part of the problem's type.
        problem: String,
        /// The command id in the answer; only a rejection by the cart has one.
        command_id: Option<Uuid>,
    },
    /// 202: in the log, no outcome yet.
    Pending {},
    /// 503, or no connection: not executed.
    NotExecuted {
        /// Why.
        reason: String,
    },
    /// A timeout, a reset connection or an unexpected answer: the command may have been executed.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// An item in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredItem {
    pub product_id: Uuid,
    pub vendor_id: Uuid,
    pub name: String,
    pub price: rust_decimal::Decimal,
    pub quantity: i64,
}

/// Reads a file, plain or gzipped.
///
/// # Errors
/// The file can't be read, or a line was not written by `replay --record`.
pub fn read(path: &Path) -> anyhow::Result<Vec<SentCommand>> {
    let failed = || format!("reading {}", path.display());
    let file = File::open(path).with_context(failed)?;
    let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
    let bytes: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut sent = Vec::new();
    for (number, line) in (1_u64..).zip(BufReader::new(bytes).lines()) {
        let line = line.with_context(failed)?;
        sent.push(serde_json::from_str(&line).with_context(|| format!("reading line {number} of {}", path.display()))?);
    }
    Ok(sent)
}
