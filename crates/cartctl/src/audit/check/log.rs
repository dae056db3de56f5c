//! The commands in their order through the model; the dead letters beside them.

use std::collections::HashMap;

use cart::{CartEvent, CartId, LogEpoch};
use uuid::Uuid;

use super::events::ByCart;
use crate::audit::evidence::{Content, Cut, DeadLetter, Evidence, LogRecord};
use crate::audit::report::{Counts, Findings, Kind};
use crate::audit::rules::{Cart, Verdict};

/// What the log leads to.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) carts: HashMap<CartId, Expected>,
    /// What became of each record of a command, by cart and command id. Only filled when clients' records are there.
    pub(super) verdicts: HashMap<(Uuid, Uuid), Vec<Taken>>,
}

/// A cart's events as they must be.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) partition: i32,
    pub(super) events: Vec<CartEvent>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Accepted,
    Repeat,
    Refused(&'static str),
}

pub(super) fn replay(evidence: &Evidence, published: &ByCart<'_>, findings: &mut Findings, counts: &mut Counts) -> Log {
    let letters = letters(evidence, findings);
    let epoch = LogEpoch::new(evidence.commands_epoch).unwrap_or(LogEpoch::FIRST);
    let mut log = Log::default();
    let mut models: HashMap<CartId, Cart> = HashMap::new();
    follow_earlier(evidence, published, &mut log, &mut models);
    for record in &evidence.commands {
        let letter = letters.get(&(record.partition, record.offset)).copied();
        let command = match &record.content {
            Content::Undecidable { reason, key, value } => {
                counts.dead_letters += 1;
                undecidable(evidence, record, (reason, key, value), letter, findings);
                continue;
            }
            Content::Command(command) => command,
        };
        counts.commands += 1;
        if let Some(letter) = letter {
            let found = format!("dead letter {}/{}", letter.partition, letter.offset);
            findings.add(Kind::DeadLetterWrong, place(record), Some(&"a decision"), Some(&found));
            continue;
        }
        let model = models.entry(command.cart_id).or_default();
        let verdict = model.take(command, epoch, record.offset);
        let taken = match &verdict {
            Verdict::Accepted(_) => Taken::Accepted,
            Verdict::Repeat(_) => Taken::Repeat,
            Verdict::Refused(rule) => Taken::Refused(rule),
        };
        match taken {
            Taken::Accepted => counts.accepted += 1,
            Taken::Repeat => counts.repeats += 1,
            Taken::Refused(_) => counts.refused += 1,
        }
        if !evidence.sent.is_empty() {
            let key = (command.cart_id.as_uuid(), command.command_id.as_uuid());
            log.verdicts.entry(key).or_default().push(taken);
        }
        if let Verdict::Accepted(events) = verdict {
            let cart = log.carts.entry(command.cart_id).or_default();
            cart.partition = record.partition;
            cart.events.extend(events);
        }
    }
    counts.carts = log.carts.len() as u64;
    log
}

/// What was made of commands of earlier log epochs: each event once, in the order of its topic.
fn follow_earlier(evidence: &Evidence, published: &ByCart<'_>, log: &mut Log, models: &mut HashMap<CartId, Cart>) {
    for (cart_id, events) in published {
        for one in events.iter().filter(|one| evidence.is_of_earlier_epoch(one.event.position)) {
            let cart = log.carts.entry(*cart_id).or_default();
            cart.partition = one.record.partition;
            if cart.events.last().is_none_or(|last| last.sequence_number < one.event.sequence_number) {
                models.entry(*cart_id).or_default().follow(one.event);
                cart.events.push(one.event.clone());
            }
        }
    }
}

/// The dead letters by their origins.
fn letters<'a>(evidence: &'a Evidence, findings: &mut Findings) -> HashMap<(i32, i64), &'a DeadLetter> {
    let origins: std::collections::HashSet<_> =
        evidence.commands.iter().map(|record| (record.partition, record.offset)).collect();
    let mut letters = HashMap::new();
    for letter in &evidence.dead_letters {
        let place = format!("cart-commands-dead-letter {}/{}", letter.partition, letter.offset);
        match letter.origin {
            Some(origin) if origins.contains(&origin) => {
                if letters.insert(origin, letter).is_some() {
                    let found = format!("one more for cart-commands {}/{}", origin.0, origin.1);
                    findings.add(Kind::DeadLetterUnexpected, place, Some(&"one for each record"), Some(&found));
                }
            }
            origin => {
                let found = format!("one of {origin:?}");
                findings.add(Kind::DeadLetterUnexpected, place, Some(&"a record that it comes from"), Some(&found));
            }
        }
    }
    letters
}

fn undecidable(
    evidence: &Evidence,
    record: &LogRecord,
    (reason, key, value): (&String, &Option<Vec<u8>>, &Option<Vec<u8>>),
    letter: Option<&DeadLetter>,
    findings: &mut Findings,
) {
    match letter {
        Some(letter) if (&letter.key, &letter.value) == (key, value) => {}
        Some(letter) => {
            let found = format!("others in dead letter {}/{}", letter.partition, letter.offset);
            findings.add(Kind::DeadLetterDiffers, place(record), Some(&"its key and value"), Some(&found));
        }
        None if Cut::is_before(&evidence.cut.commands, record.partition, record.offset) => {
            let expected = format!("a dead letter ({reason})");
            findings.add(Kind::DeadLetterLost, place(record), Some(&expected), None);
        }
        None => {}
    }
}

fn place(record: &LogRecord) -> String {
    format!("cart-commands {}/{}", record.partition, record.offset)
}
