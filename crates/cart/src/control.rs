//! What operators want of consumer groups, and what members answer: the records of the topic `cart-control`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CartId, CommandId, Position, group, wire};

/// A record of the topic `cart-control` (`schemas/cart-control-value.avsc`). Its key is a [`ControlKey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlRecord {
    /// The operator, or the client id of the member.
    pub by: String,
    #[serde(with = "wire::timestamp")]
    pub at: DateTime<Utc>,
    pub reason: String,
    pub control: Control,
}

/// What is wanted, or answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Control {
    /// Apply nothing more of the group's topic, or of the partition.
    Pause {
        /// Of one partition only: apply what is before this offset, then nothing more.
        #[serde(default)]
        before_offset: Option<i64>,
    },
    /// Go on where the pause began.
    Resume {},
    /// Go past the record at the key's offset without applying it.
    Skip {
        /// SHA-256 of the record's value in hexadecimal digits; another record there is not skipped.
        sha256: String,
    },
    /// The answer of the partition's member: it applies nothing more.
    Paused {
        /// The offset on `cart-control` of the pause that this answers.
        pause: i64,
        /// The committed offset: all before it is applied, and nothing behind it.
        next_offset: i64,
    },
    /// The partition's member has met a record that it cannot process.
    Stopped {
        /// The record's.
        offset: i64,
        /// As in `Skip`; empty where it cannot be skipped.
        sha256: String,
    },
    /// Skip no more: a table that is built again stops at the record. Or: the command was decided before it could be discarded.
    Withdraw {},
    /// Give up the command at the key's offset: it becomes a dead letter, unless it was decided before.
    Discard {
        cart_id: CartId,
        command_id: CommandId,
        /// That of the command, with the epoch of its log.
        position: Position,
        /// As in `Skip`.
        sha256: String,
    },
}

/// The key of a [`ControlRecord`]. Groups and topics are without the installation's prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ControlKey {
    /// `pause/<group>`: all partitions.
    PauseGroup { group: String },
    /// `pause/<group>/<partition>`.
    PausePartition { group: String, partition: i32 },
    /// `skip/<group>/<topic>/<partition>/<offset>`.
    Skip { group: String, topic: String, partition: i32, offset: i64 },
    /// `ack/<group>/<partition>`: of the member that has the partition.
    Ack { group: String, partition: i32 },
    /// `stopped/<group>/<partition>`: of the member that has the partition.
    Stopped { group: String, partition: i32 },
    /// `discard/<partition>/<offset>`: of `cart-commands`.
    Discard { partition: i32, offset: i64 },
}

impl ControlKey {
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::PauseGroup { group }
            | Self::PausePartition { group, .. }
            | Self::Skip { group, .. }
            | Self::Ack { group, .. }
            | Self::Stopped { group, .. } => group,
            Self::Discard { .. } => group::CART_PROCESSOR,
        }
    }
}

impl fmt::Display for ControlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PauseGroup { group } => write!(f, "pause/{group}"),
            Self::PausePartition { group, partition } => write!(f, "pause/{group}/{partition}"),
            Self::Skip { group, topic, partition, offset } => write!(f, "skip/{group}/{topic}/{partition}/{offset}"),
            Self::Ack { group, partition } => write!(f, "ack/{group}/{partition}"),
            Self::Stopped { group, partition } => write!(f, "stopped/{group}/{partition}"),
            Self::Discard { partition, offset } => write!(f, "discard/{partition}/{offset}"),
        }
    }
}

/// A text that is no [`ControlKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a key of the topic cart-control")]
pub struct InvalidControlKey(String);

impl FromStr for ControlKey {
    type Err = InvalidControlKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidControlKey(text.to_owned());
        let partition = |text: &str| text.parse().ok().filter(|partition: &i32| *partition >= 0).ok_or_else(invalid);
        let offset = |text: &str| text.parse().ok().filter(|offset: &i64| *offset >= 0).ok_or_else(invalid);
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(invalid());
        }
        let group = |group: &str| group.to_owned();
        match parts[..] {
            ["pause", of] => Ok(Self::PauseGroup { group: group(of) }),
            ["pause", of, number] => Ok(Self::PausePartition { group: group(of), partition: partition(number)? }),
            ["ack", of, number] => Ok(Self::Ack { group: group(of), partition: partition(number)? }),
            ["stopped", of, number] => Ok(Self::Stopped { group: group(of), partition: partition(number)? }),
            ["skip", of, topic, number, at] => Ok(Self::Skip {
                group: group(of),
                topic: topic.to_owned(),
                partition: partition(number)?,
                offset: offset(at)?,
            }),
            ["discard", number, at] => Ok(Self::Discard { partition: partition(number)?, offset: offset(at)? }),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        for text in [
            "pause/popular-items",
            "pause/popular-items/3",
            "skip/popular-items/item-purchased/7/77",
            "ack/cart-processor/0",
            "stopped/vendor-billing/5",
            "discard/7/77",
        ] {
            assert_eq!(text.parse::<ControlKey>().map(|key| key.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "pause",
            "pause/",
            "pause/g/-1",
            "pause/g/x",
            "skip/g/t/1",
            "skip/g/t/1/-1",
            "ack/g",
            "x/g",
            "discard/1",
        ] {
            assert!(text.parse::<ControlKey>().is_err(), "{text}");
        }
    }
}
