//! What clients sent and were told: the files that `replay --record` writes, one JSON object a line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use uuid::Uuid;

/// A command that was sent, with each attempt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentCommand {
    /// Whose cart.
    pub cart_id: Uuid,
    /// The command's id, which follows from its idempotency key.
    pub command_id: Uuid,
    /// What was sent, and what came of it, in order. Without any it was never sent.
    pub attempts: Vec<Attempt>,
}

/// What one sending met.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "result")]
pub enum Attempt {
    /// 200.
    Accepted {
        /// The id in the answer.
        command_id: Uuid,
        /// The session in the answer.
        session_id: Uuid,
        /// The version in the answer.
        version: i64,
        /// The item or items in the answer.
        items: Vec<ToldItem>,
    },
    /// A rule or a check refuses it.
    Rejected {
        /// The last part of the problem's type.
        problem: String,
        /// The id in the answer, which only a refusal by a cart has.
        command_id: Option<Uuid>,
    },
    /// 202: in the log, no outcome yet.
    Pending {},
    /// 503, or no connection: not executed.
    NotExecuted {
        /// What was met.
        reason: String,
    },
    /// A time-out, a reset connection, an answer that says nothing: executed or not.
    Unknown {
        /// What was met.
        reason: String,
    },
}

/// An item in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldItem {
    /// What it is.
    pub product_id: Uuid,
    /// Who sells it.
    pub vendor_id: Uuid,
    /// What it is called.
    pub name: String,
    /// What one piece costs.
    pub price: rust_decimal::Decimal,
    /// How many pieces.
    pub quantity: i64,
}

/// Reads a file, plain or gzipped.
///
/// # Errors
/// When it can't be read, or a line is none of `replay --record`.
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
