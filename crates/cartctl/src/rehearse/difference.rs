//! A record of the log, and what differs of it.

use std::fmt;

use cart::{CartCommand, CartId, CommandId};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::line::InWords as _;

/// A record of `cart-commands`.
#[derive(Debug, Clone)]
pub struct Asked {
    pub partition: i32,
    pub offset: i64,
    /// The cart in the command, or in the record's key if it is no command.
    pub cart_id: Option<CartId>,
    /// The command, or why it cannot be decided.
    pub content: Result<CartCommand, String>,
    /// Whether it is a dead letter.
    pub is_letter: bool,
}

/// The result of a comparison.
#[derive(Debug)]
pub enum Compared {
    /// The journal has the same row, byte for byte.
    Equal,
    /// The journal has the same, written with another version of the schema.
    EqualContent,
    /// The journal has nothing, and this program would journal nothing.
    WithoutRow,
    /// It is a dead letter, and would be one.
    DeadLetter,
    Different(Box<Difference>),
}

/// The part of a request that differs. Parts are compared in this order, and the first that differs is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// The journal has a request where the log has no command.
    Existence,
    /// Accepted or rejected, and the reason.
    Outcome,
    /// The kinds of the events and their items.
    Events,
    /// Ids, numbers, digests and times.
    Ids,
    /// The same is written as other bytes.
    Bytes,
}

/// A command of which this program would make something else than what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Partition and offset on `cart-commands`.
    pub partition: i32,
    pub offset: i64,
    pub cart_id: Option<CartId>,
    pub command_id: Option<CommandId>,
    pub issued_at: Option<DateTime<Utc>>,
    /// The command in words.
    pub command: Option<String>,
    pub differs: Part,
    /// What is stored, in words.
    pub stored: String,
    /// What this program would make of it, in words.
    pub now: String,
}

impl Difference {
    pub(super) fn of(asked: &Asked, differs: Part, stored: String, now: String) -> Self {
        let command = asked.content.as_ref().ok();
        Self {
            partition: asked.partition,
            offset: asked.offset,
            cart_id: asked.cart_id,
            command_id: command.map(|command| command.command_id),
            issued_at: command.map(|command| command.issued_at),
            command: command.map(|command| command.line().what),
            differs,
            stored,
            now,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.issued_at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        write!(f, "cart-commands {}/{}  {}", self.partition, self.offset, at.as_deref().unwrap_or("-"))?;
        if let Some(cart_id) = self.cart_id {
            write!(f, "  cart {cart_id}")?;
        }
        if let Some(command_id) = self.command_id {
            write!(f, "  command {command_id}")?;
        }
        let part = match self.differs {
            Part::Existence => "there is no command",
            Part::Outcome => "another outcome",
            Part::Events => "other events",
            Part::Ids => "other ids, numbers or times",
            Part::Bytes => "other bytes",
        };
        writeln!(f, "\n    {part}")?;
        if let Some(command) = &self.command {
            writeln!(f, "    command  {command}")?;
        }
        writeln!(f, "    stored   {}", self.stored)?;
        writeln!(f, "    now      {}", self.now)
    }
}
