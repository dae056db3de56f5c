//! The `--record` file: every command that was sent, with the result of each attempt, for `audit` to compare with the log. One
//! JSON object per line; a line is written when its command has an answer or is given up.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use uuid::Uuid;

use crate::ids::{CartId, ProductId};
use crate::{Error, Execution, Item, ItemChange, Outcome, Purchase};

/// A command with its attempts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line<'a> {
    pub(crate) cart_id: CartId,
    pub(crate) idempotency_key: &'a str,
    /// The id that the service derives from the key.
    pub(crate) command_id: Uuid,
    pub(crate) command: &'a Sent,
    pub(crate) attempts: &'a [Attempt],
}

/// The command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Sent {
    Add(Item),
    Adjust { product_id: ProductId, adjust_by: i64 },
    Remove { product_id: ProductId },
    Checkout {},
}

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "result")]
pub(crate) enum Attempt {
    /// 200.
    Accepted { status: u16, command_id: Uuid, session_id: Uuid, version: i64, items: Vec<Item> },
    /// Rejected by the cart or by a check before it.
    Rejected { status: u16, problem: String, command_id: Option<Uuid> },
    /// 202.
    Pending { status: u16 },
    /// 503, or no connection.
    NotExecuted { reason: String },
    /// A timeout, a reset connection or an unexpected answer.
    Unknown { reason: String },
}

/// The body of a 200.
#[derive(Debug)]
pub(crate) enum Accepted {
    Change(ItemChange),
    Purchase(Purchase),
}

impl Accepted {
    pub(crate) fn command_id(&self) -> Uuid {
        match self {
            Self::Change(change) => change.command_id,
            Self::Purchase(purchase) => purchase.command_id,
        }
    }
}

impl Attempt {
    pub(crate) fn of(result: &Result<Outcome<Accepted>, Error>) -> Self {
        match result {
            Ok(Outcome::Accepted(Accepted::Change(change))) => Self::Accepted {
                status: 200,
                command_id: change.command_id,
                session_id: change.session_id,
                version: change.version,
                items: vec![change.item.clone()],
            },
            Ok(Outcome::Accepted(Accepted::Purchase(purchase))) => Self::Accepted {
                status: 200,
                command_id: purchase.command_id,
                session_id: purchase.session_id,
                version: purchase.version,
                items: purchase.items.clone(),
            },
            Ok(Outcome::Rejected(problem)) => Self::Rejected {
                status: problem.status,
                problem: problem.code().to_owned(),
                command_id: problem.command_id,
            },
            Ok(Outcome::Pending { .. }) => Self::Pending { status: 202 },
            Ok(Outcome::Unavailable { detail, .. }) => Self::NotExecuted { reason: format!("503: {detail}") },
            Err(error) => {
                let reason = crate::error::chain(error);
                match error.execution() {
                    Execution::NotExecuted => Self::NotExecuted { reason },
                    Execution::Unknown => Self::Unknown { reason },
                }
            }
        }
    }
}

/// The id of a command that is sent under an idempotency key: UUID version 5 of the cart's id and the key.
pub(crate) fn command_id(cart: CartId, key: &str) -> Uuid {
    Uuid::new_v5(&cart.0, key.as_bytes())
}

/// The file while it is written.
#[derive(Debug)]
pub(crate) struct RecordFile(Sink);

#[derive(Debug)]
enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl RecordFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
        // Fast: this is compressed on the cores that are being measured.
        Ok(Self(if is_gzip { Sink::Gzip(GzEncoder::new(file, Compression::fast())) } else { Sink::Plain(file) }))
    }

    pub(crate) fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        match &mut self.0 {
            Sink::Plain(file) => file.write_all(&text),
            Sink::Gzip(gzip) => gzip.write_all(&text),
        }
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        let mut file = match self.0 {
            Sink::Plain(file) => file,
            Sink::Gzip(gzip) => gzip.finish()?,
        };
        file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_command_and_its_attempts() {
        let cart_id = CartId::of_member("M1");
        let lost = Attempt::Unknown { reason: "time-out".to_owned() };
        let refused = Outcome::Rejected(crate::Problem {
            kind: "urn:cart:problem:cart-full".to_owned(),
            title: String::new(),
            status: 409,
            detail: String::new(),
            command_id: None,
        });
        let line = Line {
            cart_id,
            idempotency_key: "run-1",
            command_id: command_id(cart_id, "run-1"),
            command: &Sent::Adjust { product_id: ProductId::of_product("P"), adjust_by: -2 },
            attempts: &[lost, Attempt::of(&Ok(refused))],
        };
        // The command's id: Python's uuid.uuid5(uuid.UUID("a5c3d92d-..."), "run-1").
        assert_eq!(
            serde_json::to_string(&line).expect("it is JSON"),
            concat!(
                r#"{"cartId":"a5c3d92d-3ad2-5d76-a8ee-1f9d30e80f94","idempotencyKey":"run-1","#,
                r#""commandId":"62204b41-203e-5948-a687-0692168b60fe","command":{"adjust":{"productId":"152a07e4-4b6d-5faa-afda-d42bffdc44fd","adjustBy":-2}},"#,
                r#""attempts":[{"result":"unknown","reason":"time-out"},"#,
                r#"{"result":"rejected","status":409,"problem":"cart-full","commandId":null}]}"#
            )
        );
    }
}
