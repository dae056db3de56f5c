//! Runs the commands through the model in the order of the log, and checks the dead letters.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cart::{CartEvent, CartId, LogEpoch, Position};
use uuid::Uuid;

use super::discards::{self, Found};
use super::published::ByCart;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::cut::Cut;
use crate::audit::digest::CartDigest;
use crate::audit::evidence::{Content, Evidence, LogRecord};
use crate::audit::report::{Counts, Findings, Kind};
use crate::audit::rules::{Cart, Kept, Verdict};
use crate::intake::DeadLetter;

/// What follows from the log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) carts: HashMap<CartId, Expected>,
    /// The result of each record of a command, by cart and command id. Only filled if there are clients' records.
    pub(super) verdicts: HashMap<(Uuid, Uuid), Vec<Taken>>,
    /// Carts whose journals up to the checkpoint are not what was sealed: what follows is unknown.
    pub(super) unknown: HashSet<CartId>,
}

/// A cart's expected events and requests.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) partition: i32,
    /// With a checkpoint: the events after it.
    pub(super) events: Vec<CartEvent>,
    /// With a checkpoint: the number of the newest event before it.
    pub(super) sealed: i64,
    /// The expected entries of the journal by position; those of earlier log epochs and before the checkpoint are taken from it.
    pub(super) requests: BTreeMap<Position, Kept>,
}

/// The result of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Accepted,
    Repeat,
    Refused(&'static str),
}

pub(super) fn replay(evidence: &Evidence, published: &ByCart<'_>, findings: &mut Findings, counts: &mut Counts) -> Log {
    let (letters, discards) = (letters(evidence, findings), discards::by_place(evidence));
    let epoch = LogEpoch::new(evidence.commands_epoch).unwrap_or(LogEpoch::FIRST);
    let mut log = Log::default();
    let mut models: HashMap<CartId, Cart> = HashMap::new();
    match &evidence.checkpoint {
        Some(checkpoint) => follow_sealed(evidence, checkpoint, &mut log, &mut models, findings),
        None => follow_earlier(evidence, published, &mut log, &mut models),
    }
    for record in &evidence.commands {
        let letter = letters.get(&(record.partition, record.offset)).copied();
        let command = match &record.content {
            Content::Undecidable { reason, key, value } => {
                counts.dead_letters += 1;
                undecidable(evidence, record, (reason, key, value), letter, findings);
                continue;
            }
            Content::TooNew { .. } => {
                counts.commands += 1;
                counts.parked += 1;
                if let Some(letter) = letter {
                    wrong_letter(record, letter, "to wait", findings);
                }
                continue;
            }
            Content::Command(command) => command,
        };
        counts.commands += 1;
        let position = Position::new(epoch, record.offset);
        if let Some(discard) = discards.get(&(record.partition, record.offset)).copied()
            && (Found { record, command, position, discard, letter }).is_given_up(evidence, findings, counts)
        {
            continue;
        }
        if let Some(letter) = letter {
            wrong_letter(record, letter, "a decision", findings);
            continue;
        }
        if log.unknown.contains(&command.cart_id) {
            continue;
        }
        let model = models.entry(command.cart_id).or_default();
        let verdict = model.take(command, epoch, record.offset);
        let taken = match &verdict {
            Verdict::Decided(decided) => match decided.rule {
                Some(rule) => Taken::Refused(rule),
                // Of an independent batch each command may have been rejected.
                None if decided.events.is_empty() => Taken::Refused("nothing-done"),
                None => Taken::Accepted,
            },
            Verdict::Repeat(_) => Taken::Repeat,
            Verdict::KeyReused => Taken::Refused("idempotency-key-reused"),
        };
        match taken {
            _ if evidence.is_parked(command.cart_id, position) => counts.parked += 1,
            Taken::Accepted => counts.accepted += 1,
            Taken::Repeat => counts.repeats += 1,
            Taken::Refused(_) => counts.refused += 1,
        }
        if !evidence.sent.is_empty() {
            let key = (command.cart_id.as_uuid(), command.command_id.as_uuid());
            log.verdicts.entry(key).or_default().push(taken);
        }
        if let Verdict::Decided(decided) = verdict
            && let Some(kept) = decided.kept
        {
            let cart = log.carts.entry(command.cart_id).or_default();
            cart.partition = record.partition;
            cart.events.extend(decided.events);
            cart.requests.insert(position, kept);
        }
    }
    counts.carts = log.carts.values().filter(|cart| !cart.events.is_empty()).count() as u64;
    log
}

/// Takes the results of commands of earlier log epochs: each event once, in the order of its topic, and each request without
/// events from the journal.
fn follow_earlier(evidence: &Evidence, published: &ByCart<'_>, log: &mut Log, models: &mut HashMap<CartId, Cart>) {
    let no_requests = BTreeMap::new();
    let unpublished = evidence.requests.keys().map(|cart_id| CartId::from(*cart_id));
    let carts: BTreeSet<CartId> = published.keys().copied().chain(unpublished).collect();
    for cart_id in carts {
        let requests = evidence.requests.get(&cart_id.as_uuid()).unwrap_or(&no_requests);
        // By position: the events of a request, or none.
        let mut steps: BTreeMap<Position, Vec<CartEvent>> = requests
            .iter()
            .filter(|(position, kept)| kept.unchanged.is_some() && evidence.is_of_earlier_epoch(**position))
            .map(|(position, _)| (*position, Vec::new()))
            .collect();
        let (mut newest, mut partition) = (0, 0);
        let events = published.get(&cart_id).into_iter().flatten();
        for one in events.filter(|one| evidence.is_of_earlier_epoch(one.event.position)) {
            partition = one.record.partition;
            if one.sequence_number() > newest {
                newest = one.sequence_number();
                steps.entry(one.event.position).or_default().push(one.event.clone());
            }
        }
        for (position, events) in steps {
            let model = models.entry(cart_id).or_default();
            let cart = log.carts.entry(cart_id).or_default();
            cart.partition = partition;
            let kept = requests.get(&position);
            cart.requests.extend(kept.map(|kept| (position, kept.clone())));
            match (events.is_empty(), kept) {
                (true, Some(kept)) => model.follow_unchanged(kept, position),
                (_, kept) => model.follow(&events, kept.and_then(|kept| kept.keyed)),
            }
            cart.events.extend(events);
        }
    }
}

/// Compares the journals of the touched carts up to the checkpoint with their digests, and takes the results of the commands from
/// there: the model goes on after them.
fn follow_sealed(
    evidence: &Evidence,
    checkpoint: &Checkpoint,
    log: &mut Log,
    models: &mut HashMap<CartId, Cart>,
    findings: &mut Findings,
) {
    let no_requests = BTreeMap::new();
    for (id, rows) in &evidence.journal {
        let (cart_id, partition) = (CartId::from(*id), evidence.partition(*id));
        let is_sealed = |position| evidence.is_sealed(partition, position);
        let requests = evidence.requests.get(id).unwrap_or(&no_requests);
        let (expected, found) = (checkpoint.carts.get(id).copied(), CartDigest::of(rows, requests, is_sealed));
        let events = match evidence.sealed.get(id) {
            Some(Err(reason)) => Err(reason.as_str()),
            _ if found != expected => Err("other content"),
            Some(Ok(events)) => Ok(events.as_slice()),
            None => Ok(&[][..]),
        };
        let events = match events {
            Ok(events) => events,
            Err(reason) => {
                log.unknown.insert(cart_id);
                let text = |digest: Option<CartDigest>| {
                    digest.map_or_else(|| "nothing".to_owned(), |digest| digest.newest.to_string())
                };
                let (expected, found) = (text(expected), format!("{} ({reason})", text(found)));
                let place = format!("the journal, cart {id}, up to the checkpoint");
                findings.add(Kind::SealBroken, place, Some(&expected), Some(&found));
                continue;
            }
        };
        let mut of_position: HashMap<Position, Vec<CartEvent>> = HashMap::new();
        for event in events {
            of_position.entry(event.position).or_default().push(event.clone());
        }
        for (position, kept) in requests.iter().filter(|(position, _)| is_sealed(**position)) {
            let (model, cart) = (models.entry(cart_id).or_default(), log.carts.entry(cart_id).or_default());
            match of_position.remove(position) {
                Some(events) => model.follow(&events, kept.keyed),
                None => model.follow_unchanged(kept, *position),
            }
            cart.partition = partition;
            cart.sealed = model.sequence_number();
            cart.requests.insert(*position, kept.clone());
        }
    }
}

fn wrong_letter(record: &LogRecord, letter: &DeadLetter, expected: &str, findings: &mut Findings) {
    let found = format!("dead letter {}/{}", letter.partition, letter.offset);
    findings.add(Kind::DeadLetterWrong, record.place(), Some(&expected), Some(&found));
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
                findings.add(Kind::DeadLetterUnexpected, place, Some(&"a record as its origin"), Some(&found));
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
            let found = format!("another key or value in dead letter {}/{}", letter.partition, letter.offset);
            findings.add(Kind::DeadLetterDiffers, record.place(), Some(&"its key and value"), Some(&found));
        }
        None if Cut::is_before(&evidence.cut.commands, record.partition, record.offset) => {
            let expected = format!("a dead letter ({reason})");
            findings.add(Kind::DeadLetterLost, record.place(), Some(&expected), None);
        }
        None => {}
    }
}
