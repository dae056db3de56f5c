//! Compares discards with the commands that they are for, and with their dead letters.

use std::collections::HashMap;
use std::fmt::Display;

use cart::{CartCommand, Position};

use crate::DiscardedCommand;
use crate::audit::evidence::{Evidence, LogRecord};
use crate::audit::report::{Counts, Findings, Kind};
use crate::intake::DeadLetter;
use crate::skips::sha256;

/// Discards of other records than those that the operators meant.
pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for discard in evidence.discards.iter().filter(|discard| !discard.holds()) {
        let found = discard.found.as_ref().map(|sha256| format!("sha256:{sha256}"));
        let found = found.as_ref().map(|sha256| sha256 as &dyn Display);
        let expected = format!("sha256:{}", discard.sha256);
        findings.add(Kind::DiscardDiffers, format!("discard of {discard}"), Some(&expected), found);
    }
}

/// Those that hold, by partition and offset of their commands.
pub(super) fn by_place(evidence: &Evidence) -> HashMap<(i32, i64), &DiscardedCommand> {
    let holding = evidence.discards.iter().filter(|discard| discard.holds());
    holding.map(|discard| ((discard.partition, discard.offset), discard)).collect()
}

/// A discarded command in the log.
pub(super) struct Found<'a> {
    pub(super) record: &'a LogRecord,
    pub(super) command: &'a CartCommand,
    pub(super) position: Position,
    pub(super) discard: &'a DiscardedCommand,
    pub(super) letter: Option<&'a DeadLetter>,
}

impl Found<'_> {
    /// Whether it is not decided: it is a dead letter, or waits to be one. What was decided before the discard stays decided.
    pub(super) fn is_given_up(&self, evidence: &Evidence, findings: &mut Findings, counts: &mut Counts) -> bool {
        let Self { record, command, position, discard, letter } = *self;
        let cart_id = command.cart_id;
        if !discard.is_of(command) {
            let found = format!("command {} of cart {cart_id}", command.command_id);
            findings.add(Kind::DiscardDiffers, format!("discard of {discard}"), Some(&"its command"), Some(&found));
            return false;
        }
        let has_request = evidence.has_request(cart_id, position);
        match letter {
            Some(letter) if !has_request => {
                let key = cart_id.to_string();
                let value = letter.value.as_deref().unwrap_or_default();
                if letter.key.as_deref() != Some(key.as_bytes()) || sha256(value) != discard.sha256 {
                    let found = format!("another key or value in dead letter {}/{}", letter.partition, letter.offset);
                    findings.add(Kind::DeadLetterDiffers, record.place(), Some(&"its key and value"), Some(&found));
                }
                counts.discarded += 1;
                true
            }
            None if !has_request && evidence.is_parked(cart_id, position) => {
                counts.parked += 1;
                true
            }
            None if has_request || evidence.is_due(cart_id, record.partition, position) => {
                let of = format!("discard of {discard}");
                findings.add(Kind::DiscardDiffers, of, Some(&"a dead letter"), Some(&"a decision"));
                false
            }
            // A letter of a command that was decided is reported as such.
            Some(_) | None => false,
        }
    }
}
